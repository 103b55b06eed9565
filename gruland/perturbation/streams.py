"""Random numbers for TextAttack's swaps, which draw from the global states of ``random`` and numpy."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import TracebackType

import numpy as np


class Stream:
    """States of its own: what is drawn inside ``with stream:`` goes on from where the last time ended.

    Args:
        seed: whole numbers >= 0; what is drawn is a function of it.
    """

    def __init__(self, seed: Sequence[int]) -> None:
        entropy = np.random.SeedSequence(list(seed)).generate_state(8)
        own = np.random.RandomState(entropy[4:])
        self._own = random.Random(entropy[:4].tobytes()).getstate(), own.get_state()

    def __enter__(self) -> None:
        self._others = random.getstate(), np.random.get_state()  # noqa: NPY002  # what TextAttack draws from
        random.setstate(self._own[0])
        np.random.set_state(self._own[1])  # noqa: NPY002  # what TextAttack draws from

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._own = random.getstate(), np.random.get_state()  # noqa: NPY002  # what TextAttack draws from
        random.setstate(self._others[0])
        np.random.set_state(self._others[1])  # noqa: NPY002  # what TextAttack draws from
