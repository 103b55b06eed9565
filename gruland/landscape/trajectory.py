"""The path of a training: where its checkpoints lie on a plane, how far off it, and their true losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gruland.landscape.directions import fingerprint
from gruland.landscape.objective import Objective, examples, strata
from gruland.landscape.planes import Plane, Weights, difference, norm, trajectory_plane
from gruland.landscape.sample import standard_error

if TYPE_CHECKING:
    import xarray

#: What is measured at each checkpoint: long name and unit.
MEASURES = {
    "alpha": ("step along the first direction", "Euclidean distance"),
    "beta": ("step along the second direction", "Euclidean distance"),
    "distance": ("distance to the origin", "Euclidean distance"),
    "residual": ("distance to the plane", "Euclidean distance"),
    "relative_residual": ("distance to the plane as a share of that to the origin", "1"),
    "loss": ("loss of the checkpoint itself", "nats"),
    "loss_se": ("standard error of the loss over examples", "nats"),
    "accuracy": ("accuracy of the checkpoint itself", "1"),
    "projected_loss": ("loss at the checkpoint's projection onto the plane", "nats"),
    "projected_accuracy": ("accuracy at the checkpoint's projection onto the plane", "1"),
    "difference_se": ("standard error of the projection's loss less the checkpoint's, paired", "nats"),
}


def trajectory(
    evaluate: Objective, checkpoints: Mapping[int, Weights], *, plane: Plane | None = None
) -> xarray.Dataset:
    """Coordinates, distance to the plane and true loss of every checkpoint.

    A trajectory drawn on a surface suggests that the training went through the heights below it. The heights are
    those of the checkpoints' projections; ``loss`` is what the checkpoints really reached.

    Args:
        evaluate: as :func:`gruland.landscape.compute_surface` takes it. It is called on the very tensors of the
            checkpoints, and on those of their projections.
        checkpoints: weights by epoch, in order.
        plane: None = their :func:`trajectory_plane`, with the last one as its origin.

    Returns:
        A data set over ``epoch`` with the variables of :data:`MEASURES`, and the plane's attributes, ``kind`` and a
        hash of its origin and directions. A loss that is not finite is kept.

    Raises:
        ValueError: as :func:`trajectory_plane` does, or :meth:`Plane.coordinates` of a plane that was given.
    """
    if plane is None:
        plane = trajectory_plane(list(checkpoints.values()), [str(epoch) for epoch in checkpoints])
    devices = {name: origin.device for name, origin in plane.origin.items()}
    rows = []
    for given in checkpoints.values():
        weights = {name: part.to(devices[name]) for name, part in given.items()}
        rows.append({**_place(plane, weights), **_heights(evaluate, plane, weights)})
    return _dataset(rows, list(checkpoints), plane)


def _place(plane: Plane, weights: Weights) -> dict[str, float]:
    alpha, beta = plane.coordinates(weights)
    distance, residual = norm(difference(weights, plane.origin)), plane.residual(weights)
    share = residual / distance if distance else 0.0
    return {
        "alpha": alpha, "beta": beta, "distance": distance, "residual": residual, "relative_residual": share
    }  # fmt: skip


def _heights(evaluate: Objective, plane: Plane, weights: Weights) -> dict[str, float]:
    measured = [examples(evaluate(w)) for w in (dict(weights), plane.at(*plane.coordinates(weights)))]
    (loss, correct), (projected_loss, projected_correct) = [
        [part.detach().cpu().double().numpy() for part in parts] for parts in measured
    ]
    return {
        "loss": loss.mean(),
        "loss_se": standard_error(loss, strata(evaluate)),
        "accuracy": correct.mean(),
        "projected_loss": projected_loss.mean(),
        "projected_accuracy": projected_correct.mean(),
        "difference_se": standard_error(projected_loss - loss, strata(evaluate)),
    }


def _dataset(rows: list[dict[str, float]], epochs: list[int], plane: Plane) -> xarray.Dataset:
    import xarray

    variables: dict[str, Any] = {
        name: ("epoch", np.array([row[name] for row in rows]), {"long_name": text, "units": unit})
        for name, (text, unit) in MEASURES.items()
    }
    for name, unit in zip(("alpha", "beta"), plane.attributes.get("units", ()), strict=False):
        variables[name][2]["units"] = unit
    identity = {
        "kind": plane.kind,
        "plane": [fingerprint(part) for part in (plane.origin, *plane.directions)],
    }
    coordinates = {"epoch": ("epoch", epochs, {"long_name": "epochs of training", "units": "1"})}
    return xarray.Dataset(variables, coordinates, {**plane.attributes, **identity})
