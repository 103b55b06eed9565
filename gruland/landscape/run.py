"""The loss surface of a finished run: from its settings to a plane, an objective, a surface and its pictures."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gruland.data import subset
from gruland.landscape.checkpoints import run_checkpoints, run_path
from gruland.landscape.directions import (
    describe_directions,
    fingerprint,
    gates_of,
    load_directions,
    save_directions,
)
from gruland.landscape.masked import TrainingLoss
from gruland.landscape.objective import ReviewLoss
from gruland.landscape.pictures import PICTURES, Scale, trajectory_figure, write, write_pictures
from gruland.landscape.sample import PILOT_REVIEWS, PILOT_SIZE, achieved_tolerance, reviews_needed
from gruland.landscape.settings import check_settings, completed
from gruland.landscape.store import attributes_at
from gruland.landscape.surface import compute_surface

if TYPE_CHECKING:
    import xarray

    from gruland.classifier import Classifier
    from gruland.data import Encoded, TextDataModule
    from gruland.landscape.planes import Plane
    from gruland.runs import Run

log = logging.getLogger(__name__)

DIRECTIONS = "directions.npz"
#: What a plane through the epochs of a training has besides :data:`gruland.landscape.pictures.PICTURES`.
PATH_PICTURES = ("trajectory.png", "trajectory.pdf")


def compute_run(
    run: Run,
    settings: Mapping[str, Any],
    *,
    device: torch.device | str | None = None,
    writing: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> dict[str, Any]:
    """The surface of a run's best checkpoint over a seeded, stratified subset of its reviews.

    Writes ``surface.zarr``, ``directions.npz`` and :data:`gruland.landscape.pictures.PICTURES` to the run's folder
    ``landscape`` and the entry ``landscape`` of its results.json; for ``plane=trajectory`` also
    :data:`PATH_PICTURES` and, as ``path``, each epoch's place and true loss. A surface that is already there with the
    same settings is not computed again, an interrupted one goes on, and several processes share one.

    Args:
        run: a run whose best checkpoint exists.
        settings: as in conf/landscape; what configurations of earlier versions lack may be left out.
        device: where to evaluate; None = where the model lies.
        writing: gives the context in which pictures and results are written: what keeps other processes out of the
            folder meanwhile, where the caller does not do so.

    Returns:
        The entry ``landscape`` of results.json. Where ``max_seconds`` ran out, ``complete`` is false and the same
        call goes on.

    Raises:
        ValueError, FileNotFoundError: a setting that cannot work, or a plane through checkpoints that are not there.
    """
    settings = completed(settings)
    check_settings(settings)
    folder, name = run.path / "landscape", _name(run)
    model = run.model if device is None else run.model.to(device)
    plane = plane_of(run, settings, model=model, kept=folder / DIRECTIONS)
    surface = surface_of(
        run, settings, model=model, plane=plane, path=folder / "surface.zarr", label=f"{name}: loss surface"
    )
    results = _results(surface, settings)
    if plane.kind == "trajectory" and results["complete"]:
        results["path"] = _followed(run, settings, model, plane, results)
    with writing():
        if not _written(folder, results) or run.results.get("landscape") != results:
            _save_plane(folder / DIRECTIONS, plane, _question(model, settings))
            if results["min_loss"] is not None:
                write_pictures(surface, folder, name)
                _write_path(surface, folder, name, results)
            run.update_results(landscape=results)
    return results


def _name(run: Run) -> str:
    return str(run.results.get("name", run.path.name))


def _written(folder: Path, results: Mapping[str, Any]) -> bool:
    path = PATH_PICTURES if "path" in results else ()
    return all((folder / file).exists() for file in (*PICTURES, *path, DIRECTIONS))


def _followed(
    run: Run, settings: Mapping[str, Any], model: Classifier, plane: Plane, results: Mapping[str, Any]
) -> dict[str, Any]:
    """Where the epochs lie on their plane, and their true losses: those of an earlier call if nothing else changed."""
    known = run.results.get("landscape") or {}
    if "path" in known and known == {**results, "path": known["path"]}:
        found: dict[str, Any] = known["path"]
        return found
    evaluate = objective_of(model, run.data, settings, reviews=results["reviews"])
    return run_path(evaluate, run, plane)


def _write_path(surface: xarray.Dataset, folder: Path, name: str, results: Mapping[str, Any]) -> None:
    """Draw the path of the training; where the plane is not that of a path, no picture of an earlier one stays."""
    if "path" in results:
        write(trajectory_figure(surface, results["path"], name), folder / Path(PATH_PICTURES[0]).stem)
        return
    for file in PATH_PICTURES:
        (folder / file).unlink(missing_ok=True)


def surface_of(
    run: Run,
    settings: Mapping[str, Any],
    *,
    model: Classifier | None = None,
    plane: Plane | None = None,
    evaluate: ReviewLoss | None = None,
    path: str | Path | None = None,
    label: str | None = None,
) -> xarray.Dataset:
    """The loss over one plane of a run; nothing but ``path`` is written.

    Many planes of one run share what takes long to prepare::

        evaluate = objective_of(run.model, run.data, settings)
        for seed in range(12):
            surface_of(run, {**settings, "seed": seed}, evaluate=evaluate, path=folder / f"plane-{seed}.zarr")

    Args:
        run: where the data, checkpoints and, where it is not given, the model come from.
        settings: as in conf/landscape. With ``evaluate`` those of the objective (``split``, ``objective``, ``draws``,
            ``reviews``, ``reviews_seed``, ``precision``, ``tolerance``) are not read: it has its own.
        model: whose weights are the origin; None = the run's best checkpoint.
        plane: None = :func:`plane_of` the settings.
        evaluate: what :func:`objective_of` made of the same model; None = made from the settings.
        path: the zarr folder to write to and to resume from; None for a surface in memory alone.
        label: what the progress line says; None for none.

    Returns:
        The data set of :func:`gruland.landscape.compute_surface`. Among its attributes are ``plane`` (``kind``, the
        ``points`` of named weights, how it was made, and :func:`gruland.landscape.describe_directions` of it as
        ``directions``) and the objective's ``about``.

    Raises:
        ValueError, FileNotFoundError: as :func:`compute_run`.
    """
    settings = completed(settings)
    check_settings(settings)
    model = run.model if model is None else model
    plane = plane_of(run, settings, model=model) if plane is None else plane
    grid = {"extent": _extent(settings["extent"], plane)}
    attributes = _attributes(plane, settings)
    if evaluate is None:
        reviews = None
        if settings["tolerance"] is not None:
            pilot = objective_of(model, run.data, settings, reviews=PILOT_REVIEWS)
            attributes["sample"] = _sample(pilot, plane, settings, attributes, grid, path, label)
            reviews = _bounded(attributes["sample"], pilot.about["available"], settings, _name(run))
        evaluate = objective_of(model, run.data, settings, reviews=reviews)
    return compute_surface(
        evaluate,
        plane.origin,
        plane.directions,
        size=_tuples(settings["size"]),
        **grid,
        interpolation=settings["interpolation"],
        seed=settings["seed"],
        path=path,
        attributes={**attributes, **evaluate.about},
        label=label,
        max_seconds=settings["max_seconds"],
    )


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _extent(extent: Any, plane: Plane) -> Any:
    """The extent of the settings, or one that holds the plane's points; says so where a given one does not.

    On a plane of eigenvectors it is, unless given, how far the greatest curvature alone takes the loss up by 1 nat.
    """
    if extent is None:
        rise = max(plane.attributes.get("rise", [0.0]))
        return rise**-0.5 if rise > 0 else plane.extent()
    sides = extent if isinstance(extent, list) else [extent, extent]
    ends = [side if isinstance(side, list) else [-side, side] for side in sides]
    for name, point in plane.points.items():
        if any(not low <= step <= high for step, (low, high) in zip(point, ends, strict=True)):
            log.warning(
                "landscape.extent=%s does not reach %s at (%.3g, %.3g): extent=null reaches every point",
                extent, name, *point,
            )  # fmt: skip
            break
    return _tuples(extent)


# -- the objective


def objective_of(
    model: Classifier, data: TextDataModule, settings: Mapping[str, Any], *, reviews: int | None = None
) -> ReviewLoss:
    """What a cell measures: the evaluation or the training loss on a seeded, stratified subset of a split's reviews.

    Args:
        model: of the data's task.
        data: whose split ``settings["split"]`` the reviews come from.
        settings: as in conf/landscape. The subset and the training loss's masks follow ``reviews_seed``; where it is
            null, ``seed``.
        reviews: how many, at most all; None = as the settings say.

    Returns:
        An objective for any number of planes through weights of this model.
    """
    settings = completed(settings)
    encoded, labels, rows = reviews_of(data, settings, reviews)
    precision, seed = settings["precision"], _reviews_seed(settings)
    if settings["objective"] == "training":
        masks: dict[str, Any] = {"draws": settings["draws"], "seed": seed, "keys": rows}
        evaluate: ReviewLoss = TrainingLoss(model, encoded, labels, precision=precision, **masks)
    else:
        evaluate = ReviewLoss(model, encoded, labels, precision=precision)
    gru = model.gru
    evaluate.about |= {
        "split": settings["split"],
        "available": len(data.splits[settings["split"]].labels),
        "reviews_seed": seed,
        "data": data.report["fingerprint"],
        # Weights alone do not tell an evaluation with zoneout's expectation from one without.
        "model": {
            "zoneout": gru.zoneout,
            "dropconnect": gru.dropconnect if settings["objective"] == "training" else 0.0,
            "between": gru.between,
            "task": model.task.to_dict(),
        },
    }
    return evaluate


def reviews_of(
    data: TextDataModule, settings: Mapping[str, Any], count: int | None = None
) -> tuple[Encoded, np.ndarray, np.ndarray]:
    """A seeded, stratified subset of the settings' split: reviews, labels and their row numbers in the split.

    Args:
        data, settings: as :func:`objective_of` takes them.
        count: how many, at most all; None = as the settings say.
    """
    split, wanted = data.splits[settings["split"]], settings["reviews"] if count is None else count
    number = None if wanted == "all" else min(wanted, len(split.labels))
    rows = subset(split.labels, number, _reviews_seed(settings))
    return split.encoded.take(rows), split.labels[rows], rows


def _reviews_seed(settings: Mapping[str, Any]) -> int:
    return int(settings["seed"] if settings["reviews_seed"] is None else settings["reviews_seed"])


# -- the plane


def plane_of(
    run: Run, settings: Mapping[str, Any], *, model: Classifier | None = None, kept: Path | None = None
) -> Plane:
    """The plane that the settings describe, through the model's weights.

    Args:
        run: where checkpoints and, for Hessian planes, the reviews come from.
        settings: as in conf/landscape.
        model: whose weights are the origin; None = the run's best checkpoint.
        kept: a file for directions that take long to compute (``hessian``): they are written to it, and taken over
            where an earlier call wrote those of the same weights and settings.

    Raises:
        ValueError, FileNotFoundError: the run lacks the checkpoints that the plane is made from.
    """
    from gruland.landscape import planes

    settings, model = completed(settings), run.model if model is None else model
    parameters: dict[str, Tensor] = dict(model.trainable())
    kind, seed = settings["plane"], settings["seed"]
    if kind == "random":
        named = {key: settings[key] for key in ("normalization", "vectors", "gate")}
        only = "*" if settings["only"] is None else settings["only"]
        return planes.random_plane(parameters, seed, **named, only=only, gates=gates_of(model))
    if kind == "trajectory":
        path, best = _path(run, parameters)
        return planes.trajectory_plane(list(path.values()), list(path), origin=best)
    if kind == "hessian":
        return _hessian(run, settings, model, kept)
    words = [kind] if isinstance(kind, str) else kind
    others = dict(_weights(run, word, model) for word in words)
    return planes.plane_through(parameters, others, seed=seed)


def _path(run: Run, parameters: dict[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], str | None]:
    """The weights after each epoch by its number, and the number of the best: there they are the model's own."""
    path = {
        str(epoch): {name: weights[name].to(own) for name, own in parameters.items()}
        for epoch, weights in run_checkpoints(run).items()
    }
    best = str(run.results["training"]["best_epoch"])
    if best not in path:
        return path, None
    path[best] = parameters
    return path, best


def _weights(run: Run, word: str, model: Classifier) -> tuple[str, dict[str, Tensor]]:
    """The name and the weights of ``initial``, ``final`` or another run."""
    from gruland import runs

    if word == "final":
        return word, _checkpoint(run, "last", model)
    if word != "initial":
        other = runs.load(word)
        return _name(other), _checkpoint(other, "best", model)
    if 0 not in run.epochs:
        raise ValueError(
            f"landscape.plane=initial: {run.path} does not keep the weights before training: "
            "train with trainer.keep_epochs=true"
        )
    return word, _checkpoint(run, "epoch-0", model)


def _checkpoint(run: Run, which: str, model: Classifier) -> dict[str, Tensor]:
    from gruland.runs import read_weights

    weights = read_weights(run.checkpoint(which), model.state_dict())
    return {name: weights[name].to(own) for name, own in model.trainable().items()}


def _hessian(run: Run, settings: Mapping[str, Any], model: Classifier, kept: Path | None) -> Plane:
    from gruland.landscape.composed import ComposedLoss
    from gruland.landscape.measures.curvature import hessian_plane

    parameters: dict[str, Tensor] = dict(model.trainable())
    question = _question(model, settings)
    if kept is not None and (plane := _kept(kept, parameters, question)):
        return plane
    encoded, labels, _ = reviews_of(run.data, settings)
    loss = ComposedLoss(model, encoded, labels)
    plane = hessian_plane(loss, parameters, seed=settings["seed"], label=f"{_name(run)}: eigenvectors")
    if kept is not None:
        _save_plane(kept, plane, question)
    return plane


def _question(model: Classifier, settings: Mapping[str, Any]) -> str:
    """A hash of all that determines a plane."""
    keys = ("plane", "seed", "normalization", "vectors", "only", "gate", "split", "reviews", "reviews_seed")
    asked = [fingerprint(model.trainable()), {key: settings[key] for key in keys}]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _save_plane(path: Path, plane: Plane, question: str) -> None:
    about = {"kind": plane.kind, "points": plane.points, "attributes": plane.attributes}
    save_directions(path, plane.directions, **about, question=question)


def _kept(path: Path, parameters: dict[str, Tensor], question: str) -> Plane | None:
    """The plane whose directions lie at ``path``; None where there is none, or one of another question."""
    from gruland.landscape.planes import Plane

    try:
        directions, about = load_directions(path)
    except (OSError, ValueError):
        return None
    if about.get("question") != question:
        return None
    moved = [{name: direction[name].to(own) for name, own in parameters.items()} for direction in directions]
    points = {name: (alpha, beta) for name, (alpha, beta) in about["points"].items()}
    return Plane(parameters, moved, about["kind"], points, about["attributes"])


# -- what is said about a surface


def _attributes(plane: Plane, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What determines a surface besides the weights, the directions, the grid and the objective."""
    about: dict[str, Any] = {"seed": settings["seed"]}
    if plane.kind == "random":
        about["normalization"] = plane.attributes.get("normalization", settings["normalization"])
    described = _rounded(describe_directions(plane.origin, plane.directions))
    made = {"kind": plane.kind, "points": plane.points, **plane.attributes}
    return {**about, "plane": {**made, "directions": described}}


def _rounded(value: Any) -> Any:
    """Plain data with numbers that do not depend on the order in which a machine adds up."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def _sample(
    pilot: ReviewLoss,
    plane: Plane,
    settings: Mapping[str, Any],
    attributes: Mapping[str, Any],
    grid: Mapping[str, Any],
    path: str | Path | None,
    label: str | None,
) -> dict[str, Any]:
    """How many reviews the tolerance takes: found by an earlier pilot for the surface at ``path``, or by one now."""
    about = {key: value for key, value in pilot.about.items() if key != "kernel"}
    asked = {"tolerance": settings["tolerance"], **grid, **attributes, **about}
    tensors = [fingerprint(part) for part in (plane.origin, *plane.directions)]
    text = json.dumps([asked, tensors], sort_keys=True)
    question = hashlib.sha256(text.encode()).hexdigest()[:16]
    for found in [] if path is None else attributes_at(Path(path)):
        if (sample := found.get("sample")) and sample["question"] == question:
            return sample
    surface = compute_surface(
        pilot,
        plane.origin,
        plane.directions,
        size=PILOT_SIZE,
        **grid,
        label=label and f"{label}, pilot",
    )
    classes = len(set(pilot.strata.tolist()))
    needed = reviews_needed(surface, len(pilot.strata), classes, about["available"], settings["tolerance"])
    return {"tolerance": settings["tolerance"], "reviews_needed": needed, "question": question}


def _bounded(sample: Mapping[str, Any], available: int, settings: Mapping[str, Any], name: str) -> int:
    """The number of reviews, at most those of the settings; says so if the tolerance takes more."""
    limit = available if settings["reviews"] == "all" else min(settings["reviews"], available)
    if sample["reviews_needed"] > limit:
        log.warning(
            "%s: landscape.tolerance=%s takes about %s reviews, landscape.reviews=%s does not suffice",
            name, settings["tolerance"], f"{sample['reviews_needed']:,}", settings["reviews"],
        )  # fmt: skip
    return min(sample["reviews_needed"], limit)


def _results(surface: xarray.Dataset, settings: Mapping[str, Any]) -> dict[str, Any]:
    loss, about = surface["loss"].values, surface.attrs
    done, interpolated = surface["done"].values, surface["interpolated"].values
    complete, guessed = bool(about["complete"]), bool(interpolated.any())
    # A complete surface without a finite cell cannot be drawn, an interrupted one not yet.
    scale = Scale.of(surface) if complete or np.isfinite(loss).any() else None
    return {
        "settings": {key: value for key, value in settings.items() if key != "enabled"},
        "complete": complete,
        "center_loss": about["origin_loss"],
        "min_loss": scale and scale.low,
        "max_loss": scale and scale.high,
        "not_finite": int((done & ~np.isfinite(loss)).sum()),
        "seconds": round(about["seconds"], 3),
        "cells": int(loss.size),
        "evaluated": int((done & ~interpolated).sum()),
        "interpolated": int(interpolated.sum()),
        "interpolation_error": about.get("interpolation_error", 0.0)
        if guessed or settings["interpolation"] is not None
        else None,
        "reviews": about["reviews"],
        "reviews_needed": about["sample"]["reviews_needed"] if "sample" in about else None,
        "achieved_tolerance": achieved_tolerance(surface, about["reviews"], about["available"]),
        "split": about["split"],
        "objective": about["objective"],
        "draws": about.get("draws"),
        "plane": about["plane"]["kind"],
        "points": about["plane"]["points"],
        "normalization": about.get("normalization"),
        "precision": about["precision"],
        "kernel": about["kernel"],
    }
