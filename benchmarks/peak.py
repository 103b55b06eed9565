"""The machine's peak in matrix products, measured: the better of a loop in registers and of torch's products."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.clock import CLOCKS
from gruland.kernels.cpu.compilation import ARCHITECTURES, FLAGS, compiler

SOURCE = Path(__file__).with_name("peak.cpp")
SIZES = (256, 512, 1024, 2048)  # of torch's square matrices
LEAST = 0.05  # seconds that one measurement lasts at least


def peak(precision: str, threads: int, clock: str = "wall") -> tuple[float, str]:
    """Floating point operations a second of the clock on so many threads, and what reached them."""
    runs = {f"torch.mm of {size} x {size}": _product(precision, size) for size in SIZES}
    if (loop := _loop(precision, threads)) is not None:
        runs["multiply-adds in registers"] = loop
    found = {name: _rate(*run, CLOCKS[clock]) for name, run in runs.items()}
    best = max(found, key=lambda name: found[name])
    return found[best], best


def _rate(run: Callable[[int], float], count: int, now: Callable[[], float]) -> float:
    """The best of three, as a peak is; ``run(count)`` says how many operations it did."""
    rates: list[float] = []
    while len(rates) < 3:
        start = now()
        operations = run(count)
        seconds = now() - start
        if seconds < LEAST:
            count *= 2
        else:
            rates.append(operations / seconds)
    return max(rates)


def _product(precision: str, size: int) -> tuple[Callable[[int], float], int]:
    a, b = (torch.randn(size, size, dtype=getattr(torch, precision)) for _ in range(2))
    out = torch.empty_like(a)

    def run(count: int) -> float:
        for _ in range(count):
            torch.mm(a, b, out=out)
        return count * 2.0 * size**3

    return run, 1


def _loop(precision: str, threads: int) -> tuple[Callable[[int], float], int] | None:
    """The loop in registers; None without a compiler or such an instruction."""
    library = _library()
    function = getattr(library, f"peak_{precision}", None)
    if function is None or function(1) == 0:
        return None
    pool = ThreadPoolExecutor(threads)

    def run(count: int) -> float:
        # ctypes lets go of the interpreter's lock, so that these are threads in earnest.
        return float(sum(pool.map(function, [count] * threads)))

    return run, 1_000_000


@cache
def _library() -> Any:
    for architecture in ARCHITECTURES:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "peak.so"
            try:
                command = [*compiler(), *FLAGS, *architecture, str(SOURCE), "-o", str(path)]
                subprocess.run(command, check=True, capture_output=True)
                library = ctypes.CDLL(str(path))
            except (OSError, subprocess.CalledProcessError):
                continue
        for function in (library.peak_float32, library.peak_bfloat16):
            function.argtypes, function.restype = [ctypes.c_int64], ctypes.c_int64
        return library
    return None
