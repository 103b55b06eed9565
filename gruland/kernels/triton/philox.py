"""Zoneout masks from a counter: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

A mask's entry is a function of (seed, time, sequence, unit) alone, so that a kernel draws it where it needs it
and draws it again elsewhere, and no mask is stored. The counter is (unit, sequence, time // 8, 0), the key the
seed's two halves; the four words of an output are the draws of 8 time steps, 16 bits each, the lower half of
the first word first. A unit keeps its value where its 16 bits are below ``threshold(rate)``.

T time steps, B sequences, H hidden units.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 10
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_WORD = 2**32 - 1
#: Time steps that one output of the generator serves.
STEPS = 8


def threshold(rate: float) -> int:
    """The number of the 65,536 values of a draw that keep a unit: the rate to within 1 / 131,072."""
    return round(rate * 2**16)


def zoneout_mask(
    seed: int, steps: int, sequences: int, hidden: int, rate: float, device: torch.device | str = "cpu"
) -> Tensor:
    """The mask [T, B, H] that ``run_layer(..., keep_seed=seed, zoneout=rate)`` draws: float32, 1 = keep.

    Args:
        seed: any integer; its lower 64 bits count. Layers need seeds of their own.
        steps, sequences, hidden: T, B and H; a larger mask begins with the smaller one along each axis.
        rate: the probability of 1, in [0, 1].
    """
    sizes = -(-steps // STEPS), sequences, hidden
    block_WBH, sequence_WBH, unit_WBH = (
        torch.arange(size, device=device).view(shape).expand(sizes)
        for size, shape in zip(sizes, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), strict=True)
    )
    words = philox(seed, unit_WBH, sequence_WBH, block_WBH, torch.zeros_like(unit_WBH))
    draws = torch.stack([half for word in words for half in (word & 0xFFFF, word >> 16)], 1)
    return (draws.flatten(0, 1)[:steps] < threshold(rate)).float()


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
