"""What a cell of a run's surface measures: the reviews that the settings choose, and their losses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gruland.data import subset
from gruland.landscape.chunks import Chunk, PlaneExamples
from gruland.landscape.multilevel import nested_order
from gruland.landscape.objective import Objective
from gruland.landscape.surface import grid as surface_grid
from gruland.landscape.survey import PILOT
from gruland.objective.evaluation import EvaluationLoss
from gruland.objective.training import MaskedLoss, TrainingLoss, separable
from gruland.surfaces.settings import Surface, keys_named

if TYPE_CHECKING:
    from gruland.classifier import Classifier
    from gruland.data import Encoded, TextDataModule
    from gruland.landscape.planes import Plane


def objective_of(
    model: Classifier, data: TextDataModule, settings: Surface, *, reviews: int | None = None
) -> EvaluationLoss:
    """What a cell measures: the evaluation or the training loss on a seeded, stratified subset of a split's reviews.

    Args:
        model: of the data's task.
        data: whose split ``settings.split`` the reviews come from.
        settings: what is wanted. The subset and the training loss's masks follow ``reviews_seed``; where it is
            null, ``seed``.
        reviews: how many, at most all; None = as the settings say.

    Returns:
        An objective for any number of planes through weights of this model.
    """
    encoded, labels, rows = reviews_of(data, settings, reviews)
    precision, seed = settings.precision, settings.subset_seed
    with keys_named():
        if settings.objective == "training":
            # A tolerance samples the masks, too.
            kind = MaskedLoss if settings.tolerance is not None and separable(model) else TrainingLoss
            masks: dict[str, Any] = {"draws": settings.draws, "seed": seed, "keys": rows}
            evaluate: EvaluationLoss = kind(model, encoded, labels, precision=precision, **masks)
        else:
            evaluate = EvaluationLoss(model, encoded, labels, precision=precision)
    words = {"train": "training"}.get(settings.split, settings.split)
    evaluate.label = f"{encoded.size:,} {words} reviews"
    gru = model.gru
    evaluate.about |= {
        "split": settings.split,
        "available": len(data.splits[settings.split].labels),
        "reviews_seed": seed,
        "data": data.report["fingerprint"],
        # Weights alone do not tell which share of its previous value a unit keeps.
        "model": {
            "kept": gru.regularizer.kept,
            "regularizer": str(gru.regularizer) if settings.objective == "training" else None,
            "between": gru.between,
            "task": model.task.to_dict(),
        },
    }
    return evaluate


def reviews_of(
    data: TextDataModule, settings: Surface, count: int | None = None
) -> tuple[Encoded, np.ndarray, np.ndarray]:
    """A seeded, stratified subset of the settings' split: reviews, labels and their row numbers in the split.

    Args:
        data, settings: as :func:`objective_of` takes them.
        count: how many, at most all; None = as the settings say.
    """
    split, wanted = data.splits[settings.split], settings.reviews if count is None else count
    number = min(wanted, len(split.labels)) if isinstance(wanted, int) else None
    rows = subset(split.labels, number, settings.subset_seed)
    return split.encoded.take(rows), split.labels[rows], rows


def error_of_products(
    evaluate: Objective, whole: Objective, plane: Plane, extent: Any, *, seed: int = 0
) -> tuple[float, float]:
    """How far the mean losses of an objective may be off by its rounded products, and their range.

    Args:
        evaluate, whole: the same losses with rounded products and without, of examples that can be taken.
        plane, extent: where; nine cells are compared, on the examples that a tolerance's pilot takes.
        seed: of these examples.

    Returns:
        The upper end of the 95% interval of the mean difference at the cell where it is largest, and the range of the
        mean losses of the nine.
    """
    strata = evaluate.strata  # type: ignore[attr-defined]  # both are EvaluationLosses
    rows = nested_order(strata, seed)[:PILOT]
    alpha, beta = surface_grid(3, extent)
    chunk = Chunk(np.array([(a, b) for b in beta for a in alpha]), rows)
    rounded, exact = (
        PlaneExamples(objective, plane.origin, plane.directions)(chunk)[:, 0]
        for objective in (evaluate, whole)
    )
    off = rounded - exact
    errors = np.abs(off.mean(1)) + 1.96 * off.std(1, ddof=1) / math.sqrt(off.shape[1])
    return float(errors.max()), float(np.ptp(exact.mean(1)))
