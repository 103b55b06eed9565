"""The loss surface of a finished run."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gruland.data import subset
from gruland.landscape import DEFAULTS
from gruland.landscape.directions import check_draw, fingerprint, random_directions
from gruland.landscape.objective import PRECISIONS, ReviewLoss
from gruland.landscape.pictures import PICTURES, Scale, write_pictures
from gruland.landscape.sample import PILOT_REVIEWS, PILOT_SIZE, achieved_tolerance, reviews_needed
from gruland.landscape.store import attributes_at
from gruland.landscape.surface import axis, compute_surface

if TYPE_CHECKING:
    import xarray

    from gruland.classifier import Classifier
    from gruland.data import TextDataModule
    from gruland.runs import Run

log = logging.getLogger(__name__)


def compute_run(
    run: Run, settings: Mapping[str, Any], *, device: torch.device | str | None = None
) -> dict[str, Any]:
    """The surface of a run's best checkpoint over a seeded, stratified subset of its training reviews.

    Writes ``surface.zarr``, ``contour.png``, ``surface.png`` and ``surface.html`` to the run's folder
    ``landscape`` and the entry ``landscape`` of its results.json. A surface that is already there with the
    same settings is not computed again, an interrupted one goes on.

    Args:
        run: a run whose best checkpoint exists.
        settings: as in conf/landscape; ``precision``, ``tolerance`` and ``interpolation`` may be left out.
        device: where to evaluate; None = where the model lies.

    Returns:
        The entry ``landscape`` of results.json.

    Raises:
        ValueError: a setting that cannot work.
    """
    settings = {**DEFAULTS, **settings}
    check_settings(settings)
    folder, name = run.path / "landscape", str(run.results.get("name", run.path.name))
    result = _surface(run, settings, device, folder / "surface.zarr", name)
    results = _results(result, settings)
    drawn = all((folder / picture).exists() for picture in PICTURES)
    if not drawn or run.results.get("landscape") != results:
        write_pictures(result, folder, name)
        run.update_results(landscape=results)
    return results


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for settings that cannot work, before anything is read or trained."""
    settings = {**DEFAULTS, **settings}
    axis(settings["size"], settings["extent"])
    check_draw(settings["seed"], settings["normalization"])
    reviews = settings["reviews"]
    if reviews != "all" and (isinstance(reviews, bool) or not isinstance(reviews, int) or reviews < 1):
        raise ValueError(f"landscape.reviews={reviews}: expected a whole number of at least 1, or all")
    if settings["precision"] not in PRECISIONS:
        expected = ", ".join(PRECISIONS)
        raise ValueError(f"landscape.precision={settings['precision']}: expected one of {expected}")
    for key in ("tolerance", "interpolation"):
        share = settings[key]
        if share is not None and (not isinstance(share, (int, float)) or not 0 < share < 1):
            raise ValueError(
                f"landscape.{key}={share}: expected a share of the loss range in (0, 1), or null"
            )


def _surface(
    run: Run, settings: Mapping[str, Any], device: torch.device | str | None, path: Path, name: str
) -> xarray.Dataset:
    model = run.model if device is None else run.model.to(device)
    parameters, train = model.trainable(), run.data.splits["train"]
    directions = random_directions(parameters, settings["seed"], settings["normalization"])
    available = len(train.labels)
    reviews = available if settings["reviews"] == "all" else min(settings["reviews"], available)

    def objective(count: int) -> ReviewLoss:
        rows = subset(train.labels, count, settings["seed"])
        return ReviewLoss(
            model, train.encoded.take(rows), train.labels[rows], precision=settings["precision"]
        )

    attributes = _attributes(model, run.data, settings)
    if settings["tolerance"] is not None:
        pilot = objective(min(PILOT_REVIEWS, available))
        attributes["sample"] = _sample(pilot, parameters, directions, settings, attributes, path, name)
        reviews = _bounded(attributes["sample"], reviews, settings, name)
    evaluate = objective(reviews)
    own = f"the model's own forward pass ({evaluate.reason})"
    return compute_surface(
        evaluate,
        parameters,
        directions,
        size=settings["size"],
        extent=settings["extent"],
        interpolation=settings["interpolation"],
        seed=settings["seed"],
        path=path,
        attributes={
            **attributes,
            "reviews": reviews,
            "precision": evaluate.precision,
            "kernel": "cpu" if evaluate.reason is None else own,
        },
        label=f"{name}: loss surface",
    )


def _attributes(model: Classifier, data: TextDataModule, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What determines a surface besides the weights, the directions, the grid and the number of reviews."""
    gru = model.gru
    return {
        "seed": settings["seed"],
        "normalization": settings["normalization"],
        "available": len(data.splits["train"].labels),
        "data": data.report["fingerprint"],
        "objective": "evaluation loss on training reviews",
        # Weights alone do not tell an evaluation with zoneout's expectation from one without.
        "model": {"zoneout": gru.zoneout, "between": gru.between, "task": model.task.to_dict()},
    }


def _sample(
    pilot: ReviewLoss,
    parameters: Mapping[str, Tensor],
    directions: Sequence[Mapping[str, Tensor]],
    settings: Mapping[str, Any],
    attributes: Mapping[str, Any],
    path: Path,
    name: str,
) -> dict[str, Any]:
    """How many reviews the tolerance takes: found by an earlier pilot for the surface at ``path``, or by one now."""
    asked = {"tolerance": settings["tolerance"], "extent": settings["extent"], "precision": pilot.precision}
    tensors = [fingerprint(part) for part in (parameters, *directions)]
    text = json.dumps([asked, attributes, tensors], sort_keys=True)
    question = hashlib.sha256(text.encode()).hexdigest()[:16]
    for found in attributes_at(path):
        if (sample := found.get("sample")) and sample["question"] == question:
            return sample
    surface = compute_surface(
        pilot,
        parameters,
        directions,
        size=PILOT_SIZE,
        extent=settings["extent"],
        label=f"{name}: pilot of the loss surface",
    )
    needed = reviews_needed(
        surface,
        len(pilot.strata),
        len(set(pilot.strata.tolist())),
        attributes["available"],
        settings["tolerance"],
    )
    return {"tolerance": settings["tolerance"], "reviews_needed": needed, "question": question}


def _bounded(sample: Mapping[str, Any], limit: int, settings: Mapping[str, Any], name: str) -> int:
    """The number of reviews, at most ``limit``; says so if the tolerance takes more."""
    if sample["reviews_needed"] > limit:
        log.warning(
            "%s: landscape.tolerance=%s takes about %s reviews, landscape.reviews=%s does not suffice",
            name, settings["tolerance"], f"{sample['reviews_needed']:,}", settings["reviews"],
        )  # fmt: skip
    return min(sample["reviews_needed"], limit)


def _results(result: xarray.Dataset, settings: Mapping[str, Any]) -> dict[str, Any]:
    loss, scale, about = result["loss"].values, Scale.of(result), result.attrs
    interpolated = int(result["interpolated"].sum())
    adaptive = settings["interpolation"] is not None
    return {
        "settings": {key: value for key, value in settings.items() if key != "enabled"},
        "center_loss": float(result["loss"].sel(alpha=0.0, beta=0.0)),
        "min_loss": scale.low,
        "max_loss": scale.high,
        "not_finite": int((~np.isfinite(loss)).sum()),
        "seconds": round(about["seconds"], 3),
        "cells": int(loss.size),
        "evaluated": int(loss.size) - interpolated,
        "interpolated": interpolated,
        "interpolation_error": about.get("interpolation_error", 0.0) if adaptive else None,
        "reviews": about["reviews"],
        "reviews_needed": about["sample"]["reviews_needed"] if "sample" in about else None,
        "achieved_tolerance": achieved_tolerance(result, about["reviews"], about["available"]),
        "normalization": about["normalization"],
        "precision": about["precision"],
        "kernel": about["kernel"],
    }
