"""Numbers that summarize a loss surface, so that models can be compared by more than a picture.

:data:`MEASURES` holds those that are functions of a surface alone::

    for name, measure in MEASURES.items():
        print(measure.title, measure(surface, radius=1.0), measure.unit)

One number of one random plane says little: give S trainings x D planes to :func:`gruland.stats.crossed_interval`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

# These need numpy alone. The function `minima` is bound here so that the submodule of that name does not hide it.
from gruland.landscape.measures.area import flat_area, flat_area_curve, loss_gap
from gruland.landscape.measures.minima import Minimum, count_minima, minima
from gruland.landscape.measures.shape import convex_share, ripple, roughness

if TYPE_CHECKING:
    import xarray

__all__ = [
    "MEASURES",
    "Measure",
    "Minimum",
    "convex_share",
    "count_minima",
    "flat_area",
    "flat_area_curve",
    "loss_gap",
    "minima",
    "ripple",
    "roughness",
]


@dataclass(frozen=True)
class Measure:
    """A measure of a surface, as reports and comparisons name it.

    Attributes:
        function: from a surface to a number.
        title: a few words.
        unit: "nats", "1" for a share or a number, ...
        definition: one line.
        source: where it is from.
        larger: what a larger value means: flatter, sharper, smoother or rougher.
        settings: the keywords that ``function`` takes.
        bounds: the least and the greatest value that there can be.
    """

    function: Callable[..., float]
    title: str
    unit: str
    definition: str
    source: str
    larger: str
    settings: tuple[str, ...] = ()
    bounds: tuple[float, float] = (-math.inf, math.inf)

    def __call__(self, surface: xarray.Dataset, **settings: Any) -> float:
        """The measure of a surface; settings that other measures take are left aside."""
        own = {name: value for name, value in settings.items() if name in self.settings}
        return float(self.function(surface, **own))


MEASURES: dict[str, Measure] = {
    "flat_area": Measure(
        flat_area,
        "flat area",
        "1",
        "share of a disc around the unmoved model in which the loss is within a threshold (0.1 nats) of its own",
        "the area of minimum loss in pictures after Li et al. 2018, as a number",
        "flatter",
        ("threshold", "radius"),
        (0.0, 1.0),
    ),
    "loss_gap": Measure(
        loss_gap,
        "loss gap",
        "nats",
        "mean rise of the loss on a circle around the unmoved model",
        "filter-normalized radius: Li et al. 2018, section 4",
        "sharper",
        ("radius",),
    ),
    "roughness": Measure(
        roughness,
        "roughness",
        "nats per squared unit",
        "root mean square of the plane's Hessian by second differences (Frobenius norm)",
        "thin-plate penalty: Green & Silverman 1994, chapter 7",
        "rougher",
        bounds=(0.0, math.inf),
    ),
    "ripple": Measure(
        ripple,
        "ripple",
        "1",
        "rest of the loss around local quadratics over its standard deviation",
        "quadratic smoother: Savitzky & Golay 1964",
        "rougher",
        ("reach",),
        (0.0, math.inf),
    ),
    "convex_share": Measure(
        convex_share,
        "convex share",
        "1",
        "share of the cells in which the plane's Hessian is positive semidefinite",
        "convexity along the plane, after Li et al. 2018, section 6",
        "smoother",
        bounds=(0.0, 1.0),
    ),
    "count_minima": Measure(
        count_minima,
        "minima",
        "1",
        "minima off the rim whose way out rises by a persistence (0.01 nats) at least",
        "0-dimensional persistence: Edelsbrunner & Harer 2010, section VII.1",
        "rougher",
        ("persistence", "rim"),
        (0.0, math.inf),
    ),
}
