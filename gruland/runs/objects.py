"""The data and the model that a configuration describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from omegaconf import DictConfig

from gruland.config import instantiate

if TYPE_CHECKING:
    import torch

    from gruland.classifier import Classifier
    from gruland.data import TextDataModule
    from gruland.defence import Defence
    from gruland.embedding import Vocabulary
    from gruland.task import Task


class Reviews(Protocol):
    """What a model is built for: a data module, or a run that recorded one."""

    @property
    def task(self) -> Task: ...

    @property
    def vocabulary(self) -> Vocabulary: ...


def build_vocabulary(cfg: DictConfig) -> Vocabulary:
    """The word vectors that a configuration names."""
    return instantiate(cfg.embedding)


def build_defence(cfg: DictConfig) -> Defence:
    """The defence that a configuration names; older ones name none."""
    from gruland.defence import NoDefence

    return instantiate(cfg.defence) if cfg.get("defence") else NoDefence()


def build_data(cfg: DictConfig, vocabulary: Vocabulary | None = None) -> TextDataModule:
    """The data module that a configuration describes, set up."""
    data = instantiate(cfg.data, vocabulary=vocabulary or build_vocabulary(cfg), seed=cfg.seed)
    data.prepare_data()
    data.setup()
    return data


def build_model(cfg: DictConfig, data: Reviews) -> Classifier:
    """An untrained classifier for the task and the vocabulary of ``data``, its weights drawn from the seed."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.seed)
        vectors = torch.from_numpy(data.vocabulary.vectors)
        return instantiate_model(cfg, data.task, vectors, freeze=data.vocabulary.freeze)


def instantiate_model(
    cfg: DictConfig, task: Task, vectors: torch.Tensor, *, freeze: bool = True
) -> Classifier:
    """The classifier for a task and word vectors [V, D]."""
    return instantiate(
        cfg.model,
        task=task,
        vectors=vectors,
        regularizer=instantiate(cfg.regularizer),
        defence=build_defence(cfg),
        freeze=freeze,
        optimizer=instantiate(cfg.optimizer),
        seed=cfg.seed,
    )
