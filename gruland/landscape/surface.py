"""The loss over a plane through a model's weights: L(w + alpha * delta + beta * eta)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gruland.landscape.directions import displace, fingerprint
from gruland.landscape.objective import Objective, OnPlane, about, examples, named_tensors, strata
from gruland.landscape.refinement import NestedGrids, refinement, spread_of
from gruland.landscape.sample import standard_error
from gruland.landscape.store import Store
from gruland.progress import Progress

if TYPE_CHECKING:
    import xarray


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
    if all(isinstance(end, Real) and not isinstance(end, bool) and math.isfinite(end) for end in pair):
        low, high = float(pair[0]) if _is_pair(extent) else -float(extent), float(pair[1])
        if low < high:
            return low, high
    raise ValueError(
        f"extent={extent}: expected a positive number or (low, high) with low < high, "
        "or one of these for each axis"
    )


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
    interpolation: float | None = None,
    seed: int = 0,
    path: str | Path | None = None,
    attributes: Mapping[str, Any] | None = None,
    label: str | None = None,
    max_seconds: float | None = None,
) -> xarray.Dataset:
    """Evaluate the cells of a grid on the plane (section 4.3 of the paper; 51 x 51 there).

    Works on any module, for instance with ``evaluate`` calling ``torch.func.functional_call(module,
    parameters, inputs)``: displaced weights are new tensors, the module's own are never written to. Where
    ``evaluate`` writes into them itself, that is undone in the end, also after an error. The origin is evaluated on a
    copy of ``parameters``, whatever the grid, once by each process.

    Several processes that call this with the same arguments share the work through ``path``, see
    :mod:`gruland.landscape.cells`; each returns the whole surface.

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
        interpolation: None evaluates every cell; a share of the range of the loss evaluates as many as it takes to
            interpolate the others with an error below it, see :mod:`gruland.landscape.refinement`. A grid of up to
            5 x 5 cells is evaluated whole.
        seed: of the cells that check the interpolation.
        path: the zarr folder to write to and to resume from, see :class:`gruland.landscape.store.Store`; None
            for a surface in memory alone.
        attributes: what else determines the result (data, objective), JSON-able; a surface at ``path`` with other
            attributes, weights, directions, coordinates or another loss of the origin is computed afresh. ``units`` are
            the loss's, ``nats`` where not given; ``normalization`` is the directions'.
        label: what the progress line says; None for none.
        max_seconds: no evaluation begins after so many seconds (but the origin's). Cells come from coarse to fine;
            those that are missing then are interpolated and marked in what is returned (attribute ``complete``:
            False), while ``path`` keeps what was evaluated, and a later call goes on.

    Returns:
        The data set of :func:`gruland.landscape.load_surface`, a value in every cell: ``surface.loss.values[i, j]``
        lies at (alpha[j], beta[i]). NaN and infinite losses are kept.

    Raises:
        ValueError: an argument that cannot work, in one line.
    """
    alpha, beta = grid(size, extent)
    parameters = named_tensors(parameters)
    _check(parameters, directions, beta, max_seconds)
    identity: dict[str, Any] = {
        "weights": fingerprint(parameters),
        "directions": [fingerprint(direction) for direction in directions],
    }
    if interpolation is not None:
        identity["interpolation"] = {"tolerance": interpolation, "seed": seed}
    deadline = math.inf if max_seconds is None else time.monotonic() + max_seconds
    with _kept(parameters, identity["weights"]) as origin:
        plane = _Plane(evaluate, origin, directions)
        known = about(evaluate)
        identity |= {"origin": plane.repeated_origin()} if known is None else {}
        shown = {"examples": evaluate.label} if hasattr(evaluate, "label") else {}
        store = Store(path, alpha, beta, {**(attributes or {}), **shown, **(known or {}), **identity})
        if store.surface.attrs["complete"]:
            return store.surface
        return _complete(store, plane, _batches(store, interpolation, seed), deadline, label)


def _complete(
    store: Store, plane: _Plane, batches: Iterable[np.ndarray], deadline: float, label: str | None
) -> xarray.Dataset:
    """Evaluate and interpolate what the store lacks; the surface with a value in every cell."""
    shown = Progress(store.done.size, label, done=store.count) if label else nullcontext()
    with store, shown as progress:
        if not _evaluate(store, plane, batches, deadline, progress):
            return _interpolated(store.surface)
        if not store.done.all():
            store.complete(_interpolated(store.surface))
            if progress:
                progress.advance(store.count - progress.done)
    return store.surface


def compute_line(
    evaluate: Objective,
    parameters: Mapping[str, Tensor],
    direction: Mapping[str, Tensor],
    *,
    size: int = 51,
    extent: float | Sequence[float] = 1.0,
    **options: Any,
) -> xarray.Dataset:
    """The loss along one direction: a surface with the one row beta = 0.

    Args:
        evaluate, parameters, options: as in :func:`compute_surface`.
        direction: delta.
        size: cells.
        extent: the line runs over [-extent, extent], or from low to high of (low, high).

    Raises:
        ValueError: see :func:`compute_surface`.
    """
    return compute_surface(evaluate, parameters, [direction], size=(size, 1), extent=(extent, 1.0), **options)


def _check(
    parameters: Mapping[str, Tensor],
    directions: Sequence[Mapping[str, Tensor]],
    beta: np.ndarray,
    max_seconds: float | None,
) -> None:
    """Raise ValueError for arguments that do not fit each other."""
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
    if max_seconds is not None and not max_seconds >= 0:
        raise ValueError(f"max_seconds={max_seconds}: expected a number of at least 0")


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


def _evaluate(
    store: Store, plane: _Plane, batches: Iterable[np.ndarray], deadline: float, progress: Progress | None
) -> bool:
    """Evaluate this worker's share of the cells; whether nothing is left (False: the time is up)."""
    store.record_origin(*plane.measure((0.0, 0.0)))
    alpha, beta = (store.surface[name].values.tolist() for name in ("alpha", "beta"))
    level = NestedGrids(store.done.shape).level
    for batch in batches:
        for cell in store.share(_coarse_to_fine(batch, level)):
            if progress:
                progress.advance(store.count - progress.done)
            if time.monotonic() >= deadline:
                return False
            if cell is not None:
                store.record(cell, *plane.measure((alpha[cell[1]], beta[cell[0]])))
        if store.done.all():
            break  # another worker may have completed the surface, interpolated cells and all
    if progress:
        progress.advance(store.count - progress.done)
    return True


def _batches(store: Store, interpolation: float | None, seed: int) -> Iterable[np.ndarray]:
    """The cells to evaluate: row and column [n, 2], the same for every worker; some may be done already."""
    if interpolation is None:
        return (np.argwhere(np.ones(store.done.shape, dtype=bool)),)
    return refinement(store.surface["loss"].values, interpolation, seed)


def _coarse_to_fine(cells: np.ndarray, level: np.ndarray) -> list[tuple[int, int]]:
    """Ever finer grids, so that what there is of an unfinished surface is evenly spaced."""
    order = np.argsort(level[cells[:, 0], cells[:, 1]], kind="stable")
    return [(row, column) for row, column in cells[order].tolist()]


class _Plane:
    """What the cells have in common; nothing is computed before the first of them."""

    def __init__(
        self,
        evaluate: Objective,
        parameters: Mapping[str, Tensor],
        directions: Sequence[Mapping[str, Tensor]],
    ) -> None:
        self._evaluate, self._parameters, self._directions = evaluate, parameters, directions

    @cached_property
    def _at(self) -> OnPlane:
        evaluate: Any = self._evaluate
        if hasattr(evaluate, "on_plane"):
            at: OnPlane = evaluate.on_plane(self._parameters, self._directions)
        else:

            def at(steps: Sequence[float]) -> tuple[Tensor, Tensor]:
                return evaluate(displace(self._parameters, self._directions, steps))

        return lambda steps: examples(at(steps))

    @cached_property
    def _origin(self) -> tuple[Tensor, Tensor]:
        return self._at((0.0,) * len(self._directions))

    def repeated_origin(self) -> float:
        """The mean loss at the origin to five digits, evaluated twice.

        Raises:
            ValueError: the two differ by more than rounding: there is no surface to compute.
        """
        first = self._origin[0]
        second, _ = self._at((0.0,) * len(self._directions))
        same = first.shape == second.shape
        if not same or not torch.allclose(first, second, rtol=1e-4, atol=1e-6, equal_nan=True):
            means = " and ".join(f"{float(losses.double().mean()):.6g}" for losses in (first, second))
            raise ValueError(
                f"the objective gave a mean loss of {means} for the same parameters: expected a function of them "
                "alone (module.eval() ends dropout, a seed in the objective fixes what is drawn)"
            )
        return float(f"{float(first.double().mean()):.5g}")

    def measure(self, steps: tuple[float, float]) -> tuple[dict[str, float], float]:
        """The measures of one cell, as :data:`gruland.landscape.store.MEASURES` names them, and what it took [s]."""
        start = time.perf_counter()
        losses, correct = self._at(steps[: len(self._directions)]) if any(steps) else self._origin
        if losses.shape != self._origin[0].shape:
            raise ValueError(
                f"the objective returned {len(losses)} losses, and {len(self._origin[0])} at the origin: expected "
                "the same examples at every point"
            )
        loss, origin = (values.detach().to("cpu", torch.float64) for values in (losses, self._origin[0]))
        measures = {
            "loss": loss.mean().item(),
            "accuracy": correct.detach().to("cpu", torch.float64).mean().item(),
            "loss_se": standard_error(loss.numpy()),
            "difference_se": standard_error((loss - origin).numpy(), strata(self._evaluate)),
        }
        return measures, time.perf_counter() - start


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
