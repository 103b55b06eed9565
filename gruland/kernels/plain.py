"""A GRU layer of torch's own differentiable operations, one step after the other.

The other backends have explicit backward passes: fast, and without a derivative of their own. This one serves what
needs more than a gradient: ``create_graph=True``, ``torch.func`` (``grad``, ``vmap``, ``jvp``) and forward mode. It is
chosen where one of these is at work or a regularizer changes the cell, never by name, and takes several times as long.
Equations: :mod:`gruland.kernels.eager`.

T time steps, B sequences, I inputs, H hidden units; S rows of a packed batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F

from gruland.kernels import BETWEEN, Layer
from gruland.kernels.packing import last, pack, running_rows


def transformed(*tensors: Tensor) -> bool:
    """Whether a transform of ``torch.func`` is at work, or one of the tensors has a forward-mode tangent."""
    # torch.autograd.Function.apply asks the same, and raises where a function is not made for transforms.
    if torch._C._are_functorch_transforms_active():
        return True
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def run_layer(
    x_TBI: Tensor,
    h0_BH: Tensor,
    layer: Layer,
    active: Tensor | Sequence[int],
    keep_TBH: Tensor | None = None,
    zoneout: float = 0.0,
    precision: str = "float32",
    *,
    candidate_TBH: Tensor | None = None,
    gates: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The hidden states [T, B, H] of one layer: see :mod:`gruland.kernels`.

    ``gates`` is done to the matrix products [R, 3H] of the gates before their biases; this backend alone has it.
    """

    def linear(x_RI: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x_RI, weight, bias) if gates is None else gates(F.linear(x_RI, weight)) + bias

    (time_steps, sequences), device = x_TBI.shape[:2], x_TBI.device
    running = [n for n in torch.as_tensor(active).tolist() if n]
    # In bfloat16 the gradients are rounded where the operands are.
    rounded = (lambda x: x.bfloat16().to(x.dtype)) if precision == "bfloat16" else (lambda x: x)
    # The input's part of the gates r, z, n of all steps at once: (S, 3H). Padding is not read.
    x_SI = rounded(pack(x_TBI, running_rows(running, time_steps, sequences, device)))
    steps = linear(x_SI, rounded(layer.weight_ih), layer.bias_ih).split(running)
    weight_hh, h_BH, states = rounded(layer.weight_hh), h0_BH, []
    for t, (n, inputs_B3H) in enumerate(zip(running, steps, strict=True)):
        h_BH = h_BH[:n]
        a_r, a_z, a_n = inputs_B3H.chunk(3, 1)
        b_r, b_z, u = linear(rounded(h_BH), weight_hh, layer.bias_hh).chunk(3, 1)
        r, z = torch.sigmoid(a_r + b_r), torch.sigmoid(a_z + b_z)
        candidate = torch.tanh(a_n + r * u)
        if candidate_TBH is not None:
            candidate = candidate * candidate_TBH[t, :n]
        new_BH = candidate + z * (h_BH - candidate)
        kept = zoneout if keep_TBH is None else keep_TBH[t, :n].to(h_BH)
        h_BH = kept * h_BH + (1 - kept) * new_BH
        states.append(F.pad(h_BH, (0, 0, 0, sequences - n)))
    states += [torch.zeros_like(states[0])] * (time_steps - len(running))
    return torch.stack(states)


def gradients(
    inputs: Sequence[Tensor],
    wanted: Sequence[bool],
    grads: Sequence[Tensor | None],
    active: Tensor,
    keep_TBH: Tensor | None,
    candidate_TBH: Tensor | None,
    zoneout: float,
    precision: str,
    activation: str | None = None,
) -> list[Tensor | None]:
    """A layer's backward pass in a form that can be differentiated again.

    Args:
        inputs: x [T, B, I], h0 [B, H] and the four weights, with their graphs.
        wanted: which of them want a gradient; the others get None.
        grads: by the states [T, B, H], and by those after the sequences' last steps [B, H]; None = zero.
        active, keep_TBH, candidate_TBH, zoneout, precision: of the forward pass.
        activation: what x goes through before it is the layer's input, from ``BETWEEN``.
    """
    # Views: where one input is computed from another, each gets its own partial derivative.
    views = [tensor.view_as(tensor) for tensor in inputs]
    x_TBI, h0_BH, *weights = views
    if activate := BETWEEN[activation]:
        x_TBI = activate(x_TBI)
    layer = Layer(*weights)
    h_TBH = run_layer(x_TBI, h0_BH, layer, active, keep_TBH, zoneout, precision, candidate_TBH=candidate_TBH)
    outputs = [
        (y, grad) for y, grad in zip((h_TBH, last(h_TBH, active)), grads, strict=True) if grad is not None
    ]
    needed = [view for view, want in zip(views, wanted, strict=True) if want]
    ys, by_ys = zip(*outputs, strict=True)
    found = iter(torch.autograd.grad(ys, needed, by_ys, create_graph=True, allow_unused=True))
    return [next(found) if want else None for want in wanted]
