"""gruland's own way to a cell of a surface, in a precision of choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.clock import Unavailable
from gruland.classifier import Classifier
from gruland.data import Encoded
from gruland.kernels import cpu
from gruland.objective import EvaluationLoss

Cell = Callable[[Sequence[float]], tuple[Tensor, Tensor]]

#: Grid points where time and error are measured: the centre, the corners, and some between.
CELLS = [
    *((0.0, 0.0), (1.0, 1.0), (-0.5, 0.5), (-1.0, 1.0), (0.5, 0.0)),
    *((1.0, -1.0), (0.0, -0.5), (-1.0, -1.0), (0.25, -0.75)),
]


def precisions() -> tuple[str, ...]:
    """What evaluation multiplies in on this machine, the fastest last."""
    usable = cpu.unavailable(torch.device("cpu"), torch.float32, training=False) is None
    return cpu.precisions() if usable else ("float32",)


def check(precision: str) -> None:
    """Raises Unavailable for a precision that this machine's kernels lack."""
    if precision not in precisions():
        raise Unavailable(f"no {precision} products in this machine's kernels")


def cells(
    model: Classifier,
    encoded: Encoded,
    labels: np.ndarray,
    directions: list[dict[str, Tensor]],
    precision: str,
) -> Cell:
    """Losses and correctness of the reviews at grid points of a plane."""
    check(precision)
    return EvaluationLoss(model, encoded, labels, precision=precision).on_plane(model.trainable(), directions)
