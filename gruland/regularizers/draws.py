"""The one way to draw masks: a function of seed, place, sequence, time and unit, and of nothing else.

So a mask is the same in every batch, on every device, in every process, and whatever else was drawn before it
(:mod:`gruland.kernels.philox` has the generator).

T time steps, B sequences, H units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gruland.arguments import check_whole
from gruland.kernels import philox

_WORD, _CPU = 2**64 - 1, torch.device("cpu")


class Bernoulli(NamedTuple):
    """A mask [T, B, H] that is not drawn yet: a kernel may draw it where it needs it."""

    seed: int
    rate: float
    steps: int
    keys: Tensor | None  # int64 [B]; None: the positions 0 to B - 1
    sequences: int
    units: int
    device: torch.device

    def tensor(self) -> Tensor:
        """The mask as bool."""
        keys = torch.arange(self.sequences, device=self.device) if self.keys is None else self.keys
        return philox.bernoulli(self.seed, self.rate, self.steps, keys, self.units)


@dataclass(frozen=True)
class Draw:
    """Which masks a forward pass meets: ``model(tokens, lengths, draw=Draw(seed=3))``.

    Given one, a model draws its masks in evaluation, too (dropout at test time); without one it draws in training
    alone, from a seed of torch's generator.

    Args:
        seed: any integer. Two seeds share no mask.
        keys: [B] an integer for each sequence, its identity; None = its position in the batch.
    """

    seed: int
    keys: Tensor | Sequence[int] | np.ndarray | None = None
    sequences: int = 1
    device: torch.device = _CPU

    @classmethod
    def fresh(cls) -> Draw:
        """One whose seed comes from torch's default generator."""
        return cls(int(torch.randint(2**62, ())))

    def at(self, *place: int) -> Draw:
        """The draw of a place of the model, e.g. of layer 1: independent of every other place's."""
        return replace(self, seed=mix(self.seed, *place))

    def of_batch(self, sequences: int, device: torch.device) -> Draw:
        """The draw for a batch of B sequences on a device.

        Raises:
            ValueError: keys of another number of sequences.
        """
        if self.keys is None:
            return replace(self, sequences=sequences, device=device)
        keys = torch.as_tensor(self.keys).to(device, torch.int64)
        if keys.shape != (sequences,):
            raise ValueError(f"keys has the shape {list(keys.shape)}: expected {[sequences]}, one a sequence")
        return replace(self, keys=keys, sequences=sequences, device=device)

    def take(self, rows: Tensor | np.ndarray | None) -> Draw:
        """The draw of the sequences at these places of the batch, in their order; None = as it is."""
        if rows is None:
            return self
        index = torch.as_tensor(rows)
        return replace(self, keys=self._keys().cpu()[index].to(self.device), sequences=len(index))

    def _keys(self) -> Tensor:
        if self.keys is None:
            return torch.arange(self.sequences, device=self.device)
        return torch.as_tensor(self.keys).to(self.device, torch.int64)

    def each_step(self, rate: float, steps: int, units: int) -> Bernoulli:
        """[T, B, H], not drawn yet: 1 with probability ``rate`` for each time, sequence and unit."""
        keys = None if self.keys is None else self._keys()
        return Bernoulli(self.seed, rate, steps, keys, self.sequences, units, self.device)

    def uniform(self, steps: int, units: int) -> Tensor:
        """[B, T, H] of float32 in (0, 1): multiples of 2^-16 less 2^-17."""
        drawn_TBH = philox.integers(self.seed, steps, self._keys(), units)
        return ((drawn_TBH + 0.5) / 2**16).to(torch.float32).transpose(0, 1)

    def each_sequence(self, rate: float, units: int) -> Tensor:
        """[B, H] of bool: the same at all times of a sequence."""
        return philox.bernoulli(self.seed, rate, 1, self._keys(), units)[0]

    def each_word(self, rate: float, tokens_BT: Tensor) -> Tensor:
        """[B, T] of bool: the same wherever a sequence has the word."""
        return philox.bernoulli_at(self.seed, rate, self._keys().unsqueeze(1), tokens_BT)

    def shared(self, rate: float, rows: int, units: int) -> Tensor:
        """[rows, H] of bool: the same for all sequences."""
        key = torch.zeros(1, dtype=torch.int64, device=self.device)
        return philox.bernoulli(self.seed, rate, rows, key, units).squeeze(1)


def draws_of(seed: int, count: int, keys: Tensor | Sequence[int] | np.ndarray | None = None) -> list[Draw]:
    """Several draws, of which two seeds have none in common; more draws begin with those of fewer.

    Raises:
        ValueError: fewer than one draw.
    """
    check_whole("draws", count, 1)
    return [Draw(mix(seed, number), keys) for number in range(count)]


def factors(dropped: Tensor, rate: float, like: Tensor) -> Tensor:
    """0 where dropped, else 1 / (1 - p): their expectation is 1. p is the rate as it was drawn, to 2^-16."""
    scale = 2**16 / (2**16 - philox.threshold(rate))
    return dropped.logical_not().to(like) * scale


def mix(*numbers: int) -> int:
    """One 64-bit seed from several integers: SplitMix64's mixing (Steele et al. 2014) folded over them."""
    state = 0
    for number in numbers:
        state = (state + (number & _WORD) + 0x9E3779B97F4A7C15) & _WORD
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _WORD
        state ^= state >> 31
    return state
