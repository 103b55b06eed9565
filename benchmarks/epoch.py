"""What an epoch of the paper's run loses outside the kernel: data loading, Lightning's loop, metrics, progress."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from benchmarks.clock import CLOCKS, Candidate, Seconds, threads
from benchmarks.subject import Context
from benchmarks.table import Row
from gruland.callbacks import TrainingProgress
from gruland.data import Batch
from gruland.experiment import build_trainer

TITLE = "An epoch"


def measure(context: Context) -> Iterator[Row]:
    """The share of an epoch that is not spent in forward, backward and optimizer, from a part of one."""
    steps = context.settings.steps
    batches = list(islice(context.data.train_dataloader(), steps))
    for count in context.settings.threads:
        with threads(count):
            timings = context.alternate(
                {"fit": lambda: Candidate(lambda _: _fit(context, steps)),
                 "kernel": lambda: Candidate(lambda _: _kernel(context, batches))},
                min(3, context.settings.repetitions),
            )  # fmt: skip
        row = Row(
            "an epoch of the paper's run, data loading included: lost outside the kernel", "the kernel's own time",
            f"H={context.config.model.hidden_size}, {len(batches)} steps, threads: {count}",
            None, "%", 10.0, at_least=False, seconds=timings.seconds, error="; ".join(timings.errors.values()),
        )  # fmt: skip
        if not row.error:
            row.value = 100 * (1 - timings.median("kernel") / timings.median("fit"))
        yield row


class _Stopwatch(pl.Callback):
    def __init__(self, clock: str) -> None:
        self._now, self.seconds = CLOCKS[clock], 0.0

    def on_train_start(self, *_: object) -> None:
        self._start = self._now()

    def on_train_end(self, *_: object) -> None:
        self.seconds = self._now() - self._start


def _fit(context: Context, steps: int) -> Seconds:
    """A part of an epoch by the trainer of ``python -m gruland.train``; its own start does not count."""
    stopwatch = _Stopwatch(context.settings.clock)
    callbacks = {"progress": TrainingProgress(), "stopwatch": stopwatch}
    trainer: Any = build_trainer(context.config, callbacks, [], Path("epoch"))
    trainer.limit_train_batches, trainer.limit_val_batches = steps, 0
    trainer.fit_loop.max_epochs = 1
    trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, ModelCheckpoint)]
    with torch.random.fork_rng(devices=[]):
        trainer.fit(context.fresh_model(), context.data)
    return Seconds(stopwatch.seconds)


def _kernel(context: Context, batches: list[Batch]) -> Seconds:
    """Forward, backward and optimizer on the same batches, alone."""
    model, now = context.fresh_model().train(), CLOCKS[context.settings.clock]
    optimizer = model.configure_optimizers()
    start = now()
    for batch in batches:
        optimizer.zero_grad()
        model.task.loss(model(batch.tokens, batch.lengths), batch.labels).backward()
        optimizer.step()
    return Seconds(now() - start)
