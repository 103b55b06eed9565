"""The fused CPU kernel: against a float64 loop written from the equations and against torch.nn.GRU.

T time steps, B sequences, I inputs, H hidden units.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.autograd import grad
from torch.func import functional_call

from gruland.kernels import Layer, cpu

CPU, FLOAT = torch.device("cpu"), torch.float32
pytestmark = pytest.mark.skipif(cpu.unavailable(CPU, FLOAT, True) is not None, reason="needs a C++ compiler")


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def textbook(
    x_TBI: Tensor,
    h_BH: Tensor,
    layer: Layer,
    active: Tensor,
    keep_TBH: Tensor | None = None,
    zoneout: float = 0.0,
) -> Tensor:
    """The equations of torch.nn.GRU's documentation with zoneout's, a sequence and a step at a time."""
    states_TBH = []
    for t, running in enumerate(active.tolist()):
        r_x, z_x, n_x = (x_TBI[t] @ layer.weight_ih.t() + layer.bias_ih).chunk(3, 1)
        r_h, z_h, n_h = (h_BH @ layer.weight_hh.t() + layer.bias_hh).chunk(3, 1)
        r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
        n = torch.tanh(n_x + r * n_h)
        keep = zoneout if keep_TBH is None else keep_TBH[t]
        h_BH = keep * h_BH + (1 - keep) * ((1 - z) * n + z * h_BH)
        runs = (torch.arange(len(h_BH)) < running).unsqueeze(1)
        states_TBH.append(torch.where(runs, h_BH, 0))
    return torch.stack(states_TBH)


def count(lengths: Tensor, steps: int) -> Tensor:
    return (lengths > torch.arange(steps).unsqueeze(1)).sum(1)


def example(steps: int, sequences: int, inputs: int, hidden: int, ragged: bool = False, seed: int = 0):
    """x, h0, weights and biases, and the number of running sequences at each step."""
    g = torch.Generator().manual_seed(seed)
    lengths = torch.full((sequences,), steps)
    if ragged:
        lengths = torch.randint(1, steps + 1, (sequences,), generator=g).sort(descending=True).values
    shapes = (steps, sequences, inputs), (sequences, hidden), (3 * hidden, inputs), (3 * hidden, hidden)
    scales = 1.0, 0.5, inputs**-0.5, hidden**-0.5
    tensors = [s * torch.randn(shape, generator=g) for s, shape in zip(scales, shapes, strict=True)]
    tensors += [0.3 * torch.randn(3 * hidden, generator=g) for _ in range(2)]
    return tensors, count(lengths, steps)


def mask(shape: tuple[int, ...], rate: float = 0.3) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)).lt(rate).float()


def values_and_gradients(run, tensors, active, keep_TBH=None, zoneout=0.0, dtype=FLOAT) -> list[Tensor]:
    leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
    keep_TBH = None if keep_TBH is None else keep_TBH.to(dtype)
    out_TBH = run(leaves[0], leaves[1], Layer(*leaves[2:]), active, keep_TBH, zoneout)
    weighting = torch.randn(out_TBH.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return [out_TBH.detach(), *grad(out_TBH, leaves, weighting.to(dtype))]


def assert_close(got: list[Tensor], expected: list[Tensor], tolerance: float = 3e-6) -> None:
    names = ("output", "x", "h0", "weight_ih", "weight_hh", "bias_ih", "bias_hh")
    for name, a, b in zip(names, got, expected, strict=True):
        error = (a.double() - b.double()).abs().max() / b.abs().max()
        assert error <= tolerance, f"{name}: {error:.1e}"


@pytest.mark.parametrize("zoneout", ["none", "mask", "expectation"])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("hidden", [1, 3, 16, 50, 64, 100, 128])
def test_outputs_and_gradients(hidden, ragged, zoneout):
    tensors, active = example(13, 11, 10, hidden, ragged)
    keep = mask((13, 11, hidden)) if zoneout == "mask" else None
    rate = 0.2 if zoneout == "expectation" else 0.0
    got = values_and_gradients(cpu.run_layer, tensors, active, keep, rate)
    assert_close(got, values_and_gradients(textbook, tensors, active, keep, rate, torch.float64))
