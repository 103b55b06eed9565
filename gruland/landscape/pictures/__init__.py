"""Pictures of loss surfaces: one model's, or several models' on one scale.

One surface: :func:`contour_figure` (with a trajectory and named points), :func:`surface_figure`, :func:`figure_3d`,
:func:`trajectory_figure`. Several: :func:`contour_sheet`, :func:`grid_sheet`, :func:`surface_sheet`,
:func:`linked_surfaces`; curves with intervals: :func:`bands`, :func:`area_curves`, :func:`spectra`,
:func:`barrier_curves`; estimates with intervals: :func:`interval_plot`. Each returns a figure, :func:`write` writes it.
Colours are chosen in :mod:`gruland.landscape.pictures.scale`.
"""

from gruland.landscape.pictures.contours import contour_figure, trajectory_figure
from gruland.landscape.pictures.curves import area_curves, bands, barrier_curves, replicate_band, spectra
from gruland.landscape.pictures.intervals import interval_plot
from gruland.landscape.pictures.marks import EXCESS_LEVELS
from gruland.landscape.pictures.reading import minimum
from gruland.landscape.pictures.scale import Scale
from gruland.landscape.pictures.sheets import contour_sheet, grid_sheet
from gruland.landscape.pictures.surfaces import figure_3d, linked_surfaces, surface_figure, surface_sheet
from gruland.landscape.pictures.writing import PICTURES, write, write_pictures

__all__ = [
    "EXCESS_LEVELS",
    "PICTURES",
    "Scale",
    "area_curves",
    "bands",
    "barrier_curves",
    "contour_figure",
    "contour_sheet",
    "figure_3d",
    "grid_sheet",
    "interval_plot",
    "linked_surfaces",
    "minimum",
    "replicate_band",
    "spectra",
    "surface_figure",
    "surface_sheet",
    "trajectory_figure",
    "write",
    "write_pictures",
]
