"""A GRU layer by haste (Nanavati 2020), where the package ``haste_pytorch`` is installed.

T time steps, B sequences, I inputs, H hidden units; haste has the gates z, r, n and transposes the matrices.

PyPI's ``haste-pytorch-cpu`` is plain Python, an autograd loop. ``haste_pytorch`` 0.5.0rc0, the one release
for CUDA, is wrong in the gradient of zoneout: it takes the first time step's mask for every step
(lmnt-com/haste#43). That is measured here rather than read off a version, and said when it matters.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from gruland.kernels import Layer
from gruland.kernels.threads import once
from gruland.kernels.weights import to_haste

Recurrence = Callable[..., Tensor]


def unavailable(
    device: torch.device, dtype: torch.dtype, training: bool, precision: str = "float32"
) -> str | None:
    """One line that says why haste cannot run such tensors, or None."""
    if precision != "float32":
        return f"haste multiplies in the tensors' own dtype, not in {precision}"
    if find_spec("haste_pytorch") is None:
        return "the package haste_pytorch is not installed (pip install haste-pytorch-cpu)"
    if device.type == "cuda" and find_spec("haste_pytorch_lib") is None:
        return "this haste_pytorch was built without CUDA"
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
    """The hidden states [T, B, H] of one layer, in float32: see :mod:`gruland.kernels`.

    Warns where gradients are wanted through a zoneout mask that this haste gets wrong.
    """
    if keep_TBH is not None and torch.is_grad_enabled() and _is_wrong(x_TBI.device.type):
        warnings.warn(
            "this haste_pytorch takes the first step's zoneout mask for every step of its backward pass: "
            "the gradients are wrong; use backend='auto'",
            stacklevel=2,
        )
    steps, sequences = x_TBI.shape[:2]
    update_TBH = x_TBI.new_empty(0, 0, 0)
    if keep_TBH is not None:
        update_TBH = 1 - keep_TBH
    elif zoneout > 0:
        # The expectation is a mask of constant size: haste's own refuses a backward pass on CUDA.
        update_TBH = x_TBI.new_full((steps, sequences, h0_BH.shape[1]), 1 - zoneout)
    # haste computes through the padding. What lies there is replaced by zeros, or a NaN in it would reach the weights'
    # gradients as 0 * NaN.
    runs_TB1 = (torch.arange(sequences) < torch.as_tensor(active).unsqueeze(1)).unsqueeze(2).to(x_TBI.device)
    x_TBI = torch.where(runs_TB1, x_TBI, x_TBI.new_zeros(()))
    if update_TBH.numel():
        update_TBH = torch.where(runs_TB1, update_TBH, update_TBH.new_zeros(()))
    inputs = [t.contiguous() for t in (x_TBI, h0_BH, *to_haste(layer), update_TBH)]
    h_TBH = _recurrence(x_TBI.device)(True, float(update_TBH.numel() > 0), *inputs)[1:]
    return torch.where(runs_TB1, h_TBH, h_TBH.new_zeros(()))


def _recurrence(device: torch.device) -> Recurrence:
    """(training, zoneout, x, h0, the four weights, update mask) -> states [T + 1, B, H], h0 first."""
    from haste_pytorch import gru

    return gru.GRUFunction.apply if device.type == "cuda" else gru.GRUScript


@once
def _is_wrong(device_type: str) -> bool:
    device = torch.device(device_type)
    return zoneout_gradient_is_wrong(_recurrence(device), device)


def zoneout_gradient_is_wrong(recurrence: Recurrence, device: torch.device) -> bool:
    """Whether a recurrence mistakes the first step's mask for the second's in its backward pass.

    One unit, zero weights and two steps: the state halves where the unit updates, so that dh_2/dh_0 is 0.5 if
    it is kept in the first step only; with the first step's mask for both it would be 1.
    """
    update_TBH = torch.tensor([0.0, 1.0], device=device).view(2, 1, 1)
    shapes = (2, 1, 1), (1, 3), (1, 3), (3,), (3,)
    x_TBI, *weights = (torch.zeros(shape, device=device) for shape in shapes)
    with torch.enable_grad():
        h0_BH = torch.ones(1, 1, device=device, requires_grad=True)
        states = recurrence(True, 1.0, x_TBI, h0_BH, *weights, update_TBH)
        (slope,) = torch.autograd.grad(states[-1].sum(), h0_BH)
    return not torch.allclose(slope, torch.full_like(slope, 0.5))
