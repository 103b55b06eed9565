"""The compiled kernels as a shared library: its structures and functions, loaded once in a process."""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gruland.kernels.cpu.compilation import ARCHITECTURES, build, reason_of
from gruland.kernels.threads import once

#: The activations between layers, by their numbers in ``stack.cpp`` and ``layer.cpp``.
ACTIVATIONS = (None, "tanh", "relu")


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
    loaded = compiled()
    if isinstance(loaded, str):
        return loaded
    if precision == "bfloat16" and not loaded.gru_multiplies_bfloat16():
        return "this processor does not multiply in bfloat16 (AVX512-BF16), or the compiler does not know it"
    return None


def precisions() -> tuple[str, ...]:
    """What this machine's kernel can multiply in, the fastest last: ``float32``, perhaps ``bfloat16``.

    Raises RuntimeError where :func:`unavailable` says that there is no kernel.
    """
    return ("float32", "bfloat16") if kernel().gru_multiplies_bfloat16() else ("float32",)


def kernel() -> Any:
    """The loaded library. Raises RuntimeError where there is none."""
    loaded = compiled()
    if isinstance(loaded, str):
        raise RuntimeError(f"the CPU kernel cannot run: {loaded}; take another backend")
    return loaded


@once
def compiled() -> ctypes.CDLL | str:
    """The loaded library, or one line that says why there is none (then also logged, once)."""
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
    pointer, batch, flag = ctypes.c_void_p, ctypes.POINTER(Batch), ctypes.c_int
    library.gru_saved_floats.restype = ctypes.c_int64
    library.gru_saved_floats.argtypes = [ctypes.c_int64]
    library.gru_multiplies_bfloat16.argtypes, library.gru_multiplies_bfloat16.restype = [], flag
    library.gru_forward.argtypes = [batch, flag, Keep, Rows, ctypes.c_float, pointer]
    library.gru_backward.argtypes = [batch, flag, pointer, Rows, pointer, Rows, *[pointer] * 5]
    library.gru_forward.restype = library.gru_backward.restype = None
    library.gru_final_states.argtypes = [ctypes.POINTER(Stack), ctypes.c_bool]
    library.gru_final_states.restype = None
    number = ctypes.c_int64
    library.gru_bernoulli.argtypes = [
        ctypes.c_uint64,
        ctypes.c_uint32,
        number,
        number,
        number,
        pointer,
        pointer,
    ]
    library.gru_bernoulli.restype = None
    return library


class Rows(ctypes.Structure):
    """A [T, B, n] tensor whose last axis is contiguous; the object keeps its memory alive."""

    _fields_ = (("data", ctypes.c_void_p), ("step", ctypes.c_int64), ("sequence", ctypes.c_int64))

    @classmethod
    def of(cls, tensor: Tensor | None) -> Rows:
        if tensor is None:
            return cls(None, 0, 0)
        dense = tensor if tensor.stride(-1) == 1 else tensor.contiguous()
        rows = cls(dense.data_ptr(), *dense.stride()[:2])
        rows.tensor = dense
        return rows


class Keep(ctypes.Structure):
    """A zoneout mask of floats or of bytes."""

    _fields_ = (
        ("floats", Rows),
        ("bytes", ctypes.c_void_p),
        ("step", ctypes.c_int64),
        ("sequence", ctypes.c_int64),
    )

    @classmethod
    def of(cls, keep_TBH: Tensor | None) -> Keep:
        rows, nothing = Rows.of(keep_TBH), Rows.of(None)
        if keep_TBH is not None and keep_TBH.dtype == torch.bool:
            keep = cls(nothing, rows.data, rows.step, rows.sequence)
        else:
            keep = cls(rows, None, 0, 0)
        keep.rows = rows
        return keep


class Batch(ctypes.Structure):
    """The arguments that both passes of a layer share."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("steps", "sequences", "inputs", "hidden", "threads")),
        ("active", ctypes.c_void_p),
        ("raw", Rows),
        ("x", Rows),
        ("states", Rows),
        ("activation", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("h0", "weight_ih", "weight_hh", "bias_ih", "bias_hh")),
    )


class Stack(ctypes.Structure):
    """The arguments of an evaluation of a whole stack of layers."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("hidden", "depth", "sequences", "threads", "between")),
        ("update", ctypes.c_float),
        ("layers", ctypes.POINTER(ctypes.c_void_p)),
        *((name, ctypes.c_void_p) for name in ("table", "words", "offsets", "initial", "keep", "keep_rows")),
        *((name, ctypes.c_void_p) for name in ("states", "trace")),
    )


def address(tensor: Tensor | None) -> int | None:
    """Where a tensor's numbers lie; None stays None."""
    return None if tensor is None else tensor.data_ptr()
