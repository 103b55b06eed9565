"""The planes that a run's settings describe, through its weights, and the path of its training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gruland.files import json_hash
from gruland.landscape.directions import fingerprint, gates_of, load_directions, save_directions
from gruland.landscape.objective import Objective
from gruland.landscape.trajectory import trajectory
from gruland.surfaces.losses import reviews_of
from gruland.surfaces.settings import Surface

if TYPE_CHECKING:
    from gruland.classifier import Classifier
    from gruland.landscape.planes import Plane
    from gruland.runs import Run


def name_of(run: Run) -> str:
    """What a run is called in pictures and messages: the name that it was given, else its folder's."""
    return str(run.results.get("name", run.path.name))


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


def _path(run: Run, parameters: dict[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], str]:
    """The weights after each epoch by its number, and the name of the model's own among them.

    That is the number of the best epoch, or ``best`` with weights of its own: those of averaged weights are no epoch's.
    """
    path = {
        str(epoch): {name: weights[name].to(own) for name, own in parameters.items()}
        for epoch, weights in run_checkpoints(run).items()
    }
    best = str(run.results["training"]["best_epoch"])
    if best in path and all(torch.equal(path[best][name], own) for name, own in parameters.items()):
        return path, best
    return {**path, "best": parameters}, "best"


def _weights(run: Run, word: str, model: Classifier) -> tuple[str, dict[str, Tensor]]:
    """The name and the weights of ``initial``, ``final`` or another run."""
    from gruland import runs

    if word == "final":
        return word, _checkpoint(run, "last", model)
    if word != "initial":
        other = runs.load(word)
        return name_of(other), _checkpoint(other, "best", model)
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
    question = question_of(model, settings)
    if kept is not None and (plane := _kept(kept, parameters, question)):
        return plane
    encoded, labels, _ = reviews_of(run.data, settings)
    loss = MeanLoss(model, encoded, labels)
    plane = hessian_plane(loss, parameters, seed=settings.seed, label=f"{name_of(run)}: eigenvectors")
    if kept is not None:
        save_plane(kept, plane, question)
    return plane


def question_of(model: Classifier, settings: Surface) -> str:
    """A hash of all that determines a plane."""
    keys = ("plane", "seed", "normalization", "vectors", "only", "gate", "split", "reviews", "reviews_seed")
    asked = [fingerprint(model.trainable()), {key: getattr(settings, key) for key in keys}]
    return json_hash(asked)[:16]


def save_plane(path: Path, plane: Plane, question: str) -> None:
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
