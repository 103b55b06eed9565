"""Second derivatives, forward mode and torch.func's transforms of the layer, against torch's own autograd.

T time steps, B sequences, I inputs, H hidden units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_gru import LENGTHS, cells
from torch import Tensor
from torch.func import functional_call, grad, hessian, jacrev, jvp, vmap

from gruland import GRU, kernels
from gruland.kernels import Layer, plain
from gruland.regularizers import Draw, Zoneout

CPU = torch.device("cpu")
BACKENDS = [("eager", torch.float64), ("cpu", torch.float32), ("haste", torch.float64)]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # haste's own


def problem(backend: str, dtype: torch.dtype, **options: Any) -> tuple[GRU, Tensor, Tensor]:
    if reason := kernels.why_not(backend, CPU, dtype, True):
        pytest.skip(f"backend {backend}: {reason}")
    torch.manual_seed(0)
    gru = GRU(4, 3, 2, between="tanh", zoneout=0.3, init="torch", backend=backend, dtype=dtype, **options)
    return gru, torch.randn(5, 7, 4, dtype=dtype), torch.randn(2, 5, 3, dtype=dtype)


def close(actual: Any, expected: Any, dtype: torch.dtype) -> None:
    rtol = 1e-9 if dtype == torch.float64 else 5e-4
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=rtol / 10)


def second_order(run: Callable[[], tuple[Tensor, Tensor]], wanted: list[Tensor]) -> list[Tensor]:
    """The gradient of the gradient's squared norm: a function of every entry of the Hessian."""
    output, last = run()
    first = torch.autograd.grad((output**2).sum() + (last**3).sum(), wanted, create_graph=True)
    return list(torch.autograd.grad(sum((g**2).sum() for g in first), wanted))


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("backend", "dtype"), BACKENDS)
def test_a_second_backward_pass_is_that_of_cells(backend: str, dtype: torch.dtype, masked: bool) -> None:
    gru, x, h0 = problem(backend, dtype, dropconnect=0.2)
    draw = Draw(7) if masked else None
    wanted = [x.requires_grad_(), h0.requires_grad_(), *gru.parameters()]
    actual = second_order(lambda: gru.eval()(x, h0, lengths=LENGTHS, draw=draw), wanted)
    close(actual, second_order(lambda: cells(gru, x, LENGTHS, draw, h0), wanted), dtype)


@pytest.mark.parametrize("backend", ["eager", "cpu"])
def test_inputs_that_depend_on_each_other_keep_their_own_derivatives(backend: str) -> None:
    dtype = torch.float64 if backend == "eager" else torch.float32
    gru, x, _ = problem(backend, dtype)
    scale = torch.tensor(0.7, dtype=dtype, requires_grad=True)

    def run(module: Callable[..., Any]) -> Tensor:
        moved = {name: p * scale for name, p in gru.named_parameters()}
        x_of_weights = x + moved["weight_ih_l0"].sum()
        loss = module(moved, x_of_weights).square().sum()
        (first,) = torch.autograd.grad(loss, scale, create_graph=True)
        return torch.autograd.grad(first, scale)[0]

    def by_cells(moved: dict[str, Tensor], x: Tensor) -> Tensor:
        class Moved:
            hidden_size, num_layers, between, regularizer = 3, 2, "tanh", Zoneout(0.3)

            def layer(self, k: int) -> Layer:
                return Layer(*(moved[f"{name}_l{k}"] for name in Layer._fields))

        return cells(Moved(), x, LENGTHS, None)[1]

    gru.eval()
    actual = run(lambda moved, x: functional_call(gru, moved, (x,), {"lengths": LENGTHS})[1])
    close(actual, run(by_cells), dtype)


@pytest.mark.parametrize(("backend", "dtype"), BACKENDS)
def test_func_transforms(backend: str, dtype: torch.dtype) -> None:
    gru, x, h0 = problem(backend, dtype)
    gru.eval()
    weights = {name: p.detach() for name, p in gru.named_parameters()}

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        output, last = functional_call(gru, weights, (x, h0), {"lengths": LENGTHS})
        return (output**2).sum() + (last**3).sum()

    # grad: what a backward pass gives.
    output, last = gru(x, h0, lengths=LENGTHS)
    expected = torch.autograd.grad((output**2).sum() + (last**3).sum(), list(gru.parameters()))
    gradient = grad(loss)(weights, x)
    close(list(gradient.values()), list(expected), dtype)
    # jvp: the gradient along a direction.
    direction = {name: torch.randn_like(w) for name, w in weights.items()}
    value, slope = jvp(lambda w: loss(w, x), (weights,), (direction,))
    close(value, loss(weights, x), dtype)
    close(slope, sum((gradient[name] * direction[name]).sum() for name in weights), dtype)
    # vmap: one after the other.
    batches = torch.stack([x, -x, 2 * x])
    close(vmap(loss, (None, 0))(weights, batches), torch.stack([loss(weights, b) for b in batches]), dtype)
    each = vmap(grad(loss), (None, 0))(weights, batches)
    close(each["weight_hh_l1"][1], grad(loss)(weights, -x)["weight_hh_l1"], dtype)


def test_hessians_agree() -> None:
    gru, x, _ = problem("eager", torch.float64)
    gru.eval()
    bias = gru.bias_hh_l1.detach()

    def loss(bias: Tensor) -> Tensor:
        return functional_call(gru, {"bias_hh_l1": bias}, (x,), {"lengths": LENGTHS})[1].pow(3).sum()

    forward_over_reverse = hessian(loss)(bias)
    close(forward_over_reverse, torch.autograd.functional.hessian(loss, bias), torch.float64)
    close(forward_over_reverse, jacrev(jacrev(loss))(bias), torch.float64)
    assert float(forward_over_reverse.detach().abs().max()) > 1e-3


def test_forward_mode_without_func() -> None:
    gru, x, _ = problem("cpu", torch.float32)
    gru.eval()
    direction = torch.randn_like(x)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, direction)
        tangent = torch.autograd.forward_ad.unpack_dual(gru(dual)[1]).tangent
    close(tangent, jvp(lambda x: gru(x)[1], (x,), (direction,))[1], torch.float32)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("ends_early", [True, False])
def test_its_layer_is_the_eager_ones(precision: str, ends_early: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = (4, 3, 5), (3, 6), (18, 5), (18, 6), (18,), (18,)
    inputs = [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
    active = [3, 2, 0, 0] if ends_early else [3, 2, 2, 1]
    results = []
    for kernel in (plain, kernels.choose("eager", CPU, torch.float64)):
        h_TBH = kernel.run_layer(*inputs[:2], Layer(*inputs[2:]), active, None, 0.2, precision)
        results.append([h_TBH, *torch.autograd.grad((h_TBH**2).sum(), inputs)])
    rtol = 1e-9 if precision == "float32" else 2e-2
    torch.testing.assert_close(*results, rtol=rtol, atol=rtol)


def test_the_fast_kernels_serve_where_nothing_more_is_asked() -> None:
    assert not plain.transformed(torch.ones(2, requires_grad=True))
    seen = []
    vmap(lambda x: (seen.append(plain.transformed(torch.ones(1))), x)[1])(torch.ones(2))
    assert seen == [True]
