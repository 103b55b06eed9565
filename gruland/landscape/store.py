"""A loss surface on disk: an xarray data set in a zarr folder, written while it is computed."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

import gruland
from gruland.files import atomic_path

if TYPE_CHECKING:
    import xarray

#: Version of the layout below; a surface of another version is computed afresh.
FORMAT = 2

#: Rows run along beta, columns along alpha: ``surface.loss.values[i, j]`` lies at (alpha[j], beta[i]).
DIMENSIONS = ("beta", "alpha")
MEASURES = {
    "loss": "mean loss",
    "accuracy": "share of right predictions",
    "loss_se": "standard error of the mean loss",
    "difference_se": "standard error of the difference to the centre's mean loss",
}
MARKS = {"interpolated": "cell is interpolated", "done": "cell is computed"}
#: Attributes that say how a surface came about, not which surface it is.
_INCIDENTAL = ("seconds", "gruland", "kernel", "interpolation_error")


def load_surface(path: str | Path) -> xarray.Dataset:
    """Read a surface, complete or on its way (``surface.partial.zarr``), into memory.

    Returns:
        A data set with dimensions (beta, alpha), the coordinates ``alpha`` and ``beta`` (steps along the
        first and the second direction, in normalized units), the variables ``loss``, ``accuracy``, ``loss_se``
        and ``difference_se`` (float64; NaN where nothing is computed yet), ``interpolated`` and ``done`` (bool),
        and as attributes what determines it. An interpolated cell has a loss and an accuracy, but no standard
        errors (NaN): its error is that of the interpolation.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder holds no readable surface.
    """
    if not Path(path).exists():
        raise FileNotFoundError(
            f"there is no loss surface at {path}: compute it with python -m gruland.landscape"
        )
    surface = _read(Path(path))
    if surface is None:
        raise ValueError(f"{path} holds no readable loss surface: remove it and compute it again")
    return surface


def attributes_at(path: Path) -> list[dict[str, Any]]:
    """The attributes of the complete surface at ``path`` and of the partial one beside it, as far as there are any."""
    return [surface.attrs for place in (path, _partial(path)) if (surface := _read(place)) is not None]


def _read(path: Path) -> xarray.Dataset | None:
    """The surface at ``path``; None where there is none or it cannot be read."""
    import xarray

    try:
        with xarray.open_dataset(path, engine="zarr", consolidated=False, chunks=None) as surface:
            surface.load()
    except (OSError, ValueError, KeyError, RuntimeError):
        return None
    if not {"loss", "accuracy", "loss_se", "done"} <= set(surface.data_vars):
        return None
    # A surface of format 1 has neither differences nor interpolated cells.
    empty = _empty(surface["alpha"].values, surface["beta"].values, {})
    return surface.assign({name: empty[name] for name in set(empty.data_vars) - set(surface.data_vars)})


class Store:
    """A surface that is being computed, in memory and, where ``path`` is given, on disk.

    A complete surface lies at ``path``. One on its way lies beside it (``surface.partial.zarr``) and takes
    its place when the last cell is done, so that an older surface stays whole until then. Cells that an
    earlier, interrupted computation of the same surface left behind are taken over; a partial surface with
    other attributes or coordinates is thrown away.

    As a context manager it writes what was recorded on leaving, also after an error.

    Args:
        path: the zarr folder, or None for memory alone.
        alpha, beta: the coordinates.
        attributes: all that determines the surface, JSON-able.
        every: seconds between two writes; a killed process loses at most that much work.
    """

    def __init__(
        self,
        path: str | Path | None,
        alpha: np.ndarray,
        beta: np.ndarray,
        attributes: Mapping[str, Any],
        every: float = 1.0,
    ) -> None:
        self._path = None if path is None else Path(path)
        fresh = _empty(alpha, beta, attributes)
        self.surface = fresh if self._path is None else self._resume(self._path, fresh)
        self._every, self._spent = every, float(self.surface.attrs["seconds"])
        self._start = self._written = time.monotonic()

    def _resume(self, path: Path, fresh: xarray.Dataset) -> xarray.Dataset:
        complete, partial = _read(path), _read(_partial(path))
        if complete is not None and _same(complete, fresh) and complete["done"].all():
            self._path = None  # nothing is left to write; a partial surface beside it is of other settings
            return complete
        if partial is not None and _same(partial, fresh):
            return partial
        _remove(_partial(path))
        with atomic_path(_partial(path)) as temporary:
            fresh.to_zarr(temporary, mode="w", consolidated=False)
        return fresh

    @property
    def done(self) -> np.ndarray:
        """Which cells [beta, alpha] are computed."""
        return self.surface["done"].values

    def record(self, cell: tuple[int, int], values: Mapping[str, float]) -> None:
        """Put the measures of one cell (beta index, alpha index) in place, unaltered; one not given stays NaN."""
        for name, value in values.items():
            self.surface[name].values[cell] = value
        self.done[cell] = True
        if time.monotonic() - self._written >= self._every:
            self._write()

    def complete(self, values: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
        """Take the cells that are not done from interpolated ``values`` [beta, alpha] and mark them."""
        missing = ~self.done
        for name, interpolated in values.items():
            self.surface[name].values[missing] = interpolated[missing]
        self.surface["interpolated"].values[:] = missing
        self.surface.attrs.update(attributes)
        self.done[:] = True

    def _write(self) -> None:
        if self._path is None:
            return
        import zarr

        self._written = time.monotonic()
        group: Any = zarr.open_group(_partial(self._path), mode="r+", use_consolidated=False)
        self.surface.attrs["seconds"] = self._spent + self._written - self._start
        group.attrs.update({k: v for k, v in self.surface.attrs.items() if k in _INCIDENTAL})
        # Each array is one chunk, replaced whole; `done` comes last and so never promises too much.
        for name in (*MEASURES, *MARKS):
            group[name][:] = self.surface[name].values

    def __enter__(self) -> Store:
        self._start = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write()
        if self._path is not None and self.done.all():
            _remove(self._path)
            os.replace(_partial(self._path), self._path)


def _empty(alpha: np.ndarray, beta: np.ndarray, attributes: Mapping[str, Any]) -> xarray.Dataset:
    import xarray

    shape = (len(beta), len(alpha))
    variables: dict[str, Any] = {
        name: xarray.Variable(DIMENSIONS, np.full(shape, np.nan), {"long_name": text})
        for name, text in MEASURES.items()
    }
    for name, text in MARKS.items():
        variables[name] = xarray.Variable(DIMENSIONS, np.zeros(shape, dtype=bool), {"long_name": text})
    own = {"format": FORMAT, "gruland": gruland.__version__, "seconds": 0.0}
    return xarray.Dataset(
        variables, {"alpha": alpha, "beta": beta}, {**json.loads(json.dumps(dict(attributes))), **own}
    )


def _same(found: xarray.Dataset, fresh: xarray.Dataset) -> bool:
    """Whether both are the same surface: attributes and coordinates, not values."""
    one, other = ({k: v for k, v in s.attrs.items() if k not in _INCIDENTAL} for s in (found, fresh))
    return one == other and all(np.array_equal(found[axis], fresh[axis]) for axis in DIMENSIONS)


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
