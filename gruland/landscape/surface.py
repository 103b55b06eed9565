"""The loss over a plane through a model's weights: L(w + alpha * delta + beta * eta)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gruland.landscape.directions import displace, fingerprint
from gruland.landscape.store import Store
from gruland.progress import Progress

if TYPE_CHECKING:
    import xarray

#: From parameters by name to the loss of each example [N] and whether its prediction is right [N].
Evaluate = Callable[[dict[str, Tensor]], tuple[Tensor, Tensor]]


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
            depend on the order of the calls.
        parameters: the trained parameters by name.
        directions: delta and eta, as :func:`gruland.landscape.random_directions` gives them.
        size: cells on each side, odd.
        extent: both axes run over [-extent, extent].
        path: the zarr folder to write to and to resume from, see :class:`gruland.landscape.store.Store`; None
            for a surface in memory alone.
        attributes: what else determines the result (data, objective), JSON-able; a surface at ``path`` with
            other attributes, weights, directions or coordinates is computed afresh.
        label: what the progress line says; None for none.

    Returns:
        The data set of :func:`gruland.landscape.load_surface`, complete. NaN and infinite losses are kept.
    """
    steps = axis(size, extent)
    identity = {"weights": fingerprint(parameters), "directions": [fingerprint(d) for d in directions]}
    store = Store(path, steps, steps, {**(attributes or {}), **identity})
    done = int(store.done.sum())
    with store, Progress(size * size, label, done=done) if label else nullcontext() as progress:
        for row, column in _coarse_to_fine(np.argwhere(~store.done), size // 2):
            moved = displace(parameters, directions, (float(steps[column]), float(steps[row])))
            store.record((row, column), _summary(*evaluate(moved)))
            if progress:
                progress.advance()
    return store.surface


def _coarse_to_fine(cells: Iterable[np.ndarray], centre: int) -> list[tuple[int, int]]:
    """The centre first, then ever finer sub-grids, so that an unfinished surface is an evenly spaced one."""

    def spacing(cell: tuple[int, int]) -> float:
        offsets = (cell[0] - centre) | (cell[1] - centre)
        return (offsets & -offsets) or math.inf  # the largest power of two that divides both offsets

    return sorted(((int(row), int(column)) for row, column in cells), key=spacing, reverse=True)


def _summary(losses: Tensor, correct: Tensor) -> dict[str, float]:
    """Mean loss, accuracy, and the standard error of the mean loss: s / sqrt(N) with N - 1 in s."""
    losses = losses.detach().to("cpu", torch.float64)
    deviation = losses.std().item() if len(losses) > 1 else math.nan
    return {
        "loss": losses.mean().item(),
        "accuracy": correct.detach().to("cpu", torch.float64).mean().item(),
        "loss_se": deviation / math.sqrt(len(losses)),
    }
