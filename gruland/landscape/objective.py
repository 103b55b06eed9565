"""What a point of weight space costs: the one thing that the landscape of a module needs to know.

A function is enough::

    def evaluate(parameters):
        with torch.no_grad():
            output = torch.func.functional_call(module, parameters, inputs)
        return F.cross_entropy(output, labels, reduction="none"), output.argmax(1) == labels

N examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

#: From the steps along the directions and the examples' rows [m] (None = all) to losses [m] and correctness [m].
OnPlane = Callable[[Sequence[float], np.ndarray | None], tuple[Tensor, Tensor]]


class Objective(Protocol):
    """From parameters by name to the loss of each example [N] and whether its prediction is right [N].

    It is a function of the parameters alone: neither the order of the calls nor a random state changes the values.
    An object may have these besides:

    - ``about``: what determines the values, as plain data (``{"data": "imdb", "reviews": 1000}``). A surface keeps it
      among its attributes, and knows by it that a file holds this very surface. Without it the origin is evaluated
      twice, and its loss tells surfaces of other data from this one.
    - ``strata``: int [N], where the examples are a sample stratified by it.
    - ``on_plane(parameters, directions)``: an :data:`OnPlane` with the same values, where that is faster: a function
      ``at(steps, rows=None)``.
    - ``take(rows)``: the objective of some of the examples, where few cost less than all. It has ``strata`` of its own
      where this one has them.
    - ``groups``: int [N], where examples of one group are one thing several times (a review under several masks).
    - ``label``: what the examples are, for pictures (``"1,000 training reviews"``).
    - ``kernel``: what computes the values without changing them (``"cpu"``). A surface notes it and the label, and is
      the same one with others.
    """

    def __call__(self, parameters: dict[str, Tensor], /) -> tuple[Tensor, Tensor]:
        """Losses and correctness, both [N]."""


def about(objective: Objective) -> dict[str, Any] | None:
    """The plain data that determine the objective's values; None for a plain function."""
    found = getattr(objective, "about", None)
    return None if found is None else dict(found)


def strata(objective: Objective) -> np.ndarray | None:
    """The stratum of each example [N]; None where they are no stratified sample."""
    found: np.ndarray | None = getattr(objective, "strata", None)
    return found


def groups(objective: Objective) -> np.ndarray | None:
    """The group of each example [N]; None where each is one of its own."""
    found: np.ndarray | None = getattr(objective, "groups", None)
    return found


def examples(found: Any) -> tuple[Tensor, Tensor]:
    """What an objective returned, as tensors.

    Raises:
        ValueError: it is no pair of N losses and N correctnesses, N >= 1.
    """
    expected = "expected a pair of losses [N] and correctness [N], one of each example"
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        raise ValueError(f"the objective returned one {type(found).__name__}: {expected}")
    try:
        losses, correct = (torch.as_tensor(part) for part in found)
    except (TypeError, ValueError, RuntimeError):
        kinds = " and ".join(type(part).__name__ for part in found)
        raise ValueError(f"the objective returned {kinds}: {expected}, as tensors or numpy arrays") from None
    if losses.dim() != 1 or losses.shape != correct.shape or not len(losses) or losses.is_complex():
        raise ValueError(
            f"the objective returned losses of shape {tuple(losses.shape)} and correctness of shape "
            f"{tuple(correct.shape)}: {expected}"
        )
    return losses, correct


def named_tensors(parameters: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> Mapping[str, Tensor]:
    """Parameters by name, also from ``module.named_parameters()``.

    Raises:
        ValueError: they are neither a mapping nor pairs, there are none, or one is complex.
    """
    try:
        found = parameters if isinstance(parameters, Mapping) else dict(parameters)
        tensors = all(isinstance(tensor, Tensor) for tensor in found.values())
    except (TypeError, ValueError):
        tensors = False
    if not tensors:
        raise ValueError(
            f"parameters of type {type(parameters).__name__}: expected tensors by name, "
            "such as dict(module.named_parameters())"
        )
    if not found:
        raise ValueError(
            "there are no parameters: expected at least one tensor by name; module.named_parameters() is used up "
            "after one pass, dict(module.named_parameters()) is not"
        )
    if broken := next((name for name, tensor in found.items() if tensor.is_complex()), None):
        raise ValueError(
            f"{broken} is complex: expected real parameters, torch.view_as_real gives those of complex ones"
        )
    return found
