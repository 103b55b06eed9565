"""Masks by the compiled library (``draws.cpp``), 50 times as fast as by PyTorch's integers.

T time steps, B sequences, H hidden units.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gruland.kernels.cpu.binding import kernel, unavailable


def available(device: torch.device) -> bool:
    """Whether the library is there and the masks are wanted in the processor's memory."""
    return unavailable(device, torch.float32, False) is None


def bernoulli(seed: int, threshold: int, steps: int, keys_B: Tensor, units: int) -> Tensor:
    """:func:`gruland.kernels.philox.bernoulli`: bool [T, B, H]."""
    keys_B = keys_B.to(torch.int64).contiguous()
    mask_TBH = torch.empty(steps, len(keys_B), units, dtype=torch.bool)
    kernel().gru_bernoulli(
        seed % 2**64, threshold, steps, len(keys_B), units, keys_B.data_ptr(), mask_TBH.data_ptr()
    )
    return mask_TBH
