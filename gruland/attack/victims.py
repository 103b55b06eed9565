"""The package's own classifier as an attack sees it: raw texts in, logits out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from gruland.attack.base import Texts, Victim
from gruland.classifier import Classifier
from gruland.data import TextDataModule
from gruland.evaluation import logits, logits_of_draws


class ClassifierVictim:
    """A classifier with the data module that knows its cleaning, tokenizer and vocabulary.

    A white-box attack finds the module and its gradients in ``model``.
    """

    def __init__(self, model: Classifier, data: TextDataModule) -> None:
        self.model, self.data, self.task = model, data, model.task

    def logits(self, texts: Sequence[str]) -> Tensor:
        """Logits [N, K] in evaluation mode."""
        return logits(self.model, self.data.encode(texts))


class RandomClassifierVictim(ClassifierVictim):
    """The same for a regularizer with masks that can stay on at test time."""

    def draws(self, texts: Sequence[str], keys: np.ndarray, *, count: int, seed: int) -> Tensor:
        """Logits [S, N, K] under the same masks for the same keys."""
        return logits_of_draws(self.model, self.data.encode(texts), draws=count, seed=seed, keys=keys)


def victim_of(model: Classifier, data: TextDataModule) -> Victim:
    """The classifier as an attack sees it."""
    random = model.regularizer.random
    return RandomClassifierVictim(model, data) if random else ClassifierVictim(model, data)


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
