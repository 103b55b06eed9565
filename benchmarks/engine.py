"""gruland's own way to a cell of a surface, in a precision of choice."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.clock import Unavailable
from gruland import kernels
from gruland.classifier import Classifier
from gruland.data import Encoded
from gruland.landscape import ReviewLoss, displace

Cell = Callable[[tuple[float, float]], tuple[Tensor, Tensor]]

#: Grid points where time and error are measured: the centre, the corners, and some between.
CELLS = [
    *((0.0, 0.0), (1.0, 1.0), (-0.5, 0.5), (-1.0, 1.0), (0.5, 0.0)),
    *((1.0, -1.0), (0.0, -0.5), (-1.0, -1.0), (0.25, -0.75)),
]


def precisions() -> tuple[str, ...]:
    """What evaluation multiplies in on this machine, the fastest last."""
    try:
        kernel = kernels.choose("cpu", torch.device("cpu"), torch.float32)
    except ValueError:
        return ("float32",)
    return kernel.precisions() if hasattr(kernel, "precisions") else ("float32",)


def check(precision: str) -> None:
    """Raises Unavailable for a precision that this machine's kernels lack."""
    if precision not in precisions():
        raise Unavailable(f"no {precision} products in this machine's kernels")


def evaluate(model: Classifier, encoded: Encoded, labels: np.ndarray, precision: str) -> ReviewLoss:
    """The objective of a surface, as ``gruland.landscape`` takes it."""
    check(precision)
    options: dict[str, Any] = (
        {"precision": precision} if "precision" in signature(ReviewLoss).parameters else {}
    )
    return ReviewLoss(model, encoded, labels, **options)


def cells(
    model: Classifier,
    encoded: Encoded,
    labels: np.ndarray,
    directions: list[dict[str, Tensor]],
    precision: str,
) -> Cell:
    """Losses and correctness of the reviews at grid points of a plane."""
    objective, parameters = evaluate(model, encoded, labels, precision), model.trainable()
    if hasattr(objective, "on_plane"):
        return objective.on_plane(parameters, directions)
    return lambda steps: objective(displace(parameters, directions, steps))
