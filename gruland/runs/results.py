"""results.json: the entries that a run begins with, and what every reader needs. docs/results.md lists them all."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

import gruland
from gruland.runs.identity import flat, identity, name

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from gruland.classifier import Classifier

#: Version of results.json; it rises when a reader of an older one would go wrong.
SCHEMA = 1
#: What to do with a run that this version cannot read.
RETRAIN = "run gruland.train again, or move the run away"


def check_results(results: Mapping[str, Any], path: Path) -> None:
    """Refuse a finished run's results.json where it lacks what every reader needs, or holds it in another form.

    Raises:
        ValueError: the first such key.
    """
    if results.get("schema", SCHEMA) != SCHEMA:
        raise ValueError(f"{path} has schema {results['schema']!r}, this version reads {SCHEMA}: {RETRAIN}")
    for key, value in flat({"metrics": results.get("metrics") or {}}).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{path}: {key} is {value!r}, expected a number: {RETRAIN}")


def named(cfg: DictConfig) -> dict[str, Any]:
    """The entries of results.json that say which run it is."""
    return {
        "schema": SCHEMA,
        "gruland": gruland.__version__,
        "name": name(cfg),
        "experiment": str(cfg.experiment_name),
        "seed": cfg.seed,
    }


def describe(cfg: DictConfig, model: Classifier, trainer: pl.Trainer) -> dict[str, Any]:
    """The entries of results.json that are known before the training."""
    import pytorch_lightning
    import torch

    device, precision = trainer.strategy.root_device, model.gru.precision
    backend = model.gru.kernel(device, training=True)
    return {
        **named(cfg),
        "model": {
            "regularizer": model.regularizer.name,
            "title": model.regularizer.title,
            "rate": model.regularizer.rate,
            **({"defence": model.defence.name} if "defence" in identity(cfg) else {}),
            "hidden_size": cfg.model.hidden_size,
            "num_layers": cfg.model.num_layers,
            "parameters": sum(p.numel() for p in model.trainable().values()),
            "backend": backend.__name__.rpartition(".")[2],
            "precision": precision,
        },
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "pytorch_lightning": pytorch_lightning.__version__,
            "platform": platform.platform(),
            "device": str(device),
            "devices": trainer.num_devices,
            "threads": torch.get_num_threads(),
        },
    }


def guessing_loss(results: Mapping[str, Any]) -> float | None:
    """The loss of who gives every class its share of the training texts; None where that is not known.

    Two equal classes: ln 2 = 0.693. Of several labels the mean over the classes of that of each.
    """
    data = results.get("data") or {}
    counts = (data.get("class_counts") or {}).get("train")
    values = list(counts.values()) if isinstance(counts, dict) else counts
    if not isinstance(values, list) or not all(isinstance(n, int) and n >= 0 for n in values):
        return None
    several = (results.get("task") or {}).get("kind") == "multilabel"
    texts = (data.get("sizes") or {}).get("train") if several else sum(values)
    if not values or not texts:
        return None
    if several:
        return math.fsum(_entropy([n / texts, 1 - n / texts]) for n in values) / len(values) or None
    return _entropy([n / texts for n in values]) or None


def _entropy(shares: Sequence[float]) -> float:
    return -math.fsum(share * math.log(share) for share in shares if share)
