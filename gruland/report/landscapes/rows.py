"""The rows of the table: measures of the surfaces, of the Hessians, and the flat area as a curve.

S training seeds, D directions, X points of a curve.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from gruland.landscape.measures import MEASURES, flat_area_curve
from gruland.report import differences
from gruland.report.differences import Quantity, Row
from gruland.report.landscapes.measurements import Measured
from gruland.stats import crossed_band

#: Excess losses of the area curve, in nats.
THRESHOLDS = np.geomspace(0.005, 1.0, 60)

_OPPOSITE = {"flatter": "sharper", "sharper": "flatter", "smoother": "rougher", "rougher": "smoother"}


def rows(measured: Measured) -> list[Row]:
    """A row for each measure of a surface and, where they were computed, of the Hessian; corrected together."""
    return differences.rows(_measures(measured), measured.references)


def _measures(measured: Measured) -> Iterator[tuple[Quantity, dict[str, Any]]]:
    radius = _radius(measured)
    # Ripples within a third of the unit, or of a plane that is smaller than that.
    settings = {"radius": radius, "reach": min(1.0, radius) / 3}
    for key, measure in MEASURES.items():
        values = {
            label: {
                seed: [measure(surface, **settings) for surface in surfaces]
                for seed, surfaces in seeds.items()
            }
            for label, seeds in measured.surfaces.items()
        }
        meaning = (measure.larger, _OPPOSITE[measure.larger])
        quantity = Quantity(key, measure.title, measure.unit, measure.definition, *meaning, measure.bounds)
        yield quantity, values
    if measured.curvature:
        for quantity, read in _CURVATURES:
            yield (
                quantity,
                {
                    label: {seed: [read(found)] for seed, found in seeds.items()}
                    for label, seeds in measured.curvature.items()
                },
            )


_CURVATURES: list[tuple[Quantity, Any]] = [
    (
        Quantity(
            "top_eigenvalue", "largest Hessian eigenvalue", "nats per squared weight",
            "of the evaluation loss at the trained weights", "sharper", "flatter",
        ),
        lambda found: found["eigenvalues"][0],
    ),
    (
        Quantity(
            "trace", "Hessian trace", "nats per squared weight", "sum of all eigenvalues", "sharper", "flatter"
        ),
        lambda found: found["trace"][0],
    ),
    (
        Quantity(
            "ratio", "smallest to largest eigenvalue", "1", "how far the loss is from convex (Li et al. 2018)",
            "less convex", "more convex", (0.0, math.inf),
        ),
        lambda found: abs(found["smallest"] / found["eigenvalues"][0]),
    ),
    (
        Quantity(
            "mean_sharpness", "mean adaptive sharpness", "nats",
            "mean rise under random relative perturbations (Andriushchenko et al. 2023)", "sharper", "flatter",
        ),
        lambda found: found["mean_sharpness"][0],
    ),
    (
        Quantity(
            "worst_sharpness", "worst adaptive sharpness", "nats",
            "largest rise found in a relative ball (Kwon et al. 2021)", "sharper", "flatter",
        ),
        lambda found: found["worst_sharpness"],
    ),
    (
        Quantity(
            "epsilon_sharpness", "epsilon-sharpness", "%",
            "largest relative rise found in a box (Keskar et al. 2017)", "sharper", "flatter",
        ),
        lambda found: found["epsilon_sharpness"],
    ),
]  # fmt: skip


def _radius(measured: Measured) -> float:
    """Of the largest circle that the planes hold: of the disc of flat areas, of the circle of loss gaps."""
    return float(measured.settings["extent"])


def curves(measured: Measured) -> dict[str, dict[str, list[float]]]:
    """The flat area against its threshold, with its band, of each model."""
    curves = {}
    for label, seeds in measured.surfaces.items():
        count = min(map(len, seeds.values()))
        areas_SDX = [
            [flat_area_curve(surface, THRESHOLDS, radius=_radius(measured)) for surface in found[:count]]
            for found in seeds.values()
        ]
        band = crossed_band(areas_SDX)
        # A share beyond 0 or 1 cannot be: an interval loses nothing without it.
        low, high = band.low.clip(0, 1), band.high.clip(0, 1)
        parts = {"thresholds": THRESHOLDS, "estimate": band.estimate, "low": low, "high": high}
        curves[label] = {name: values.tolist() for name, values in parts.items()}
    return curves
