"""A run's surface from its settings: the plane, the losses and the grid; no file but the surface itself."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gruland.landscape.directions import describe_directions
from gruland.landscape.surface import compute_surface
from gruland.objective.evaluation import EvaluationLoss
from gruland.surfaces.losses import error_of_products, objective_of
from gruland.surfaces.run_planes import name_of, plane_of
from gruland.surfaces.settings import Surface

if TYPE_CHECKING:
    import xarray

    from gruland.classifier import Classifier
    from gruland.landscape.planes import Plane
    from gruland.runs import Run

log = logging.getLogger(__name__)

#: The share of a tolerance that the rounding of products may take before they are computed in float32.
PRODUCTS = 0.1


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
            ``reviews``, ``reviews_seed``, ``precision``) are not read: it has its own. Where its precision is
            ``auto``'s and ``tolerance`` is set, products that are too coarse for that are computed in float32.
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
    evaluate = objective_of(model, run.data, settings) if evaluate is None else evaluate
    if settings.tolerance is not None and (whole := evaluate.unrounded()) is not None:
        error, spread = error_of_products(evaluate, whole, plane, grid["extent"], seed=settings.seed)
        if not error <= PRODUCTS * settings.tolerance * spread:
            log.info("%s: products in float32, %s is off by %.1e", name_of(run), evaluate.precision, error)
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
