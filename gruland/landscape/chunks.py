"""What a chunk of a plane's cells costs, example by example: the task that workers are given.

n cells, N examples, m of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gruland.landscape.directions import displace
from gruland.landscape.objective import Objective, OnPlane, examples, groups, strata


class Chunk(NamedTuple):
    """Cells of a plane, evaluated one after the other.

    Attributes:
        steps: [n, 2] alpha and beta of each.
        rows: [m] which examples; None = all.
        cells: row and column of each in the grid, for who puts the outputs there.
    """

    steps: np.ndarray
    rows: np.ndarray | None = None
    cells: Sequence[tuple[int, int]] = ()


class PlaneExamples:
    """The losses and correctness of examples at the cells of a plane, a function of the chunk alone.

    What the cells have in common is computed at the first of them and then travels along to other processes, so that
    every process starts from the same numbers.

    Args:
        evaluate: what a point costs.
        parameters: the weights at (0, 0), by name.
        directions: delta and eta, or delta alone.
    """

    def __init__(
        self,
        evaluate: Objective,
        parameters: Mapping[str, Tensor],
        directions: Sequence[Mapping[str, Tensor]],
    ) -> None:
        self._evaluate, self._parameters, self._directions = evaluate, parameters, directions
        self._taken: tuple[bytes, PlaneExamples] | None = None
        self._count: int | None = None  # of the examples, where the origin is not needed to know it

    @property
    def divisible(self) -> bool:
        """Whether few examples cost less than all."""
        return hasattr(self._evaluate, "take")

    def __call__(self, chunk: Chunk) -> np.ndarray:
        """Loss and correctness [n, 2, m], float64; at (0, 0) the very numbers of :attr:`origin`.

        Raises:
            ValueError: the objective gives another number of examples than at the origin.
        """
        if chunk.rows is not None and self.divisible:
            return self._of(chunk.rows)(chunk._replace(rows=None))
        return np.stack([self._cell(tuple(steps), chunk.rows) for steps in chunk.steps.tolist()])

    def _of(self, rows: np.ndarray) -> PlaneExamples:
        """The same of some examples, prepared once for the chunks that follow each other."""
        key = rows.tobytes()
        if self._taken is None or self._taken[0] != key:
            evaluate: Any = self._evaluate
            taken = PlaneExamples(evaluate.take(rows), self._parameters, self._directions)
            taken._count = len(rows)
            self._taken = key, taken
        return self._taken[1]

    @cached_property
    def strata(self) -> np.ndarray | None:
        """The stratum of each example [N]; None where they are no stratified sample."""
        return strata(self._evaluate)

    @cached_property
    def groups(self) -> np.ndarray | None:
        """The group of each example [N]; None where each is one of its own."""
        return groups(self._evaluate)

    @cached_property
    def origin(self) -> np.ndarray:
        """Loss and correctness [2, N] at (0, 0), evaluated once."""
        return self.at_origin()

    def at_origin(self) -> np.ndarray:
        """The same, evaluated now."""
        return _array(*self._at((0.0,) * len(self._directions), None))

    @cached_property
    def _at(self) -> OnPlane:
        evaluate: Any = self._evaluate
        if hasattr(evaluate, "on_plane"):
            at: OnPlane = evaluate.on_plane(self._parameters, self._directions)
            return at

        def displaced(steps: Sequence[float], rows: np.ndarray | None) -> tuple[Tensor, Tensor]:
            losses, correct = examples(evaluate(displace(self._parameters, self._directions, steps)))
            return (losses, correct) if rows is None else (losses[rows], correct[rows])

        return displaced

    def _cell(self, steps: tuple[float, ...], rows: np.ndarray | None) -> np.ndarray:
        if not any(steps):
            return self.origin if rows is None else self.origin[:, rows]
        values = _array(*self._at(steps[: len(self._directions)], rows))
        expected = len(rows) if rows is not None else self._count or self.origin.shape[1]
        if values.shape[1] != expected:
            raise ValueError(
                f"the objective returned {values.shape[1]} losses, and {expected} at the origin: expected "
                "the same examples at every point"
            )
        return values


def _array(*parts: Tensor) -> np.ndarray:
    losses, correct = (part.detach().to("cpu", torch.float64).numpy() for part in examples(parts))
    return np.stack([losses, correct])
