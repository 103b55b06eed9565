"""How the cost of a surface grows with grid points, reviews, hidden units and cores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from benchmarks.clock import Candidate, Timings, threads
from benchmarks.engine import CELLS, cells, precisions
from benchmarks.subject import Context
from benchmarks.table import Row
from gruland.classifier import Classifier
from gruland.landscape import random_directions

TITLE = "How cost grows"


@dataclass(frozen=True)
class _Job:
    model: Classifier
    points: int
    reviews: int
    threads: int


def measure(context: Context) -> Iterator[Row]:
    """A row for each size, beside the first one of its kind."""
    settings = context.settings
    quarter = max(2, settings.reviews // 4)
    base = _Job(context.model, points=4, reviews=quarter, threads=max(settings.threads))
    kinds = {
        "grid points": {n: replace(base, points=n) for n in (4, 16, 64)},
        "reviews": {n * quarter: replace(base, reviews=n * quarter) for n in (1, 2, 4)},
        "hidden units": {n: replace(base, model=context.fresh_model(hidden_size=n)) for n in settings.hidden},
        "cores": {n: replace(base, threads=n) for n in settings.threads},
    }
    for kind, jobs in kinds.items():
        makers = {str(size): partial(_candidate, context, job) for size, job in jobs.items()}
        timings = context.alternate(makers, min(3, settings.repetitions))
        yield from _rows(kind, list(jobs), timings)


def _candidate(context: Context, job: _Job) -> Candidate:
    """What is done once for a surface counts, too."""
    encoded, labels = context.reviews(job.reviews)
    directions = random_directions(job.model.trainable(), 0)

    def run(_: int) -> None:
        with threads(job.threads):
            at = cells(job.model, encoded, labels, directions, precisions()[-1])
            for point in range(job.points):
                at(CELLS[point % len(CELLS)])

    return Candidate(run)


def _rows(kind: str, sizes: list[int], timings: Timings) -> Iterator[Row]:
    for size in sizes:
        row = Row(f"a surface of {kind}", f"{sizes[0]:,} {kind}", f"{size:,} {kind}", None, "x")
        row.error = "; ".join(timings.errors.get(str(n), "") for n in {sizes[0], size}).strip("; ")
        if not row.error:
            seconds = timings.median(str(size))
            row.value = seconds / timings.median(str(sizes[0]))
            row.seconds = {str(size): timings.seconds[str(size)]}
            row.note = f"{seconds:.3g} s; {size / sizes[0]:.3g} times the {kind}"
        yield row
