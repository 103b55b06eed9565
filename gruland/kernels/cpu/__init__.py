"""Fused kernels for the CPU, compiled for this machine when they are first wanted.

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
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from gruland.kernels import Layer
from gruland.kernels.cpu import stack
from gruland.kernels.cpu.compilation import ARCHITECTURES, build, reason_of
from gruland.kernels.cpu.stack import BETWEEN, final_states, precisions

__all__ = ["final_states", "load", "precisions", "run_layer", "run_layers", "unavailable"]

_CPU = torch.device("cpu")


def unavailable(
    device: torch.device, dtype: torch.dtype, training: bool, precision: str = "float32"
) -> str | None:
    """None if the kernel can run such tensors, else one line that says why not. Compiles the kernel once."""
    if os.environ.get("GRULAND_CPU_KERNEL", "").lower() in ("off", "0", "no", "false"):
        return "switched off by GRULAND_CPU_KERNEL"
    if device.type != "cpu":
        return f"the device is {device.type}, the kernel runs on cpu"
    if dtype != torch.float32:
        return f"the tensors are {str(dtype).removeprefix('torch.')}, the kernel computes in float32"
    library = _library()
    if isinstance(library, str):
        return library
    if precision == "bfloat16" and not library.gru_multiplies_bfloat16():
        return "this processor does not multiply in bfloat16 (AVX512-BF16), or the compiler does not know it"
    return None


def run_layer(
    x_TBI: Tensor,
    h0_BH: Tensor,
    layer: Layer,
    active: Tensor | Sequence[int],
    keep_TBH: Tensor | None = None,
    zoneout: float = 0.0,
    precision: str = "float32",
) -> Tensor:
    """The hidden states [T, B, H] of one layer: see :mod:`gruland.kernels`. All tensors are float32.

    ``keep_TBH`` may be bool as well. A sequence's outputs depend bit for bit on neither the other sequences nor
    the number of threads (``torch.get_num_threads()``), and no gradient depends on the number of threads.
    """
    return _run(_Arguments(x_TBI, h0_BH, *layer, _counts(active), keep_TBH, zoneout, precision))[0]


def run_layers(
    x_TBI: Tensor,
    state_LBH: Tensor,
    layers: Sequence[Layer],
    active: Tensor | Sequence[int],
    keeps: Sequence[Tensor | None],
    zoneout: float = 0.0,
    precision: str = "float32",
    between: str | None = None,
) -> tuple[Tensor, Tensor]:
    """A stack of layers: see :func:`gruland.kernels.run_layers`, whose passes over memory between the layers and
    after the last steps the kernel makes on its way."""
    active, activation, last = _counts(active), None, []
    for layer, h0_BH, keep_TBH in zip(layers, state_LBH, keeps, strict=True):
        arguments = _Arguments(x_TBI, h0_BH, *layer, active, keep_TBH, zoneout, precision, activation)
        x_TBI, last_BH = _run(arguments)
        last.append(last_BH)
        activation = between
    return x_TBI, torch.stack(last)


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
    precision: str
    activation: str | None = None  # what x goes through before it is the layer's input

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self[:6]


def _run(arguments: _Arguments) -> tuple[Tensor, Tensor]:
    """The states [T, B, H], and [B, H] those after each sequence's last step."""
    _check(arguments)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in arguments.tensors):
        return _GRULayer.apply(*arguments)
    states_TBH = _forward(arguments, save=False).states_TBH
    return states_TBH, _last(states_TBH, arguments.active)


class _GRULayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        result = _forward(_Arguments(*arguments), save=True)
        ctx.options, ctx.slopes = arguments[8:], result.slopes
        ctx.save_for_backward(*arguments[:8], result.input_TBI, result.states_TBH)
        ctx.set_materialize_grads(False)
        return result.states_TBH, _last(result.states_TBH, arguments[6])

    @staticmethod
    def backward(ctx: Any, grad_TBH: Tensor | None, grad_last_BH: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("create_graph=True: the explicit backward pass has no second derivative")
        *tensors, input_TBI, states_TBH = ctx.saved_tensors
        arguments = _Arguments(*tensors, *ctx.options)
        # The backward pass works in the slopes' memory; with retain_graph a second one needs them anew.
        slopes, ctx.slopes = ctx.slopes, None
        if slopes is None:
            slopes = _forward(arguments, save=True).slopes
        result = _Result(states_TBH, input_TBI, slopes)
        grads = _backward(arguments, result, grad_TBH, grad_last_BH, ctx.needs_input_grad)
        _Slopes.give_back(slopes)
        return *grads, *[None] * 5


class _Result(NamedTuple):
    states_TBH: Tensor
    input_TBI: Tensor  # x after the activation
    slopes: Tensor | None  # what the backward pass needs, if it was to be saved


class _Slopes:
    """Memory of slopes, kept for the next step: the system's pages cost more than what is written to them.

    The largest are kept, and serve for fewer numbers too: batches of all lengths follow each other.
    """

    MOST = 4
    _spare: ClassVar[list[Tensor]] = []  # by rising size

    @classmethod
    def take(cls, numbers: int) -> Tensor:
        for index, tensor in enumerate(cls._spare):
            if numbers <= len(tensor):
                return cls._spare.pop(index)
        return torch.empty(numbers)

    @classmethod
    def give_back(cls, slopes: Tensor) -> None:
        cls._spare = sorted([*cls._spare, slopes], key=len)[-cls.MOST :]


def _forward(arguments: _Arguments, save: bool) -> _Result:
    x_TBI, hidden, active = arguments.x_TBI, arguments.h0_BH.shape[1], arguments.active
    steps, sequences = x_TBI.shape[:2]
    states_TBH = x_TBI.new_empty(steps, sequences, hidden)
    input_TBI = x_TBI if arguments.activation is None else torch.empty_like(x_TBI)
    slopes = _Slopes.take(int(active.sum()) * _kernel().gru_saved_floats(hidden)) if save else None
    batch, keep = _Batch.of(arguments, input_TBI, states_TBH), _Keep.of(arguments.keep_TBH)
    _kernel().gru_forward(batch, _bfloat16(arguments), keep, arguments.zoneout, _address(slopes))
    return _Result(states_TBH, input_TBI, slopes)


def _last(states_TBH: Tensor, active: Tensor) -> Tensor:
    """[B, H] the states after the sequences' last steps."""
    sequences = torch.arange(states_TBH.shape[1])
    lengths_B = (active.unsqueeze(1) > sequences).sum(0)
    return states_TBH[lengths_B - 1, sequences]


def _backward(
    arguments: _Arguments,
    result: _Result,
    grad_TBH: Tensor | None,
    grad_last_BH: Tensor | None,
    needed: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """The gradients of the six tensors, None for a matrix that needs none; the slopes are used up."""
    batch = _Batch.of(arguments, result.input_TBI, result.states_TBH)
    optional = {"x_TBI", "weight_ih", "weight_hh"}
    grads = {
        name: tensor.new_empty(tensor.shape) if wanted or name not in optional else None
        for name, tensor, wanted in zip(_Arguments._fields, arguments.tensors, needed, strict=False)
    }
    grad_x = grads.pop("x_TBI")
    last = None if grad_last_BH is None else grad_last_BH.contiguous()
    given = _Rows.of(grad_TBH), _address(last), _Rows.of(grad_x)
    _kernel().gru_backward(
        batch, _bfloat16(arguments), _address(result.slopes), *given, *map(_address, grads.values())
    )
    return grad_x, *grads.values()


def _bfloat16(arguments: _Arguments) -> bool:
    return arguments.precision == "bfloat16"


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


class _Keep(ctypes.Structure):
    """A zoneout mask of floats or of bytes."""

    _fields_ = (
        ("floats", _Rows),
        ("bytes", ctypes.c_void_p),
        ("step", ctypes.c_int64),
        ("sequence", ctypes.c_int64),
    )

    @classmethod
    def of(cls, keep_TBH: Tensor | None) -> _Keep:
        rows, nothing = _Rows.of(keep_TBH), _Rows.of(None)
        if keep_TBH is not None and keep_TBH.dtype == torch.bool:
            keep = cls(nothing, rows.data, rows.step, rows.sequence)
        else:
            keep = cls(rows, None, 0, 0)
        keep.rows = rows
        return keep


class _Batch(ctypes.Structure):
    """The arguments that both passes share; the object keeps their memory alive."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("steps", "sequences", "inputs", "hidden", "threads")),
        ("active", ctypes.c_void_p),
        ("raw", _Rows),
        ("x", _Rows),
        ("states", _Rows),
        ("activation", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("h0", "weight_ih", "weight_hh", "bias_ih", "bias_hh")),
    )

    @classmethod
    def of(cls, arguments: _Arguments, input_TBI: Tensor, states_TBH: Tensor) -> _Batch:
        rows = [_Rows.of(tensor) for tensor in (arguments.x_TBI, input_TBI, states_TBH)]
        active, *dense = (tensor.contiguous() for tensor in (arguments.active, *arguments[1:6]))
        sizes = (*arguments.x_TBI.shape, states_TBH.shape[2], torch.get_num_threads())
        activation = BETWEEN.index(arguments.activation)
        batch = cls(*sizes, active.data_ptr(), *rows, activation, *map(_address, dense))
        batch.tensors = (rows, active, *dense)
        return batch


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _counts(active: Tensor | Sequence[int]) -> Tensor:
    return torch.as_tensor(active, dtype=torch.int64)


def _check(arguments: _Arguments) -> None:
    """Raises ValueError for what would make the kernel read or write beyond its tensors."""
    (steps, sequences, inputs), hidden = arguments.x_TBI.shape, arguments.weight_hh.shape[1]
    shapes = {
        "h0_BH": (sequences, hidden),
        "weight_ih": (3 * hidden, inputs),
        "weight_hh": (3 * hidden, hidden),
        "bias_ih": (3 * hidden,),
        "bias_hh": (3 * hidden,),
        "active": (steps,),
        "keep_TBH": (steps, sequences, hidden),
    }
    for name, shape in shapes.items():
        tensor = getattr(arguments, name)
        if tensor is not None and tensor.shape != shape:
            name = name.removesuffix("_BH").removesuffix("_TBH")
            raise ValueError(f"{name} has shape {list(tensor.shape)}: expected {list(shape)}")
    keep = arguments.keep_TBH
    for tensor in (*arguments.tensors, *([] if keep is None or keep.dtype == torch.bool else [keep])):
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise ValueError(
                f"the CPU kernel takes float32 tensors on cpu: got {tensor.dtype} on {tensor.device}"
            )
    counts = arguments.active.tolist()
    if not counts or counts[0] != sequences or counts != sorted(counts, reverse=True) or counts[-1] < 0:
        raise ValueError(f"active is {counts}: expected {sequences} first and falling numbers of sequences")
    if why := unavailable(_CPU, torch.float32, True, arguments.precision):
        raise ValueError(f"precision {arguments.precision!r} cannot run: {why}")


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
    flag = ctypes.c_int
    library.gru_multiplies_bfloat16.argtypes, library.gru_multiplies_bfloat16.restype = [], flag
    library.gru_forward.argtypes = [batch, flag, _Keep, ctypes.c_float, pointer]
    library.gru_backward.argtypes = [batch, flag, pointer, _Rows, pointer, _Rows, *[pointer] * 5]
    library.gru_forward.restype = library.gru_backward.restype = None
    stack.declare(library)
    return library
