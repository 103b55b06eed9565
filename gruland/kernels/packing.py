"""Batches of sequences of different lengths without their padding.

T time steps, B sequences, I numbers a step; S rows of a packed batch: the running sequences of step 0, then those of
step 1, ... With lengths of 3, 2 and 1 steps, ``running`` is [3, 2, 1] and S = 6.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


def running_rows(running: list[int], time_steps: int, sequences: int, device: torch.device) -> Tensor | None:
    """The rows of a [T * B, ...] batch that hold steps of running sequences; None if all of them do."""
    if len(running) == time_steps and running[-1] == sequences:
        return None
    runs = torch.arange(sequences) < torch.tensor(running).unsqueeze(1)
    return runs.flatten().nonzero().squeeze(1).to(device)


def pack(x_TBI: Any, rows: Tensor | None) -> Any:
    """[T, B, I] -> [S, I]; None stays None."""
    if x_TBI is None:
        return None
    x_RI = x_TBI.reshape(-1, x_TBI.shape[2])
    return x_RI if rows is None else x_RI.index_select(0, rows)


def unpack(x_SI: Tensor, rows: Tensor | None, time_steps: int, sequences: int) -> Tensor:
    """[S, I] -> [T, B, I], zero where nothing runs."""
    if rows is not None:
        x_SI = x_SI.new_zeros(time_steps * sequences, x_SI.shape[1]).index_copy_(0, rows, x_SI)
    return x_SI.view(time_steps, sequences, -1)


def previous_states(states_SH: Tensor, running: list[int]) -> Tensor:
    """The state before each row's step [S, H], of states [B + S, H] that begin with h0."""
    rows = len(states_SH) - running[0]
    if running[-1] == running[0]:
        return states_SH[:rows]
    # Row i of step t lies at i + the sum of running[:t]; its previous state running[t - 1] rows before that,
    # counted in states_SH, which begins B rows earlier.
    shift = torch.tensor([0, *(running[0] - n for n in running[:-1])])
    index = torch.arange(rows) + shift.repeat_interleave(torch.tensor(running))
    return states_SH.index_select(0, index.to(states_SH.device))


def last(states_TBH: Tensor, active: Tensor) -> Tensor:
    """The states after the sequences' last steps [B, H]; ``active`` [T] is how many run at each step."""
    sequences = torch.arange(states_TBH.shape[1])
    lengths_B = (active.unsqueeze(1) > sequences).sum(0)
    final = tuple(index.to(states_TBH.device) for index in (lengths_B - 1, sequences))
    return states_TBH[final]


def pack_as(like: PackedSequence, x_TBI: Tensor) -> PackedSequence:
    """A padded batch, in the order of the caller's sequences, packed as another one is."""
    if like.sorted_indices is not None:
        x_TBI = x_TBI.index_select(1, like.sorted_indices)
    steps, sequences = x_TBI.shape[:2]
    rows = running_rows(like.batch_sizes.tolist(), steps, sequences, x_TBI.device)
    return PackedSequence(pack(x_TBI, rows), like.batch_sizes, like.sorted_indices, like.unsorted_indices)
