"""What is measured on: a trained model, real reviews, and how large everything is."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

import gruland
from benchmarks.clock import Candidate, Timings, alternate
from gruland import runs
from gruland.classifier import Classifier
from gruland.config import cores
from gruland.data import Batch, Encoded, TextDataModule, subset
from gruland.landscape import random_directions


@dataclass(frozen=True)
class Settings:
    """Sizes of a whole run of the benchmarks.

    Attributes:
        repetitions: rounds of a comparison, after one that warms up.
        threads: the numbers of threads in which things are measured.
        clock: ``wall``, or ``cpu`` for the processor time of this process (meant for a busy machine).
        hidden: units of a layer in training steps and in the table of growth.
        reviews: of a surface; ``peer_reviews`` beside other packages and inference engines.
        batches: training batches that make one repetition.
        points: cells that the exact surface is projected from; ``grid``: cells on each side of the small surfaces.
        steps: of training, of the part of an epoch; ``training``: those before a fresh model is measured.
        batch_sizes: among which evaluating peers find their best.
        attacked: test reviews, whole, of an attack; ``attacked_by_peers``: those that a peer attacks, too.
        full: whether minutes may be spent on one number.
    """

    repetitions: int = 5
    threads: tuple[int, ...] = tuple(sorted({1, min(2, cores())}))
    clock: str = "wall"
    hidden: tuple[int, ...] = (64, 128, 256)
    reviews: int = 1024
    peer_reviews: int = 512
    batches: int = 4
    points: int = 20
    grid: int = 3
    steps: int = 60
    training: int = 200
    batch_sizes: tuple[int, ...] = (16, 32, 64, 128)
    attacked: int = 200
    attacked_by_peers: int = 24
    full: bool = True


#: Everything runs, nothing is measured: for tests.
SMOKE = Settings(
    repetitions=1, threads=(1,), hidden=(8,), reviews=12, peer_reviews=8, batches=1, points=2, steps=2,
    training=1, batch_sizes=(4,), attacked=4, attacked_by_peers=2, full=False,
)  # fmt: skip


class Context:
    """What every part of the table measures with.

    Args:
        settings: the sizes.
        run: the folder of a finished run whose model and data serve; None trains a model for a moment.
        overrides: of the configuration that data and model come from without ``run``.
    """

    def __init__(self, settings: Settings, run: Path | None = None, overrides: tuple[str, ...] = ()) -> None:
        self.settings, self._overrides = settings, overrides
        self._run = None if run is None else runs.load(run)

    @cached_property
    def config(self) -> DictConfig:
        """The configuration of data and model."""
        return self._run.config if self._run is not None else gruland.compose(*self._overrides)

    @cached_property
    def data(self) -> TextDataModule:
        """The reviews."""
        return self._run.data if self._run is not None else runs.build_data(self.config)

    @cached_property
    def model(self) -> Classifier:
        """The model whose surface is computed, in evaluation mode."""
        if self._run is not None:
            return self._run.model
        model = self.fresh_model()
        _train(model, self.data, self.settings.training)
        return model.eval()

    def fresh_model(self, **options: object) -> Classifier:
        """An untrained model of the same kind; ``options`` are arguments of the classifier."""
        given = {"hidden_size": self.config.model.hidden_size, "between": self.config.model.between}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            vectors = torch.from_numpy(self.data.vocabulary.vectors)
            return Classifier(self.data.task, vectors, **(given | options))

    def conditions(self) -> str:
        """Data and model in one sentence."""
        sizes, vectors = self.data.report["sizes"], self.data.report["vocabulary"]
        words = self.data.splits["train"].encoded.lengths
        cut = self.data.settings.max_length
        trained = self._run.path.name if self._run else f"trained for {self.settings.training} steps"
        return (
            f"Data: {self.data.report['source']}, {sizes['train']:,} training reviews of {words.mean():.0f} words "
            f"({'whole' if cut is None else f'the first {cut}'}), {vectors['name']}; model: 2 x "
            f"{self.model.gru.hidden_size} units, {trained}."
        )

    def reviews(self, count: int | None = None) -> tuple[Encoded, np.ndarray]:
        """A stratified subset of the training reviews and their labels; None takes all."""
        train = self.data.splits["train"]
        size = len(train.labels)
        rows = subset(train.labels, size if count is None else min(count, size), 0)
        return train.encoded.take(rows), train.labels[rows]

    def batches(self, count: int) -> list[Batch]:
        """Training batches from evenly spaced places among an epoch's, by their padded words."""
        loader = self.data.train_dataloader()
        lengths = self.data.splits["train"].encoded.lengths
        epoch = sorted(loader.sampler, key=lambda rows: lengths[rows].max() * len(rows))
        epoch = [rows for rows in epoch if len(rows) == self.data.batch_size] or epoch
        places = [int((i + 0.5) * len(epoch) / count) for i in range(count)]
        return [loader.dataset[epoch[place]] for place in places]

    @cached_property
    def directions(self) -> list[dict[str, Tensor]]:
        """Two filter-normalized directions through the model's weights."""
        return random_directions(self.model.trainable(), 0)

    def alternate(
        self, makers: Mapping[str, Callable[[], Candidate]], repetitions: int | None = None
    ) -> Timings:
        """:func:`benchmarks.clock.alternate` with this run's settings."""
        return alternate(makers, repetitions or self.settings.repetitions, self.settings.clock)

    def with_settings(self, **changes: Any) -> Context:
        """The same data and model in other sizes."""
        other = copy(self)
        other.settings = replace(self.settings, **changes)
        return other


def configuration(data: str | None, embedding: str | None, smoke: bool) -> tuple[str, ...]:
    """Overrides that name the reviews: those given, the files in ``GRULAND_DATA``, or the embedded ones."""
    if smoke:
        return ("data.limit=64", "data.max_length=12", "model.hidden_size=8")
    folder = os.environ.get("GRULAND_DATA")
    if folder and not data:
        files = Path(folder).absolute()
        data, embedding = str(files / "imdb.parquet"), embedding or str(files / "glove.6B.100d.txt")
    whole = ("data.limit=null", "data.max_length=null")
    words = ("embedding=file", f"embedding.path={embedding}") if embedding else ()
    return (*whole, *words) if not data else ("data=imdb", f"data.path={data}", *whole, *words)


def _train(model: Classifier, data: TextDataModule, steps: int) -> None:
    """Enough steps for weights that are no longer the initial ones."""
    optimizer = model.configure_optimizers()
    with torch.random.fork_rng(devices=[]):
        for step, batch in zip(range(steps), data.train_dataloader(), strict=False):
            torch.manual_seed(step)
            optimizer.zero_grad()
            model.task.loss(model(batch.tokens, batch.lengths), batch.labels).backward()
            optimizer.step()
