"""A training step beside ``torch.nn.GRU``: forward and backward of two layers, alternating in one process.

    python benchmarks/training_step.py [--threads N] [--repeat N]

Prints a Markdown table of medians in milliseconds and of ratios (above 1: faster than ``torch.nn.GRU``).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from gruland import GRU, kernels

STEPS, SEQUENCES, INPUTS = 230, 32, 100  # the mean length of an IMDB review, the paper's batch and vectors


def candidates(hidden: int) -> dict[str, torch.nn.Module]:
    """What is compared, ``torch.nn.GRU`` first."""
    made: dict[str, torch.nn.Module] = {"torch.nn.GRU": torch.nn.GRU(INPUTS, hidden, 2, batch_first=True)}
    for backend in ("cpu", "torch"):
        if kernels.why_not(backend, torch.device("cpu"), torch.float32, True) is None:
            for name, rates in (
                ("none", {}),
                ("zoneout", {"zoneout": 0.1}),
                ("dropconnect", {"dropconnect": 0.1}),
            ):
                made[f"{backend}, {name}"] = GRU(INPUTS, hidden, 2, between="tanh", backend=backend, **rates)
    return made


def step(module: torch.nn.Module, x_BTI: torch.Tensor) -> Callable[[], None]:
    """A forward and backward pass."""

    def run() -> None:
        module.zero_grad()
        module(x_BTI)[1][-1].sum().backward()

    return run


def medians(hidden: int, repeat: int) -> dict[str, float]:
    """Milliseconds of each candidate; the first round only warms up."""
    torch.manual_seed(0)
    x_BTI = torch.randn(SEQUENCES, STEPS, INPUTS)
    runs = {name: step(module, x_BTI) for name, module in candidates(hidden).items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeat + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(seen[1:]) for name, seen in times.items()}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeat", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"T={STEPS}, B={SEQUENCES}, I={INPUTS}, two layers, float32, {options.threads} threads\n")
    print("| H | backend, regularizer | ms | torch.nn.GRU / it |\n|---:|---|---:|---:|")
    for hidden in (64, 128, 256):
        found = medians(hidden, options.repeat)
        for name, value in found.items():
            print(f"| {hidden} | {name} | {value:.0f} | {found['torch.nn.GRU'] / value:.2f} |")


if __name__ == "__main__":
    main()
