"""The loss over a plane of random directions through a model's weights (section 4.3 of the paper).

For a run, :func:`compute_run` or ``python -m gruland.landscape RUN``. For any module with a loss::

    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}

    def evaluate(parameters):
        with torch.no_grad():
            output = torch.func.functional_call(module, parameters, inputs)
        return F.cross_entropy(output, labels, reduction="none"), output.argmax(1) == labels

    result = compute_surface(evaluate, parameters, random_directions(parameters, seed=0), path="surface.zarr")
    contour_figure(result).savefig("contour.png")

``interpolation=0.005`` evaluates only as many cells as it takes to interpolate the others.
"""

from __future__ import annotations

import importlib
from typing import Any

#: Settings that the configurations of earlier versions do not have.
DEFAULTS: dict[str, Any] = {"precision": "auto", "tolerance": None, "interpolation": None}

_EXPORTS = {
    "ComposedLoss": "composed",
    "MEASURES": "measures",
    "Plane": "planes",
    "ReviewLoss": "objective",
    "Scale": "plot",
    "adaptive_sharpness": "measures.sharpness",
    "align": "alignment",
    "barrier": "alignment",
    "check_settings": "run",
    "compute_line": "surface",
    "compute_run": "run",
    "compute_surface": "surface",
    "contour_figure": "plot",
    "convex_share": "measures",
    "count_minima": "measures",
    "curvature_ratio_map": "measures.curvature",
    "describe_directions": "directions",
    "displace": "directions",
    "epsilon_sharpness": "measures.sharpness",
    "export_surface": "export",
    "extreme_eigenvalues": "measures.curvature",
    "figure_3d": "plot",
    "flat_area": "measures",
    "flat_area_curve": "measures",
    "gates_of": "directions",
    "hessian": "measures.curvature",
    "hessian_plane": "measures.curvature",
    "hidden_states": "alignment",
    "hidden_units": "alignment",
    "load_directions": "directions",
    "load_surface": "store",
    "loss_gap": "measures",
    "mean_adaptive_sharpness": "measures.sharpness",
    "minima": "measures",
    "minimum": "plot",
    "permute_units": "alignment",
    "plane_through": "planes",
    "random_directions": "directions",
    "random_plane": "planes",
    "ripple": "measures",
    "roughness": "measures",
    "run_checkpoints": "checkpoints",
    "save_directions": "directions",
    "spectral_density": "measures.curvature",
    "surface_figure": "plot",
    "top_eigenvalues": "measures.curvature",
    "trace": "measures.curvature",
    "trajectory": "checkpoints",
    "trajectory_plane": "planes",
    "write_pictures": "plot",
}
__all__ = ["DEFAULTS", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
