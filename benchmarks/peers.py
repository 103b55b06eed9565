"""The same surface by the packages that PyPI has for it.

Each is given :class:`benchmarks.plain.Plain` over batches of 256 sorted by length, its best setting, and our directions
as far as its interface takes them.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.clock import Candidate, Timings, fastest, threads
from benchmarks.engine import cells, precisions
from benchmarks.machine import installed
from benchmarks.plain import Plain, PlainSurface, twin
from benchmarks.subject import Context
from benchmarks.table import Row, ratio
from gruland.landscape import displace

TITLE = "Surface: other packages"
WHAT = "surface, per review and grid point, CPU: the same model, data and directions"
PEERS = ("loss-landscapes", "landscaper", "loss-landscape-3d")


def measure(context: Context) -> Iterator[Row]:
    """A ratio for each package, and one against the fastest of them."""
    count = max(context.settings.threads)
    with threads(count):
        timings = context.alternate(_makers(context), min(3, context.settings.repetitions))
    hidden = context.model.gru.hidden_size
    for precision in precisions():
        setting = f"2x{hidden}, {precision}, {context.settings.peer_reviews} reviews, threads: {count}"
        for peer in PEERS:
            yield ratio(WHAT, f"{peer} {installed(peer) or ''}".strip(), setting, timings, precision, peer)
        yield _best(timings, precision, setting)
        yield ratio(
            WHAT, PEERS[-1], f"{setting}, a loader of 32 reviews in any order", timings, precision, "usual",
            note="for comparison",
        )  # fmt: skip


def fastest_loss(context: Context) -> tuple[str | None, float, str]:
    """The package that is fastest, its seconds for a review at a grid point, and why others were not measured."""
    makers = {name: make for name, make in _makers(context).items() if name in PEERS}
    timings = context.alternate(makers, min(3, context.settings.repetitions))
    best = _fastest(timings)
    errors = "; ".join(f"{peer}: {timings.errors[peer]}" for peer in PEERS if peer in timings.errors)
    if best is None:
        return None, 0.0, errors
    losses = context.settings.grid**2 * context.reviews(context.settings.peer_reviews)[0].size
    return best, timings.median(best) / losses, errors


def _fastest(timings: Timings) -> str | None:
    return min((peer for peer in PEERS if peer in timings.seconds), key=timings.median, default=None)


def _best(timings: Timings, precision: str, setting: str) -> Row:
    best = _fastest(timings) or PEERS[0]
    missing = [peer for peer in PEERS if peer not in timings.seconds]
    note = f"that is {best}" + (f"; not measured: {', '.join(missing)}" if missing else "")
    return ratio(WHAT, "the best of them", setting, timings, precision, best, 10.0, note)


def _makers(context: Context) -> dict[str, Callable[[], Candidate]]:
    peers = {
        "loss-landscapes": lambda: _loss_landscapes(context),
        "landscaper": lambda: _landscaper(context),
        "loss-landscape-3d": lambda: _loss_landscape_3d(context, _surface(context)),
        "usual": lambda: _loss_landscape_3d(context, _surface(context, usual=True)),
    }
    return peers | {precision: lambda p=precision: _gruland(context, p) for precision in precisions()}


def _axis(context: Context) -> list[float]:
    return np.linspace(-1, 1, context.settings.grid).tolist()


def _gruland(context: Context, precision: str) -> Candidate:
    encoded, labels = context.reviews(context.settings.peer_reviews)
    axis = _axis(context)
    at = cells(context.model, encoded, labels, context.directions, precision)
    return Candidate(lambda _: [at((alpha, beta))[0].mean() for alpha in axis for beta in axis])


def _surface(context: Context, usual: bool = False) -> PlainSurface:
    """The loop that each of them is given, over padded or packed sequences: the faster."""
    encoded, labels = context.reviews(context.settings.peer_reviews)
    if usual:
        return PlainSurface(context.model, encoded, labels, packed=False, usual=True)
    made = {packed: PlainSurface(context.model, encoded, labels, packed) for packed in (False, True)}
    runs = {str(packed): lambda _, s=surface: s.loss() for packed, surface in made.items()}
    return made[fastest(runs, context.settings.clock).setting == "True"]


def _loss_landscapes(context: Context) -> Candidate:
    """A plane through three models; random planes cannot be given directions. Every other row comes out misplaced."""
    from loss_landscapes import planar_interpolation
    from loss_landscapes.metrics.metric import Metric

    surface, steps = _surface(context), context.settings.grid

    class Loss(Metric):
        def __call__(self, model_wrapper: Any) -> float:
            return surface.loss()

    def run(_: int) -> object:
        # It moves the very weights that it is given, and a step along the second direction before its first cell.
        step = 2 / (steps - 1)
        surface.module.take(_moved(context, -1.0, -1.0 - step))
        ends = [Plain(context.model), Plain(context.model)]
        for end, corner in zip(ends, ((1.0 + step, -1.0 - step), (-1.0, 1.0)), strict=True):
            end.take(_moved(context, *corner))
        return planar_interpolation(surface.module, *ends, Loss(), steps=steps)

    return Candidate(run)


def _landscaper(context: Context) -> Candidate:
    """It takes directions, but scales them anew tensor by tensor, and adds noise to the maximum."""
    from landscaper.compute import compute_loss_landscape

    surface = _surface(context)
    names = {twin(name): name for name in context.model.trainable()}
    order = [names[name] for name, _ in surface.module.named_parameters()]

    def run(_: int) -> object:
        surface.module.take(context.model.trainable())
        directions = [[direction[name] for name in order] for direction in context.directions]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return compute_loss_landscape(
                surface.module, None, directions, lambda *_: surface.loss(),
                steps=context.settings.grid, distance=1.0, dim=2, device="cpu",
            )  # fmt: skip

    return Candidate(run)


def _loss_landscape_3d(context: Context, surface: PlainSurface) -> Candidate:
    """It takes directions as they are."""
    from loss_landscape_3d.calculator import LossLandscapeCalculator

    task = context.model.task
    batches = [(tokens, labels) for tokens, _, labels in surface.batches]
    calculator = LossLandscapeCalculator(surface.module, batches, task.loss, device="cpu")
    delta, eta = ({twin(n): d for n, d in direction.items()} for direction in context.directions)
    centre = {twin(name): weights.detach() for name, weights in context.model.trainable().items()}
    axis = _axis(context)
    return Candidate(lambda _: calculator.calculate(axis, axis, delta, eta, centre))


def _moved(context: Context, alpha: float, beta: float) -> dict[str, torch.Tensor]:
    return displace(context.model.trainable(), context.directions, (alpha, beta))
