"""Fused float32 kernels for the CPU, compiled for this machine when they are first wanted.

``run_layer`` runs one layer, with gradients (``layer.cpp``: layout and equations); ``final_states`` evaluates a
stack of layers in one call (``stack.cpp``). ``GRULAND_CPU_KERNEL=off`` switches them off.

T time steps, B sequences, I inputs, H hidden units.
"""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gruland.kernels import Layer
from gruland.kernels.cpu import stack
from gruland.kernels.cpu.library import ARCHITECTURES, build, reason_of
from gruland.kernels.cpu.stack import final_states, precisions

__all__ = ["final_states", "load", "precisions", "run_layer", "unavailable"]


def unavailable(device: torch.device, dtype: torch.dtype, training: bool) -> str | None:
    """None if the kernel can run such tensors, else one line that says why not. Compiles the kernel once."""
    if os.environ.get("GRULAND_CPU_KERNEL", "").lower() in ("off", "0", "no", "false"):
        return "switched off by GRULAND_CPU_KERNEL"
    if device.type != "cpu":
        return f"the device is {device.type}, the kernel runs on cpu"
    if dtype != torch.float32:
        return f"the tensors are {str(dtype).removeprefix('torch.')}, the kernel computes in float32"
    library = _library()
    return library if isinstance(library, str) else None


def run_layer(
    x_TBI: Tensor,
    h0_BH: Tensor,
    layer: Layer,
    active: Tensor | Sequence[int],
    keep_TBH: Tensor | None = None,
    zoneout: float = 0.0,
) -> Tensor:
    """The hidden states [T, B, H] of one layer: see :mod:`gruland.kernels`. All tensors are float32.

    A sequence's outputs depend bit for bit on neither the other sequences nor the number of threads
    (``torch.get_num_threads()``), and no gradient depends on the number of threads.
    """
    active = torch.as_tensor(active, dtype=torch.int64)
    _check(x_TBI, h0_BH, layer, active, keep_TBH)
    arguments = _Arguments(x_TBI, h0_BH, *layer, active, keep_TBH, zoneout)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x_TBI, h0_BH, *layer)):
        return _GRULayer.apply(*arguments)
    return _forward(arguments, save=False)[0]


class _Arguments(NamedTuple):
    x_TBI: Tensor
    h0_BH: Tensor
    weight_ih: Tensor  # [3H, I]
    weight_hh: Tensor  # [3H, H]
    bias_ih: Tensor  # [3H]
    bias_hh: Tensor  # [3H]
    active: Tensor  # [T]
    keep_TBH: Tensor | None
    zoneout: float


class _GRULayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        states_TBH, ctx.slopes = _forward(_Arguments(*arguments), save=True)
        *tensors, ctx.zoneout = arguments
        ctx.save_for_backward(*tensors, states_TBH)
        return states_TBH

    @staticmethod
    def backward(ctx: Any, grad_TBH: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("create_graph=True: the explicit backward pass has no second derivative")
        *tensors, states_TBH = ctx.saved_tensors
        arguments = _Arguments._make([*tensors, ctx.zoneout])
        # The backward pass works in the slopes' memory; with retain_graph a second one needs them anew.
        slopes, ctx.slopes = ctx.slopes, None
        if slopes is None:
            slopes = _forward(arguments, save=True)[1]
        return _backward(arguments, states_TBH, slopes, grad_TBH, ctx.needs_input_grad)


def _forward(arguments: _Arguments, save: bool) -> tuple[Tensor, Tensor | None]:
    """The states [T, B, H] and, if they are to be saved, the slopes for the backward pass."""
    x_TBI, hidden = arguments.x_TBI, arguments.h0_BH.shape[1]
    states_TBH = x_TBI.new_empty(*x_TBI.shape[:2], hidden)
    rows = int(arguments.active.sum()) if save else 0
    slopes = x_TBI.new_empty(rows * _kernel().gru_saved_floats(hidden)) if save else None
    batch, keep = _Batch.of(arguments, states_TBH), _Rows.of(arguments.keep_TBH)
    _kernel().gru_forward(batch, keep, arguments.zoneout, _address(slopes))
    return states_TBH, slopes


def _backward(
    arguments: _Arguments, states_TBH: Tensor, slopes: Tensor, grad_TBH: Tensor, needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """The gradients of the arguments, None for a matrix that needs none; the slopes are used up."""
    batch = _Batch.of(arguments, states_TBH)
    optional = {"x_TBI", "weight_ih", "weight_hh"}
    grads = {
        name: tensor.new_empty(tensor.shape) if wanted or name not in optional else None
        for name, tensor, wanted in zip(_Arguments._fields[:6], arguments[:6], needed, strict=False)
    }
    grad_x = grads.pop("x_TBI")
    rows = _Rows.of(grad_TBH), _Rows.of(grad_x)
    _kernel().gru_backward(batch, _address(slopes), *rows, *map(_address, grads.values()))
    return grad_x, *grads.values(), None, None, None


class _Rows(ctypes.Structure):
    """A [T, B, n] tensor whose last axis is contiguous; the object keeps its memory alive."""

    _fields_ = (("data", ctypes.c_void_p), ("step", ctypes.c_int64), ("sequence", ctypes.c_int64))

    @classmethod
    def of(cls, tensor: Tensor | None) -> _Rows:
        if tensor is None:
            return cls(None, 0, 0)
        dense = tensor if tensor.stride(-1) == 1 else tensor.contiguous()
        rows = cls(dense.data_ptr(), *dense.stride()[:2])
        rows.tensor = dense
        return rows


class _Batch(ctypes.Structure):
    """The arguments that both passes share; the object keeps their memory alive."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("steps", "sequences", "inputs", "hidden", "threads")),
        ("active", ctypes.c_void_p),
        ("x", _Rows),
        ("states", _Rows),
        *((name, ctypes.c_void_p) for name in ("h0", "weight_ih", "weight_hh", "bias_ih", "bias_hh")),
    )

    @classmethod
    def of(cls, arguments: _Arguments, states_TBH: Tensor) -> _Batch:
        x, states = _Rows.of(arguments.x_TBI), _Rows.of(states_TBH)
        active, *dense = (tensor.contiguous() for tensor in (arguments.active, *arguments[1:6]))
        sizes = (*arguments.x_TBI.shape, states_TBH.shape[2], torch.get_num_threads())
        batch = cls(*sizes, active.data_ptr(), x, states, *map(_address, dense))
        batch.tensors = (x, states, active, *dense)
        return batch


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _check(x_TBI: Tensor, h0_BH: Tensor, layer: Layer, active: Tensor, keep_TBH: Tensor | None) -> None:
    """Raises ValueError for what would make the kernel read or write beyond its tensors."""
    (steps, sequences, inputs), hidden = x_TBI.shape, layer.weight_hh.shape[1]
    shapes = {
        "h0": (h0_BH, (sequences, hidden)),
        "weight_ih": (layer.weight_ih, (3 * hidden, inputs)),
        "weight_hh": (layer.weight_hh, (3 * hidden, hidden)),
        "bias_ih": (layer.bias_ih, (3 * hidden,)),
        "bias_hh": (layer.bias_hh, (3 * hidden,)),
        "active": (active, (steps,)),
        "keep": (keep_TBH, (steps, sequences, hidden)),
    }
    for name, (tensor, shape) in shapes.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name} has shape {list(tensor.shape)}: expected {list(shape)}")
    for tensor in (x_TBI, h0_BH, *layer, keep_TBH):
        if tensor is not None and (tensor.dtype != torch.float32 or tensor.device.type != "cpu"):
            raise ValueError(
                f"the CPU kernel takes float32 tensors on cpu: got {tensor.dtype} on {tensor.device}"
            )
    counts = active.tolist()
    if not counts or counts[0] != sequences or counts != sorted(counts, reverse=True) or counts[-1] < 0:
        raise ValueError(f"active is {counts}: expected {sequences} first and falling numbers of sequences")


def _kernel() -> Any:
    library = _library()
    if isinstance(library, str):
        raise RuntimeError(f"the CPU kernel cannot run: {library}; take another backend")
    return library


@cache
def _library() -> ctypes.CDLL | str:
    """The loaded kernel, or one line that says why there is none (then also logged, once)."""
    reason = ""
    for architecture in ARCHITECTURES:
        try:
            return load(build(architecture))
        except (OSError, subprocess.CalledProcessError) as error:
            reason = reason or reason_of(error)
    logging.getLogger(__name__).warning("no fused CPU kernel: %s", reason)
    return reason


def load(path: Path) -> ctypes.CDLL:
    """The library with its functions' types. Raises OSError if it is no library for this machine."""
    library = ctypes.CDLL(str(path))
    pointer, batch = ctypes.c_void_p, ctypes.POINTER(_Batch)
    library.gru_saved_floats.restype = ctypes.c_int64
    library.gru_saved_floats.argtypes = [ctypes.c_int64]
    library.gru_forward.argtypes = [batch, _Rows, ctypes.c_float, pointer]
    library.gru_backward.argtypes = [batch, pointer, _Rows, _Rows, *[pointer] * 5]
    library.gru_forward.restype = library.gru_backward.restype = None
    stack.declare(library)
    return library
