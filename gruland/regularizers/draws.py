"""Zoneout and DropConnect: the random masks of a recurrent layer.

T time steps, B sequences, H hidden units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_WORD = 2**64 - 1


class Masks(NamedTuple):
    """The masks of one layer for one forward pass; a part that is None acts as in evaluation.

    Attributes:
        zoneout: [B, T, H] zeros and ones, or bool; 1 = the unit keeps its previous value at that step.
        recurrent: [3H, H] factors of the hidden-to-hidden matrix: 0, or 1 / (1 - p).
    """

    zoneout: Tensor | None = None
    recurrent: Tensor | None = None


def zoneout_mask(
    time_steps: int,
    sequences: int,
    hidden_size: int,
    rate: float,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """A draw with probability ``rate`` for each (sequence, time, unit): [B, T, H], 1 = keep the old value.

    Krueger et al. 2017, "Zoneout", section 3. The rate is rounded to a multiple of 2**-16: four draws come from one
    64-bit number. The result is bool, and its memory is time-major, as the kernels read it.
    """
    shape, threshold = (time_steps, sequences, hidden_size), round(rate * 2**16)
    if threshold == 0:
        return torch.zeros(shape, dtype=torch.bool, device=device).transpose(0, 1)
    numbers = torch.empty(-(-math.prod(shape) // 4), dtype=torch.int64, device=device)
    draws = numbers.random_(-(2**63), None, generator=generator).view(torch.int16)[: math.prod(shape)]
    return (draws <= threshold - 1 - 2**15).view(shape).transpose(0, 1)


def seeded_zoneout_mask(
    lengths: Sequence[int], seeds: Sequence[int], hidden_size: int, rate: float
) -> Tensor:
    """A zoneout mask [B, T, H] on the CPU with a seed for each sequence; T = the longest.

    Entry (b, t, j) is a function of (seeds[b], t, j) alone, whatever the batch; zero beyond the end.

    Raises:
        ValueError: another number of seeds than of lengths.
    """
    if len(lengths) != len(seeds):
        raise ValueError(f"got {len(seeds)} seeds for {len(lengths)} sequences: expected one for each")
    keep_BTH = torch.zeros(len(lengths), max(lengths), hidden_size)
    generator = torch.Generator()
    for keep_TH, length, seed in zip(keep_BTH, lengths, seeds, strict=True):
        generator.manual_seed(seed)
        torch.lt(torch.rand(length, hidden_size, generator=generator), rate, out=keep_TH[:length])
    return keep_BTH


def dropconnect_mask(
    hidden_size: int,
    rate: float,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Factors [3H, H] of a hidden-to-hidden matrix: 0 with probability ``rate``, else 1 / (1 - rate).

    Wan et al. 2013, "Regularization of Neural Networks using DropConnect"; scaled as dropout is, so that the
    weights' expectation is the weights. Rate 1 gives zeros.
    """
    kept = torch.rand(3 * hidden_size, hidden_size, generator=generator, device=device) >= rate
    return kept * (0.0 if rate == 1 else 1 / (1 - rate))


def mix(*numbers: int) -> int:
    """One 64-bit seed from several integers: SplitMix64's mixing (Steele et al. 2014) folded over them."""
    state = 0
    for number in numbers:
        state = (state + (number & _WORD) + 0x9E3779B97F4A7C15) & _WORD
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _WORD
        state ^= state >> 31
    return state
