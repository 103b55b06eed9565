"""The loss surface of a finished run: from its settings to a plane, an objective, a surface and its pictures.

:mod:`~gruland.surfaces.settings` says what is wanted, :mod:`~gruland.surfaces.run_planes` and
:mod:`~gruland.surfaces.losses` make of it what :func:`gruland.landscape.compute_surface` takes,
:mod:`~gruland.surfaces.computation` calls that, and :mod:`~gruland.surfaces.results` writes what the run keeps.
``python -m gruland.landscape`` is the command.
"""

from __future__ import annotations

from gruland.lazy import getter

_EXPORTS = {
    "HOW_COMPUTED": "settings",
    "Surface": "settings",
    "compute_run": "results",
    "error_of_products": "losses",
    "objective_of": "losses",
    "plane_of": "run_planes",
    "reviews_of": "losses",
    "run_checkpoints": "run_planes",
    "run_path": "run_planes",
    "surface_of": "computation",
}
__all__ = sorted(_EXPORTS)
__getattr__ = getter(__name__, _EXPORTS)
