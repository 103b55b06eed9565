"""The loss over a plane through a model's weights: L(w + alpha * delta + beta * eta)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gruland.landscape.directions import displace, fingerprint
from gruland.landscape.refinement import NestedGrids, refinement, spread_of
from gruland.landscape.sample import standard_error
from gruland.landscape.store import Store
from gruland.progress import Progress

if TYPE_CHECKING:
    import xarray

#: From parameters by name to the loss of each example [N] and whether its prediction is right [N].
Evaluate = Callable[[dict[str, Tensor]], tuple[Tensor, Tensor]]
#: The same, from the steps along the directions.
OnPlane = Callable[[tuple[float, float]], tuple[Tensor, Tensor]]


def axis(size: int, extent: float) -> np.ndarray:
    """``size`` evenly spaced steps from -extent to extent [size]; the middle one is exactly 0.

    Raises:
        ValueError: an even or too small size, or an extent that is no positive number.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 3 or size % 2 == 0:
        raise ValueError(
            f"landscape.size={size}: expected an odd number from 3 on, so that a cell is the centre"
        )
    if isinstance(extent, bool) or not isinstance(extent, (int, float)) or not 0 < extent < math.inf:
        raise ValueError(f"landscape.extent={extent}: expected a positive number")
    half = size // 2
    return extent * np.arange(-half, half + 1) / half


def compute_surface(
    evaluate: Evaluate,
    parameters: Mapping[str, Tensor],
    directions: Sequence[Mapping[str, Tensor]],
    *,
    size: int = 51,
    extent: float = 1.0,
    interpolation: float | None = None,
    seed: int = 0,
    path: str | Path | None = None,
    attributes: Mapping[str, Any] | None = None,
    label: str | None = None,
) -> xarray.Dataset:
    """Evaluate ``size`` x ``size`` cells of the plane (section 4.3 of the paper; 51 x 51 there).

    Works on any module, for instance with ``evaluate`` calling ``torch.func.functional_call(module,
    parameters, inputs)``: displaced weights are new tensors, the module's own are never written to. The
    centre is evaluated on ``parameters`` themselves.

    Args:
        evaluate: losses [N] and correctness [N] of N >= 1 examples, given the parameters by name. It must not
            depend on the order of the calls. If it has a method ``on_plane(parameters, directions)`` that gives
            a function of (alpha, beta) with the same result, that is used; if it has an attribute ``strata``
            (int [N]), the examples are a sample stratified by it, see :func:`gruland.landscape.sample.standard_error`.
        parameters: the trained parameters by name.
        directions: delta and eta, as :func:`gruland.landscape.random_directions` gives them.
        size: cells on each side, odd.
        extent: both axes run over [-extent, extent].
        interpolation: None evaluates every cell; a share of the range of the loss evaluates as many as it takes to
            interpolate the others with an error below it, see :mod:`gruland.landscape.refinement`.
        seed: of the cells that check the interpolation.
        path: the zarr folder to write to and to resume from, see :class:`gruland.landscape.store.Store`; None
            for a surface in memory alone.
        attributes: what else determines the result (data, objective), JSON-able; a surface at ``path`` with
            other attributes, weights, directions or coordinates is computed afresh.
        label: what the progress line says; None for none.

    Returns:
        The data set of :func:`gruland.landscape.load_surface`, complete. NaN and infinite losses are kept.
    """
    steps = axis(size, extent)
    identity: dict[str, Any] = {
        "weights": fingerprint(parameters),
        "directions": [fingerprint(direction) for direction in directions],
    }
    if interpolation is not None:
        identity["interpolation"] = {"tolerance": interpolation, "seed": seed}
    store = Store(path, steps, steps, {**(attributes or {}), **identity})
    plane, done = _Plane(evaluate, parameters, directions), int(store.done.sum())
    with store, Progress(size * size, label, done=done) if label else nullcontext() as progress:
        for batch in _batches(store, interpolation, seed):
            for row, column in _coarse_to_fine(batch, size // 2):
                if not store.done[row, column]:
                    store.record((row, column), plane.measure((float(steps[column]), float(steps[row]))))
                    if progress:
                        progress.advance()
        missing = int((~store.done).sum())
        if missing:
            _interpolate(store)
            if progress:
                progress.advance(missing)
    return store.surface


def _batches(store: Store, interpolation: float | None, seed: int) -> Iterable[np.ndarray]:
    """The cells to evaluate: row and column [n, 2]; some may be done already."""
    if interpolation is None or store.done.all():
        return (np.argwhere(~store.done),)
    return refinement(store.surface["loss"].values, interpolation, seed)


class _Plane:
    """What the cells have in common; nothing is computed before the first of them."""

    def __init__(
        self, evaluate: Evaluate, parameters: Mapping[str, Tensor], directions: Sequence[Mapping[str, Tensor]]
    ) -> None:
        self._evaluate, self._parameters, self._directions = evaluate, parameters, directions

    @cached_property
    def _at(self) -> OnPlane:
        evaluate: Any = self._evaluate
        if hasattr(evaluate, "on_plane"):
            return evaluate.on_plane(self._parameters, self._directions)
        return lambda steps: evaluate(displace(self._parameters, self._directions, steps))

    @cached_property
    def _centre(self) -> tuple[Tensor, Tensor]:
        return self._at((0.0, 0.0))

    def measure(self, steps: tuple[float, float]) -> dict[str, float]:
        """The measures of one cell, as :data:`gruland.landscape.store.MEASURES` names them."""
        losses, correct = self._at(steps) if any(steps) else self._centre
        loss, centre = (values.detach().to("cpu", torch.float64) for values in (losses, self._centre[0]))
        strata = getattr(self._evaluate, "strata", None)
        return {
            "loss": loss.mean().item(),
            "accuracy": correct.detach().to("cpu", torch.float64).mean().item(),
            "loss_se": standard_error(loss.numpy()),
            "difference_se": standard_error((loss - centre).numpy(), strata),
        }


def _interpolate(store: Store) -> None:
    """Fill in the cells that are not evaluated; accuracies stay within [0, 1]."""
    grids, loss = NestedGrids(store.done.shape), store.surface["loss"].values
    predicted = grids.predict(loss, store.done)
    accuracy = grids.predict(store.surface["accuracy"].values, store.done).values.clip(0, 1)
    error = float(predicted.error.max()) / (spread_of(loss[store.done]) or 1.0)
    store.complete({"loss": predicted.values, "accuracy": accuracy}, {"interpolation_error": error})


def _coarse_to_fine(cells: Iterable[np.ndarray], centre: int) -> list[tuple[int, int]]:
    """The centre first, then ever finer sub-grids, so that an unfinished surface is an evenly spaced one."""

    def spacing(cell: tuple[int, int]) -> float:
        offsets = (cell[0] - centre) | (cell[1] - centre)
        return (offsets & -offsets) or math.inf  # the largest power of two that divides both offsets

    return sorted(((int(row), int(column)) for row, column in cells), key=spacing, reverse=True)
