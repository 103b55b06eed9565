"""The order in which a comparison is computed: surfaces first, then what takes longer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from gruland.arguments import check_whole
from gruland.config import CONF, unknown
from gruland.files import remove_abandoned
from gruland.progress import Progress
from gruland.report.collect import Collection
from gruland.report.landscapes.measurements import (
    BARRIER_POINTS,
    Bench,
    Measured,
    PlaneSurfaces,
    PlaneTask,
    benches,
)
from gruland.report.landscapes.page import write_page
from gruland.report.models import Model, models
from gruland.runs import Run
from gruland.surfaces import HOW_COMPUTED, Surface
from gruland.workers import Workers

_loaded: Any = OmegaConf.to_container(OmegaConf.load(CONF / "comparison.yaml"))
#: What a comparison can be asked, and what it does unasked.
SETTINGS: dict[str, Any] = _loaded
#: Products with the Hessian that the curvature of a run takes, about.
PRODUCTS = 200
#: Reviews where all are asked for, about; for the time left alone.
ALL_REVIEWS = 25_000
_OWN = ("directions", "curvature", "barriers", "paths")


def compare(collection: Collection, settings: Mapping[str, Any] | None = None, *, folder: str | Path) -> Path:
    """Measure all runs of a collection and write the comparison of their models.

    Args:
        collection: as :func:`gruland.report.collect` gives it; a second run of a model and seed is noted in it.
        settings: over :data:`SETTINGS`.
        folder: where ``comparison.md``, ``comparison.json`` and the pictures go.

    Returns:
        The path of comparison.md.

    Raises:
        ValueError: a setting that cannot work.
    """
    asked = {**SETTINGS, **(settings or {})}
    _check(asked)
    surface = Surface.of({key: value for key, value in asked.items() if key not in _OWN})
    asked = {key: value for key, value in asked.items() if key not in HOW_COMPUTED}
    measured = Measured(asked, models(collection.runs, collection.left_out))
    named = [
        (f"{model.label}, seed {seed}", run) for model in measured.models for seed, run in model.runs.items()
    ]
    for place in (Path(folder), *(run.path / "landscape" for _, run in named)):
        remove_abandoned(place)
    places = {run.path: (model.label, seed) for model in measured.models for seed, run in model.runs.items()}
    if surface.workers > 1 or surface.engine != "local":
        _planes_ahead([run for _, run in named], surface, asked["directions"])
        surface = replace(surface, workers=1, engine="local")
    repeated = [model for model in measured.models if len(model.runs) > 1] if asked["barriers"] else []
    # The unit is a pass over a review: a point of a plane takes one, a product with the Hessian about five.
    reviews = asked["reviews"] if isinstance(asked["reviews"], int) else ALL_REVIEWS
    plane, line = surface.size**2 * reviews, 2 * BARRIER_POINTS * reviews
    hessian = 5 * PRODUCTS * asked["curvature"]
    pairs = sum(comb(len(model.runs), 2) for model in repeated)
    with Progress(len(named) * (asked["directions"] * plane + hessian) + pairs * line, "comparison") as whole:
        for bench in benches(named, surface):
            label, seed = places[bench.run.path]
            found = measured.surfaces.setdefault(label, {}).setdefault(seed, [])
            for one in bench.surfaces(asked["directions"]):
                found.append(one)
                whole.advance(plane)
            if asked["paths"] and (path := bench.path()):
                measured.paths.setdefault(label, {})[seed] = path
        for model in repeated:
            measured.barriers[model.label] = _barriers(model, surface)
            whole.advance(comb(len(model.runs), 2) * line, f"barriers of {model.label}")
        for bench in benches(named, surface) if asked["curvature"] else ():
            label, seed = places[bench.run.path]
            if hessians := bench.curvature(asked["curvature"]):
                measured.curvature.setdefault(label, {})[seed] = hessians
            whole.advance(hessian)
    return write_page(measured, Path(folder))


def _planes_ahead(runs: Sequence[Run], settings: Surface, directions: int) -> None:
    """Let workers compute the planes of all runs into their folders, where the comparison finds them."""
    tasks = [PlaneTask(run.path.resolve(), index, run.allow) for run in runs for index in range(directions)]
    alone = replace(settings, workers=1, engine="local")
    with (
        Progress(len(tasks), f"planes, {settings.workers} workers") as progress,
        Workers(PlaneSurfaces(alone), settings.workers, settings.engine) as workers,
    ):
        for task, _, _ in workers.map(tasks):
            progress.advance(detail=f"{task.run.name}, plane {task.number + 1}")


def _barriers(model: Model, settings: Surface) -> dict[str, Any]:
    """Between each two seeds of a model."""
    named: Sequence[tuple[str, Run]] = [
        (f"{model.label}, seed {seed}", run) for seed, run in model.runs.items()
    ]
    loaded: dict[int, Bench] = dict(zip(model.runs, benches(named, settings), strict=True))
    return {
        f"seeds {one} and {other}": loaded[one].barrier(loaded[other])
        for one, other in combinations(loaded, 2)
    }


def _check(settings: Mapping[str, Any]) -> None:
    for key in settings:
        if key not in SETTINGS:
            raise ValueError(f"{key} {unknown(key, list(SETTINGS))}")
    for key, least in (("directions", 1), ("curvature", 0)):
        check_whole(key, settings[key], least)
    for key in ("barriers", "paths"):
        if not isinstance(settings[key], bool):
            raise ValueError(f"{key}={settings[key]}: expected true or false")
    size, extent = settings["size"], settings["extent"]
    if isinstance(size, bool) or not isinstance(size, int) or size < 5 or size % 2 == 0:
        raise ValueError(
            f"size={size}: expected an odd number from 5 on, with the trained weights in the middle"
        )
    if isinstance(extent, bool) or not isinstance(extent, (int, float)):
        raise ValueError(f"extent={extent}: expected a positive number")
    if settings["reviews_seed"] is None:
        raise ValueError("reviews_seed=null: expected a number, since all planes are over the same reviews")
