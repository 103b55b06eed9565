"""A loss surface on disk: an xarray data set in a zarr folder, and the cells of one that is being computed."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import math
import os
import shutil
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

import gruland
from gruland.files import atomic_path, read_json, write_json
from gruland.landscape.cells import ORIGIN, Cells, Record

if TYPE_CHECKING:
    import xarray

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
)  # fmt: skip
_ABOUT = "about.json"
_PUBLICATION = -2  # what is claimed beyond the cells: to write the complete surface


def load_surface(path: str | Path, *, partial: bool = False) -> xarray.Dataset:
    """Read a surface into memory.

    Args:
        path: its zarr folder, or the folder of one on its way (``surface.partial-...`` beside it).
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
    path = Path(path)
    for _ in range(3):  # a worker may be putting a new surface into its place
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


def attributes_at(path: Path) -> list[dict[str, Any]]:
    """The attributes of the complete surface at ``path`` and of those on their way, as far as there are any."""
    return [surface.attrs for place in (path, *_partials(path)) if (surface := _read(place)) is not None]


def _read(path: Path) -> xarray.Dataset | None:
    """The surface at ``path``, complete or not; None where there is none or it cannot be read."""
    import xarray

    if not path.exists():
        return None
    try:
        if (path / _ABOUT).exists():
            return _read_partial(path)
        _check_chunks(path)
        with xarray.open_dataset(path, engine="zarr", consolidated=False, chunks=None) as surface:
            surface.load()
    except (OSError, ValueError, KeyError, RuntimeError):
        return None
    return _of_this_format(surface) if {"loss", "accuracy", "done"} <= set(surface.data_vars) else None


def _check_chunks(path: Path) -> None:
    """Raise ValueError for arrays that are too large, or that lack a chunk: zarr reads that as NaN.

    A chunk whose bits have changed is found by its checksum (crc32c) when it is read.
    """
    import zarr

    group: Any = zarr.open_group(str(path), mode="r", use_consolidated=False)
    for name, array in group.arrays():
        if max(math.prod(array.shape), math.prod(array.chunks)) > MOST_CELLS:
            raise ValueError(f"{name} has the shape {array.shape}: expected at most {MOST_CELLS:,} cells")
        checked = any(type(codec).__name__ == "Crc32cCodec" for codec in getattr(array, "compressors", ()))
        if checked and array.nchunks_initialized < array.nchunks:
            raise ValueError(f"{name} lacks {array.nchunks - array.nchunks_initialized} of its chunks")


def _write(surface: xarray.Dataset, path: Path) -> None:
    """Write the complete surface, with a checksum in each chunk."""
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec

    encoding = {str(name): {"compressors": (ZstdCodec(), Crc32cCodec())} for name in surface.variables}
    with zarr.config.set({"array.write_empty_chunks": True}):  # so that one that is missing is known to be
        surface.to_zarr(path, mode="w", consolidated=False, zarr_format=3, encoding=encoding)


def _read_partial(folder: Path) -> xarray.Dataset:
    about = read_json(folder / _ABOUT)
    surface = _empty(np.array(about["alpha"]), np.array(about["beta"]), about["attributes"])
    arrays = _arrays(surface)
    for record in Cells(folder, _identity(surface)).read():
        _put(surface, arrays, record)
    return surface


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


def _origin(surface: xarray.Dataset) -> tuple[int, int] | None:
    """Row and column of the cell at alpha = beta = 0, if there is one."""
    rows, columns = (np.flatnonzero(surface[axis].values == 0) for axis in DIMENSIONS)
    return (int(rows[0]), int(columns[0])) if rows.size and columns.size else None


def _arrays(surface: xarray.Dataset) -> dict[str, np.ndarray]:
    """The cells' values by name: to reach for one through the data set takes longer than to write it."""
    return {name: surface[name].values for name in (*MEASURES, *MARKS)}


def _put(surface: xarray.Dataset, arrays: Mapping[str, np.ndarray], record: Record) -> int:
    """Write a record into place unless there is one; returns how many cells that made."""
    if record.number == ORIGIN:
        if math.isnan(surface.attrs["origin_accuracy"]):
            surface.attrs.update(origin_loss=record.loss, origin_accuracy=record.accuracy)
            surface.attrs["seconds"] += record.seconds
        return 0
    done, cell = arrays["done"], divmod(record.number, arrays["done"].shape[1])
    if done[cell]:
        return 0
    for name in MEASURES:
        arrays[name][cell] = getattr(record, name)
    done[cell] = True
    surface.attrs["seconds"] += record.seconds
    return 1


class Store:
    """A surface that is being computed, in memory and, where ``path`` is given, on disk.

    A complete surface lies at ``path``. One on its way is a folder beside it (``surface.partial-`` and a hash of what
    determines it) through which any number of processes share the work, see :mod:`gruland.landscape.cells`; whoever
    sees the last cell done writes the surface to ``path``, so that an older one stays whole until then. Cells that an
    earlier computation of the same surface left behind are taken over; a surface on its way with other attributes or
    coordinates is thrown away.

    As a context manager it writes what was recorded on leaving, also after an error.

    Args:
        path: the zarr folder, or None for memory alone.
        alpha, beta: the coordinates.
        attributes: all that determines the surface, JSON-able.
        every: seconds between two writes; a killed process loses at most that much work, or the cell it was at.

    Attributes:
        surface: the data set.
        count: how many of its cells are done.

    Raises:
        ValueError: at ``path`` lies something else than a surface.
    """

    def __init__(
        self,
        path: str | Path | None,
        alpha: np.ndarray,
        beta: np.ndarray,
        attributes: Mapping[str, Any],
        every: float = 1.0,
    ) -> None:
        self.surface = _empty(alpha, beta, attributes)
        self._arrays, self._identity = _arrays(self.surface), _identity(self.surface)
        self._path = None if path is None else _checked(Path(path))
        self._cells: Cells | None = None
        self._opened = False
        self._every, self._synced = every, time.monotonic()
        self.count, self._longest = 0, 0.0
        if self._path is not None and not self._take_complete():
            self._begin()

    def _begin(self) -> None:
        assert self._path is not None
        self._folder = _partial(self._path, self._identity)
        for other in _partials(self._path):
            if other != self._folder:
                _discard(other)
        self._cells = Cells(self._folder, self._identity)
        self.sync()
        self._joined = time.monotonic() if self._cells.shared else -math.inf

    def _open(self, cells: Cells) -> None:
        """Make the folder, unless it is there."""
        cells.begin()
        if not (self._folder / _ABOUT).exists():
            axes = {axis: self.surface[axis].values.tolist() for axis in DIMENSIONS}
            write_json(self._folder / _ABOUT, {"attributes": self.surface.attrs, **axes})

    def _take_complete(self) -> bool:
        """Make the complete surface at the path this one, if it is the same."""
        assert self._path is not None
        found = _read(self._path)
        if found is None or _identity(found) != self._identity or not found["done"].values.all():
            return False
        for name, array in self._arrays.items():
            array[:] = found[name].values  # in place: others hold these arrays
        self.surface.attrs = found.attrs
        self.count, self._cells = self.surface["loss"].size, None
        return True

    @property
    def done(self) -> np.ndarray:
        """Which cells [beta, alpha] are computed."""
        return self._arrays["done"]

    def share(self, cells: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int] | None]:
        """The cells (row, column) that are this worker's to evaluate, in order; ends when all of ``cells`` are done.

        Each has to be recorded before the next one is asked for. Where another worker has claimed a cell, its record
        is waited for, twice as long as the longest evaluation so far and some writes more. None = nothing to do for
        a moment but to wait.
        """
        yield from self._be_noticed()
        columns, refused = self.done.shape[1], dict[tuple[int, int], float]()
        waiting, done = deque(cells), self.done
        while waiting or refused:
            late = next(iter(refused), None)
            if late and (done[late] or time.monotonic() - refused[late] > self._patience):
                del refused[late]
                if not done[late]:
                    yield late
            elif waiting:
                cell = waiting.popleft()
                if not done[cell] and self._claim(cell[0] * columns + cell[1]):
                    yield cell
                elif not done[cell]:
                    refused[cell] = time.monotonic()
            else:
                yield from self._wait()
        self.sync()

    def _be_noticed(self) -> Iterator[None]:
        while self._cells is not None and time.monotonic() < self._joined + self._longest + self._every:
            yield from self._wait()

    def _wait(self) -> Iterator[None]:
        self.sync()
        yield None
        time.sleep(min(self._every, 1.0) / 10)

    @property
    def _patience(self) -> float:
        return 2 * self._longest + 3 * self._every

    def _claim(self, number: int) -> bool:
        while self._cells is not None:
            try:
                return self._cells.claim(number)
            except FileNotFoundError:
                self._opened = self._take_complete()
                self.sync()
        return not self.done.flat[number]

    def record(self, cell: tuple[int, int], values: Mapping[str, float], seconds: float = 0.0) -> None:
        """Put the measures of one cell (beta index, alpha index) in place, unaltered; one not given is NaN."""
        self._add(cell[0] * self.done.shape[1] + cell[1], values, seconds)
        if time.monotonic() - self._synced >= self._every:
            self.sync()

    def record_origin(self, values: Mapping[str, float], seconds: float = 0.0) -> None:
        """The measures at alpha = beta = 0, also those of the cell there, if there is one."""
        self._add(ORIGIN, values, seconds)
        cell = _origin(self.surface)
        if cell is not None and not self.done[cell]:
            self.record(cell, values)
        self.sync()

    def _add(self, number: int, values: Mapping[str, float], seconds: float) -> None:
        measures = {name: values.get(name, math.nan) for name in MEASURES}
        record = Record(number=number, seconds=seconds, **measures)
        self._take([record])
        if self._cells is not None:
            self._cells.add(record)

    def _take(self, records: Iterable[Record]) -> None:
        for record in records:
            self.count += _put(self.surface, self._arrays, record)
            self._longest = max(self._longest, record.seconds)

    def complete(self, surface: xarray.Dataset) -> None:
        """Take all cells from a surface whose missing ones are interpolated."""
        self.surface, self._arrays, self.count = surface, _arrays(surface), surface["loss"].size

    def sync(self) -> None:
        """Write what was recorded and take over what others recorded."""
        self._synced = time.monotonic()
        while self._cells is not None:
            try:
                if not self._opened:
                    self._open(self._cells)
                    self._opened = True
                self._cells.write()
                self._take(self._cells.read())
                break
            except FileNotFoundError:  # the surface is complete, or somebody threw its folder away
                self._opened = False
                self._take_complete()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sync()
        if self.done.all():
            known = {} if math.isnan(self.surface.attrs["origin_accuracy"]) else self.surface.attrs
            self.surface.attrs = {**self.surface.attrs, **_findings(self.surface), **known, "complete": True}
            self._publish()
        if self._cells is not None:
            self._cells.leave()

    def _publish(self) -> None:
        """Write the complete surface to the path, unless another worker does."""
        late = time.monotonic() + self._patience
        while self._cells is not None and not self._claim(_PUBLICATION) and time.monotonic() < late:
            self.sync()
            time.sleep(min(self._every, 1.0) / 10)
        if self._path is None or self._cells is None:
            return
        while not self._take_complete():
            try:
                with atomic_path(self._path) as temporary:
                    _write(self.surface, temporary)
                    _discard(self._path)
            except OSError as error:  # a worker of other settings may have been quicker
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            else:
                break
        _discard(self._folder)


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
    return hashlib.sha256(json.dumps([attributes, axes], sort_keys=True).encode()).hexdigest()[:16]


def _partial(path: Path, identity: str) -> Path:
    return path.with_name(f"{path.stem}.partial-{identity}")


def _partials(path: Path) -> list[Path]:
    """The folders of surfaces on their way to ``path``, also of earlier formats."""
    return [Path(found) for found in glob.glob(f"{glob.escape(str(path.with_suffix('')))}.partial[.-]*")]


def _checked(path: Path) -> Path:
    """The path, unless a complete surface would take something else's place."""
    ours = any((path / name).exists() for name in ("zarr.json", ".zgroup"))
    if path.is_file() or (path.is_dir() and not ours and any(path.iterdir())):
        raise ValueError(f"{path} holds something else than a loss surface: expected a path that is free")
    return path


def _discard(path: Path) -> None:
    """Remove a folder in one step for whoever looks at its name; it may be gone already."""
    aside = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    shutil.rmtree(aside, ignore_errors=True)
