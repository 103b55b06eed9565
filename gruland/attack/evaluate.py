"""Loss and accuracy of a classifier on raw, stripped and perturbed reviews (sections 4.4 and 7.3).

The threat model is noise: nobody queries the model, the same typing errors meet every model.
N reviews, K outputs, C classes.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from gruland.attack import swaps
from gruland.attack.perturb import Perturbed, check, perturb, strip
from gruland.cache import cache_folder, cached, digest_of
from gruland.data import Encoded, TextDataModule, subset
from gruland.evaluation import evaluate_with_dropout, logits, scores
from gruland.files import atomic_path, read_json, write_json
from gruland.progress import Progress
from gruland.task import Task

if TYPE_CHECKING:
    from gruland.classifier import Classifier
    from gruland.runs import Run

logger = logging.getLogger(__name__)

#: What the model is shown of each review.
FORMS = ("raw", "stripped", "perturbed")


@dataclass(frozen=True)
class Settings:
    """What determines an adversarial evaluation; conf/attack/default.yaml explains each field.

    Raises:
        ValueError: a value that cannot work.
    """

    reviews: int
    rate: float
    mode: str
    seed: int
    draws: int
    dropout_seed: int

    def __post_init__(self) -> None:
        check(self.rate, self.mode)
        for key, low in (("reviews", 1), ("seed", 0), ("draws", 1), ("dropout_seed", 0)):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ValueError(f"attack.{key}={value}: expected a whole number of at least {low}")

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Settings:
        """The settings in an ``attack`` configuration, whose ``enabled`` is not one of them.

        Raises:
            ValueError: an unknown or a missing key, a value that cannot work.
        """
        given = {str(key): value for key, value in config.items() if key != "enabled"}
        known = [field.name for field in fields(cls)]
        wrong = [f"{key} is unknown" for key in given if key not in known]
        wrong += [f"{key} is missing" for key in known if key not in given]
        if wrong:
            raise ValueError(f"attack.{wrong[0]}: expected the keys {', '.join(known)}")
        return cls(**given)


class Outcome(NamedTuple):
    """Scores as results.json holds them, and the columns of texts.csv, a value for each review.

    ``probability_*`` is the one that the model, without dropout, gives the review's own label (exp of minus
    its loss); ``words``, ``changed`` and ``hit_again`` are those of :class:`Perturbed`.
    """

    results: dict[str, Any]
    columns: dict[str, list[Any]]


def evaluate_run(run: Run, config: Mapping[str, Any]) -> dict[str, Any]:
    """Attack a run's best checkpoint; write attack/texts.csv and the ``attack`` entry of results.json.

    Nothing is done where both lie there already, of these settings and this checkpoint.

    Args:
        run: its folder holds the checkpoint; it need not be finished.
        config: the ``attack`` configuration.

    Returns:
        The ``attack`` entry.

    Raises:
        ImportError, ValueError: TextAttack is not installed; settings that cannot work.
    """
    settings, texts = Settings.of(config), run.path / "attack" / "texts.csv"
    checkpoint = _digest(run.checkpoint("best"))
    before = run.results.get("attack")
    key = {"settings": asdict(settings), "checkpoint": checkpoint}
    if before is not None and {**key, "texts": _digest(texts)}.items() <= before.items():
        logger.info("%s: the adversarial evaluation is done already", run.path.name)
        return before
    start = time.monotonic()
    outcome = attack(run.model, run.data, settings, label=f"{run.path.name}: attack")
    _write(outcome.columns, texts)
    seconds = round(time.monotonic() - start, 3)
    entry = {**outcome.results, "checkpoint": checkpoint, "texts": _digest(texts), "seconds": seconds}
    run.update_results(attack=entry)
    return entry


def attack(model: Classifier, data: TextDataModule, settings: Settings, *, label: str = "attack") -> Outcome:
    """Scores on a stratified part of the test reviews: raw, stripped, and stripped and perturbed.

    All three meet the same masks where dropout is on (common random numbers: the masks follow from
    ``dropout_seed`` and a review's id). A review's typing errors follow from ``seed`` and its id alone.

    Args:
        settings: all test reviews are taken where there are fewer than ``reviews``.
        label: stands before the progress.

    Raises:
        ImportError: TextAttack is not installed.
    """
    split = data.splits["test"]
    rows = subset(split.labels, min(settings.reviews, split.encoded.size), settings.seed)
    ids, labels, everything = split.ids[rows], split.labels[rows], split.texts
    raw = [everything[i] for i in rows]
    stripped = [strip(text) for text in raw]
    with Progress(1 + len(FORMS) * (1 + settings.draws), label) as progress:
        perturbed = _perturb(stripped, ids, settings, cache_folder(data.cache_dir))
        progress.advance()
        texts = dict(zip(FORMS, (raw, stripped, [p.text for p in perturbed]), strict=True))
        measured, probabilities = {}, {}
        for form in FORMS:
            measured[form], probabilities[form] = _scores(
                model, data.encode(texts[form]), labels, ids, settings, progress
            )
    columns: dict[str, list[Any]] = {
        "id": ids.tolist(),
        "label": [_name(model.task, y) for y in labels],
        **texts,
    }
    columns |= {field: [getattr(p, field) for p in perturbed] for field in ("words", "changed", "hit_again")}
    columns |= {f"probability_{form}": probabilities[form] for form in FORMS}
    return Outcome({"settings": asdict(settings), **_rates(perturbed), "scores": measured}, columns)


def _perturb(texts: Sequence[str], ids: np.ndarray, settings: Settings, cache: Path) -> list[Perturbed]:
    """Typing errors in every text. All runs of a sweep meet the same: the first makes them for the others."""
    options = {"rate": float(settings.rate), "mode": settings.mode, "seed": settings.seed}
    name = digest_of("1", swaps.version(), json.dumps(options), json.dumps(ids.tolist()), *texts)

    def write(folder: Path) -> None:
        result = [
            perturb(text, rate=settings.rate, mode=settings.mode, seed=(settings.seed, int(key)))
            for text, key in zip(texts, ids, strict=True)
        ]
        write_json(folder / "perturbed.json", result)

    def read(folder: Path) -> list[Perturbed]:
        return [Perturbed(*fields) for fields in read_json(folder / "perturbed.json")]

    return cached(cache / "attack" / name[:32], read, write)


def _rates(perturbed: Sequence[Perturbed]) -> dict[str, Any]:
    """How many reviews, and the share of their words that changed, and that were swapped more than once."""
    words = sum(p.words for p in perturbed)
    return {
        "reviews": len(perturbed),
        "achieved_rate": sum(p.changed for p in perturbed) / max(words, 1),
        "hit_again_rate": sum(p.hit_again for p in perturbed) / max(words, 1),
    }


def _scores(
    model: Classifier,
    encoded: Encoded,
    labels: np.ndarray,
    ids: np.ndarray,
    settings: Settings,
    progress: Progress,
) -> tuple[dict[str, Any], list[float]]:
    """Scores without and with dropout, and the probability of each review's own label."""
    task, target = model.task, torch.as_tensor(labels)
    output = logits(model, encoded).float()  # [N, K]
    losses = task.loss(output, target, "none")
    plain = scores(task, losses, task.probabilities(output), target).to_dict()
    progress.advance()
    dropout = None
    if model.gru.zoneout or model.gru.dropconnect:
        dropout = evaluate_with_dropout(
            model, encoded, labels, draws=settings.draws, seed=settings.dropout_seed, keys=ids
        )
    progress.advance(settings.draws)
    return {"plain": plain, "dropout": dropout}, [round(p, 6) for p in (-losses).exp().tolist()]


def _name(task: Task, label: Any) -> str:
    """The class's name; of a multilabel task all of them."""
    if task.kind == "multilabel":
        return ", ".join(name for name, there in zip(task.classes, label, strict=True) if there)
    return task.classes[int(label)]


def _write(columns: Mapping[str, Sequence[Any]], path: Path) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else None
