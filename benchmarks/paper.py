"""The paper's surface, 51x51 cells over 25,000 training reviews, for which it needed "9+ hours" on a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.clock import CLOCKS, limited, threads
from benchmarks.engine import cells, precisions
from benchmarks.subject import Context
from benchmarks.table import Row
from gruland.landscape.surface import axis
from gruland.runs import Run
from gruland.surfaces import Surface, compute_run

TITLE = "The paper's surface"
SIZE, REVIEWS = 51, 25_000
#: Tolerances, as shares of the loss range, and the seconds that they may take.
TOLERANCES = {0.01: 60.0, 0.005: 180.0}
PATIENCE = 15 * 60.0  # seconds, then the surface is given up: its time is at least that
AGAINST = "the paper's 9 hours on a GPU"


def measure(context: Context) -> Iterator[Row]:
    """The projection of the exact surface, then those to a tolerance, whole."""
    with threads(max(context.settings.threads)):
        yield _exact(context)
        for tolerance, target in TOLERANCES.items():
            yield _estimated(context, tolerance, target)


def _exact(context: Context) -> Row:
    """Evenly spaced cells are measured; what is done once for the whole surface counts once."""
    size, points = SIZE if context.settings.full else 5, context.settings.points
    encoded, labels = context.reviews(REVIEWS if context.settings.full else context.settings.reviews)
    precision, now = precisions()[-1], CLOCKS[context.settings.clock]
    start = now()
    at = cells(context.model, encoded, labels, context.directions, precision)
    once = now() - start
    steps = axis(size, 1.0)
    seconds = []
    for place in range(points):
        cell = int((place + 0.5) * size * size / points)
        start = now()
        at((float(steps[cell % size]), float(steps[cell // size])))
        seconds.append(now() - start)
    hours = (once + sum(seconds) / points * size * size) * REVIEWS / encoded.size / 3600
    return Row(
        f"{SIZE}x{SIZE} over {REVIEWS:,} reviews, exact", AGAINST, f"{precision}, {_threads(context)}", hours, "h", 4.5,
        at_least=False, seconds={"setup": [once], "cell": seconds},
        note=f"projected from {points} grid points over {encoded.size:,} reviews",
    )  # fmt: skip


def _estimated(context: Context, tolerance: float, target: float) -> Row:
    """All that ``python -m gruland.landscape`` does, pictures included."""
    row = Row(
        f"{SIZE}x{SIZE} over {REVIEWS:,} reviews, every cell to +-{tolerance:.1%} of the loss range", AGAINST,
        f"{precisions()[-1]}, {_threads(context)}", None, "s", target, at_least=False,
    )  # fmt: skip
    now, size = CLOCKS[context.settings.clock], SIZE if context.settings.full else 5
    with TemporaryDirectory() as folder:
        run = Run(folder)
        run.__dict__.update(
            model=context.model, data=context.data
        )  # what a finished run reads from its folder
        start = now()
        try:
            with limited(PATIENCE):
                row.note = _told(compute_run(run, Surface(reviews="all", tolerance=tolerance, size=size)))
        except TimeoutError as error:
            row.note = f"stopped: {error}"
    row.seconds = {"surface": [now() - start]}
    row.value = row.seconds["surface"][0]
    return row


def _told(results: Mapping[str, Any]) -> str:
    whole = results["cells"] * results["reviews"]
    return (
        f"{results['evaluations']:,} of {whole:,} losses at {results['evaluated']:,} of {results['cells']:,} cells; "
        f"the widest interval is +-{results['achieved_tolerance']:.1%} of the loss range"
    )


def _threads(context: Context) -> str:
    return f"threads: {max(context.settings.threads)}"
