"""The paper's surface, 51x51 cells over 25,000 training reviews, for which it needed "9+ hours" on a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import peers
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
PACKAGES = "the best landscape package"
#: Cells on a side and reviews of the exact surface that one and several processes compute.
SHARED = (9, 2_000)


def measure(context: Context) -> Iterator[Row]:
    """The projection of the exact surface, then those to a tolerance, whole, the first beside other packages."""
    with threads(max(context.settings.threads)):
        yield _exact(context)
        for tolerance, target in TOLERANCES.items():
            row = _estimated(context, tolerance, target)
            yield row
            if tolerance == max(TOLERANCES):
                yield _beside_packages(context, row)
    # The processor time of other processes is not this one's.
    if max(context.settings.threads) > 1 and context.settings.clock == "wall":
        yield _in_processes(context)


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
    size, count = SIZE if context.settings.full else 5, max(context.settings.threads)
    # The processor time of other processes is not this one's.
    workers = count if context.settings.clock == "wall" else 1
    settings = Surface(reviews="all", tolerance=tolerance, size=size, workers=workers)
    seconds, row.note = _computed(context, settings)
    row.seconds, row.value = {"surface": [seconds]}, seconds
    return row


def _computed(context: Context, settings: Surface) -> tuple[float, str]:
    """Seconds of a surface with its pictures, and what is said of it."""
    now = CLOCKS[context.settings.clock]
    with TemporaryDirectory() as folder:
        run = Run(folder)
        # What a finished run reads from its folder.
        run.__dict__.update(model=context.model, data=context.data)
        start = now()
        try:
            with limited(PATIENCE):
                note = _told(compute_run(run, settings))
        except TimeoutError as error:
            note = f"stopped: {error}"
        return now() - start, note


def _beside_packages(context: Context, estimated: Row) -> Row:
    """The best package's exact loop, projected from a small grid over few reviews, beside an estimated surface."""
    best, seconds, errors = peers.fastest_loss(context)
    row = Row(estimated.what, PACKAGES, estimated.setting, None, "x", 300.0)
    if best is None or estimated.value is None:
        row.error = errors
        return row
    projected = seconds * SIZE**2 * REVIEWS
    row.value, row.seconds = projected / estimated.value, {best: [projected]}
    row.note = (
        f"that is {best}: its exact loop takes {seconds * 1e3:.2f} ms for each review and cell, projected"
    )
    return row


def _in_processes(context: Context) -> Row:
    """An exact surface by one process and by several, of one thread each."""
    count, (size, reviews) = max(context.settings.threads), SHARED if context.settings.full else (3, 8)
    row = Row(
        f"{size}x{size} over {reviews:,} reviews, exact", "one process of one thread", f"workers: {count}",
        None, "x", 1.9,
    )  # fmt: skip
    for workers in (1, count):
        with threads(workers):
            seconds, _ = _computed(context, Surface(reviews=reviews, size=size, workers=workers))
        row.seconds[f"workers: {workers}"] = [seconds]
    row.value = row.seconds["workers: 1"][0] / seconds
    row.note = f"{seconds:.3g} s, each process's start included"
    return row


def _told(results: Mapping[str, Any]) -> str:
    whole = results["cells"] * results["reviews"]
    return (
        f"{results['evaluations']:,} of {whole:,} losses at {results['evaluated']:,} of {results['cells']:,} cells; "
        f"the widest interval is +-{results['achieved_tolerance']:.1%} of the loss range"
    )


def _threads(context: Context) -> str:
    return f"threads: {max(context.settings.threads)}"
