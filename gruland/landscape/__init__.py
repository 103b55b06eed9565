"""The loss over a plane of random directions through a model's weights (section 4.3 of the paper).

For a run of this package, :mod:`gruland.surfaces` or ``python -m gruland.landscape RUN``. For any module with a loss::

    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}

    def evaluate(parameters):
        with torch.no_grad():
            output = torch.func.functional_call(module, parameters, inputs)
        return F.cross_entropy(output, labels, reduction="none"), output.argmax(1) == labels

    result = compute_surface(evaluate, parameters, random_directions(parameters, seed=0), path="surface.zarr")
    contour_figure(result).savefig("contour.png")

``tolerance=0.01`` evaluates as little as it takes to know every cell to 1% of the loss range.
"""

from __future__ import annotations

from gruland.lazy import getter

_EXPORTS = {
    "EXCESS_LEVELS": "pictures",
    "MEASURES": "measures",
    "Objective": "objective",
    "Plane": "planes",
    "Scale": "pictures",
    "adaptive_sharpness": "measures.sharpness",
    "align": "alignment",
    "area_curves": "pictures",
    "bands": "pictures",
    "barrier": "alignment",
    "barrier_curves": "pictures",
    "compute_surface": "surface",
    "contour_figure": "pictures",
    "contour_sheet": "pictures",
    "convex_share": "measures",
    "count_minima": "measures",
    "describe_directions": "directions",
    "displace": "directions",
    "epsilon_sharpness": "measures.sharpness",
    "export_surface": "export",
    "extreme_eigenvalues": "measures.curvature",
    "figure_3d": "pictures",
    "flat_area": "measures",
    "flat_area_curve": "measures",
    "gates_of": "directions",
    "grid_sheet": "pictures",
    "hessian": "measures.curvature",
    "hessian_plane": "measures.curvature",
    "hidden_units": "alignment",
    "interval_plot": "pictures",
    "linked_surfaces": "pictures",
    "load_directions": "directions",
    "load_surface": "store",
    "loss_gap": "measures",
    "mean_adaptive_sharpness": "measures.sharpness",
    "minima": "measures",
    "minimum": "pictures",
    "permute_units": "alignment",
    "plane_through": "planes",
    "random_directions": "directions",
    "random_plane": "planes",
    "ripple": "measures",
    "roughness": "measures",
    "sampling_interval": "measures.sampling",
    "save_directions": "directions",
    "save_surface": "store",
    "spectra": "pictures",
    "spectral_density": "measures.curvature",
    "surface_figure": "pictures",
    "surface_sheet": "pictures",
    "top_eigenvalues": "measures.curvature",
    "trace": "measures.curvature",
    "trajectory": "trajectory",
    "trajectory_figure": "pictures",
    "trajectory_plane": "planes",
    "write": "pictures",
    "write_pictures": "pictures",
}
__all__ = list(_EXPORTS)
__getattr__ = getter(__name__, _EXPORTS)
