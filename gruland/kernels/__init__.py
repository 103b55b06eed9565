"""Backends that run one GRU layer over a batch of sequences, and the choice among them.

T time steps, B sequences, I inputs, H hidden units; gates in torch's order r, z, n.

A backend is a module with two functions::

    run_layer(x_TBI, h0_BH, layer, active, keep_TBH=None, zoneout=0.0) -> h_TBH
    unavailable(device, dtype, training) -> str | None      # None: it can run; else one line: why not

``active`` (int64 on the CPU, or a list, [T]) is the number of sequences that still run at each step. It never
rises: the sequences are sorted by falling length, and ``active[0] == B``. With the candidate
c_t = GRU(x_t, h_{t-1}) a step gives

    h_t = keep_t * h_{t-1} + (1 - keep_t) * c_t     keep_TBH of zeros and ones, in x's dtype: one zoneout mask
    h_t = p * h_{t-1} + (1 - p) * c_t               without keep_TBH: the expectation for p = zoneout

Beyond a sequence's length the output is zero and nothing gets a gradient from there. ``run_layer`` works in
any grad mode, in training and in evaluation.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import NamedTuple

# In this package the plain name is the submodule's.
import torch as pytorch
from torch import Tensor

#: ``auto`` takes the first of these that can run.
AUTO = ("cpu", "triton", "torch")
NAMES = (*AUTO, "haste")


class Layer(NamedTuple):
    """The weights of one layer, laid out as ``torch.nn.GRU``'s."""

    weight_ih: Tensor  # [3H, I]
    weight_hh: Tensor  # [3H, H], DropConnect already applied
    bias_ih: Tensor  # [3H]
    bias_hh: Tensor  # [3H]


def check_name(name: str) -> str:
    """The name itself. Raises ValueError if there is no such backend."""
    if name not in ("auto", *NAMES):
        raise ValueError(f"backend {name!r} is unknown: expected one of auto, {', '.join(NAMES)}")
    return name


def choose(name: str, device: pytorch.device, dtype: pytorch.dtype, training: bool = False) -> ModuleType:
    """The backend's module for tensors of this device and dtype; ``training``: gradients are wanted.

    ``auto`` takes the first of ``AUTO`` that can run; ``haste`` runs only by name.

    Raises ValueError for an unknown name and for a backend that cannot run these tensors.
    """
    if check_name(name) == "auto":
        # On the CPU Triton has only its interpreter, which is for tests.
        names = [n for n in AUTO if n != "triton" or device.type == "cuda"]
        return next(_load(n) for n in names if why_not(n, device, dtype, training) is None)
    reason = why_not(name, device, dtype, training)
    if reason is not None:
        raise ValueError(f"backend {name!r} cannot run here: {reason}; backend='auto' takes one that can")
    return _load(name)


def why_not(name: str, device: pytorch.device, dtype: pytorch.dtype, training: bool) -> str | None:
    """None if the backend can run these tensors, else one line that says why not."""
    try:
        module = _load(name)
    except ImportError as error:
        return str(error)
    return module.unavailable(device, dtype, training)


def available(
    device: pytorch.device | str = "cpu", dtype: pytorch.dtype = pytorch.float32, training: bool = True
) -> list[str]:
    """The names of the backends that can run such tensors, in the order of ``NAMES``."""
    return [n for n in NAMES if why_not(n, pytorch.device(device), dtype, training) is None]


def describe(
    device: pytorch.device | str = "cpu", dtype: pytorch.dtype = pytorch.float32, training: bool = True
) -> str:
    """A line per backend: its name, and whether it can run or why not."""
    why = {n: why_not(n, pytorch.device(device), dtype, training) for n in NAMES}
    return "\n".join(f"{name}: {reason or 'can run'}" for name, reason in why.items())


def _load(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name}")
