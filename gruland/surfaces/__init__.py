"""The loss surface of a finished run: from its settings to a plane, an objective, a surface and its pictures.

:mod:`~gruland.surfaces.settings` says what is wanted, :mod:`~gruland.surfaces.run_planes` and
:mod:`~gruland.surfaces.losses` make of it what :func:`gruland.landscape.compute_surface` takes,
:mod:`~gruland.surfaces.computation` calls that, and :mod:`~gruland.surfaces.results` writes what the run keeps.
"""

from gruland.surfaces.computation import surface_of
from gruland.surfaces.losses import error_of_products, objective_of, reviews_of
from gruland.surfaces.results import compute_run
from gruland.surfaces.run_planes import plane_of, run_checkpoints, run_path
from gruland.surfaces.settings import HOW_COMPUTED, Surface

__all__ = [
    "HOW_COMPUTED",
    "Surface",
    "compute_run",
    "error_of_products",
    "objective_of",
    "plane_of",
    "reviews_of",
    "run_checkpoints",
    "run_path",
    "surface_of",
]
