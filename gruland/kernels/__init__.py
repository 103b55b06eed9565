"""Backends that run one GRU layer over a batch of sequences, and the choice among them.

T time steps, B sequences, I inputs, H hidden units; gates in torch's order r, z, n.

A backend is a module with two functions::

    run_layer(x_TBI, h0_BH, layer, active, keep_TBH=None, zoneout=0.0, precision="float32") -> h_TBH
    unavailable(device, dtype, training, precision="float32") -> str | None   # None: it can run; else: why not

and it may have ``run_layers`` of its own, in the place of the one below. Where ``DRAWS_ZONEOUT`` is true, its
``run_layer`` takes ``keep_seed`` instead of a mask and draws zoneout's mask itself. ``FUSES`` names the masks of a step
that it takes, {"keep"} where there is none; one with "candidate" takes ``candidate_TBH``, factors of the candidate n_t.

``active`` (int64 on the CPU, or a list, [T]) is the number of sequences that still run at each step. It never
rises: the sequences are sorted by falling length, and ``active[0] == B``. With the candidate
c_t = GRU(x_t, h_{t-1}) a step gives

    h_t = keep_t * h_{t-1} + (1 - keep_t) * c_t     keep_TBH of zeros and ones, in x's dtype: one zoneout mask
    h_t = p * h_{t-1} + (1 - p) * c_t               without keep_TBH: the expectation for p = zoneout

``precision="bfloat16"`` rounds the operands of matrix products to bfloat16 (nearest even): weight_ih, weight_hh, x
and h, and in the backward pass the gradients by the gates' arguments, which are multiplied by weights, x and h.
Products are summed in x's dtype; states, gates, biases and the gradients that leave the layer are not rounded.

Beyond a sequence's length the output is zero and nothing gets a gradient from there. ``run_layer`` works in
any grad mode, in training and in evaluation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence, Set
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gruland.kernels.packing import last
from gruland.kernels.threads import once

#: ``auto`` takes the first of these that can run.
AUTO = ("cpu", "triton", "eager")
NAMES = (*AUTO, "haste")
#: What the operands of matrix products are rounded to; float32 = they are taken as they are, whatever their dtype.
PRECISIONS = ("float32", "bfloat16")
#: The activations between layers; all of them map zero to zero.
BETWEEN: dict[str | None, Callable[[Tensor], Tensor] | None] = {
    None: None,
    "tanh": torch.tanh,
    "relu": torch.relu,
}


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


def check_precision(precision: str) -> str:
    """The precision itself. Raises ValueError if there is no such one."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is unknown: expected one of {', '.join(PRECISIONS)}")
    return precision


def choose(
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    training: bool = False,
    precision: str = "float32",
    masks: Set[str] = frozenset(),
) -> ModuleType:
    """The backend's module for tensors of this device and dtype; ``training``: gradients are wanted.

    ``masks`` are those of a step, "keep" or "candidate", which the backend must take.

    ``auto`` takes the first of ``AUTO`` that can run; ``haste`` runs only by name. Where a fused kernel runs float32
    but not the bfloat16 that is asked for, a line is logged, once.

    Raises ValueError for an unknown name or precision and for a backend that cannot run these tensors.
    """
    check_precision(precision)
    if check_name(name) == "auto":
        # On the CPU Triton has only its interpreter, which is for tests.
        names = [n for n in AUTO if n != "triton" or device.type == "cuda"]
        reasons = {n: why_not(n, device, dtype, training, precision, masks) for n in names}
        chosen = next(n for n, reason in reasons.items() if reason is None)
        for faster in names[: names.index(chosen)]:
            if (precision != "float32" or masks) and why_not(faster, device, dtype, training) is None:
                what = f"precision={precision!r}" if precision != "float32" else "this regularizer"
                _warn_once(f"{what} runs in the slower backend {chosen!r}: {faster}: {reasons[faster]}")
        return _load(chosen)
    reason = why_not(name, device, dtype, training, precision, masks)
    if reason is not None:
        raise ValueError(f"backend {name!r} cannot run here: {reason}; backend='auto' takes one that can")
    return _load(name)


def why_not(
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    training: bool,
    precision: str = "float32",
    masks: Set[str] = frozenset(),
) -> str | None:
    """None if the backend can run these tensors, else one line that says why not."""
    try:
        module = _load(name)
    except ImportError as error:
        return str(error)
    if lacking := masks - getattr(module, "FUSES", {"keep"}):
        return f"it has no masks of the {', '.join(sorted(lacking))}"
    return module.unavailable(device, dtype, training, precision)


def available(
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    training: bool = True,
    precision: str = "float32",
) -> list[str]:
    """The names of the backends that can run such tensors, in the order of ``NAMES``."""
    return [n for n in NAMES if why_not(n, torch.device(device), dtype, training, precision) is None]


def describe(
    device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, training: bool = True
) -> str:
    """A line per backend: its name, and the precisions that it can run in or why it can't run."""
    return "\n".join(f"{name}: {_abilities(name, torch.device(device), dtype, training)}" for name in NAMES)


def _abilities(name: str, device: torch.device, dtype: torch.dtype, training: bool) -> str:
    reasons = {p: why_not(name, device, dtype, training, p) for p in PRECISIONS}
    able = [p for p, reason in reasons.items() if reason is None]
    if not able:
        return str(reasons[PRECISIONS[0]])
    lacking = "".join(f"; not {p}: {reason}" for p, reason in reasons.items() if reason is not None)
    return f"can run, products in {' or '.join(able)}{lacking}"


def run_layers(
    kernel: ModuleType,
    x_TBI: Tensor,
    state_LBH: Tensor,
    layers: Sequence[Layer],
    active: Tensor,
    keeps: Sequence[Tensor | None],
    zoneout: float = 0.0,
    precision: str = "float32",
    between: str | None = None,
    *,
    keep_seeds: Sequence[int | None] | None = None,
    candidates: Sequence[Tensor | None] | None = None,
    gates: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """A stack of layers by a backend, with an activation from ``BETWEEN`` between two layers.

    ``keep_seeds`` [L] stand for masks that a backend with ``DRAWS_ZONEOUT`` draws, at the rate ``zoneout``;
    ``candidates`` [L] are for a backend that fuses them, ``gates`` is for :mod:`gruland.kernels.plain`.

    Returns the last layer's states [T, B, H], and every layer's state after each sequence's last step [L, B, H].
    """
    more: dict[str, Any] = {} if candidates is None else {"candidates": candidates}
    if own := getattr(kernel, "run_layers", None):
        return own(x_TBI, state_LBH, layers, active, keeps, zoneout, precision, between, **more)
    activation, finals = BETWEEN[between], []
    for index, (layer, keep_TBH) in enumerate(zip(layers, keeps, strict=True)):
        if index > 0 and activation is not None:
            x_TBI = activation(x_TBI)
        keep_TBH = None if keep_TBH is None else keep_TBH.to(x_TBI)
        more = {} if keep_seeds is None else {"keep_seed": keep_seeds[index]}
        if candidates is not None:
            more["candidate_TBH"] = candidates[index]
        if gates is not None:
            more["gates"] = gates
        x_TBI = kernel.run_layer(x_TBI, state_LBH[index], layer, active, keep_TBH, zoneout, precision, **more)
        finals.append(last(x_TBI, active))
    return x_TBI, torch.stack(finals)


@once
def _warn_once(message: str) -> None:
    logging.getLogger(__name__).warning(message)


def _load(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name}")
