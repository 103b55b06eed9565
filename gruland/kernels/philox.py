"""Masks from a counter: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

An entry is a function of (seed, key of the sequence, time, unit) alone, so that a mask is the same in every batch, on
every device and in every process, and a kernel can draw it where it needs it. The counter is (unit, the key's low half,
time // 8, the key's high half), Philox's key the seed's two halves; the four words of an output are the draws of 8 time
steps, 16 bits each, the lower half of the first word first. An entry is 1 where its 16 bits are below
``threshold(rate)``. Three programs give the same masks: PyTorch's integers below, ``cpu/draws.cpp`` and the Triton
kernels.

T time steps, B sequences, H hidden units.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gruland.kernels.cpu import draws as compiled

ROUNDS = 10
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_WORD = 2**32 - 1
#: Time steps that one output of the generator serves.
STEPS = 8


def threshold(rate: float) -> int:
    """The number of the 65,536 values of a draw that give 1: the rate to within 1 / 131,072."""
    return round(rate * 2**16)


def bernoulli(seed: int, rate: float, steps: int, keys_B: Tensor, units: int) -> Tensor:
    """A mask [T, B, H] of bool on the keys' device, each entry 1 with probability ``rate``.

    Args:
        seed: any integer; its lower 64 bits count.
        rate: in [0, 1], rounded to a multiple of 2^-16.
        steps: T; a mask of more steps begins with that of fewer.
        keys_B: int64, what tells the sequences apart.
        units: H; a mask of more units begins with that of fewer.
    """
    if compiled.available(keys_B.device):
        return compiled.bernoulli(seed, threshold(rate), steps, keys_B, units)
    return bernoulli_in_torch(seed, rate, steps, keys_B, units)


def bernoulli_in_torch(seed: int, rate: float, steps: int, keys_B: Tensor, units: int) -> Tensor:
    """:func:`bernoulli` in PyTorch's integers, on every device."""
    return integers(seed, steps, keys_B, units) < threshold(rate)


def integers(seed: int, steps: int, keys_B: Tensor, units: int) -> Tensor:
    """The draws [T, B, H] that masks are made of: int64, uniform from 0 to 65,535."""
    sizes = -(-steps // STEPS), len(keys_B), units
    block_WBH, unit_WBH = (
        torch.arange(size, device=keys_B.device).view(shape).expand(sizes)
        for size, shape in ((sizes[0], (-1, 1, 1)), (units, (1, 1, -1)))
    )
    key_WBH = keys_B.view(1, -1, 1).expand(sizes)
    words = philox(seed, unit_WBH, key_WBH & _WORD, block_WBH, key_WBH >> 32 & _WORD)
    draws = torch.stack([half for word in words for half in (word & 0xFFFF, word >> 16)], 1)
    return draws.flatten(0, 1)[:steps]


def bernoulli_at(seed: int, rate: float, keys: Tensor, numbers: Tensor) -> Tensor:
    """A mask of bool, an entry for each pair of a key and a number in [0, 2^32), as of a word in the vocabulary."""
    keys = keys.expand_as(numbers)
    words = philox(seed, torch.zeros_like(numbers), keys & _WORD, numbers, keys >> 32 & _WORD)
    return (words[0] & 0xFFFF) < threshold(rate)


def philox(seed: int, *counters: Tensor) -> tuple[Tensor, ...]:
    """Four random words (in int64, 0 to 2^32 - 1) for each counter of four words."""
    c0, c1, c2, c3 = counters
    keys = [seed & _WORD, seed >> 32 & _WORD]
    for _ in range(ROUNDS):
        # A product of two words may wrap around in int64: its 64 bits are right all the same.
        a, b = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c2 = (b >> 32 & _WORD) ^ c1 ^ keys[0], (a >> 32 & _WORD) ^ c3 ^ keys[1]
        c1, c3 = b & _WORD, a & _WORD
        keys = [(key + step) & _WORD for key, step in zip(keys, _KEY_STEPS, strict=True)]
    return c0, c1, c2, c3
