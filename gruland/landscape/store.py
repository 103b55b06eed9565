"""A loss surface on disk: an xarray data set in a zarr folder, also while it is being computed."""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

import gruland
from gruland.files import SUM, atomic_path, discard, json_hash

if TYPE_CHECKING:
    import xarray

log = logging.getLogger(__name__)

#: Version of the layout below; a surface of another version is computed afresh.
FORMAT = 3

#: A surface of more cells is refused: its file was damaged, or made to fill the memory.
MOST_CELLS = 2**24

#: Rows run along beta, columns along alpha: ``surface.loss.values[i, j]`` lies at (alpha[j], beta[i]).
DIMENSIONS = ("beta", "alpha")
MEASURES = {
    "loss": "mean loss",
    "accuracy": "share of right predictions",
    "loss_se": "standard error of the mean loss",
    "difference_se": "standard error of the difference to the origin's mean loss",
}
MARKS = {"interpolated": "cell is interpolated", "done": "cell is computed"}
#: Attributes that say how a surface came about or what was found, not which surface it is.
_INCIDENTAL = (
    "seconds", "gruland", "kernel", "interpolation_error", "origin_loss", "origin_accuracy", "complete", "examples",
    "achieved_tolerance", "evaluations",
)  # fmt: skip
#: Attributes that a surface writes itself: nobody else's can be called so.
OWN = (*_INCIDENTAL, "format", "weights", "directions", "origin", "tolerance", SUM)


def load_surface(path: str | Path, *, partial: bool = False) -> xarray.Dataset:
    """Read a surface into memory.

    Args:
        path: its zarr folder, the folder of one on its way (``surface.partial-...`` beside it), or the address of a
            complete one in an object store (:func:`save_surface`).
        partial: where there is no complete surface at ``path``, read the one on its way, whose missing cells are NaN.

    Returns:
        A data set with dimensions (beta, alpha), the coordinates ``alpha`` and ``beta`` (steps along the
        first and the second direction; a line has the one beta 0), the variables ``loss``, ``accuracy``, ``loss_se``
        and ``difference_se`` (float64; NaN where nothing is computed yet), ``interpolated`` and ``done`` (bool),
        each with ``long_name`` and ``units``. The attributes say what determines it, and of the origin, whether or
        not it is a cell, ``origin_loss`` and ``origin_accuracy`` (NaN where unknown); ``complete`` says whether every
        cell is final; ``seconds`` is what the evaluations took, all workers' together. An interpolated cell has a loss
        and an accuracy, but no standard errors (NaN): its error is that of the interpolation.

    Raises:
        FileNotFoundError: there is no such surface, or only one on its way.
        ValueError: the folder holds no readable surface.
    """
    if is_address(path):
        if (surface := _opened(str(path))) is None:
            raise FileNotFoundError(
                f"there is no complete loss surface at {path}: save_surface puts one there"
            )
        return surface
    path = Path(path)
    for _ in range(3):  # a new surface may be put into its place meanwhile
        surface = _read(path) if path.exists() else _on_its_way(path, partial)
        if surface is not None:
            return surface
    raise ValueError(f"{path} holds no readable loss surface: remove it and compute it again")


def _on_its_way(path: Path, wanted: bool) -> xarray.Dataset | None:
    found = [surface for folder in _partials(path) if (surface := _read(folder)) is not None]
    if path.exists():  # completed at this very moment
        return _read(path)
    if not found:
        raise FileNotFoundError(
            f"there is no loss surface at {path}: compute it with python -m gruland.landscape"
        )
    if not wanted:
        raise FileNotFoundError(
            f"the loss surface at {path} is not complete: the same call goes on with it, "
            "load_surface(..., partial=True) reads what there is"
        )
    return found[-1]


def _read(path: Path) -> xarray.Dataset | None:
    """The surface at ``path``, complete or not; None where there is none or it cannot be read."""
    return _opened(str(path)) if path.exists() else None


def _opened(path: str) -> xarray.Dataset | None:
    import xarray

    try:
        is_checked = _check_chunks(path)
        with xarray.open_dataset(path, engine="zarr", consolidated=False, chunks=None) as surface:
            surface["done"].load()  # first, as it is written last
            surface.load()
        surface = surface.drop_encoding()  # a copy that somebody writes is no file of ours, with checksums
        if not surface.attrs:
            return None
        known = surface.attrs.pop(SUM, None)  # what has checksums in its chunks has this one, too
        if known != _checksum(surface) and (is_checked or known is not None):
            return None
    except Exception:  # zarr raises many types for broken metadata
        return None
    return _of_this_format(surface) if {"loss", "accuracy", "done"} <= set(surface.data_vars) else None


def _checksum(surface: xarray.Dataset) -> str:
    """SHA-256 of the attributes, of each array's axes, type and attributes, and of a complete surface's values.

    The values of one on its way are written array by array. Their chunks have checksums of their own.
    """
    about = {
        str(name): [list(map(str, array.dims)), str(array.dtype), array.attrs]
        for name, array in surface.variables.items()
    }
    digest = hashlib.sha256(json.dumps([surface.attrs, about], sort_keys=True).encode())
    for name in sorted(about) if surface.attrs.get("complete") else ():
        digest.update(np.ascontiguousarray(surface[name].values).data)
    return digest.hexdigest()


def _check_chunks(path: str) -> bool:
    """Raise ValueError for arrays that are too large, or that lack a chunk: zarr reads that as NaN.

    A chunk whose bits have changed is found by its checksum (crc32c) when it is read.

    Returns:
        Whether the chunks have checksums, which those of earlier surfaces have not.
    """
    import zarr

    group: Any = zarr.open_group(path, mode="r", use_consolidated=False)
    is_checked = False
    for name, array in group.arrays():
        if max(math.prod(array.shape), math.prod(array.chunks)) > MOST_CELLS:
            raise ValueError(f"{name} has the shape {array.shape}: expected at most {MOST_CELLS:,} cells")
        checked = any(type(codec).__name__ == "Crc32cCodec" for codec in getattr(array, "compressors", ()))
        is_checked |= checked
        if checked and array.nchunks_initialized < array.nchunks:
            raise ValueError(f"{name} lacks {array.nchunks - array.nchunks_initialized} of its chunks")
    return is_checked


def is_address(path: str | Path) -> bool:
    """Whether it names something in another file system, such as ``s3://bucket/surface.zarr``."""
    return "://" in str(path)


def save_surface(surface: xarray.Dataset, address: str) -> None:
    """Write a complete surface to an object store, through fsspec: ``s3://bucket/surface.zarr`` with s3fs installed.

    There are no renames there: what a killed writer leaves lacks arrays or chunks, and is no surface for
    :func:`load_surface`. One that lies there is replaced.

    Raises:
        ValueError: a surface on its way, which needs locks and renames, or a file system that fsspec does not know.
        ImportError: fsspec needs another package for it.
    """
    if not surface["done"].values.all():
        raise ValueError(f"{address}: the surface is not complete, expected one whose cells are all done")
    _write(surface, address)


def _write(surface: xarray.Dataset, path: Path | str) -> None:
    """Write the complete surface, with a checksum in each chunk."""
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec

    encoding = {str(name): {"compressors": (ZstdCodec(), Crc32cCodec())} for name in surface.variables}
    surface = surface.copy()
    # Sorted: a surface that was interrupted and went on has the same bytes.
    surface.attrs = dict(sorted({**surface.attrs, SUM: _checksum(surface)}.items()))
    with zarr.config.set({"array.write_empty_chunks": True}):  # so that one that is missing is known to be
        surface.to_zarr(path, mode="w", consolidated=False, zarr_format=3, encoding=encoding)


def _of_this_format(surface: xarray.Dataset) -> xarray.Dataset:
    """What surfaces of earlier formats lack: variables, units, what is known of the origin."""
    empty = _empty(surface["alpha"].values, surface["beta"].values, surface.attrs)
    surface = surface.assign({name: empty[name] for name in set(empty.data_vars) - set(surface.data_vars)})
    for name in empty.variables:
        surface[name].attrs = {**empty[name].attrs, **surface[name].attrs}
    surface.attrs = {**_findings(surface), **surface.attrs}
    return surface


def _findings(surface: xarray.Dataset) -> dict[str, Any]:
    """What the cells themselves tell of the attributes."""
    cell, done = _origin(surface), surface["done"].values
    known = cell is not None and bool(done[cell])
    values = {name: float(surface[name].values[cell]) if known else math.nan for name in ("loss", "accuracy")}
    return {**{f"origin_{name}": value for name, value in values.items()}, "complete": bool(done.all())}


def _knows_origin(surface: xarray.Dataset) -> bool:
    """Whether the attributes tell of the origin; an objective may give losses alone."""
    return not all(math.isnan(surface.attrs[name]) for name in ("origin_loss", "origin_accuracy"))


def _origin(surface: xarray.Dataset) -> tuple[int, int] | None:
    """Row and column of the cell at alpha = beta = 0, if there is one."""
    rows, columns = (np.flatnonzero(surface[axis].values == 0) for axis in DIMENSIONS)
    return (int(rows[0]), int(columns[0])) if rows.size and columns.size else None


def _arrays(surface: xarray.Dataset) -> dict[str, np.ndarray]:
    """The cells' values by name: to reach for one through the data set takes longer than to write it."""
    return {name: surface[name].values for name in (*MEASURES, *MARKS)}


class Store:
    """A surface that is being computed, in memory and, where ``path`` is given, on disk.

    A complete surface lies at ``path``. One on its way lies beside it (``surface.partial-`` and a hash of what
    determines it), the same arrays with the cells that are done so far: the others are what is left to do. It is put
    into the place of an older surface when its last cell is done. One process at a time is at work on a surface: as a
    context manager the store keeps others out, takes over what an earlier computation left behind, and writes what was
    recorded on leaving, also after an error. What lies on its way with other attributes or coordinates is thrown away.

    Args:
        path: the zarr folder, or None for memory alone.
        alpha, beta: the coordinates.
        attributes: all that determines the surface, JSON-able.
        every: seconds between two writes: what a killed process loses at most, besides the chunk that it was at.
        patience: seconds to wait for another process that is at work on the surface; None = until it ends.

    Attributes:
        surface: the data set.
        answers: the folder in which what an estimation has evaluated so far lies beside it; None without a path.
        count: how many of its cells are done.

    Raises:
        ValueError: at ``path`` lies something else than a surface, or it is an address in an object store.
    """

    def __init__(
        self,
        path: str | Path | None,
        alpha: np.ndarray,
        beta: np.ndarray,
        attributes: Mapping[str, Any],
        *,
        every: float = 1.0,
        patience: float | None = None,
    ) -> None:
        self.surface = _empty(alpha, beta, attributes)
        self._arrays, self._identity = _arrays(self.surface), _identity(self.surface)
        if path is not None and is_address(path):
            raise ValueError(
                f"path={path}: a surface on its way needs a file system with locks and renames: expected a folder; "
                "save_surface puts what is complete into an object store"
            )
        self._path = None if path is None else _checked(Path(path))
        self._lock: FileLock | None = None
        self._every, self._patience, self._written = every, patience, time.monotonic()
        self.count = 0
        self.answers: Path | None = None
        if self._path is not None:
            self._partial = self._path.with_name(f"{self._path.stem}.partial-{self._identity}")
            self.answers = self._path.with_name(f"{self._path.stem}.answers-{self._identity}")
            self._take(_read(self._path))

    @property
    def done(self) -> np.ndarray:
        """Which cells [beta, alpha] are computed."""
        return self._arrays["done"]

    def record(self, cell: tuple[int, int], values: Mapping[str, float], seconds: float = 0.0) -> None:
        """Put the measures of one cell (beta index, alpha index) in place, unaltered; one not given is NaN."""
        for name in MEASURES:
            self._arrays[name][cell] = values.get(name, math.nan)
        self.count += not self.done[cell]
        self.done[cell] = True
        self.surface.attrs["seconds"] += seconds
        if time.monotonic() - self._written >= self._every:
            self.write()

    def record_origin(self, values: Mapping[str, float], seconds: float = 0.0) -> None:
        """The measures at alpha = beta = 0, also those of the cell there, if there is one."""
        if not _knows_origin(self.surface):
            self.surface.attrs.update(origin_loss=values["loss"], origin_accuracy=values["accuracy"])
            self.surface.attrs["seconds"] += seconds
        cell = _origin(self.surface)
        if cell is not None and not self.done[cell]:
            self.record(cell, values)

    def complete(self, surface: xarray.Dataset) -> None:
        """Take all cells from a surface whose missing ones are interpolated."""
        self.surface, self._arrays, self.count = surface, _arrays(surface), surface["loss"].size

    def write(self) -> None:
        """Write the cells that are done beside the path, whether they are all or not."""
        if self._lock is None:
            return
        start = time.monotonic()
        if self._partial.exists():
            _update(self._partial, self.surface, self._arrays)
        else:
            with atomic_path(self._partial) as temporary:
                _write(self.surface, temporary)
        self._written = time.monotonic()
        self._every = max(self._every, 20 * (self._written - start))  # large arrays are written less often

    def __enter__(self) -> Store:
        if self._path is not None and not self.surface.attrs["complete"]:
            self._lock = _locked(self._path, self._patience)
            self._take(_read(self._path))  # of the process that was waited for
            if not self.surface.attrs["complete"]:
                self._go_on()
        if self._path is not None and self.surface.attrs["complete"]:
            # Who put it there may have been killed before this; a folder may be read-only.
            with suppress(OSError):
                discard(self._partial)
        return self

    def _go_on(self) -> None:
        """Take over the cells of the surface on its way, and throw away others."""
        assert self._path is not None
        if self._path.exists() and _read(self._path) is None:
            log.warning("%s cannot be read: the surface is computed afresh", self._path)
        for other in _partials(self._path):
            if not self._take(_read(other)):
                what = "is of other settings" if other != self._partial else "cannot be read"
                log.warning("%s %s: the surface is computed afresh", other, what)
                discard(other)
        for other in _beside(self._path, "answers-*"):
            if other != self.answers:
                log.warning("%s is of other settings: the surface is computed afresh", other)
                discard(other)

    def _take(self, found: xarray.Dataset | None) -> bool:
        """Make what was found this one's values, if it is the same surface."""
        if found is None or _identity(found) != self._identity:
            return False
        if found.attrs["complete"] and not found["done"].values.all():
            return False
        for name, array in self._arrays.items():
            array[:] = found[name].values  # in place: others hold these arrays
        further = {name: found[name] for name in found.data_vars if name not in self.surface}
        self.surface = self.surface.assign(further)
        self._arrays = _arrays(self.surface)
        self.surface.attrs = found.attrs
        self.count = int(self.done.sum())
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.surface.attrs["complete"]:
                return
            if self.done.all():
                self.publish()
            elif self.count:
                self.write()
        finally:
            if self._lock is not None:
                self._lock.release()

    def publish(self) -> None:
        """Put the complete surface in the place of an older one. What is on its way stays until then."""
        known = self.surface.attrs if _knows_origin(self.surface) else {}
        self.surface.attrs = {**self.surface.attrs, **_findings(self.surface), **known, "complete": True}
        if self._path is None:
            return
        with atomic_path(self._path) as temporary:
            _write(self.surface, temporary)
            discard(self._path)
        discard(self._partial)


def _locked(path: Path, patience: float | None) -> FileLock:
    """Keep other processes from the surface; wait for one that is at work on it already, and say so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("%s is being computed by another process: waiting for it", path)
        try:
            lock.acquire(timeout=-1 if patience is None else patience)
        except Timeout:
            raise BlockingIOError(
                f"{path} is still being computed by another process: try again when that has ended"
            ) from None
    return lock


def _update(path: Path, surface: xarray.Dataset, arrays: Mapping[str, np.ndarray]) -> None:
    """Bring a surface on its way up to date. Each chunk is replaced in one step; that of ``done`` comes last.

    Whoever is killed in between leaves cells that have values and are not done.
    """
    import zarr

    with zarr.config.set({"array.write_empty_chunks": True}):
        group: Any = zarr.open_group(str(path), mode="r+", use_consolidated=False)
        changed = {name: surface.attrs[name] for name in ("seconds", "origin_loss", "origin_accuracy")}
        group.update_attributes({**changed, SUM: _checksum(surface)})  # in one step
        for name in (*MEASURES, "done"):
            group[name][...] = arrays[name]


def _empty(alpha: np.ndarray, beta: np.ndarray, attributes: Mapping[str, Any]) -> xarray.Dataset:
    import xarray

    shape, nats = (len(beta), len(alpha)), attributes.get("units", "nats")
    variables: dict[str, Any] = {}
    for name, text in MEASURES.items():
        about = {"long_name": text, "units": "1" if name == "accuracy" else nats}
        variables[name] = xarray.Variable(DIMENSIONS, np.full(shape, np.nan), about)
    for name, text in MARKS.items():
        variables[name] = xarray.Variable(
            DIMENSIONS, np.zeros(shape, dtype=bool), {"long_name": text, "units": "1"}
        )
    steps = zip(DIMENSIONS[::-1], (alpha, beta), ("first", "second"), _units(attributes), strict=True)
    coordinates = {
        name: xarray.Variable(
            (name,), values, {"long_name": f"step along the {which} direction", "units": unit}
        )
        for name, values, which, unit in steps
    }
    own = {"format": FORMAT, "gruland": gruland.__version__, "seconds": 0.0}
    unknown = {"origin_loss": math.nan, "origin_accuracy": math.nan, "complete": False}
    return xarray.Dataset(
        variables, coordinates, {**json.loads(json.dumps(dict(attributes))), **own, **unknown}
    )


def _units(attributes: Mapping[str, Any]) -> Sequence[str]:
    """What a step along alpha and along beta is: the plane's own word, or the directions' normalization."""
    own = attributes.get("plane", {}).get("units")
    if own is None:
        own = f"{attributes['normalization']}-normalized radius" if "normalization" in attributes else "1"
    return [own] * 2 if isinstance(own, str) else own


def _identity(surface: xarray.Dataset) -> str:
    """A hash of what determines a surface: attributes and coordinates, not values."""
    attributes = {key: value for key, value in surface.attrs.items() if key not in _INCIDENTAL}
    axes = [surface[axis].values.tolist() for axis in DIMENSIONS]
    return json_hash([attributes, axes])[:16]


def _partials(path: Path) -> list[Path]:
    """The folders of surfaces on their way to ``path``, also of earlier formats."""
    return _beside(path, "partial[.-]*")


def _beside(path: Path, pattern: str) -> list[Path]:
    """What lies beside a surface, by what follows its name."""
    return [Path(found) for found in glob.glob(f"{glob.escape(str(path.with_suffix('')))}.{pattern}")]


def _checked(path: Path) -> Path:
    """The path, unless a complete surface would take something else's place, another zarr store's, too."""
    is_group = any((path / name).exists() for name in ("zarr.json", ".zgroup"))
    ours = is_group and all((path / name).exists() for name in ("loss", "done"))  # a damaged one, too
    if path.is_file() or (path.is_dir() and not ours and any(path.iterdir())):
        raise ValueError(f"{path} holds something else than a loss surface: expected a path that is free")
    return path
