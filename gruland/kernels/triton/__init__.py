"""Fused Triton kernels for GPUs: a layer with its backward pass, and whole stacks of many weight sets at once.

Equations and memory layout: ``layer_kernel.py`` and ``stack_kernel.py``; masks drawn within a kernel:
``kernels/philox.py``. Without a GPU the kernels run in Triton's interpreter where ``TRITON_INTERPRET=1`` is set before
they are imported: slowly, to test them, and never by ``auto``.
"""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from gruland.kernels import Layer
from gruland.kernels import eager as reference
from gruland.kernels.philox import bernoulli
from gruland.kernels.threads import once
from gruland.kernels.triton.layer import run_layer
from gruland.kernels.triton.stack import final_states, final_states_many

#: ``run_layer`` draws a zoneout mask from ``keep_seed``.
DRAWS_ZONEOUT = True

__all__ = ["final_states", "final_states_many", "run_layer", "unavailable"]


def unavailable(
    device: torch.device, dtype: torch.dtype, training: bool, precision: str = "float32"
) -> str | None:
    """None if the kernels can run such tensors, else one line that says why not.

    On a GPU the kernels are compiled and compared with the eager backend, once in a process.
    """
    if dtype != torch.float32:
        return f"the tensors are {str(dtype).removeprefix('torch.')}, the kernels compute in float32"
    try:
        interpreted = _interpreted()
    except ImportError as error:
        return f"Triton is missing: {error}"
    if interpreted:
        return None if device.type == "cpu" else "Triton's interpreter is on (TRITON_INTERPRET): only for cpu"
    if device.type != "cuda":
        return f"the device is {device.type}, the kernels run on cuda (on cpu with TRITON_INTERPRET=1)"
    if precision == "bfloat16" and not _has_wide_products():
        return f"torch {torch.__version__} has no bfloat16 products summed in float32: 2.8 or later has"
    return failed_check(device.index or 0, precision)


@once
def failed_check(index: int, precision: str) -> str | None:
    """None if the kernels' results on a GPU are the eager backend's, else one line (also logged, once)."""
    device = torch.device("cpu") if _interpreted() else torch.device("cuda", index)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            reason = _deviation(device, precision)
    except Exception as error:  # whatever the compiler or the driver has to say, torch can serve instead
        reason = f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0]
    if reason is not None:
        logging.getLogger(__name__).warning("no Triton kernels: %s", reason)
    return reason


def _has_wide_products() -> bool:
    """Whether ``torch.mm`` has out_dtype, new in torch 2.8."""
    return tuple(int(n) for n in torch.__version__.split(".")[:2]) >= (2, 8)


@once
def _interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels. Raises ImportError without Triton."""
    import triton

    from gruland.kernels.triton import layer_kernel

    return not isinstance(layer_kernel.forward, triton.JITFunction)


def _deviation(device: torch.device, precision: str) -> str | None:
    """A small pass forward and back beside the eager backend: None, or a line about where they part.

    Both kinds of kernel run, with the weights on chip (where the precision allows) and streamed, over ragged
    sequences with a drawn mask.
    """
    # torch's own products outside the kernels may be TF32, if the user allows that.
    tolerance = {"float32": 5e-3, "bfloat16": 3e-2}[precision]
    for hidden in (20, 136):
        generator = torch.Generator().manual_seed(hidden)
        shapes = (9, 3, 5), (3, hidden), (3 * hidden, 5), (3 * hidden, hidden), (3 * hidden,), (3 * hidden,)
        scales = 1, 1, 0.4, hidden**-0.5, 1, 1
        tensors = [
            (torch.randn(shape, generator=generator) * scale).to(device)
            for shape, scale in zip(shapes, scales, strict=True)
        ]
        active = [3] * 4 + [2] * 4 + [1]
        keep_TBH = bernoulli(hidden, 0.3, 9, torch.arange(3, device=device), hidden)
        doubles = [tensor.double() for tensor in tensors]
        expected = _results(reference.run_layer, doubles, active, keep_TBH.double(), 0.3)
        actual = _results(run_layer, tensors, active, None, 0.3, precision, keep_seed=hidden)
        for name, got, wanted in zip(("states", "x", "h0", *Layer._fields), actual, expected, strict=True):
            error = float((got - wanted).abs().max() / wanted.abs().max())
            if not error < tolerance:  # a NaN is not below anything
                what = name if name == "states" else f"the gradient of {name}"
                return f"{what} with {hidden} units in {precision} is off by {error:.1e} of its largest value"
    return _stack_deviation(device, precision, tolerance)


def _stack_deviation(device: torch.device, precision: str, tolerance: float) -> str | None:
    """The last states of a small stack beside the eager backend's: None, or a line about where they part."""
    lengths, tokens = [4, 3, 3, 1], torch.tensor([0, 3, 2, 1, 4, 0, 2, 3, 3, 1, 2])
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    for hidden in (20, 136):
        generator = torch.Generator().manual_seed(hidden)
        square, gates = (3 * hidden, hidden), (3 * hidden,)
        shapes = (5, 3 * hidden), square, gates, square, square, gates, gates
        scales = 1, hidden**-0.5, 1, hidden**-0.5, hidden**-0.5, 1, 1
        table, *weights = [
            torch.randn(shape, generator=generator) * scale
            for shape, scale in zip(shapes, scales, strict=True)
        ]
        # The first layer of the eager backend takes the table's rows as they are.
        first = Layer(torch.eye(3 * hidden), weights[0], torch.zeros(3 * hidden), weights[1])
        layers = [first, Layer(*weights[2:])]
        sequences = [table[tokens[start:end]] for start, end in pairwise(offsets.tolist())]
        h_TBH = torch.nn.utils.rnn.pad_sequence(sequences).double()
        for index, layer in enumerate(layers):
            inputs, start = (h_TBH.tanh() if index else h_TBH), torch.zeros(4, hidden).double()
            doubles = Layer(*(tensor.double() for tensor in layer))
            h_TBH = reference.run_layer(inputs, start, doubles, [4, 3, 3, 1], None, 0.3)
        expected = h_TBH[torch.tensor(lengths) - 1, torch.arange(4)]
        moved = [Layer(*(tensor.to(device) for tensor in layer)) for layer in layers]
        options: Any = {"between": "tanh", "zoneout": 0.3, "precision": precision}
        got = final_states(table.to(device), tokens.int(), offsets, moved, **options)
        error = float((got.cpu() - expected).abs().max() / expected.abs().max())
        if not error < tolerance:
            return f"last states with {hidden} units in {precision} are off by {error:.1e} of their largest value"
    return None


def _results(
    run: Any, tensors: list[Tensor], active: list[int], *arguments: Any, **options: Any
) -> list[Tensor]:
    """The states, then the gradients of the tensors."""
    inputs = [tensor.clone().requires_grad_() for tensor in tensors]
    h_TBH = run(*inputs[:2], Layer(*inputs[2:]), active, *arguments, **options)
    weights_TBH = torch.linspace(-1, 1, h_TBH.numel(), device=h_TBH.device).view_as(h_TBH)
    return [h_TBH.detach(), *torch.autograd.grad((h_TBH * weights_TBH).sum(), inputs)]
