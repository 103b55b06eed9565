"""A surface for other programs: numpy, the scripts of Li et al. (2018), ParaView.

R rows (beta), C columns (alpha).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

import numpy as np

from gruland.files import atomic_path
from gruland.landscape.store import is_address, save_surface

if TYPE_CHECKING:
    import xarray


def export_surface(
    surface: xarray.Dataset, path: str | Path, *, split: str = "train", z_scale: float = 1.0
) -> None:
    """Write a surface for another program; the suffix says for which.

    - ``.npz``: every coordinate and variable as an array of its name, float64 or bool, and ``attributes``, a text of
      JSON. ``json.loads(str(numpy.load(path)["attributes"]))`` gives them back.
    - ``.h5``: for plot_2D.py, plot_1D.py, plot_surface.py and h52vtp.py of github.com/tomgoldstein/loss-landscape
      (Li et al. 2018, Visualizing the Loss Landscape of Neural Nets): ``xcoordinates`` [C] (alpha), ``ycoordinates``
      [R] (beta), ``train_loss`` and ``train_acc`` (percent) [R, C], as their ``meshgrid(x, y)`` has it. A line has no
      ``ycoordinates``, its values are [C]. Needs h5py, the extra ``export``.
    - ``.zarr``: the surface itself, in an object store: ``s3://bucket/surface.zarr``, whatever fsspec reaches.
    - ``.vtp``: a surface of quadrilaterals for ParaView (VTK's XML PolyData in ASCII), a line as a polyline: points
      (alpha, beta, z_scale * loss) with ``loss`` and ``accuracy``. VTK reads no NaN from ASCII: cells that are not
      finite are holes.

    Args:
        surface: as :func:`gruland.landscape.load_surface` gives it.
        path: where to; it is whole or not there.
        split: what the data sets in a ``.h5`` are named for, ``train`` or ``test``; the scripts draw ``train``.
        z_scale: height of one unit of loss in a ``.vtp``.

    Raises:
        ValueError: another suffix (than ``.zarr`` of an address) or split, or a surface without a finite loss for
            ParaView.
        ImportError: h5py is not installed.
    """
    if is_address(path):
        if not str(path).endswith(".zarr"):
            raise ValueError(
                f"{path}: a surface goes to an object store as it is, expected an address ending in .zarr"
            )
        save_surface(surface, str(path))
        return
    path = Path(path)
    writers: dict[str, Callable[[Path], None]] = {
        ".npz": lambda file: _write_npz(surface, file),
        ".h5": lambda file: _write_h5(surface, file, split),
        ".vtp": lambda file: _write_vtp(surface, file, z_scale),
    }
    if path.suffix not in writers:
        raise ValueError(
            f"{path}: a surface is exported to {', '.join(writers)}, got {path.suffix or 'no suffix'}"
        )
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r}: expected train or test")
    with atomic_path(path) as temporary:
        writers[path.suffix](temporary)


def _write_npz(surface: xarray.Dataset, path: Path) -> None:
    arrays = {str(name): variable.values for name, variable in surface.variables.items()}
    attributes = np.array(json.dumps(surface.attrs))
    np.savez(path, attributes=attributes, **arrays)  # type: ignore[arg-type]  # no array is called allow_pickle


def _write_h5(surface: xarray.Dataset, path: Path, split: str) -> None:
    try:
        import h5py
    except ImportError:
        raise ImportError('a .h5 file needs h5py: pip install "gruland[export]"') from None

    line = surface.sizes["beta"] == 1
    with h5py.File(path, "w") as file:
        file["xcoordinates"] = surface["alpha"].values
        if not line:
            file["ycoordinates"] = surface["beta"].values
        for name, values in (("loss", surface["loss"].values), ("acc", 100 * surface["accuracy"].values)):
            file[f"{split}_{name}"] = values[0] if line else values
        file.attrs["attributes"] = json.dumps(surface.attrs)


def _write_vtp(surface: xarray.Dataset, path: Path, z_scale: float) -> None:
    loss, accuracy = surface["loss"].values, surface["accuracy"].values
    finite = np.isfinite(loss)
    if not finite.any():
        raise ValueError("no cell of the loss surface is finite: there is nothing to export")
    alpha, beta = np.meshgrid(surface["alpha"].values, surface["beta"].values)
    points = np.stack([alpha, beta, z_scale * loss], axis=-1)[finite]
    measures = {"loss": loss[finite], "accuracy": accuracy[finite]}
    if not np.isfinite(measures["accuracy"]).all():
        del measures["accuracy"]
    # The number of each cell's point; -1 where there is none.
    numbers = np.where(finite, np.cumsum(finite).reshape(finite.shape) - 1, -1)
    shapes = {"Lines": _segments(numbers), "Polys": _quadrilaterals(numbers)}
    path.write_text("\n".join(_polydata(points, measures, shapes)) + "\n")


def _quadrilaterals(numbers: np.ndarray) -> np.ndarray:
    """The corners [n, 4] of the quadrilaterals between four points each, anticlockwise seen from above."""
    corners = (numbers[:-1, :-1], numbers[:-1, 1:], numbers[1:, 1:], numbers[1:, :-1])
    found = np.stack([corner.ravel() for corner in corners], axis=1)
    return found[(found >= 0).all(axis=1)]


def _segments(numbers: np.ndarray) -> np.ndarray:
    """The ends [n, 2] of the segments of a line; a surface has none."""
    if min(numbers.shape) > 1:
        return np.empty((0, 2), dtype=int)
    found = np.stack([numbers.ravel()[:-1], numbers.ravel()[1:]], axis=1)
    return found[(found >= 0).all(axis=1)]


def _polydata(
    points: np.ndarray, measures: dict[str, np.ndarray], shapes: dict[str, np.ndarray]
) -> Iterable[str]:
    counts = " ".join(f'NumberOf{kind}="{len(corners)}"' for kind, corners in shapes.items())
    yield '<?xml version="1.0"?>'
    yield '<VTKFile type="PolyData" version="1.0" byte_order="LittleEndian" header_type="UInt64">'
    yield f'<PolyData><Piece NumberOfPoints="{len(points)}" NumberOfVerts="0" NumberOfStrips="0" {counts}>'
    yield '<PointData Scalars="loss">'
    for name, values in measures.items():
        yield _data_array(values, Name=name)
    yield "</PointData>"
    yield f"<Points>{_data_array(points, Name='Points', NumberOfComponents=3)}</Points>"
    for kind, corners in shapes.items():
        offsets = corners.shape[1] * np.arange(1, len(corners) + 1)
        yield f"<{kind}>{_data_array(corners, Name='connectivity')}{_data_array(offsets, Name='offsets')}</{kind}>"
    yield "</Piece></PolyData></VTKFile>"


def _data_array(values: np.ndarray, **about: Any) -> str:
    kind = "Float64" if values.dtype.kind == "f" else "Int64"
    attributes = " ".join(f"{key}={quoteattr(str(value))}" for key, value in about.items())
    tuples = values.tolist() if values.ndim > 1 else values[:, None].tolist()
    rows = "\n".join(" ".join(map(repr, row)) for row in tuples)
    return f'<DataArray type="{kind}" {attributes} format="ascii">\n{rows}\n</DataArray>'
