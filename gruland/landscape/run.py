"""The loss surface of a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gruland.data import subset
from gruland.landscape.directions import check_draw, random_directions
from gruland.landscape.objective import ReviewLoss
from gruland.landscape.plot import PICTURES, Scale, write_pictures
from gruland.landscape.surface import axis, compute_surface

if TYPE_CHECKING:
    import xarray

    from gruland.classifier import Classifier
    from gruland.data import TextDataModule
    from gruland.runs import Run


def compute_run(
    run: Run, settings: Mapping[str, Any], *, device: torch.device | str | None = None
) -> dict[str, Any]:
    """The surface of a run's best checkpoint over a seeded, stratified subset of its training reviews.

    Writes ``surface.zarr``, ``contour.png``, ``surface.png`` and ``surface.html`` to the run's folder
    ``landscape`` and the entry ``landscape`` of its results.json. A surface that is already there with the
    same settings is not computed again, an interrupted one goes on.

    Args:
        run: a run whose best checkpoint exists.
        settings: ``size``, ``extent``, ``normalization``, ``reviews``, ``seed``, as in conf/landscape.
        device: where to evaluate; None = where the model lies.

    Returns:
        The entry ``landscape`` of results.json.

    Raises:
        ValueError: a setting that cannot work.
    """
    check_settings(settings)
    folder, name = run.path / "landscape", str(run.results.get("name", run.path.name))
    result = _surface(run, settings, device, folder / "surface.zarr", f"{name}: loss surface")
    results = _results(result, settings)
    drawn = all((folder / picture).exists() for picture in PICTURES)
    if not drawn or run.results.get("landscape") != results:
        write_pictures(result, folder, name)
        run.update_results(landscape=results)
    return results


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for settings that cannot work, before anything is read or trained."""
    axis(settings["size"], settings["extent"])
    check_draw(settings["seed"], settings["normalization"])
    reviews = settings["reviews"]
    if reviews != "all" and (isinstance(reviews, bool) or not isinstance(reviews, int) or reviews < 1):
        raise ValueError(f"landscape.reviews={reviews}: expected a whole number of at least 1, or all")


def _surface(
    run: Run, settings: Mapping[str, Any], device: torch.device | str | None, path: Path, label: str
) -> xarray.Dataset:
    model = run.model if device is None else run.model.to(device)
    parameters, train = model.trainable(), run.data.splits["train"]
    directions = random_directions(parameters, settings["seed"], settings["normalization"])
    rows = _rows(train.labels, settings["reviews"], settings["seed"])
    return compute_surface(
        ReviewLoss(model, train.encoded.take(rows), train.labels[rows]),
        parameters,
        directions,
        size=settings["size"],
        extent=settings["extent"],
        path=path,
        attributes=_attributes(model, run.data, settings, len(rows)),
        label=label,
    )


def _rows(labels: np.ndarray, reviews: int | str, seed: int) -> np.ndarray:
    """Which training reviews are evaluated: at most as many as there are."""
    return subset(labels, len(labels) if reviews == "all" else min(int(reviews), len(labels)), seed)


def _attributes(
    model: Classifier, data: TextDataModule, settings: Mapping[str, Any], reviews: int
) -> dict[str, Any]:
    """What determines a surface besides the weights, the directions and the grid."""
    gru = model.gru
    return {
        "seed": settings["seed"],
        "normalization": settings["normalization"],
        "reviews": reviews,
        "data": data.report["fingerprint"],
        "objective": "evaluation loss on training reviews",
        # Weights alone do not tell an evaluation with zoneout's expectation from one without.
        "model": {"zoneout": gru.zoneout, "between": gru.between, "task": model.task.to_dict()},
    }


def _results(result: xarray.Dataset, settings: Mapping[str, Any]) -> dict[str, Any]:
    loss, scale = result["loss"].values, Scale.of(result)
    return {
        "settings": {key: value for key, value in settings.items() if key != "enabled"},
        "center_loss": float(result["loss"].sel(alpha=0.0, beta=0.0)),
        "min_loss": scale.low,
        "max_loss": scale.high,
        "not_finite": int((~np.isfinite(loss)).sum()),
        "seconds": round(result.attrs["seconds"], 3),
        "cells": int(loss.size),
        "reviews": result.attrs["reviews"],
        "normalization": result.attrs["normalization"],
    }
