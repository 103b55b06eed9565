"""Several regularizers at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gruland.kernels import Layer
from gruland.regularizers.base import SIZES, Regularizer, Steps
from gruland.regularizers.draws import Draw

if TYPE_CHECKING:
    from gruland.task import Task


class Composed(Regularizer):
    """Several regularizers, one after the other, each with draws of its own.

    Args:
        parts: by name, for instance ``{"zoneout": Zoneout(0.1), "ar_tar": ArTar()}``; in the configuration their
            settings are ``regularizer.parts.zoneout.rate`` and so on.

    Raises:
        ValueError: no part; two parts that give the same mask of a step or replace the loss.
    """

    def __init__(self, parts: Mapping[str, Regularizer]) -> None:
        if not parts:
            raise ValueError("parts={}: expected at least one regularizer")
        self.parts = dict(parts)
        self._parts = tuple(self.parts.values())
        probe = Draw(0).of_batch(1, torch.device("cpu"))
        steps = {name: part.step(1, 1, probe) for name, part in self.parts.items()}
        for what, names in {
            "masks of which units are kept": [
                name for name, masks in steps.items() if masks.keep is not None
            ],
            "masks of the candidate": [name for name, masks in steps.items() if masks.candidate is not None],
            "a loss of its own": [name for name, part in self.parts.items() if "loss" in part.hooks],
        }.items():
            if len(names) > 1:
                raise ValueError(f"parts={', '.join(names)}: expected at most one part that has {what}")
        # Constants of the class elsewhere; a composed one has them of its parts.
        self.name = "_".join(part.name for part in self._parts)  # type: ignore[misc]  # as said above
        self.title = " + ".join(part.title for part in self._parts)  # type: ignore[misc]  # as said above
        self.kept = max(part.kept for part in self._parts)

    @property
    def grid(self) -> Mapping[str, Sequence[Any]]:  # type: ignore[override]  # as said above
        """The parts' grids; what is ``regularizer.rate`` of a part is ``regularizer.parts.<name>.rate`` here."""
        own = {
            key.replace("regularizer.", f"regularizer.parts.{name}.", 1): values
            for name, part in self.parts.items()
            for key, values in part.grid.items()
        }
        return {**SIZES, **own}

    @property
    def hooks(self) -> frozenset[str]:
        """Those of the parts."""
        return frozenset().union(*(part.hooks for part in self._parts))

    def words(self, embedded_BTD: Tensor, tokens_BT: Tensor, draw: Draw) -> Tensor:
        """Each part in its turn."""
        for number, part in enumerate(self._parts):
            embedded_BTD = part.words(embedded_BTD, tokens_BT, draw.at(number))
        return embedded_BTD

    def weights(self, layer: Layer, draw: Draw) -> Layer:
        """Each part in its turn."""
        for number, part in enumerate(self._parts):
            layer = part.weights(layer, draw.at(number))
        return layer

    def step(self, steps: int, units: int, draw: Draw) -> Steps:
        """Each mask from the part that has it."""
        keep = candidate = None
        for number, part in enumerate(self._parts):
            masks = part.step(steps, units, draw.at(number))
            keep = keep if masks.keep is None else masks.keep
            candidate = candidate if masks.candidate is None else masks.candidate
        return Steps(keep, candidate)

    def between(self, h: Tensor, draw: Draw) -> Tensor:
        """Each part in its turn."""
        for number, part in enumerate(self._parts):
            h = part.between(h, draw.at(number))
        return h

    def gates(self, products_R3H: Tensor) -> Tensor:
        """Each part in its turn."""
        for part in self._parts:
            products_R3H = part.gates(products_R3H)
        return products_R3H

    def penalty(self, states_BTH: Tensor, lengths_B: Tensor) -> Tensor:
        """The sum."""
        penalties = [part.penalty(states_BTH, lengths_B) for part in self._parts if "penalty" in part.hooks]
        return sum(penalties, super().penalty(states_BTH, lengths_B))

    def decay(self, matrices: Sequence[Tensor]) -> Tensor:
        """The sum."""
        return sum((part.decay(matrices) for part in self._parts), super().decay(matrices))

    def agreement(self, task: Task, logits_BK: Tensor, others_BK: Tensor) -> Tensor:
        """The sum."""
        found = (part.agreement(task, logits_BK, others_BK) for part in self._parts)
        return sum(found, super().agreement(task, logits_BK, others_BK))

    def loss(self, task: Task, logits_BK: Tensor, labels: Tensor) -> Tensor:
        """That of the part that replaces it."""
        for part in self._parts:
            if "loss" in part.hooks:
                return part.loss(task, logits_BK, labels)
        return super().loss(task, logits_BK, labels)
