"""A whole stack of layers in evaluation, from tokens to states, in one call. Layout: ``stack.cpp``.

V rows of the table, N tokens, B sequences, H hidden units.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gruland.kernels import Layer
from gruland.kernels.cpu.binding import ACTIVATIONS, Stack, address, kernel, precisions


def final_states(
    table_V3H: Tensor,
    tokens: Tensor | np.ndarray,
    offsets: Tensor | np.ndarray,
    layers: Sequence[Layer],
    *,
    between: str | None = "tanh",
    zoneout: float = 0.0,
    precision: str = "float32",
    initial_BLH: Tensor | None = None,
    keep: Keep | None = None,
) -> Tensor:
    """The last layer's state after each sequence's last step, [B, H], without a gradient.

    A sequence's result depends bit for bit on neither the other sequences nor the number of threads
    (``torch.get_num_threads()``), nor on whether it is run from its first word or from another one's states there.

    Args:
        table_V3H: what the first layer makes of each token, W_ih x + b_ih, gates in the order r, z, n.
        tokens: int32 [N], rows of the table.
        offsets: int64 [B + 1], from 0 to N; sequence b is ``tokens[offsets[b]:offsets[b + 1]]``, of any length
            from 1 on.
        layers: one or more; ``weight_ih`` and ``bias_ih`` of the first are in the table and not read.
        between: the activation between two layers: None, ``"tanh"`` or ``"relu"``.
        zoneout: its rate p; a step gives the expectation p h_{t-1} + (1 - p) GRU(x_t, h_{t-1}).
        precision: one of :func:`precisions`. ``bfloat16`` rounds the operands of matrix products to it, to the
            nearest, ties to even; sums, gates and states stay float32.
        initial_BLH: the layers' states before each sequence's first word, as :func:`states` gives them after an
            earlier one; None: zero.
        keep: zoneout's masks, in the place of their expectation.

    Raises:
        ValueError: shapes, dtypes, tokens or options that don't fit.
    """
    return _run(table_V3H, tokens, offsets, layers, between, zoneout, precision, initial_BLH, keep, False)[0]


def states(
    table_V3H: Tensor,
    tokens: Tensor | np.ndarray,
    offsets: Tensor | np.ndarray,
    layers: Sequence[Layer],
    *,
    between: str | None = "tanh",
    zoneout: float = 0.0,
    precision: str = "float32",
    initial_BLH: Tensor | None = None,
    keep: Keep | None = None,
) -> Tensor:
    """Every layer's states after every word, [N, L, H]; for the rest as :func:`final_states`."""
    return _run(table_V3H, tokens, offsets, layers, between, zoneout, precision, initial_BLH, keep, True)[1]


class Keep(NamedTuple):
    """Zoneout's masks of several sequences, which may overlap: 1 = a unit keeps its state at that step."""

    masks: Tensor  # bool [rows, L, H]
    rows: np.ndarray  # int64 [B], of a sequence's first word; that of its next word is the next one


def _run(
    table_V3H: Tensor,
    tokens: Tensor | np.ndarray,
    offsets: Tensor | np.ndarray,
    layers: Sequence[Layer],
    between: str | None,
    zoneout: float,
    precision: str,
    initial_BLH: Tensor | None,
    keep: Keep | None,
    trace: bool,
) -> tuple[Tensor, Tensor]:
    """The last states [B, H], and with ``trace`` all of them [N, L, H]."""
    _check_options(between, zoneout, precision)
    hidden, depth = _check_layers(table_V3H, layers)
    words, starts = _array("tokens", tokens, np.int32), _array("offsets", offsets, np.int64)
    _check_sequences(words, starts, len(table_V3H))
    sequences = len(starts) - 1
    _check_states(initial_BLH, (sequences, depth, hidden))
    keep_rows = None if keep is None else _check_keep(keep, np.diff(starts), (depth, hidden))
    states_BH = torch.empty(sequences, hidden)
    trace_NLH = torch.empty(len(words) if trace else 0, depth, hidden)
    table, *weights = (tensor.detach().contiguous() for tensor in (table_V3H, *_read(layers)))
    addresses = [None, weights[0].data_ptr(), None, *(tensor.data_ptr() for tensor in weights[1:])]
    initial = None if initial_BLH is None else initial_BLH.detach().contiguous()
    masks = None if keep is None else keep.masks.contiguous()
    stack = Stack(
        hidden,
        depth,
        sequences,
        torch.get_num_threads(),
        ACTIVATIONS.index(between),
        1 - zoneout,
        (ctypes.c_void_p * len(addresses))(*addresses),
        table.data_ptr(),
        *(array.ctypes.data for array in (words, starts)),
        address(initial),
        address(masks),
        None if keep_rows is None else keep_rows.ctypes.data,
        states_BH.data_ptr(),
        trace_NLH.data_ptr() if trace else None,
    )
    if sequences:
        kernel().gru_final_states(ctypes.byref(stack), precision == "bfloat16")
    return states_BH, trace_NLH


def _read(layers: Sequence[Layer]) -> list[Tensor]:
    """What the kernel reads of the layers, in their order."""
    first, *others = layers
    return [first.weight_hh, first.bias_hh, *(tensor for layer in others for tensor in layer)]


def _array(name: str, values: Tensor | np.ndarray, dtype: type[np.integer[Any]]) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype != dtype or array.ndim != 1:
        got = f"{array.dtype} {list(array.shape)}"
        raise ValueError(f"{name} is {got}: expected {np.dtype(dtype)} with one axis")
    return np.ascontiguousarray(array)


def _check_options(between: str | None, zoneout: float, precision: str) -> None:
    if between not in ACTIVATIONS:
        raise ValueError(f"between is {between!r}: expected one of {', '.join(map(repr, ACTIVATIONS))}")
    if not 0 <= zoneout <= 1:
        raise ValueError(f"zoneout is {zoneout}: expected a rate between 0 and 1")
    if precision not in precisions():
        raise ValueError(f"precision is {precision!r}: this processor has {' and '.join(precisions())}")


def _check_layers(table_V3H: Tensor, layers: Sequence[Layer]) -> tuple[int, int]:
    """The hidden size and the number of layers."""
    if not layers:
        raise ValueError("there is no layer: expected one or more")
    hidden = layers[0].weight_hh.shape[-1]
    matrix, bias = (3 * hidden, hidden), (3 * hidden,)
    shapes = dict(zip(Layer._fields, (matrix, matrix, bias, bias), strict=True))
    table: tuple[str, Tensor, tuple[int, ...]] = ("the table", table_V3H, (len(table_V3H), 3 * hidden))
    weights = [
        (f"{name} of layer {index}", getattr(layer, name), shape)
        for index, layer in enumerate(layers)
        for name, shape in shapes.items()
        if index > 0 or name.endswith("hh")
    ]
    for name, tensor, shape in (table, *weights):
        if tensor.shape != shape:
            raise ValueError(f"{name} has shape {list(tensor.shape)}: expected {list(shape)}")
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise ValueError(f"{name} is {tensor.dtype} on {tensor.device}: expected torch.float32 on cpu")
    return hidden, len(layers)


def _check_sequences(words: np.ndarray, starts: np.ndarray, rows: int) -> None:
    """Raises ValueError for what would make the kernel read beyond its arrays."""
    if len(starts) == 0 or starts[0] != 0 or starts[-1] != len(words):
        ends = f"go from {starts[0]} to {starts[-1]}" if len(starts) else "are empty"
        raise ValueError(f"offsets {ends}: expected from 0 to the number of tokens, {len(words)}")
    if (lengths := np.diff(starts)).min(initial=1) < 1:
        index = int(lengths.argmin())
        raise ValueError(f"sequence {index} has the length {lengths[index]}: expected 1 or more")
    if len(words) and (words.min() < 0 or words.max() >= rows):
        raise ValueError(f"tokens go from {words.min()} to {words.max()}: expected rows of a table of {rows}")


def _check_states(initial_BLH: Tensor | None, shape: tuple[int, int, int]) -> None:
    if initial_BLH is None:
        return
    if initial_BLH.shape != shape:
        raise ValueError(f"initial_BLH has shape {list(initial_BLH.shape)}: expected {list(shape)}")
    if initial_BLH.dtype != torch.float32 or initial_BLH.device.type != "cpu":
        raise ValueError(
            f"initial_BLH is {initial_BLH.dtype} on {initial_BLH.device}: expected torch.float32 on cpu"
        )
    # The kernel's tanh of a state is a polynomial, good within these bounds, which no state leaves.
    if len(initial_BLH) and not bool((initial_BLH.abs() <= 1).all()):
        raise ValueError("initial_BLH has states beyond 1: expected those of a GRU, in [-1, 1]")


def _check_keep(keep: Keep, lengths: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The rows of the sequences' first words."""
    rows = _array("keep.rows", keep.rows, np.int64)
    if keep.masks.dtype != torch.bool or keep.masks.device.type != "cpu" or keep.masks.shape[1:] != shape:
        got = f"{keep.masks.dtype} {list(keep.masks.shape)} on {keep.masks.device}"
        raise ValueError(f"keep.masks is {got}: expected torch.bool [rows, {shape[0]}, {shape[1]}] on cpu")
    if len(rows) != len(lengths):
        raise ValueError(f"keep.rows has {len(rows)} rows: expected one for each of {len(lengths)} sequences")
    if len(rows) and (rows.min() < 0 or (rows + lengths).max() > len(keep.masks)):
        last = int((rows + lengths).max())
        raise ValueError(
            f"keep.rows lead from {rows.min()} to {last}: expected rows of masks for {len(keep.masks)} words"
        )
    return rows
