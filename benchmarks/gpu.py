"""The Triton backend on a GPU beside cuDNN: errors, training steps, a surface's grid points.

    python benchmarks/gpu.py [--repeat N] [--products ieee|tf32x3] [--points P] [--reviews N]

Prints Markdown tables; times are medians of alternating runs, ratios above 1 mean faster than cuDNN.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from gruland.kernels import Layer, triton
from gruland.kernels import eager as reference
from gruland.kernels.philox import bernoulli

STEPS, SEQUENCES, INPUTS = 230, 32, 100  # the mean length of an IMDB review, the paper's batch and vectors
WORDS, SURFACE = 20_000, (51 * 51, 25_000)  # a vocabulary; the paper's grid points and reviews
PRECISIONS = "float32", "bfloat16"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--products", default="ieee", help="how the kernels make float32 products")
    parser.add_argument("--points", type=int, default=16, help="grid points in a launch")
    parser.add_argument("--reviews", type=int, default=SURFACE[1])
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit(
            "benchmarks/gpu.py measures a GPU, and torch finds none here (torch.cuda.is_available())"
        )
    device = torch.device("cuda")
    for precision in PRECISIONS:
        if reason := triton.unavailable(device, torch.float32, True, precision):
            raise SystemExit(f"the Triton backend cannot run in {precision}: {reason}")
    triton.layer.FLOAT32_PRODUCTS = options.products
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, float32 products: {options.products}\n"
    )
    errors(device)
    training(device, options.repeat)
    surface(device, options.points, options.reviews, options.repeat)


def errors(device: torch.device, hidden_sizes: Sequence[int] = (64, 128, 256)) -> None:
    """The largest deviations from the eager backend in float64, of the states and of all gradients."""
    print("| H | precision | states | gradients, of each one's largest value |\n|---:|---|---:|---:|")
    for hidden in hidden_sizes:
        gru, x_TBI = model(hidden, device)
        keep_TBH = bernoulli(1, 0.1, STEPS, torch.arange(SEQUENCES, device=device), hidden)
        active = [max(SEQUENCES - t // 8, 1) for t in range(len(x_TBI))]
        expected = both_passes(reference.run_layer, gru, x_TBI.double(), active, keep_TBH.double())
        for precision in PRECISIONS:
            found = both_passes(triton.run_layer, gru, x_TBI, active, None, 0.1, precision, keep_seed=1)
            state, *grads = (
                float((one - other).abs().max() / other.abs().max())
                for one, other in zip(found, expected, strict=True)
            )
            print(f"| {hidden} | {precision} | {state:.1e} | {max(grads):.1e} |")
    print()


def both_passes(run: Any, gru: torch.nn.GRU, x_TBI: Tensor, *arguments: Any, **options: Any) -> list[Tensor]:
    """A layer's states and its parameters' gradients, in x's dtype."""
    weights = [w.detach().to(x_TBI.dtype).requires_grad_() for w in layers(gru)[0]]
    h_TBH = run(
        x_TBI, x_TBI.new_zeros(x_TBI.shape[1], gru.hidden_size), Layer(*weights), *arguments, **options
    )
    return [h_TBH.detach(), *torch.autograd.grad(h_TBH.square().sum(), weights)]


def training(device: torch.device, repeat: int, hidden_sizes: Sequence[int] = (64, 128, 256)) -> None:
    """Forward and backward of two layers, zoneout 0.1 beside cuDNN's plain GRU."""
    print(f"T={STEPS}, B={SEQUENCES}, I={INPUTS}, two layers, forward and backward\n")
    print("| H | what | ms | cuDNN, float32 / it |\n|---:|---|---:|---:|")
    for hidden in hidden_sizes:
        gru, x_TBI = model(hidden, device)
        half = model(hidden, device)[0].bfloat16()
        runs: dict[str, Callable[[], Tensor]] = {
            "cuDNN, float32": partial(states, gru, x_TBI),
            "cuDNN, float32 by TF32": partial(states, gru, x_TBI),
            "cuDNN, all in bfloat16": partial(states, half, x_TBI.bfloat16()),
            "torch, float32, zoneout 0.1": partial(stack_of_torch, gru, x_TBI, 0.1),
        }
        for precision in PRECISIONS:
            for rate in (0.0, 0.1):
                runs[f"triton, {precision}, zoneout {rate}"] = partial(stack, gru, x_TBI, rate, precision)
        steps = {name: step(name, run, (gru, half)) for name, run in runs.items()}
        found = medians(steps, repeat)
        for name, value in found.items():
            print(f"| {hidden} | {name} | {value:.2f} | {found['cuDNN, float32'] / value:.2f} |")
    print()


def step(name: str, run: Callable[[], Tensor], modules: Sequence[torch.nn.Module]) -> Callable[[], None]:
    """A forward and backward pass; cuDNN may round to TF32 only where the name says so."""

    def passes() -> None:
        for module in modules:
            module.zero_grad()
        with torch.backends.cudnn.flags(enabled=True, allow_tf32="TF32" in name):
            run()[-1].sum().backward()

    return passes


def states(gru: torch.nn.GRU, x_TBI: Tensor) -> Tensor:
    """By cuDNN."""
    return gru(x_TBI)[0]


def stack(gru: torch.nn.GRU, x_TBI: Tensor, zoneout: float, precision: str) -> Tensor:
    """Two layers by the Triton backend, a mask drawn in each."""
    for index, layer in enumerate(layers(gru)):
        h0_BH, active = x_TBI.new_zeros(x_TBI.shape[1], gru.hidden_size), [x_TBI.shape[1]] * len(x_TBI)
        x_TBI = triton.run_layer(
            x_TBI, h0_BH, layer, active, None, zoneout, precision, keep_seed=index if zoneout else None
        )
    return x_TBI


def stack_of_torch(gru: torch.nn.GRU, x_TBI: Tensor, zoneout: float) -> Tensor:
    """The same by the eager backend."""
    for layer in layers(gru):
        h0_BH, active = x_TBI.new_zeros(x_TBI.shape[1], gru.hidden_size), [x_TBI.shape[1]] * len(x_TBI)
        keep_TBH = torch.rand(len(x_TBI), *h0_BH.shape, device=x_TBI.device).lt_(zoneout)
        x_TBI = reference.run_layer(x_TBI, h0_BH, layer, active, keep_TBH)
    return x_TBI


def surface(device: torch.device, points: int, reviews: int, repeat: int, hidden: int = 128) -> None:
    """Grid points over reviews of IMDB's lengths, two layers; what the paper's surface would take.

    The package's surfaces launch one point at a time: that is a row of its own beside launches of many.
    """
    gru, _ = model(hidden, device)
    generator = torch.Generator().manual_seed(0)
    # IMDB's training reviews: a median of 174 words, a mean of 230.
    lengths = torch.empty(reviews).log_normal_(5.2, 0.65, generator=generator).long().clamp_(10, 2400)
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).to(device)
    tokens = torch.randint(WORDS, (int(lengths.sum()),), generator=generator).int().to(device)
    vectors = torch.randn(WORDS, INPUTS, generator=generator).to(device)
    first, second = (Layer(*(w.detach() for w in layer)) for layer in layers(gru))
    center = vectors @ first.weight_ih.t() + first.bias_ih
    tables = torch.stack([center, *(torch.randn_like(center) for _ in range(2))])
    factors = torch.cat([torch.ones(points, 1), torch.randn(points, 2, generator=generator) / 10], 1).to(
        device
    )
    many = [Layer(*(w.expand(points, *w.shape) for w in layer)) for layer in (first, second)]
    point = partial(triton.final_states_many, tokens=tokens, offsets=offsets, layers=many)
    half = tables.bfloat16()
    runs: dict[str, Callable[[], Any]] = {
        "triton, float32": partial(point, tables, factors),
        "triton, bfloat16": partial(point, tables, factors, precision="bfloat16"),
        "triton, bfloat16, tables too": partial(point, half, factors, precision="bfloat16"),
    }
    for precision in PRECISIONS:
        alone = partial(triton.final_states, center, tokens, offsets, [first, second], precision=precision)
        runs[f"triton, {precision}, one point a launch as surfaces have it"] = alone
    runs["cuDNN, one point, float32 by TF32"] = partial(cudnn, gru, vectors, tokens, offsets.cpu())
    found = medians(runs, max(repeat // 3, 1))
    print(f"H={hidden}, two layers, {reviews} reviews, {len(tokens)} words, {points} points in a launch\n")
    print("| what | ms a point | s for 51 x 51 points over 25,000 reviews |\n|---|---:|---:|")
    for name, value in found.items():
        value = value if "one point" in name else value / points
        print(f"| {name} | {value:.1f} | {value / 1e3 * SURFACE[0] * SURFACE[1] / reviews:.0f} |")


@torch.no_grad()
def cudnn(gru: torch.nn.GRU, vectors: Tensor, tokens: Tensor, offsets: Tensor) -> None:
    """One grid point by ``torch.nn.GRU``: sorted reviews, batches of 256."""
    lengths = offsets.diff()
    for rows in lengths.argsort(descending=True).split(256):
        longest = int(lengths[rows[0]])
        at = (offsets[rows].unsqueeze(1) + torch.arange(longest)).clamp_(max=len(tokens) - 1)
        x_BTI = vectors[tokens[at.to(tokens.device)].long()]
        gru(pack_padded_sequence(x_BTI.transpose(0, 1), lengths[rows]))


def model(hidden: int, device: torch.device) -> tuple[torch.nn.GRU, Tensor]:
    """Two layers and a batch [T, B, I]."""
    torch.manual_seed(0)
    gru = torch.nn.GRU(INPUTS, hidden, 2).to(device)
    return gru, torch.randn(STEPS, SEQUENCES, INPUTS).to(device)


def layers(gru: torch.nn.GRU) -> list[Layer]:
    """Its parameters."""
    return [Layer(*(getattr(gru, f"{name}_l{index}") for name in Layer._fields)) for index in range(2)]


def medians(runs: dict[str, Callable[[], Any]], repeat: int) -> dict[str, float]:
    """Milliseconds of each run, launches included; the first round compiles and warms up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeat + 1):
        for name, run in runs.items():
            torch.cuda.synchronize()
            start = time.perf_counter()
            run()
            torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(seen[1:]) for name, seen in times.items()}


if __name__ == "__main__":
    main()
