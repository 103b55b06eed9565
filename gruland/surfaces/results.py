"""What a run keeps of its surface: pictures, directions, and the entry of results.json."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gruland.landscape.pictures import PICTURES, Scale, trajectory_figure, write, write_pictures
from gruland.landscape.sample import achieved_tolerance
from gruland.surfaces.computation import surface_of
from gruland.surfaces.losses import objective_of
from gruland.surfaces.run_planes import name_of, plane_of, question_of, run_path, save_plane
from gruland.surfaces.settings import Surface

if TYPE_CHECKING:
    import xarray

    from gruland.classifier import Classifier
    from gruland.landscape.planes import Plane
    from gruland.runs import Run

DIRECTIONS = "directions.npz"
#: What a plane through the epochs of a training has besides :data:`gruland.landscape.pictures.PICTURES`.
PATH_PICTURES = ("trajectory.png", "trajectory.pdf")


def compute_run(
    run: Run,
    settings: Surface,
    *,
    device: torch.device | str | None = None,
    writing: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> dict[str, Any]:
    """The surface of a run's best checkpoint over a seeded, stratified subset of its reviews.

    Writes ``surface.zarr``, ``directions.npz`` and :data:`gruland.landscape.pictures.PICTURES` to the run's folder
    ``landscape`` and the entry ``landscape`` of its results.json; for ``plane=trajectory`` also
    :data:`PATH_PICTURES` and, as ``path``, each epoch's place and true loss. A surface that is already there with the
    same settings is not computed again, an interrupted one goes on, and one that another process is computing is
    waited for.

    Args:
        run: a run whose best checkpoint exists.
        settings: what is wanted.
        device: where to evaluate; None = where the model lies.
        writing: gives the context in which pictures and results are written: what keeps other processes out of the
            folder meanwhile, where the caller does not do so.

    Returns:
        The entry ``landscape`` of results.json. Where ``max_seconds`` ran out, ``complete`` is false and the same
        call goes on.

    Raises:
        ValueError, FileNotFoundError: a setting that cannot work, or a plane through checkpoints that are not there.
    """
    folder, name = run.path / "landscape", name_of(run)
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
            save_plane(folder / DIRECTIONS, plane, question_of(model, settings))
            if results["min_loss"] is not None:
                write_pictures(surface, folder, name)
                _write_path(surface, folder, name, results)
            run.update_results(landscape=results)
    return results


def _written(folder: Path, results: Mapping[str, Any]) -> bool:
    path = PATH_PICTURES if "path" in results else ()
    return all((folder / file).exists() for file in (*PICTURES, *path, DIRECTIONS))


def _followed(
    run: Run, settings: Surface, model: Classifier, plane: Plane, results: Mapping[str, Any]
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


def _results(surface: xarray.Dataset, settings: Surface) -> dict[str, Any]:
    loss, about = surface["loss"].values, surface.attrs
    done, interpolated = surface["done"].values, surface["interpolated"].values
    complete, guessed = bool(about["complete"]), bool(interpolated.any())
    # A complete surface without a finite cell cannot be drawn, an interrupted one not yet.
    scale = Scale.of(surface) if complete or np.isfinite(loss).any() else None
    return {
        "settings": settings.to_dict(),
        "complete": complete,
        "center_loss": about["origin_loss"],
        "min_loss": scale and scale.low,
        "max_loss": scale and scale.high,
        "not_finite": int((done & ~np.isfinite(loss)).sum()),
        "seconds": round(about["seconds"], 3),
        "cells": int(loss.size),
        "evaluated": int((done & ~interpolated).sum()),
        "interpolated": int(interpolated.sum()),
        "interpolation_error": _finite(about.get("interpolation_error")) if guessed else None,
        "reviews": about["reviews"],
        "evaluations": about.get("evaluations", int((done & ~interpolated).sum()) * about["reviews"]),
        "achieved_tolerance": _finite(about["achieved_tolerance"])
        if "achieved_tolerance" in about
        else achieved_tolerance(surface, about["reviews"], about["available"]),
        "split": about["split"],
        "objective": about["objective"],
        "draws": about.get("draws"),
        "plane": about["plane"]["kind"],
        "points": about["plane"]["points"],
        "normalization": about.get("normalization"),
        "precision": about["precision"],
        "kernel": about["kernel"],
    }


def _finite(value: float | None) -> float | None:
    """None in the place of what is unbounded: a surface that was stopped before its coarsest cells."""
    return value if value is not None and math.isfinite(value) else None
