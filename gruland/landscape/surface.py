"""The loss over a plane through a model's weights: L(w + alpha * delta + beta * eta)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gruland.arguments import check_whole
from gruland.landscape.chunks import Chunk, PlaneExamples
from gruland.landscape.directions import fingerprint
from gruland.landscape.estimation import Answers, Estimation
from gruland.landscape.objective import Objective, about, named_tensors
from gruland.landscape.refinement import NestedGrids, spread_of
from gruland.landscape.sample import standard_error
from gruland.landscape.store import OWN, Store
from gruland.progress import Progress
from gruland.workers import Workers

if TYPE_CHECKING:
    import xarray

#: About how long a chunk of cells keeps a worker, and how many it has at most.
CHUNK_SECONDS, MOST_CELLS = 1.0, 64
#: Counted up with each change of what is asked for, or estimated from it: older surfaces and answers are others.
ESTIMATOR = 4


def axis(size: int, extent: float | Sequence[float]) -> np.ndarray:
    """``size`` evenly spaced steps from -extent to extent, or from the lower to the upper end [size].

    One step lies in the middle. A step that is 0 up to rounding is exactly 0, so that it is the origin's.

    Raises:
        ValueError: a size below 1, or ends that are not finite and rising.
    """
    if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
        raise ValueError(f"size={size}: expected a whole number of at least 1, or one for each axis")
    low, high = _ends(extent)
    # Counted from the middle, so that steps on either side of a symmetric axis differ in sign alone.
    offsets = np.arange(1 - size, size, 2) / max(1, size - 1)
    steps = (low + high) / 2 + (high - low) / 2 * offsets
    if size > 1:
        steps[[0, -1]] = low, high
    steps[np.abs(steps) < 1e-9 * (high - low) / size] = 0.0
    return steps


def _ends(extent: Any) -> tuple[float, float]:
    pair = tuple(extent) if _is_pair(extent) else (extent, extent)
    if all(_is_number(end) and math.isfinite(end) for end in pair):
        low, high = float(pair[0]) if _is_pair(extent) else -float(extent), float(pair[1])
        if low < high:
            return low, high
    raise ValueError(
        f"extent={extent}: expected a positive number or (low, high) with low < high, "
        "or one of these for each axis"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_pair(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2


def grid(size: Any, extent: Any) -> tuple[np.ndarray, np.ndarray]:
    """The steps alpha [C] and beta [R] of a grid, as :func:`compute_surface` takes its size and extent.

    Raises:
        ValueError: see :func:`axis`.
    """
    sizes, extents = (tuple(value) if _is_pair(value) else (value, value) for value in (size, extent))
    alpha, beta = (axis(cells, ends) for cells, ends in zip(sizes, extents, strict=True))
    return alpha, beta


def compute_surface(
    evaluate: Objective,
    parameters: Mapping[str, Tensor],
    directions: Sequence[Mapping[str, Tensor]],
    *,
    size: int | Sequence[int] = 51,
    extent: float | Sequence[Any] = 1.0,
    tolerance: float | None = None,
    seed: int = 0,
    path: str | Path | None = None,
    attributes: Mapping[str, Any] | None = None,
    label: str | None = None,
    max_seconds: float | None = None,
    workers: int = 1,
    engine: str = "local",
) -> xarray.Dataset:
    """Evaluate the cells of a grid on the plane (section 4.3 of the paper; 51 x 51 there).

    Works on any module, for instance with ``evaluate`` calling ``torch.func.functional_call(module,
    parameters, inputs)``: displaced weights are new tensors, the module's own are never written to. Where
    ``evaluate`` writes into them itself, that is undone in the end, also after an error. The origin is evaluated on a
    copy of ``parameters``, whatever the grid.

    Args:
        evaluate: losses [N] and correctness [N] of N >= 1 examples, given the parameters by name, see
            :class:`gruland.landscape.Objective`. The origin of a plain function is evaluated twice, and a difference
            refused: of dropout that was left on, for instance.
        parameters: the trained parameters by name, a ``state_dict()`` or ``module.named_parameters()``. Tensors of
            integers (the counters of batch normalization) do not move.
        directions: delta and eta, as :func:`gruland.landscape.random_directions` gives them; or delta alone, for a
            grid of one row (beta = 0).
        size: cells of each axis, or (of alpha, of beta), from 1 on, odd or even.
        extent: an axis runs over [-extent, extent], or from low to high of (low, high). For both axes or, as a pair of
            these, for alpha and beta: 1.0, (1.0, 0.5), ((-0.5, 1.5), (-1, 1)).
        tolerance: None evaluates every cell on every example. A share of the range of the mean loss evaluates as little
            as it takes for every cell's mean over all N examples to lie within it (95% of the time), see
            :mod:`gruland.landscape.survey`: few examples at most cells where the objective has ``take``, all of them at
            few cells where it has not. A grid of up to 5 x 5 cells is not interpolated.
        seed: of the order of the examples and of the cells that check the interpolation.
        path: the zarr folder to write to and to resume from, see :class:`gruland.landscape.store.Store`; None
            for a surface in memory alone.
        attributes: what else determines the result (data, objective), JSON-able; a surface at ``path`` with other
            attributes, weights, directions, coordinates or another loss of the origin is computed afresh. ``units`` are
            the loss's, ``nats`` where not given; ``normalization`` is the directions'.
            Names that a surface writes itself (``weights``, ``seconds``, ...) are refused.
        label: what the progress line says; None for none.
        max_seconds: no evaluation begins after so many seconds (but the origin's). Cells come from coarse to fine;
            those that are missing then are interpolated and marked in what is returned (attribute ``complete``:
            False), while ``path`` keeps what was evaluated, and a later call goes on.
        workers: how many processes evaluate cells; 1 = this one. The values are the same for any number.
        engine: ``local`` or ``ray``, see :class:`gruland.workers.Workers`.

    Returns:
        The data set of :func:`gruland.landscape.load_surface`, a value in every cell: ``surface.loss.values[i, j]``
        lies at (alpha[j], beta[i]). NaN and infinite losses are kept.

    Raises:
        ValueError: an argument that cannot work, in one line.
        BlockingIOError: another process is at work on the surface at ``path``, and still is after ``max_seconds``.
            Without these it is waited for.
    """
    alpha, beta = grid(size, extent)
    parameters = named_tensors(parameters)
    _check(parameters, directions, beta)
    _check_effort(max_seconds, tolerance, seed)
    identity: dict[str, Any] = {
        "weights": fingerprint(parameters),
        "directions": [fingerprint(direction) for direction in directions],
    }
    if tolerance is not None:
        identity["tolerance"] = {"share": tolerance, "seed": seed, "estimator": ESTIMATOR}
    deadline = math.inf if max_seconds is None else time.monotonic() + max_seconds
    with _kept(parameters, identity["weights"]) as origin:
        plane = PlaneExamples(evaluate, origin, directions)
        known = about(evaluate)
        identity |= {"origin": _repeated_origin(plane)} if known is None else {}
        given = {**(attributes or {}), **(known or {})}
        _check_names(given)
        attributes = {**given, **_notes(evaluate), **identity}
        with Store(path, alpha, beta, attributes, patience=max_seconds) as store:
            if not store.surface.attrs["complete"]:
                shown_as = Progress(store.done.size, label, done=store.count) if label else nullcontext()
                with shown_as as progress, Workers(plane, workers, engine) as pool:
                    if tolerance is not None:
                        return _estimated(store, plane, pool, tolerance, seed, deadline, progress)
                    in_time = _evaluate(store, plane, pool, deadline, progress)
                if not in_time:
                    return _interpolated(store.surface)
            elif tolerance is not None and store.answers is not None:
                Answers(store.answers).discard()  # of a process that was killed at its end
        return store.surface


def _check(
    parameters: Mapping[str, Tensor],
    directions: Sequence[Mapping[str, Tensor]],
    beta: np.ndarray,
) -> None:
    """Raise ValueError for directions that do not fit the parameters or the grid."""
    if len(directions) not in (1, 2):
        raise ValueError(f"{len(directions)} directions given: expected 2, or 1 for a line")
    if len(directions) == 1 and beta.tolist() != [0.0]:
        raise ValueError("one direction given: expected a grid of one row, beta = 0")
    for name, weights in parameters.items():
        for direction in directions:
            if name not in direction or direction[name].shape != weights.shape:
                found = tuple(direction[name].shape) if name in direction else "nothing"
                raise ValueError(
                    f"direction of {name}: expected the shape {tuple(weights.shape)}, got {found}"
                )


def _check_effort(max_seconds: Any, tolerance: Any, seed: Any) -> None:
    """Raise ValueError for what says how much to compute."""
    if max_seconds is not None and not (_is_number(max_seconds) and max_seconds >= 0):
        raise ValueError(f"max_seconds={max_seconds!r}: expected a number of at least 0")
    if tolerance is not None and not (_is_number(tolerance) and 0 < tolerance < 1):
        raise ValueError(f"tolerance={tolerance!r}: expected a share of the loss range in (0, 1)")
    if tolerance is not None:
        check_whole("seed", seed, 0)


def _check_names(attributes: Mapping[str, Any]) -> None:
    """Raise ValueError for attributes that a surface writes itself: they would not tell it from others."""
    if taken := next((name for name in attributes if name in OWN), None):
        raise ValueError(f"attributes: {taken} is a surface's own attribute, expected another name")


def _notes(evaluate: Objective) -> dict[str, Any]:
    """What an objective says of itself that does not determine its values."""
    named = {"examples": "label", "kernel": "kernel"}
    return {name: getattr(evaluate, own) for name, own in named.items() if hasattr(evaluate, own)}


@contextmanager
def _kept(parameters: Mapping[str, Tensor], weights: str) -> Iterator[dict[str, Tensor]]:
    """A copy to start from; what was written into ``parameters`` (fingerprint ``weights``) meanwhile is undone."""
    copies = {name: tensor.detach().clone() for name, tensor in parameters.items()}
    try:
        yield copies
    finally:
        if fingerprint(parameters) != weights:
            with torch.no_grad():
                for name, tensor in parameters.items():
                    tensor.copy_(copies[name])


def _repeated_origin(plane: PlaneExamples) -> float:
    """The mean loss at the origin to five digits, evaluated twice.

    Raises:
        ValueError: the two differ by more than rounding: there is no surface to compute.
    """
    first, second = plane.origin[0], plane.at_origin()[0]
    if first.shape != second.shape or not np.allclose(first, second, rtol=1e-4, atol=1e-6, equal_nan=True):
        means = " and ".join(f"{_mean(losses):.6g}" for losses in (first, second))
        raise ValueError(
            f"the objective gave a mean loss of {means} for the same parameters: expected a function of them "
            "alone (module.eval() ends dropout, a seed in the objective fixes what is drawn)"
        )
    return float(f"{_mean(first):.5g}")


def _evaluate(
    store: Store,
    plane: PlaneExamples,
    workers: Workers[Chunk, np.ndarray],
    deadline: float,
    progress: Progress | None,
) -> bool:
    """Evaluate the cells that are not done; whether nothing is left (False: the time is up)."""
    start = time.perf_counter()
    origin = plane.origin
    store.record_origin(_measures(origin, origin, plane.strata), time.perf_counter() - start)
    alpha, beta = (store.surface[name].values for name in ("alpha", "beta"))
    level, size = NestedGrids(store.done.shape).level, 1

    def chunks(left: list[tuple[int, int]]) -> Iterator[Chunk]:
        while left and time.monotonic() < deadline:
            cells, left = left[:size], left[size:]
            rows, columns = zip(*cells, strict=True)
            yield Chunk(np.stack([alpha[list(columns)], beta[list(rows)]], 1), cells=cells)

    left = [cell for cell in _coarse_to_fine(level) if not store.done[cell]]
    for chunk, outputs, seconds in workers.map(chunks(left)):
        for cell, values in zip(chunk.cells, outputs, strict=True):
            store.record(cell, _measures(values, origin, plane.strata), seconds / len(outputs))
        if not workers.alone:  # a chunk is worth its way to another process, and soon done
            size = max(1, min(MOST_CELLS, round(CHUNK_SECONDS * len(outputs) / seconds)))
        if progress:
            progress.advance(store.count - progress.done)
    return bool(store.done.all())


def _estimated(
    store: Store,
    plane: PlaneExamples,
    workers: Workers[Chunk, np.ndarray],
    tolerance: float,
    seed: int,
    deadline: float,
    progress: Progress | None,
) -> xarray.Dataset:
    """Estimate all cells to a tolerance; what there is where the time is up before that."""
    alpha, beta = (store.surface[name].values for name in ("alpha", "beta"))
    answers = Answers(store.answers) if store.answers is not None else None
    estimation = Estimation(plane, alpha, beta, tolerance=tolerance, seed=seed, answers=answers)
    complete = estimation.run(workers, deadline, progress)
    if not estimation.evaluated:  # the origin is all that is known
        loss, accuracy = map(float, plane.origin.mean(1))
        store.surface.attrs.update(origin_loss=loss, origin_accuracy=accuracy)
        return _interpolated(store.surface)
    surface = estimation.dataset(store.surface)
    if not complete:
        return surface
    store.complete(surface)
    if answers is not None:
        store.publish()
        answers.discard()
    return store.surface


def _coarse_to_fine(level: np.ndarray) -> list[tuple[int, int]]:
    """Ever finer grids, so that what there is of an unfinished surface is evenly spaced."""
    order = np.argsort(level.ravel(), kind="stable")
    return [
        (row, column)
        for row, column in zip(*(part.tolist() for part in np.unravel_index(order, level.shape)), strict=True)
    ]


def _measures(values: np.ndarray, origin: np.ndarray, strata: np.ndarray | None) -> dict[str, float]:
    """The measures of a cell from its losses and correctness [2, N], as :data:`gruland.landscape.store.MEASURES`."""
    losses, correct = values
    with np.errstate(invalid="ignore"):  # two infinite losses
        differences = losses - origin[0]
    return {
        "loss": _mean(losses),
        "accuracy": _mean(correct),
        "loss_se": standard_error(losses),
        "difference_se": standard_error(differences, strata),
    }


def _mean(values: np.ndarray) -> float:
    return torch.from_numpy(values).mean().item()  # numpy's adds up in another order


def _interpolated(surface: xarray.Dataset) -> xarray.Dataset:
    """The surface with the cells that are not evaluated filled in and marked; accuracies stay within [0, 1]."""
    surface = surface.copy(deep=True)
    known = surface["done"].values.copy()
    rows, columns = known.shape
    grids = NestedGrids((rows, columns))
    error = math.nan
    for name in ("accuracy", "loss"):
        values = surface[name].values
        predicted = grids.predict(_with_coarsest(values, known, grids), known | (grids.level == 0))
        filled = predicted.values.clip(0, 1) if name == "accuracy" else predicted.values
        values[~known] = filled[~known]
        if known[grids.level == 0].all():
            error = float(predicted.error.max()) / (spread_of(values[known]) or 1.0)
    surface["interpolated"].values[:] = ~known
    surface["done"].values[:] = True
    surface.attrs["interpolation_error"] = error
    return surface


def _with_coarsest(values: np.ndarray, known: np.ndarray, grids: NestedGrids) -> np.ndarray:
    """The values [R, C], those of the coarsest grid that are not known taken from the nearest known cell."""
    values, cells = values.copy(), np.argwhere(known)
    for cell in np.argwhere((grids.level == 0) & ~known):
        nearest = ((cells - cell) ** 2).sum(axis=1).argmin() if len(cells) else None
        values[tuple(cell)] = math.nan if nearest is None else values[tuple(cells[nearest])]
    return values
