"""A surface's cost for each review and grid point beside ``torch.nn.GRU``, its error, and its share of the peak."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

import torch

from benchmarks.clock import Candidate, Timings, Unavailable, fastest, reason, threads
from benchmarks.engine import CELLS, cells
from benchmarks.peak import peak
from benchmarks.plain import PlainSurface
from benchmarks.subject import Context
from benchmarks.table import Row, ratio

TITLE = "Surface: torch.nn.GRU"
WHAT = "surface, per review and grid point, CPU"
AGAINST = "torch.nn.GRU sorted, batches of 256"
ERROR = "relative error of a cell's mean loss, the worst of 9"
TARGETS = {"float32": 2.5, "bfloat16": 6.0}


def measure(context: Context) -> Iterator[Row]:
    """Ratios and shares for each number of threads, then errors."""
    for count in context.settings.threads:
        with threads(count):
            timings = context.alternate(_makers(context))
            for precision in TARGETS:
                setting = f"2x{context.model.gru.hidden_size}, {precision}, threads: {count}"
                yield _ratio(timings, precision, setting)
                yield _share(context, timings, precision, setting, count)
            yield ratio(
                "torch.nn.GRU in bfloat16, states too", AGAINST, f"threads: {count}", timings, "torch bfloat16",
                "torch", note="for comparison",
            )  # fmt: skip
    with threads(max(context.settings.threads)):
        yield from _errors(context)


def _makers(context: Context) -> dict[str, Callable[[], Candidate]]:
    makers = {"torch": lambda: _torch(context), "torch bfloat16": lambda: _torch(context, torch.bfloat16)}
    return makers | {precision: lambda p=precision: _gruland(context, p) for precision in TARGETS}


def _torch(context: Context, dtype: torch.dtype = torch.float32) -> Candidate:
    encoded, labels = context.reviews(context.settings.reviews)

    def run(packed: bool) -> Callable[[int], object]:
        surface = PlainSurface(context.model, encoded, labels, packed, dtype)
        return lambda repetition: surface.at(context.directions, CELLS[repetition % len(CELLS)])

    return fastest({"padded sequences": run(False), "packed sequences": run(True)}, context.settings.clock)


def _gruland(context: Context, precision: str) -> Candidate:
    encoded, labels = context.reviews(context.settings.reviews)
    at = cells(context.model, encoded, labels, context.directions, precision)
    return Candidate(lambda repetition: at(CELLS[repetition % len(CELLS)]))


def _ratio(timings: Timings, precision: str, setting: str) -> Row:
    return ratio(f"{WHAT}, {precision}", AGAINST, setting, timings, precision, "torch", TARGETS[precision])


def _share(context: Context, timings: Timings, precision: str, setting: str, count: int) -> Row:
    """Matrix products with a word's states only: the projections of the vocabulary are not counted."""
    row = Row(
        "share of the measured matmul peak during a surface",
        f"that peak, {precision}",
        setting,
        None,
        "%",
        60,
    )
    if precision in timings.errors:
        row.error = timings.errors[precision]
        return row
    encoded, _ = context.reviews(context.settings.reviews)
    gru = context.model.gru
    operations = len(encoded.tokens) * (2 * gru.num_layers - 1) * 2 * 3 * gru.hidden_size**2
    highest, loop = peak(precision, count, context.settings.clock)
    row.value = 100 * operations / timings.median(precision) / highest
    row.note = f"peak {highest / 1e9:.0f} GFLOP/s ({loop})"
    return row


def _errors(context: Context) -> Iterator[Row]:
    encoded, labels = context.reviews(context.settings.reviews)
    exact = PlainSurface(context.model, encoded, labels, True, torch.float64)
    truth = [exact.at(context.directions, steps) for steps in CELLS]
    for precision in TARGETS:
        row = Row(ERROR, "float64", f"{precision}, {encoded.size:,} reviews", None, "", 1e-3, at_least=False)
        try:
            at = cells(context.model, encoded, labels, context.directions, precision)
            found = [abs(float(at(s)[0].mean()) / t - 1) for s, t in zip(CELLS, truth, strict=True)]
            row.value = max(found)
            row.note = (
                f"median {statistics.median(found):.0e}; losses from {min(truth):.2f} to {max(truth):.2f}"
            )
        except Unavailable as error:
            row.error = reason(error)
        yield row
    plain = PlainSurface(context.model, encoded, labels, True, torch.bfloat16)
    worst = max(abs(plain.at(context.directions, s) / t - 1) for s, t in zip(CELLS, truth, strict=True))
    yield Row("the same of torch.nn.GRU in bfloat16", "float64", "", worst, "", note="for comparison")
