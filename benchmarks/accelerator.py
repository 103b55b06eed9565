"""A training step with zoneout beside cuDNN, and the paper's surface, on a GPU where there is one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import torch

from benchmarks.clock import Candidate, fastest
from benchmarks.engine import CELLS
from benchmarks.paper import REVIEWS, SIZE
from benchmarks.plain import Plain
from benchmarks.subject import Context
from benchmarks.table import Row, ratio
from benchmarks.training import LAYOUTS, RATE, steps
from gruland.kernels import PRECISIONS
from gruland.objective import EvaluationLoss
from gruland.regularizers import Zoneout

TITLE = "GPU"
STEP = f"on a GPU: training step, B=32, full-length bucketed reviews, zoneout {RATE}"
SURFACE = f"on a GPU: {SIZE}x{SIZE} over {REVIEWS:,} reviews, exact"


def measure(context: Context) -> Iterator[Row]:
    """Ratios for each size and precision, then the projection of the surface."""
    if not torch.cuda.is_available():
        yield Row(STEP, "cuDNN's plain GRU", "", None, "x", 1.0, error="no GPU here")
        yield Row(SURFACE, "the paper's 9 hours", "", None, "s", 60.0, at_least=False, error="no GPU here")
        return
    yield from training(context, torch.device("cuda"))
    yield surface(context, torch.device("cuda"))


def training(context: Context, device: torch.device) -> Iterator[Row]:
    """Forward, backward and Adam."""
    batches = [
        batch._replace(tokens=batch.tokens.to(device), labels=batch.labels.to(device))
        for batch in context.batches(context.settings.batches)
    ]

    def cudnn(hidden: int) -> Candidate:
        model = context.fresh_model(hidden_size=hidden)
        runs = {
            name: steps(Plain(model, packed).to(device), model, batches) for name, packed in LAYOUTS.items()
        }
        return fastest({name: _finished(run, device) for name, run in runs.items()})

    def ours(hidden: int, precision: str) -> Candidate:
        model = context.fresh_model(hidden_size=hidden, regularizer=Zoneout(RATE), precision=precision).to(
            device
        )
        return Candidate(_finished(steps(model, model, batches), device))

    for hidden in context.settings.hidden:
        makers = {precision: partial(ours, hidden, precision) for precision in PRECISIONS}
        timings = context.alternate({"cuDNN": partial(cudnn, hidden), **makers})
        for precision in PRECISIONS:
            setting = f"H={hidden}, {precision}"
            yield ratio(STEP, "cuDNN's plain GRU", setting, timings, precision, "cuDNN", 1.0)


def surface(context: Context, device: torch.device) -> Row:
    """Projected from a few cells over all reviews."""
    encoded, labels = context.reviews(REVIEWS if context.settings.full else context.settings.reviews)
    model = context.fresh_model(hidden_size=context.model.gru.hidden_size)
    model.load_state_dict(context.model.state_dict())
    model = model.to(device).eval()
    directions = [{name: d.to(device) for name, d in direction.items()} for direction in context.directions]
    objective = EvaluationLoss(model, encoded, labels)
    at = objective.on_plane(model.trainable(), directions)
    at(CELLS[0])
    seconds = []
    for point in range(context.settings.points):
        start = time.perf_counter()
        losses, _ = at(CELLS[point % len(CELLS)])
        float(losses.mean())
        seconds.append(time.perf_counter() - start)
    whole = sum(seconds) / len(seconds) * SIZE * SIZE * REVIEWS / encoded.size
    note = f"projected from {len(seconds)} grid points over {encoded.size:,} reviews"
    return Row(SURFACE, "the paper's 9 hours", objective.precision, whole, "s", 60.0, at_least=False,
               seconds={"cell": seconds}, note=note)  # fmt: skip


def _finished(run: Callable[[int], object], device: torch.device) -> Callable[[int], None]:
    """The run, waited for."""

    def waited(repetition: int) -> None:
        run(repetition)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return waited
