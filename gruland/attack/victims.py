"""The package's own classifier as an attack sees it: raw texts in, logits out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gruland.attack.base import Texts, Victim
from gruland.classifier import Classifier
from gruland.data import TextDataModule, words_of
from gruland.evaluation import logits, logits_of_draws
from gruland.regularizers import Draw


class ClassifierVictim:
    """A classifier with the data module that knows its cleaning, tokenizer and vocabulary.

    It is open (:class:`gruland.attack.base.OpenVictim`); an attack of its own engine finds the module in ``model``.
    """

    def __init__(self, model: Classifier, data: TextDataModule, folder: Path | None = None) -> None:
        self.model, self.data, self.task, self.folder = model, data, model.task, folder
        self.vocabulary = data.vocabulary

    @property
    def vectors(self) -> Tensor:
        """The words' vectors [V, D], without a graph."""
        return self.model.vectors.detach()

    def words(self, texts: Sequence[str]) -> list[list[str]]:
        """The words of each text that the model reads."""
        settings = self.data.settings
        return [words_of(text, settings.clean, settings.max_length)[: settings.max_length] for text in texts]

    def logits_of_vectors(
        self, embedded_BTD: Tensor, tokens_BT: Tensor, lengths_B: Tensor, draw: Draw | None = None
    ) -> Tensor:
        """Logits [B, K] in evaluation mode; the graph leads to the vectors alone, not to the weights."""
        with _frozen(self.model) as model:
            masked_BTD = model.mask_words(embedded_BTD, tokens_BT, draw)
            return model.classify(masked_BTD, lengths_B, draw)[0]

    def logits(self, texts: Sequence[str]) -> Tensor:
        """Logits [N, K] in evaluation mode."""
        return logits(self.model, self.data.encode(texts))


class RandomClassifierVictim(ClassifierVictim):
    """The same for a regularizer with masks that can stay on at test time."""

    def draws(self, texts: Sequence[str], keys: np.ndarray, *, count: int, seed: int) -> Tensor:
        """Logits [S, N, K] under the same masks for the same keys."""
        return logits_of_draws(self.model, self.data.encode(texts), draws=count, seed=seed, keys=keys)


@contextmanager
def _frozen(model: Classifier) -> Iterator[Classifier]:
    """The model in evaluation mode, none of its weights asking for a gradient; then as it was."""
    was_training, trained = model.training, list(model.trainable().values())
    model.eval()
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield model
    finally:
        for weight in trained:
            weight.requires_grad_(True)
        model.train(was_training)


def victim_of(model: Classifier, data: TextDataModule, folder: Path | None = None) -> Victim:
    """The classifier as an attack sees it; ``folder``: of its run."""
    random = model.regularizer.random
    kind = RandomClassifierVictim if random else ClassifierVictim
    return kind(model, data, folder)


def of_module(module: Any, data: Any, split: str) -> tuple[Victim, Texts]:
    """What is attacked in a Lightning project: the module, and the texts of a split.

    Args:
        module: a :class:`gruland.classifier.Classifier`, or a module that is a :class:`gruland.attack.Victim`.
        data: the trainer's data module, or None. It, or else the module, has ``labelled_texts(split)``.

    Raises:
        ValueError: what is missing, by name.
    """
    if isinstance(module, Classifier) and isinstance(data, TextDataModule):
        return victim_of(module, data), texts_of(data, split)
    source = next((part for part in (data, module) if hasattr(part, "labelled_texts")), None)
    if source is None or not isinstance(module, Victim):
        missing = [name for name in ("task", "logits") if not hasattr(module, name)]
        missing += ["labelled_texts"] * (source is None)
        raise ValueError(
            f"{type(module).__name__} cannot be attacked: it has no {', no '.join(missing)} "
            "(gruland.callbacks.AdversarialEvaluation shows what they are)"
        )
    return module, source.labelled_texts(split)


def texts_of(data: TextDataModule, split: str = "test") -> Texts:
    """The labelled texts of a split."""
    part = data.splits[split]
    return Texts(part.ids, part.texts, part.labels)
