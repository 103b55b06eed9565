"""A surface to a tolerance: what a survey asks for as chunks of work, kept so that a later call goes on.

A round of a survey is cut into chunks of like size, so that its end does not keep workers waiting for one. The answers
lie beside the surface's path (``surface.answers-`` and a hash of what determines it), a file a chunk, until the surface
is complete. A survey that begins again asks for the same chunks and finds them there.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gruland.files import atomic_path, discard
from gruland.landscape.chunks import Chunk, PlaneExamples
from gruland.landscape.multilevel import parts_of, whole
from gruland.landscape.refinement import spread_of
from gruland.landscape.survey import PILOT, Block, Estimates, Survey
from gruland.progress import Progress
from gruland.workers import Workers

if TYPE_CHECKING:
    import xarray

#: Values of a chunk, examples times cells, at most: what a killed process loses.
MOST = 2048
#: About how many chunks a round has, and the values of one that is worth its way to a worker.
CHUNKS, LEAST = 48, 192
#: Examples of a chunk, where there are cells enough: what it takes to prepare them is shared by its cells.
EXAMPLES = 256


class Estimation:
    """The estimates of a grid's cells on their way.

    Args:
        plane: what a chunk costs.
        alpha, beta: the grid's steps.
        tolerance: as :class:`gruland.landscape.survey.Survey` takes it.
        seed: of the order of the examples and of the checks.
        answers: where chunks are kept; None = nowhere.

    Attributes:
        seconds: what the evaluations took, all processes' together.
    """

    def __init__(
        self,
        plane: PlaneExamples,
        alpha: np.ndarray,
        beta: np.ndarray,
        *,
        tolerance: float,
        seed: int,
        answers: Answers | None = None,
    ) -> None:
        strata = plane.strata
        if strata is None:
            strata = np.zeros(plane.origin.shape[1], dtype=np.int64)
        # Examples that have to be evaluated all or none are a census: nothing but cells can be saved.
        if plane.divisible:
            self._parts, pilot = parts_of(strata, seed, PILOT, plane.groups), PILOT
        else:
            self._parts, pilot = [whole(strata, np.arange(len(strata)))], len(strata)
        shape = (len(beta), len(alpha))
        rows, columns = (np.flatnonzero(steps == 0) for steps in (beta, alpha))
        self._centre = int(rows[0] * len(alpha) + columns[0]) if rows.size and columns.size else -1
        self._survey = Survey(shape, self._parts, tolerance, seed, pilot=pilot, centre=self._centre)
        self._plane, self._alpha, self._beta, self._answers = plane, alpha, beta, answers
        self.seconds = 0.0

    def run(
        self,
        workers: Workers[Chunk, np.ndarray],
        deadline: float = math.inf,
        progress: Progress | None = None,
    ) -> bool:
        """Evaluate what the survey asks for; False where the time was up before it was content."""
        for blocks in self._survey.rounds():
            if progress:
                progress.total = self._survey.expected
            if not self._evaluate(blocks, workers, deadline, progress):
                return False
        if progress:
            progress.total = progress.done
        return True

    def estimates(self) -> Estimates:
        """What is known so far."""
        return self._survey.estimates()

    @property
    def evaluated(self) -> int:
        """How many cells have values."""
        return self._survey.evaluated

    def dataset(self, empty: xarray.Dataset) -> xarray.Dataset:
        """A surface's data set with the estimates in it.

        Besides the variables of any surface it has ``half_width`` (of the 95% interval of the mean over all examples,
        interpolation included), ``evaluated`` (examples) and ``modes`` (of the errors by sampling, with a dimension of
        their own: a covariance of two cells is the sum of products). ``difference_se`` is NaN where (0, 0) is no cell:
        no estimate is paired with it then.
        """
        found, surface = self.estimates(), empty.copy(deep=True)
        spread, paired = self._survey.deviations()
        # Examples of a group may be alike: no more is certain of other examples than so many groups tell.
        groups, units = self._plane.groups, surface["loss"].attrs["units"]
        total = sum(map(len, self._parts)) if groups is None else len(np.unique(groups))
        centre = divmod(self._centre, len(self._alpha)) if self._centre >= 0 else None
        surface["loss"].values[:], surface["accuracy"].values[:] = found.loss, found.accuracy
        surface["loss_se"].values[:] = np.sqrt(found.errors**2 + spread**2 / total)
        if centre is not None:
            between = found.modes - found.modes[:, *centre][:, None, None]
            surface["difference_se"].values[:] = np.sqrt((between**2).sum(0) + paired**2 / total)
        if centre is not None and found.examples[centre]:
            origin = found.loss[centre], found.accuracy[centre]
        else:  # what all examples say there
            origin = self._plane.origin.mean(1)
        surface.attrs.update(origin_loss=float(origin[0]), origin_accuracy=float(origin[1]))
        surface["interpolated"].values[:], surface["done"].values[:] = found.examples == 0, True
        cells = surface["loss"].dims
        surface = surface.assign(
            half_width=(
                cells,
                found.half_width,
                _named("half width of the 95% interval of the mean loss", units),
            ),
            evaluated=(cells, found.examples, _named("examples evaluated", "1")),
            modes=(("mode", *cells), found.modes, _named("modes of the errors by sampling", units)),
        )
        spread_of_loss = spread_of(found.loss) or math.inf
        surface.attrs |= {
            "seconds": surface.attrs["seconds"] + self.seconds,
            "achieved_tolerance": float(np.nanmax(found.half_width)) / spread_of_loss,
            "interpolation_error": float(found.bound.max()) / spread_of_loss,
            "evaluations": int(found.examples.sum()),
        }
        return surface

    def _evaluate(
        self,
        blocks: Sequence[Block],
        workers: Workers[Chunk, np.ndarray],
        deadline: float,
        progress: Progress | None,
    ) -> bool:
        """Give the survey a round's values; where the time is up before that, those of whole cells: False."""
        groups = self._cut(blocks)
        found = {
            id(part): values
            for part in chain(*groups)
            if self._answers is not None and (values := self._answers.get(part)) is not None
        }
        missing = [part for part in chain(*groups) if id(part) not in found]
        missing.sort(key=lambda part: -len(part.cells) * (part.stop - part.start))  # small ones fill the end
        asked: dict[int, Block] = {}

        def chunks() -> Iterator[Chunk]:
            for part in missing:
                if time.monotonic() >= deadline:
                    return
                chunk = self._chunk(part)
                asked[id(chunk)] = part
                yield chunk

        for chunk, values, seconds in workers.map(chunks()):
            part = asked[id(chunk)]
            found[id(part)] = values
            self.seconds += seconds
            if self._answers is not None:
                self._answers.keep(part, values)
            if progress:
                progress.advance(values[:, 0].size)
        for parts in groups:  # in the order that was asked for, whoever was quicker
            if all(id(part) in found for part in parts):
                values = np.concatenate([found[id(part)] for part in parts], axis=2)
                self._survey.add(parts[0]._replace(stop=parts[-1].stop), values)
        if progress:
            progress.advance(self._survey.losses - progress.done)
        return len(found) == sum(map(len, groups))

    def _cut(self, blocks: Sequence[Block]) -> list[list[Block]]:
        """Groups of a round's cells, each as blocks of some of the examples that are wanted of it."""
        total = sum(len(block.cells) * (block.stop - block.start) for block in blocks)
        size = max(LEAST, min(MOST, total // CHUNKS))
        groups = []
        for block in blocks:
            count = block.stop - block.start
            together = max(1, size // min(count, EXAMPLES)) if self._plane.divisible else 1
            for cells in np.array_split(block.cells, math.ceil(len(block.cells) / together)):
                pieces = math.ceil(len(cells) * count / size) if self._plane.divisible else 1
                ends = np.linspace(block.start, block.stop, min(pieces, count) + 1).round().astype(int)
                groups.append([Block(cells, block.part, *pair) for pair in pairwise(ends.tolist())])
        return groups

    def _chunk(self, part: Block) -> Chunk:
        row, column = np.divmod(part.cells, len(self._alpha))
        steps = np.stack([self._alpha[column], self._beta[row]], axis=1)
        rows = self._parts[part.part].rows[part.start : part.stop]
        return Chunk(steps, rows, list(zip(row, column, strict=True)))


class Answers:
    """Chunks' values in a folder; nothing is created before the first one is kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, block: Block) -> np.ndarray | None:
        """The values [cells, 2, examples] of a chunk; None where they are not there or cannot be read."""
        try:
            with np.load(self._file(block), allow_pickle=False) as file:
                values: np.ndarray = file["values"]
        except Exception:  # numpy raises many types for a broken file
            return None
        return values if values.shape == (len(block.cells), 2, block.stop - block.start) else None

    def keep(self, block: Block, values: np.ndarray) -> None:
        """Write a chunk's values."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(self._file(block)) as temporary:
            np.savez(temporary, values=values)  # whose checksum is held against what is read

    def discard(self) -> None:
        """Throw all away."""
        discard(self._folder)

    def _file(self, block: Block) -> Path:
        asked = f"{block.part} {block.start} {block.stop} {block.cells.tolist()}"
        return self._folder / f"{hashlib.sha256(asked.encode()).hexdigest()[:16]}.npz"


def _named(text: str, units: str) -> dict[str, str]:
    return {"long_name": text, "units": units}
