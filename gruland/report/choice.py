"""The best model of each regularizer, by the mean over its seeds, and how much being chosen flatters it.

A model that is chosen for its least validation loss owes part of it to luck. The luckiest seed of twenty models is no
merit of its model: what counts is a model's mean over its seeds. How much luck is left shows where each seed alone
chooses, and the chosen model is then looked at on its other seeds, which had no part in that choice.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gruland.report.models import Model


@dataclass(frozen=True, eq=False)
class Choice:
    """The model of least mean validation loss among its rivals.

    Attributes:
        seeds: whose losses counted: those that at least half of the rivals were trained with.
        rivals: all that could have been chosen, the chosen one among them.
        by_seed: what each of these seeds alone would have chosen.
    """

    model: Model
    seeds: tuple[int, ...]
    rivals: tuple[Model, ...]
    by_seed: Mapping[int, Model]


def validation_loss(model: Model, seeds: Iterable[int] | None = None) -> float:
    """The mean over those of the seeds that the model has, at the best epoch; infinite for a diverged or absent one."""
    losses = model.values("best", "validation")
    counted = [losses[seed] for seed in (losses if seeds is None else seeds) if seed in losses]
    mean = math.fsum(counted) / len(counted) if counted else math.inf
    return mean if not math.isnan(mean) else math.inf


def choose(rivals: Sequence[Model]) -> Choice:
    """The model of least mean validation loss.

    The means are over the seeds that at least half of the rivals have, so that one that was trained again with more
    seeds after it was chosen is judged beside the others by what all of them have.
    """
    held = Counter(seed for model in rivals for seed in model.runs)
    seeds = sorted(seed for seed, count in held.items() if 2 * count >= len(rivals)) or sorted(held)
    best = min(rivals, key=lambda model: validation_loss(model, seeds))
    with_rivals = [seed for seed in seeds if held[seed] > 1]
    alone = {seed: min(rivals, key=lambda model: validation_loss(model, [seed])) for seed in with_rivals}
    return Choice(best, tuple(seeds), tuple(rivals), alone)


def best(models: Iterable[Model]) -> dict[str, Choice]:
    """Of each regularizer the model of least mean validation loss (section 5.1 of the paper)."""
    rivals: dict[str, list[Model]] = {}
    for model in models:
        rivals.setdefault(model.regularizer, []).append(model)
    return {regularizer: choose(group) for regularizer, group in rivals.items()}
