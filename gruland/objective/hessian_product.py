"""Hessian-vector products of a classifier's loss: forward mode over the backward pass.

The Hessian times v is the derivative along v of the gradient (Pearlmutter 1994, "Fast exact multiplication by the
Hessian"). With the weights fixed, the forward and the backward pass are computed once; a product then takes one linear
recurrence forwards and one backwards, each with one small matrix product a step, and large products over all steps. The
recurrences stand here; what is pointwise, and the head with its loss, is differentiated by ``torch.func.jvp``.

A step of a layer, with the state h before it, the input's part a = W_ih x + b_ih and kept's rate p
(:mod:`gruland.kernels.eager`)::

    u = W_n h + b_n   s_r = a_r + W_r h + b_r   s_z = a_z + W_z h + b_z
    r = sigmoid(s_r)  z = p + (1 - p) sigmoid(s_z)   n = tanh(a_n + r u)   h' = z h + (1 - z) n

Its four arguments are laid out u, s_r, s_z, a_n: the recurrent matrix feeds the first three of them, the input's matrix
the last three. With the slopes s of h' by the arguments, q the gradient by h' and a dot for the derivative along v:

    h'. = z h. + sum_i s_i argument_i.          forwards
    delta_i = s_i q                             the gradient by argument i
    q = z q' + W^T delta'                       backwards (primes: of the next step)
    q. = z q'. + z'. q' + W^T delta'. + W.^T delta',  delta. = s. q + s q.

S rows of a packed batch, B sequences, I inputs, H hidden units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, jvp, vjp
from torch.nn import functional as F

from gruland.kernels import Layer
from gruland.kernels.packing import previous_states
from gruland.objective.packed_batch import PackedBatch, Parameters, layer_of, run_layer

#: Bytes that the forward and backward passes of all batches may take; beyond, they are computed for each product anew.
MEMORY = 6 * 2**30
#: Rows of which pointwise functions are computed at once, so that they stay in the processor's cache.
_ROWS = 1024


def linearized(
    batches: Sequence[PackedBatch], weights: Parameters
) -> Callable[[Parameters], dict[str, Tensor]]:
    """The Hessian of the batches' sum at fixed weights.

    Args:
        batches: functions of the weights.
        weights: all of the model's parameters by name, of one dtype, without gradients.

    Returns:
        From a vector v, by the names of some of the weights and of their dtype, to the Hessian times v: the rows and
        columns of those names.
    """
    gru, dtype = batches[0].gru, weights["head.weight"].dtype
    numbers = sum(len(batch.packed.tokens_S) for batch in batches) * 17 * gru.hidden_size * gru.num_layers
    keep = numbers * dtype.itemsize <= MEMORY
    kept = [_Linearized(batch, weights) for batch in batches] if keep else None

    @torch.no_grad()
    def product(vector: Parameters) -> dict[str, Tensor]:
        tangents = {
            name: vector[name] if name in vector else torch.zeros_like(p) for name, p in weights.items()
        }
        total = {name: torch.zeros_like(part) for name, part in vector.items()}
        for index, batch in enumerate(batches):
            point = kept[index] if kept else _Linearized(batch, weights)
            products = point.product(tangents)
            for name, part in total.items():
                part += products[name]
        return total

    return product


class _Linearized:
    """The forward and backward pass of one batch at fixed weights."""

    @torch.no_grad()
    def __init__(self, batch: PackedBatch, weights: Parameters) -> None:
        gru, self._batch = batch.gru, batch
        x_SI = F.embedding(batch.packed.tokens_S, batch.vectors(weights))
        forwards: list[_Forward] = []
        for index in range(gru.num_layers):
            raw_SI, x_SI = x_SI, batch.between(x_SI) if index else x_SI
            layer = layer_of(weights, index)
            forwards.append(_forward(raw_SI, x_SI, layer, batch.packed.running, gru.regularizer.kept))
            x_SI = forwards[-1].states_SH
        self._final = x_SI[batch.packed.last_B], weights["head.weight"], weights["head.bias"]
        grad_BH = grad(batch.head_loss)(*self._final)
        grad_SH = torch.zeros_like(x_SI).index_copy_(0, batch.packed.last_B, grad_BH)
        self._layers: list[_Point] = []
        for forward in reversed(forwards):
            point = _backward(forward, grad_SH)
            self._layers.insert(0, point)
            if forward is not forwards[0]:
                grad_SH = vjp(batch.between, forward.raw_SI)[1](point.grad_x_SI)[0]

    def product(self, tangents: Parameters) -> dict[str, Tensor]:
        """The batch's part of the Hessian times ``tangents``."""
        last_B = self._batch.packed.last_B
        movings: list[_Moving] = []
        h_SH: Tensor | None = None
        for index, point in enumerate(self._layers):
            x_SI = None if h_SH is None else jvp(self._batch.between, (point.at.raw_SI,), (h_SH,))[1]
            movings.append(_forward_tangent(point, h_SH, x_SI, layer_of(tangents, index)))
            h_SH = movings[-1].states_SH
        assert h_SH is not None
        head = h_SH[last_B], tangents["head.weight"], tangents["head.bias"]
        grad_BH, *grads = jvp(grad(self._batch.head_loss, (0, 1, 2)), self._final, head)[1]
        result = dict(zip(("head.weight", "head.bias"), grads, strict=True))
        grad_SH = torch.zeros_like(h_SH).index_copy_(0, last_B, grad_BH)
        for index in reversed(range(len(self._layers))):
            point, moving = self._layers[index], movings[index]
            layer, grad_x_SI = _backward_tangent(point, moving, layer_of(tangents, index), grad_SH, index > 0)
            result |= {f"gru.{name}_l{index}": g for name, g in zip(Layer._fields, layer, strict=True)}
            if grad_x_SI is not None:
                given = (point.at.raw_SI, point.grad_x_SI), (moving.raw_SI, grad_x_SI)
                grad_SH = jvp(lambda raw, g: vjp(self._batch.between, raw)[1](g)[0], *given)[1]
        return result


class _Forward(NamedTuple):
    """One layer's forward pass."""

    raw_SI: Tensor  # the layer below's states, before the activation
    x_SI: Tensor
    weight_ih: Tensor  # [3H, I], r z n
    weight_hh: Tensor  # [3H, H], n r z
    running: list[int]
    kept: float
    states_SH: Tensor
    previous_SH: Tensor
    arguments_S4H: Tensor  # u, s_r, s_z, a_n
    slopes_S4H: Tensor
    z_SH: Tensor


class _Point(NamedTuple):
    """One layer's forward and backward pass."""

    at: _Forward
    grad_SH: Tensor  # by the states
    delta_S4H: Tensor  # by the arguments
    grad_x_SI: Tensor


class _Moving(NamedTuple):
    """The derivatives along v of a layer's forward pass."""

    raw_SI: Tensor | None
    x_SI: Tensor | None  # None: the input does not move
    states_SH: Tensor
    previous_SH: Tensor
    arguments_S4H: Tensor


def _slopes(previous_SH: Tensor, arguments_S4H: Tensor, kept: float) -> tuple[Tensor, Tensor]:
    """The derivatives of a step's state by its arguments [S, 4H], and by the previous state, z [S, H]."""
    u, s_r, s_z, a_n = arguments_S4H.chunk(4, 1)
    r, sigmoid = s_r.sigmoid(), s_z.sigmoid()
    n = (a_n + r * u).tanh()
    update = (1 - kept) * (1 - sigmoid)
    slope_n = update * (1 - n * n)
    slope_u = slope_n * r
    slope_r = slope_u * u * (1 - r)
    slope_z = (previous_SH - n) * update * sigmoid
    return torch.cat([slope_u, slope_r, slope_z, slope_n], 1), 1 - update


def _in_blocks(function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
    """A function of rows, computed for blocks of them."""
    blocks = [function(*block) for block in zip(*(t.split(_ROWS) for t in tensors), strict=True)]
    return tuple(torch.cat(parts) for parts in zip(*blocks, strict=True))


def _rolled(hh: Tensor) -> Tensor:
    """From the gates r z n to n r z, the order of the arguments."""
    return hh.roll(len(hh) // 3, 0)


def _forward(raw_SI: Tensor, x_SI: Tensor, layer: Layer, running: list[int], kept: float) -> _Forward:
    states_SH, (inputs_S3H, recurrent_S3H) = run_layer(x_SI, layer, running, kept)
    hidden = states_SH.shape[1]
    previous_SH = _before(states_SH, running)
    arguments_S4H = F.pad(inputs_S3H, (hidden, 0))
    arguments_S4H[:, : 3 * hidden] += recurrent_S3H.roll(hidden, 1)
    slopes = _in_blocks(lambda h, a: _slopes(h, a, kept), previous_SH, arguments_S4H)
    weight_hh = _rolled(layer.weight_hh)
    passed = states_SH, previous_SH, arguments_S4H, *slopes
    return _Forward(raw_SI, x_SI, layer.weight_ih, weight_hh, running, kept, *passed)


def _before(states_SH: Tensor, running: list[int]) -> Tensor:
    """The state before each row's step; zero before the first."""
    return previous_states(F.pad(states_SH, (0, 0, running[0], 0)), running)


def _backward(at: _Forward, grad_SH: Tensor) -> _Point:
    """``grad_SH``: the gradient by the states but for what comes from later steps."""
    hidden = grad_SH.shape[1]
    delta_S4H, grad_SH = torch.zeros_like(at.slopes_S4H), grad_SH.clone()
    _sweep_back(at, grad_SH, delta_S4H)
    delta_S4H[:, 3 * hidden :] = at.slopes_S4H[:, 3 * hidden :] * grad_SH
    return _Point(at, grad_SH, delta_S4H, delta_S4H[:, hidden:] @ at.weight_ih)


def _sweep_back(
    at: _Forward, grad_SH: Tensor, delta_S4H: Tensor, to_previous_SH: Tensor | None = None
) -> None:
    """In place: delta (of the recurrent arguments) += slopes * grad; the previous step's grad += z grad + W^T delta.

    ``to_previous_SH`` goes to the previous step's gradient besides.
    """
    running, hidden = at.running, grad_SH.shape[1]
    grads, slopes, deltas, z = (t.split(running) for t in (grad_SH, at.slopes_S4H, delta_S4H, at.z_SH))
    extra = None if to_previous_SH is None else to_previous_SH.split(running)
    for t in range(len(running) - 1, -1, -1):
        delta = deltas[t].view(-1, 4, hidden)[:, :3]
        delta.addcmul_(slopes[t].view(-1, 4, hidden)[:, :3], grads[t].unsqueeze(1))
        if t > 0:
            previous = grads[t - 1][: running[t]]
            previous.addcmul_(grads[t], z[t]).addmm_(deltas[t][:, : 3 * hidden], at.weight_hh)
            if extra is not None:
                previous.add_(extra[t])


def _forward_tangent(point: _Point, raw_SI: Tensor | None, x_SI: Tensor | None, v: Layer) -> _Moving:
    at, hidden = point.at, point.grad_SH.shape[1]
    arguments_S4H = torch.empty_like(at.arguments_S4H)
    recurrent_S3H, inputs_S3H = arguments_S4H[:, : 3 * hidden], arguments_S4H[:, hidden:]
    arguments_S4H[:, 3 * hidden :] = 0
    torch.addmm(_rolled(v.bias_hh), at.previous_SH, _rolled(v.weight_hh).t(), out=recurrent_S3H)
    inputs_S3H.addmm_(at.x_SI, v.weight_ih.t()).add_(v.bias_ih)
    if x_SI is not None:
        inputs_S3H.addmm_(x_SI, at.weight_ih.t())
    states_SH = _sweep(at, arguments_S4H)
    return _Moving(raw_SI, x_SI, states_SH, _before(states_SH, at.running), arguments_S4H)


def _sweep(at: _Forward, arguments_S4H: Tensor) -> Tensor:
    """The states' derivatives [S, H]; in place, those of the arguments get what the previous states add."""
    running, hidden = at.running, at.z_SH.shape[1]
    (states_SH,) = _in_blocks(
        lambda a, s: ((a * s).view(-1, 4, hidden).sum(1),), arguments_S4H, at.slopes_S4H
    )
    states, arguments, slopes, z = (
        t.split(running) for t in (states_SH, arguments_S4H, at.slopes_S4H, at.z_SH)
    )
    weight_H3H = at.weight_hh.t()
    for t in range(1, len(running)):
        h = states[t - 1][: running[t]]
        added = h @ weight_H3H
        arguments[t][:, : 3 * hidden] += added
        added.mul_(slopes[t][:, : 3 * hidden])
        states[t].addcmul_(h, z[t])
        for part in added.chunk(3, 1):
            states[t].add_(part)
    return states_SH


def _backward_tangent(
    point: _Point, moving: _Moving, v: Layer, grad_SH: Tensor, wants_input: bool
) -> tuple[Layer, Tensor | None]:
    """The derivatives of the gradients by the layer's weights, and by its input."""
    at, hidden = point.at, grad_SH.shape[1]
    delta_S4H, decay_SH = moving.arguments_S4H, torch.empty_like(grad_SH)
    rows = at.previous_SH, at.arguments_S4H, moving.previous_SH, delta_S4H, point.grad_SH, decay_SH
    for block in zip(*(t.split(_ROWS) for t in rows), strict=True):
        _moving_slopes(at.kept, *block)
    recurrent, inputs = slice(0, 3 * hidden), slice(hidden, None)
    decay_SH.addmm_(point.delta_S4H[:, recurrent], _rolled(v.weight_hh))
    _sweep_back(at, grad_SH, delta_S4H, decay_SH)
    delta_S4H[:, 3 * hidden :].addcmul_(at.slopes_S4H[:, 3 * hidden :], grad_SH)
    moved, fixed = delta_S4H.t(), point.delta_S4H.t()
    weight_hh = (moved[recurrent] @ at.previous_SH).addmm_(fixed[recurrent], moving.previous_SH)
    weight_ih = moved[inputs] @ at.x_SI
    if moving.x_SI is not None:
        weight_ih.addmm_(fixed[inputs], moving.x_SI)
    sums = delta_S4H.sum(0)
    layer = Layer(weight_ih, _unrolled(weight_hh), sums[inputs], _unrolled(sums[recurrent]))
    if not wants_input:
        return layer, None
    grad_x_SI = (delta_S4H[:, inputs] @ at.weight_ih).addmm_(point.delta_S4H[:, inputs], v.weight_ih)
    return layer, grad_x_SI


def _unrolled(hh: Tensor) -> Tensor:
    return hh.roll(-(len(hh) // 3), 0)


def _moving_slopes(
    kept: float,
    previous: Tensor,
    arguments: Tensor,
    previous_v: Tensor,
    arguments_v: Tensor,
    grad: Tensor,
    decay: Tensor,
) -> None:
    """The slopes' derivatives times the gradient: by the arguments, in the place of theirs; by the previous state."""
    given, tangents = (previous, arguments), (previous_v, arguments_v)
    slopes, z = jvp(lambda h, a: _slopes(h, a, kept), given, tangents)[1]
    torch.mul(
        slopes.view(-1, 4, grad.shape[1]), grad.unsqueeze(1), out=arguments_v.view(-1, 4, grad.shape[1])
    )
    torch.mul(z, grad, out=decay)
