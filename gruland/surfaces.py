"""The loss surface of a finished run: from its settings to a plane, an objective, a surface and its pictures."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gruland.data import subset
from gruland.data.splits import NAMES as SPLITS
from gruland.landscape.chunks import Chunk, PlaneExamples
from gruland.landscape.directions import (
    GATES,
    check_draw,
    describe_directions,
    fingerprint,
    gates_of,
    load_directions,
    save_directions,
)
from gruland.landscape.multilevel import nested_order
from gruland.landscape.objective import Objective
from gruland.landscape.pictures import PICTURES, Scale, trajectory_figure, write, write_pictures
from gruland.landscape.sample import achieved_tolerance
from gruland.landscape.surface import compute_surface
from gruland.landscape.surface import grid as surface_grid
from gruland.landscape.survey import PILOT
from gruland.landscape.trajectory import trajectory
from gruland.objective.evaluation import PRECISIONS, EvaluationLoss
from gruland.objective.training import TrainingLoss
from gruland.workers import ENGINES

if TYPE_CHECKING:
    import xarray

    from gruland.classifier import Classifier
    from gruland.data import Encoded, TextDataModule
    from gruland.landscape.planes import Plane
    from gruland.runs import Run

log = logging.getLogger(__name__)

OBJECTIVES = ("evaluation", "training")
#: The share of a tolerance that the rounding of products may take before they are computed in float32.
PRODUCTS = 0.1
#: The planes that a run has by itself; any other word is the path of another run.
PLANES = ("random", "initial", "final", "trajectory", "hessian")
#: The keys that change no number.
HOW_COMPUTED = ("enabled", "workers", "engine")
#: One or two of these, or of other runs' paths, make a plane through weights.
CHECKPOINTS = ("initial", "final")

DIRECTIONS = "directions.npz"
#: What a plane through the epochs of a training has besides :data:`gruland.landscape.pictures.PICTURES`.
PATH_PICTURES = ("trajectory.png", "trajectory.pdf")


@dataclass(frozen=True, kw_only=True)
class Surface:
    """What a run's loss surface shows: the keys of conf/landscape, where each is explained, with the same defaults.

    ``Surface(size=51, reviews="all")`` is the paper's; ``dataclasses.replace(surface, seed=1)`` the same over the next
    plane.

    Raises:
        ValueError: a value that cannot work, with the key's name (``landscape.size=0: expected ...``).
    """

    enabled: bool = True
    workers: int = 1
    engine: str = "local"
    size: Any = 13
    extent: Any = 1.0
    plane: Any = "random"
    normalization: str = "filter"
    vectors: str = "ignore"
    only: Any = None
    gate: str | int | None = None
    objective: str = "evaluation"
    draws: int = 8
    split: str = "train"
    reviews: int | str = 100
    seed: int = 0
    reviews_seed: int | None = None
    precision: str = "auto"
    tolerance: float | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _plain(getattr(self, field.name)))
        self._check("enabled", isinstance(self.enabled, bool), "true or false")
        self._check("workers", _whole(self.workers, 1), "a whole number of at least 1")
        self._check("engine", self.engine in ENGINES, f"one of {', '.join(ENGINES)}")
        self._check(
            "size",
            _whole(self.size, 1) or (_pair(self.size) and all(_whole(cells, 1) for cells in self.size)),
            "a whole number of at least 1, or [alpha, beta] of them",
        )
        self._check(
            "extent",
            _is_extent(self.extent),
            "a positive number, [alpha, beta] of them, [[low, high], [low, high]], or null",
        )
        with _keys_named():
            check_draw(self.seed, self.normalization, self.vectors)
        for key, known in (("split", SPLITS), ("objective", OBJECTIVES), ("precision", PRECISIONS)):
            self._check(key, getattr(self, key) in known, f"one of {', '.join(known)}")
        self._check(
            "reviews",
            self.reviews == "all" or _whole(self.reviews, 1),
            "a whole number of at least 1, or all",
        )
        self._check("draws", _whole(self.draws, 1), "a whole number of at least 1")
        self._check(
            "reviews_seed",
            self.reviews_seed is None or _whole(self.reviews_seed, 0),
            "a whole number of at least 0, or null",
        )
        self._check(
            "tolerance",
            self.tolerance is None or (_positive(self.tolerance) and self.tolerance < 1),
            "a share of the loss range in (0, 1), or null",
        )
        self._check(
            "max_seconds",
            self.max_seconds is None or _positive(self.max_seconds),
            "a positive number, or null",
        )
        self._check_moving()
        self._check_plane()

    @classmethod
    def of(cls, settings: Surface | Mapping[str, Any]) -> Surface:
        """The surface that a configuration's ``landscape`` describes; keys that are not given have their defaults.

        Raises:
            ValueError: as the class does, or a key that it does not have, with the nearest one.
        """
        if isinstance(settings, Surface):
            return settings
        known = [field.name for field in fields(cls)]
        given = {str(key): value for key, value in settings.items() if key != "_target_"}
        for key in given:
            if key not in known:
                near = get_close_matches(key, known, 1)
                wanted = (
                    f"did you mean landscape.{near[0]}?" if near else f"expected one of {', '.join(known)}"
                )
                raise ValueError(f"landscape.{key}={given[key]}: there is no such key, {wanted}")
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """What determines the surface, as plain data: every key but whether and where it is computed."""
        names = [field.name for field in fields(self) if field.name not in HOW_COMPUTED]
        return {name: getattr(self, name) for name in names}

    @property
    def subset_seed(self) -> int:
        """The seed of the subset of the reviews, and of the masks."""
        return self.seed if self.reviews_seed is None else self.reviews_seed

    def on(self, plane: str) -> Surface:
        """The same over another kind of plane, without what random planes alone can be asked for."""
        return replace(self, plane=plane, **OF_RANDOM_PLANES)

    def _check(self, key: str, possible: bool, expected: str) -> None:
        if not possible:
            raise ValueError(f"landscape.{key}={getattr(self, key)}: expected {expected}")

    def _check_moving(self) -> None:
        patterns = [self.only] if isinstance(self.only, str) else self.only
        texts = isinstance(patterns, list) and patterns and all(isinstance(part, str) for part in patterns)
        self._check(
            "only", patterns is None or bool(texts), "a pattern of parameters' names, a list of them, or null"
        )
        names = GATES[3]  # of a GRU
        numbered = _whole(self.gate, 0) and int(self.gate or 0) < len(names)
        self._check(
            "gate",
            self.gate is None or self.gate in names or numbered,
            f"{', '.join(names)}, a number below {len(names)}, or null",
        )
        if self.gate is not None and self.vectors == "tensor":
            raise ValueError(
                f"landscape.gate={self.gate} with landscape.vectors=tensor: expected vectors=with_row or ignore"
            )

    def _check_plane(self) -> None:
        words = [self.plane] if isinstance(self.plane, str) else self.plane
        texts = isinstance(words, list) and all(isinstance(word, str) for word in words)
        several = f"{_or_a_run(PLANES)}, or two of {_or_a_run(CHECKPOINTS)}"
        self._check("plane", texts and 1 <= len(words) <= 2, several)
        known = PLANES if isinstance(self.plane, str) else CHECKPOINTS
        for word in words:
            if word not in known and not Path(word).is_dir():
                raise ValueError(f"landscape.plane={word}: expected {_or_a_run(known)}")
        for key, usual in OF_RANDOM_PLANES.items():
            if self.plane != "random" and getattr(self, key) != usual:
                raise ValueError(
                    f"landscape.{key}={getattr(self, key)}: expected {'null' if usual is None else usual} "
                    f"with landscape.plane={self.plane}, it is for random planes"
                )


#: What random planes alone can be asked for, with its defaults.
OF_RANDOM_PLANES: dict[str, Any] = {
    "normalization": "filter",
    "vectors": "ignore",
    "only": None,
    "gate": None,
}


@contextmanager
def _keys_named() -> Iterator[None]:
    """An error of the library about an argument (``seed=-1: ...``) names the key, ``landscape.seed``."""
    try:
        yield
    except ValueError as error:
        keys = {field.name for field in fields(Surface)}
        named = str(error).partition("=")[0] in keys
        raise ValueError(f"landscape.{error}" if named else str(error)) from None


def _plain(value: Any) -> Any:
    """Lists in the place of tuples and of OmegaConf's."""
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return [_plain(item) for item in value] if is_list else value


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _is_extent(extent: Any) -> bool:
    if extent is None or _positive(extent) or (_pair(extent) and all(map(_positive, extent))):
        return True
    return _pair(extent) and all(
        _pair(ends) and all(map(_number, ends)) and ends[0] < ends[1] for ends in extent
    )


def _or_a_run(words: Sequence[str]) -> str:
    return f"{', '.join(words)} or the path of another run"


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


def surface_of(
    run: Run,
    settings: Surface,
    *,
    model: Classifier | None = None,
    plane: Plane | None = None,
    evaluate: EvaluationLoss | None = None,
    path: str | Path | None = None,
    label: str | None = None,
) -> xarray.Dataset:
    """The loss over one plane of a run; nothing but ``path`` is written.

    Many planes of one run share what takes long to prepare::

        evaluate = objective_of(run.model, run.data, settings)
        for seed in range(12):
            surface_of(run, replace(settings, seed=seed), evaluate=evaluate, path=folder / f"plane-{seed}.zarr")

    Args:
        run: where the data, checkpoints and, where it is not given, the model come from.
        settings: what is wanted. With ``evaluate`` those of the objective (``split``, ``objective``, ``draws``,
            ``reviews``, ``reviews_seed``, ``precision``) are not read: it has its own.
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
    model = run.model if model is None else model
    plane = plane_of(run, settings, model=model) if plane is None else plane
    grid = {"extent": _extent(settings.extent, plane)}
    attributes = _attributes(plane, settings)
    if evaluate is None:
        evaluate = objective_of(model, run.data, settings)
        if (
            settings.tolerance is not None
            and settings.precision == "auto"
            and evaluate.precision != "float32"
        ):
            whole = objective_of(model, run.data, replace(settings, precision="float32"))
            error, spread = error_of_products(evaluate, whole, plane, grid["extent"], seed=settings.seed)
            if not error <= PRODUCTS * settings.tolerance * spread:
                log.info("%s: products in float32, %s is off by %.1e", _name(run), evaluate.precision, error)
                evaluate = whole
    return compute_surface(
        evaluate,
        plane.origin,
        plane.directions,
        size=_tuples(settings.size),
        **grid,
        tolerance=settings.tolerance,
        seed=settings.seed,
        path=path,
        attributes=attributes,
        label=label,
        max_seconds=settings.max_seconds,
        workers=settings.workers,
        engine=settings.engine,
    )


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
    with _keys_named():
        if settings.objective == "training":
            masks: dict[str, Any] = {"draws": settings.draws, "seed": seed, "keys": rows}
            evaluate: EvaluationLoss = TrainingLoss(model, encoded, labels, precision=precision, **masks)
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


# -- the plane


def plane_of(
    run: Run, settings: Surface, *, model: Classifier | None = None, kept: Path | None = None
) -> Plane:
    """The plane that the settings describe, through the model's weights.

    Args:
        run: where checkpoints and, for Hessian planes, the reviews come from.
        settings: what is wanted.
        model: whose weights are the origin; None = the run's best checkpoint.
        kept: a file for directions that take long to compute (``hessian``): they are written to it, and taken over
            where an earlier call wrote those of the same weights and settings.

    Raises:
        ValueError, FileNotFoundError: the run lacks the checkpoints that the plane is made from.
    """
    from gruland.landscape import planes

    model = run.model if model is None else model
    parameters: dict[str, Tensor] = dict(model.trainable())
    kind, seed = settings.plane, settings.seed
    if kind == "random":
        named = {key: getattr(settings, key) for key in ("normalization", "vectors", "gate")}
        only = "*" if settings.only is None else settings.only
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
            "train with callbacks=[default,epoch_weights]"
        )
    return word, _checkpoint(run, "epoch-0", model)


def _checkpoint(run: Run, which: str, model: Classifier) -> dict[str, Tensor]:
    weights = run.weights(which, model.state_dict())
    return {name: weights[name].to(own) for name, own in model.trainable().items()}


def _hessian(run: Run, settings: Surface, model: Classifier, kept: Path | None) -> Plane:
    from gruland.landscape.measures.curvature import hessian_plane
    from gruland.objective.mean_loss import MeanLoss

    parameters: dict[str, Tensor] = dict(model.trainable())
    question = _question(model, settings)
    if kept is not None and (plane := _kept(kept, parameters, question)):
        return plane
    encoded, labels, _ = reviews_of(run.data, settings)
    loss = MeanLoss(model, encoded, labels)
    plane = hessian_plane(loss, parameters, seed=settings.seed, label=f"{_name(run)}: eigenvectors")
    if kept is not None:
        _save_plane(kept, plane, question)
    return plane


def _question(model: Classifier, settings: Surface) -> str:
    """A hash of all that determines a plane."""
    keys = ("plane", "seed", "normalization", "vectors", "only", "gate", "split", "reviews", "reviews_seed")
    asked = [fingerprint(model.trainable()), {key: getattr(settings, key) for key in keys}]
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


def _attributes(plane: Plane, settings: Surface) -> dict[str, Any]:
    """What determines a surface besides the weights, the directions, the grid and the objective."""
    about: dict[str, Any] = {"seed": settings.seed}
    if plane.kind == "random":
        about["normalization"] = plane.attributes.get("normalization", settings.normalization)
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
        "interpolation_error": about.get("interpolation_error") if guessed else None,
        "reviews": about["reviews"],
        "evaluations": about.get("evaluations", int((done & ~interpolated).sum()) * about["reviews"]),
        "achieved_tolerance": about["achieved_tolerance"]
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


# -- the path of the training


def run_checkpoints(run: Run) -> dict[int, dict[str, Tensor]]:
    """The trained parameters of a run after each epoch that was kept; 0 = before training.

    Raises:
        ValueError: the run kept fewer than three.
    """
    if len(run.epochs) < 3:
        raise ValueError(
            f"{run.path} keeps the weights of {len(run.epochs)} epochs, a trajectory takes at least three: "
            "train with callbacks=[default,epoch_weights]"
        )
    return {epoch: dict(run.load_model(f"epoch-{epoch}").trainable()) for epoch in run.epochs}


def run_path(evaluate: Objective, run: Run, plane: Plane) -> dict[str, Any]:
    """:func:`trajectory` of the epochs that a run kept, as plain data.

    Returns:
        A list for ``epoch`` and for each of :data:`MEASURES`, and the plane's attributes ``explained`` (share of the
        variance that each of its components holds) and ``random_walk`` (the same of a random walk).

    Raises:
        ValueError: as :func:`run_checkpoints` and :func:`trajectory`.
    """
    table = trajectory(evaluate, run_checkpoints(run), plane=plane)
    columns = {str(name): table[name].values.tolist() for name in ("epoch", *table.data_vars)}
    return {**columns, **{key: plane.attributes[key] for key in ("explained", "random_walk")}}
