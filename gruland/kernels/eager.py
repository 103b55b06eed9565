"""A GRU layer in plain PyTorch with an explicit backward pass: no autograd loop over time.

T time steps, B sequences, I inputs, H hidden units; S rows of a packed batch: the running sequences of step
0, then those of step 1, ... (S = the sum of ``active``). Gates in torch's order r, z, n.

With W = weight_hh and the input's part a = weight_ih x_t + bias_ih, a step is (``torch.nn.GRU``'s equations)

    r = sigmoid(a_r + W_r h + b_r)      z = sigmoid(a_z + W_z h + b_z)
    u = W_n h + b_n                     n = tanh(a_n + r u)                 h' = z h + (1 - z) n

In bfloat16 a product's operands x_t, h, the weights and the gradients by the gates' arguments are rounded (Rounding).

Zoneout turns h' into k h + (1 - k) h', which is the same step with the update gate k + (1 - k) z for z. Dropout of
the candidate has m n for n in h', with factors m.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gruland.kernels import Layer, plain
from gruland.kernels.packing import pack, previous_states, running_rows, unpack

#: Which masks of a step ``run_layer`` takes.
FUSES = frozenset({"keep", "candidate"})
#: From an operand of a matrix product to what is multiplied.
Rounding = Callable[[Tensor], Tensor]


def unavailable(
    device: torch.device, dtype: torch.dtype, training: bool, precision: str = "float32"
) -> str | None:
    """None: this backend runs on every device, and in every dtype and precision."""
    return None


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
) -> Tensor:
    """The hidden states [T, B, H] of one layer: see :mod:`gruland.kernels`."""
    running = [n for n in torch.as_tensor(active).tolist() if n]
    return _GRULayer.apply(x_TBI, h0_BH, *layer, keep_TBH, candidate_TBH, zoneout, precision, running)


class _GRULayer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_TBI: Tensor,
        h0_BH: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor,
        bias_hh: Tensor,
        keep_TBH: Tensor | None,
        candidate_TBH: Tensor | None,
        zoneout: float,
        precision: str,
        running: list[int],
    ) -> Tensor:
        inputs = x_TBI, h0_BH, weight_ih, weight_hh, bias_ih, bias_hh
        time_steps, sequences = x_TBI.shape[:2]
        places = running_rows(running, time_steps, sequences, x_TBI.device)
        rounding = _rounding(precision)
        weight_ih, weight_hh, x_SI = map(rounding, (weight_ih, weight_hh, pack(x_TBI, places)))
        layer = Layer(weight_ih, weight_hh, bias_ih, bias_hh)
        keep_SH, factor_SH = pack(keep_TBH, places), pack(candidate_TBH, places)
        h_SH, gates_S3H, n_SH = _forward(x_SI, h0_BH, layer, keep_SH, factor_SH, zoneout, running, rounding)
        ctx.save_for_backward(
            *inputs,
            keep_TBH,
            candidate_TBH,
            x_SI,
            weight_ih,
            weight_hh,
            h_SH,
            gates_S3H,
            n_SH,
            factor_SH,
            places,
        )
        ctx.zoneout, ctx.precision = 0.0 if keep_TBH is not None else zoneout, precision
        ctx.running, ctx.shape, ctx.rounding = running, (time_steps, sequences), rounding
        return unpack(h_SH[len(h0_BH) :], places, time_steps, sequences)

    @staticmethod
    def backward(ctx: Any, grad_TBH: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, keep_TBH, candidate_TBH = ctx.saved_tensors[:8]
        x_SI, weight_ih, weight_hh, h_SH, gates_S3H, n_SH, factor_SH, places = ctx.saved_tensors[8:]
        if torch.is_grad_enabled():  # create_graph=True
            active = F.pad(torch.tensor(ctx.running), (0, ctx.shape[0] - len(ctx.running)))
            options = active, keep_TBH, candidate_TBH, ctx.zoneout, ctx.precision
            found = plain.gradients(inputs, ctx.needs_input_grad[:6], [grad_TBH, None], *options)
            return *found, *[None] * 5
        previous_SH = previous_states(h_SH, ctx.running)
        slopes_S3H, slope_n_SH = _slopes(previous_SH, gates_S3H, n_SH, factor_SH, ctx.zoneout)
        z_SH = gates_S3H.chunk(3, 1)[1]
        grad_SH = torch.cat([grad_TBH.new_zeros(ctx.running[0], grad_TBH.shape[2]), pack(grad_TBH, places)])
        _sweep_back(grad_SH, slopes_S3H, z_SH, weight_hh, ctx.running, ctx.rounding)
        grad_h0, grad_SH = grad_SH[: ctx.running[0]], grad_SH[ctx.running[0] :]
        grad_weight_hh, grad_bias_hh = slopes_S3H.t() @ ctx.rounding(previous_SH), slopes_S3H.sum(0)
        # The input's part of the candidate's gate is not multiplied by r; the other two gates are shared.
        slopes_S3H.chunk(3, 1)[2].copy_(ctx.rounding(slope_n_SH.mul_(grad_SH)))
        grad_weight_ih, grad_bias_ih = slopes_S3H.t() @ x_SI, slopes_S3H.sum(0)
        grad_x = unpack(slopes_S3H @ weight_ih, places, *ctx.shape) if ctx.needs_input_grad[0] else None
        return grad_x, grad_h0, grad_weight_ih, grad_weight_hh, grad_bias_ih, grad_bias_hh, *[None] * 5


def _rounding(precision: str) -> Rounding:
    return (lambda x: x.bfloat16().to(x.dtype)) if precision == "bfloat16" else (lambda x: x)


def _forward(
    x_SI: Tensor,
    h0_BH: Tensor,
    layer: Layer,
    keep_SH: Tensor | None,
    factor_SH: Tensor | None,
    zoneout: float,
    running: list[int],
    rounding: Rounding,
) -> tuple[Tensor, Tensor, Tensor]:
    """States [B + S, H] (h0 first) and what the backward pass needs: [S, 3H] of r, z, u and [S, H] of n.

    z is the update gate with zoneout in it.
    """
    sequences, hidden = h0_BH.shape
    weight_rz, weight_n = layer.weight_ih.split([2 * hidden, hidden])
    (bias_rz, bias_n), (bias_hh_rz, bias_hh_n) = (b.split([2 * hidden, hidden]) for b in layer[2:])
    gates_S3H = x_SI.new_empty(len(x_SI), 3 * hidden)
    torch.addmm(bias_rz + bias_hh_rz, x_SI, weight_rz.t(), out=gates_S3H[:, : 2 * hidden])
    gates_S3H[:, 2 * hidden :] = bias_hh_n
    n_SH = torch.addmm(bias_n, x_SI, weight_n.t())
    states_SH = x_SI.new_empty(sequences + len(x_SI), hidden)
    states_SH[:sequences] = h0_BH
    _sweep(states_SH, gates_S3H, n_SH, layer.weight_hh.t(), keep_SH, factor_SH, zoneout, running, rounding)
    return states_SH, gates_S3H, n_SH


def _sweep(
    states_SH: Tensor,
    gates_S3H: Tensor,
    n_SH: Tensor,
    weight_H3H: Tensor,
    keep_SH: Tensor | None,
    factor_SH: Tensor | None,
    zoneout: float,
    running: list[int],
    rounding: Rounding,
) -> None:
    """The recurrence, in place: the input's part of the gates becomes the gates, the states are filled in."""
    hidden = n_SH.shape[1]
    rz_S2H = gates_S3H[:, : 2 * hidden].split(running)
    r, z, u = (gate.split(running) for gate in gates_S3H.chunk(3, 1))
    keep: Sequence[Tensor | float] = [zoneout] * len(running) if keep_SH is None else keep_SH.split(running)
    zones_out, one = keep_SH is not None or zoneout > 0, n_SH.new_ones(())
    factors: Sequence[Tensor | None] = (
        [None] * len(running) if factor_SH is None else factor_SH.split(running)
    )
    previous = states_SH[: running[0]]
    steps = zip(
        states_SH[running[0] :].split(running), gates_S3H.split(running), n_SH.split(running), strict=True
    )
    for t, (h, gates, n) in enumerate(steps):
        previous = previous[: running[t]]
        gates.addmm_(rounding(previous), weight_H3H)
        rz_S2H[t].sigmoid_()
        if zones_out:
            z[t].lerp_(one, keep[t])
        n.addcmul_(r[t], u[t]).tanh_()
        factor = factors[t]
        previous = torch.lerp(n if factor is None else n * factor, previous, z[t], out=h)


def _slopes(
    previous_SH: Tensor, gates_S3H: Tensor, n_SH: Tensor, factor_SH: Tensor | None, zoneout: float
) -> tuple[Tensor, Tensor]:
    """The derivatives of a step's state by the arguments of r, z and u [S, 3H], and by that of n [S, H].

    They depend on the forward pass alone: the loop over time only multiplies them by the state's gradient.
    A kept unit has z = 1, so that all of its derivatives vanish.
    """
    r, z, u = gates_S3H.chunk(3, 1)
    slopes_S3H = torch.empty_like(gates_S3H)
    slope_r, slope_z, slope_u = slopes_S3H.chunk(3, 1)
    update = 1 - z
    slope_n = torch.addcmul(update, update, n_SH * n_SH, value=-1)
    if factor_SH is not None:
        slope_n, n_SH = slope_n * factor_SH, n_SH * factor_SH
    torch.mul(slope_n, r, out=slope_u)
    torch.addcmul(slope_u, slope_u, r, value=-1, out=slope_r).mul_(u)
    torch.sub(previous_SH, n_SH, out=slope_z).mul_(update)
    # z = p + (1 - p) s with the sigmoid s, whose derivative is wanted: (1 - z) s.
    slope_z.mul_((z - zoneout).div_(1 - zoneout) if 0 < zoneout < 1 else z)
    return slopes_S3H, slope_n


def _sweep_back(
    grad_SH: Tensor,
    slopes_S3H: Tensor,
    z_SH: Tensor,
    weight_3HH: Tensor,
    running: list[int],
    rounding: Rounding,
) -> None:
    """The recurrence backwards, in place: the output's gradients become the states' (h0's first, [B + S, H]),
    and the slopes become the gradients of the arguments of r, z and u."""
    sequences, hidden = running[0], grad_SH.shape[1]
    grads = [grad_SH[:sequences], *grad_SH[sequences:].split(running)]
    slopes, z = slopes_S3H.split(running), z_SH.split(running)
    for t in range(len(running) - 1, -1, -1):
        grad, previous = grads[t + 1], grads[t][: running[t]]
        gates = slopes[t].view(-1, 3, hidden)
        gates.copy_(rounding(gates.mul_(grad.unsqueeze(1))))
        previous.addcmul_(grad, z[t]).addmm_(slopes[t], weight_3HH)
