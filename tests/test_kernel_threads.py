"""Kernels that several Python threads call at once: right values and gradients, bit for bit, and no crash.

T time steps, B sequences, I inputs, H hidden units.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gruland import GRU, kernels
from gruland.classifier import Classifier
from gruland.data import Encoded
from gruland.evaluation import logits
from gruland.kernels import Layer, haste
from gruland.kernels.threads import Lock, once
from gruland.regularizers import Draw
from gruland.task import Task

THREADS = 4
CPU = torch.device("cpu")
#: Backend, dtype, precision, and passes of all threads together; Triton's interpreter takes half a second for one.
BACKENDS = [
    ("cpu", torch.float32, "float32", 2000),
    ("cpu", torch.float32, "bfloat16", 1000),
    ("eager", torch.float32, "float32", 400),
    ("haste", torch.float32, "float32", 200),
    ("triton", torch.float32, "float32", 8),
]


def at_once(work: Callable[[int], Any]) -> list[Any]:
    """work(0), work(1), ... in threads that begin together."""
    start = threading.Barrier(THREADS)

    def begin(index: int) -> Any:
        start.wait()
        return work(index)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS)))


class Subject:
    """A GRU of a thread's own, with batches of several sizes and what one thread alone makes of them."""

    def __init__(self, index: int, backend: str, dtype: torch.dtype, precision: str) -> None:
        generator = torch.Generator().manual_seed(index)
        layers = 1 if backend == "triton" else 2
        self.gru = GRU(
            3, 6 + index, layers, between="tanh", zoneout=0.3, backend=backend, precision=precision
        ).to(dtype)
        self.batches = []
        for sequences, steps in ((2, 3), (4, 2)) if backend == "triton" else ((2, 3), (4, 2), (1, 5)):
            lengths = torch.randint(1, steps + 1, (sequences,), generator=generator).tolist()
            x_BTI = torch.randn(sequences, steps, 3, generator=generator).to(dtype)
            self.batches.append((x_BTI, lengths, Draw(index, range(sequences))))
        self.expected = [self.results(k) for k in range(len(self.batches))]

    def results(self, k: int) -> list[Tensor]:
        """The states and all gradients."""
        x_BTI, lengths, draw = self.batches[k]
        x_BTI = x_BTI.clone().requires_grad_()
        output, last = self.gru(x_BTI, lengths=lengths, draw=draw)
        grads = torch.autograd.grad((output**2).sum() + last.sum(), [x_BTI, *self.gru.parameters()])
        return [output.detach(), last.detach(), *grads]

    def wrong(self, passes: int) -> int:
        """How many of the passes give other numbers."""
        each = len(self.batches)
        return sum(
            not all(map(torch.equal, self.results(k % each), self.expected[k % each])) for k in range(passes)
        )


@pytest.mark.parametrize(("backend", "dtype", "precision", "passes"), BACKENDS)
def test_threads_with_a_gru_each(backend: str, dtype: torch.dtype, precision: str, passes: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # haste's docstrings, when they are compiled
        if reason := kernels.why_not(backend, CPU, dtype, True, precision):
            pytest.skip(f"backend {backend}: {reason}")
        subjects = [Subject(index, backend, dtype, precision) for index in range(THREADS)]
    assert at_once(lambda index: subjects[index].wrong(passes // THREADS)) == [0] * THREADS


def test_threads_that_share_a_gru_and_its_graph() -> None:
    subject = Subject(0, "auto", torch.float32, "float32")
    assert at_once(lambda _: subject.wrong(50)) == [0] * THREADS
    x_BTI, lengths, draw = subject.batches[0]
    loss = subject.gru(x_BTI, lengths=lengths, draw=draw)[0].sum()
    wanted = list(subject.gru.parameters())
    expected = torch.autograd.grad(loss, wanted, retain_graph=True)

    def differentiate(_: int) -> bool:
        grads = [torch.autograd.grad(loss, wanted, retain_graph=True) for _ in range(20)]
        return all(torch.equal(a, b) for grad in grads for a, b in zip(grad, expected, strict=True))

    assert at_once(differentiate) == [True] * THREADS


def test_threads_that_evaluate_whole_stacks() -> None:
    cpu = pytest.importorskip("gruland.kernels.cpu")
    if reason := cpu.unavailable(CPU, torch.float32, False):
        pytest.skip(reason)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 20, (30,), generator=generator, dtype=torch.int32)
    offsets = torch.tensor([0, 4, 5, 12, 30])
    stacks = []
    for index in range(THREADS):
        hidden = 5 + index
        shapes = (3 * hidden, hidden), (3 * hidden, hidden), (3 * hidden,), (3 * hidden,)
        layers = [Layer(*(torch.randn(shape, generator=generator) for shape in shapes)) for _ in range(2)]
        table_V3H = torch.randn(20, 3 * hidden, generator=generator)
        stacks.append((table_V3H, tokens, offsets, layers))
    expected = [cpu.final_states(*stack) for stack in stacks]

    def right(index: int) -> bool:
        return all(torch.equal(cpu.final_states(*stacks[index]), expected[index]) for _ in range(200))

    assert at_once(right) == [True] * THREADS


def test_threads_that_ask_one_model_for_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    model = Classifier(Task("binary", ("bad", "good")), torch.randn(40, 5), hidden_size=9).eval()
    batches = []
    for index in range(THREADS):
        lengths = torch.randint(1, 9, (5 + index,), generator=generator).numpy()
        tokens = torch.randint(0, 40, (int(lengths.sum()),), generator=generator, dtype=torch.int32).numpy()
        batches.append(Encoded(tokens, np.concatenate([[0], np.cumsum(lengths)])))
    expected = [logits(model, batch) for batch in batches]

    def right(index: int) -> bool:
        return all(torch.equal(logits(model, batches[index]), expected[index]) for _ in range(50))

    assert at_once(right) == [True] * THREADS
    assert not model.training


def test_what_happens_once_happens_once() -> None:
    calls = []

    @once
    def slow(number: int) -> int:
        """Adds one."""
        calls.append(number)
        time.sleep(0.05)
        return number + 1

    assert at_once(lambda index: (slow(0), slow(index))) == [(1, index + 1) for index in range(THREADS)]
    assert sorted(calls) == list(range(THREADS))
    assert slow.__doc__ == "Adds one."


def test_an_error_is_not_remembered() -> None:
    answers = iter([ValueError("not yet"), None])

    @once
    def second_time() -> str:
        if error := next(answers):
            raise error
        return "done"

    with pytest.raises(ValueError, match="not yet"):
        second_time()
    assert second_time() == "done"


def test_the_kernel_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    binding = pytest.importorskip("gruland.kernels.cpu.binding")
    if isinstance(binding.compiled(), str):
        pytest.skip(binding.compiled())
    build, built = binding.build, []

    def slowly(architecture: Any) -> Path:
        built.append(architecture)
        time.sleep(0.05)
        return build(architecture)

    monkeypatch.setattr(binding, "build", slowly)
    binding.compiled.cache_clear()
    assert at_once(lambda _: binding.unavailable(CPU, torch.float32, True)) == [None] * THREADS
    assert len(built) == 1


def test_haste_is_examined_once(monkeypatch: pytest.MonkeyPatch) -> None:
    examined = []

    def wrong(*_: Any) -> bool:
        examined.append(True)
        time.sleep(0.05)
        return False

    monkeypatch.setattr(haste, "zoneout_gradient_is_wrong", wrong)
    monkeypatch.setattr(haste, "_recurrence", lambda device: None)
    haste._is_wrong.cache_clear()
    assert at_once(lambda _: haste._is_wrong("cpu")) == [False] * THREADS
    assert len(examined) == 1
    haste._is_wrong.cache_clear()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_finds_locks_open() -> None:
    lock, held, done = Lock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    child = os.fork()
    if child == 0:
        threading.Timer(10, os._exit, [1]).start()
        with lock:
            os._exit(0)
    done.set()
    holder.join()
    assert os.waitpid(child, 0)[1] == 0
