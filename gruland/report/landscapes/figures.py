"""The pictures of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gruland.report.differences import Row
from gruland.report.landscapes.measurements import STAGES, Measured
from gruland.report.landscapes.rows import curves

if TYPE_CHECKING:
    import xarray

#: Planes of a training seed that are shown.
SHOWN = 4
#: A picture's name, its caption and the figure.
Drawn = tuple[str, str, Any]


def draw(measured: Measured, rows: Sequence[Row], folder: Path) -> list[tuple[str, str]]:
    """Draw all there is to draw; returns the name, without a suffix, and the caption of each figure."""
    from gruland.landscape import pictures

    drawn = []
    for name, caption, figure in _figures(measured, rows):
        pictures.write(figure, folder / name)
        drawn.append((name, caption))
    first = _first_planes(measured)
    if 2 <= len(first) <= 9:
        pictures.write(pictures.linked_surfaces(first), folder / "surfaces")
    return drawn


def _figures(measured: Measured, rows: Sequence[Row]) -> Iterator[Drawn]:
    yield from _planes(measured)
    yield from _grids(measured)
    yield from _summaries(measured, rows)
    if measured.curvature:
        yield _spectra(measured)
    yield from _paths(measured)
    yield from _barriers(measured)


def _first_planes(measured: Measured) -> dict[str, xarray.Dataset]:
    return {label: next(iter(seeds.values()))[0] for label, seeds in measured.surfaces.items()}


def _planes(measured: Measured) -> Iterator[Drawn]:
    from gruland.landscape import pictures

    first = _first_planes(measured)
    caption = (
        "The first plane of each model's first training seed: one scale of loss, one set of excess losses."
    )
    yield "contours", caption, pictures.contour_sheet(first)
    yield "surfaces", "The same planes in relief, on one axis of loss.", pictures.surface_sheet(first)
    scale = pictures.Scale.of(
        *(s for seeds in measured.surfaces.values() for found in seeds.values() for s in found)
    )
    for label, seeds in measured.surfaces.items():
        sheet = {
            f"seed {seed}, plane {number}": surface
            for seed, found in seeds.items()
            for number, surface in enumerate(found[:SHOWN], 1)
        }
        figure = pictures.contour_sheet(
            sheet, columns=min(SHOWN, max(map(len, seeds.values()))), title=label, scale=scale
        )
        yield f"planes-{measured.labels.index(label)}", f"{label}: planes of each training seed.", figure


def _grids(measured: Measured) -> Iterator[Drawn]:
    """A sheet for each regularizer that was swept over hidden units and rates."""
    from gruland.landscape import pictures

    places = [model.place for model in measured.models]
    if len(set(places)) < len(places):
        return  # models told apart by something else, which has no place in this grid
    first = _first_planes(measured)
    for regularizer in dict.fromkeys(model.regularizer for model in measured.models):
        title = next(model.title for model in measured.models if model.regularizer == regularizer)
        swept = {
            (model.hidden_size, model.rate): first[model.label]
            for model in measured.models
            if model.regularizer == regularizer
        }
        if all(len(set(values)) > 1 for values in zip(*swept, strict=True)):
            caption = f"{title}: the first plane of each cell of the grid, one scale of loss for all."
            yield f"grid-{regularizer}", caption, pictures.grid_sheet(swept, "H =", "rate")


def _summaries(measured: Measured, rows: Sequence[Row]) -> Iterator[Drawn]:
    from gruland.landscape import pictures

    labels = measured.labels
    areas = {
        label: tuple(np.array(curve[key]) for key in ("thresholds", "estimate", "low", "high"))
        for label, curve in curves(measured).items()
    }
    caption = (
        f"Share of the disc of radius {measured.settings['extent']:g} within a threshold of the trained loss, "
        "with 95% bands over seeds and planes."
    )
    yield "areas", caption, pictures.area_curves(areas, models=labels)
    lines, steps = _lines(measured)
    caption = "Along random directions (both axes of every plane): median and the range of 90% of them."
    yield "lines", caption, pictures.bands(lines, x=steps, models=labels)
    for name, differences in (("measures", False), ("differences", True)):
        table = _interval_table(rows, differences)
        if not table["model"]:
            continue
        what = (
            f"{_less(measured.references)}; each interval for itself, see the table for what is more than chance"
            if differences
            else "mean of each model"
        )
        figure = pictures.interval_plot(table, differences=differences, models=labels)
        yield name, f"Measures with 95% intervals: {what}.", figure


def _less(references: Mapping[str, str]) -> str:
    """What is subtracted: one model from all, or from each its own."""
    if len(set(references.values())) == 1:
        return f"less {next(iter(references.values()))}"
    return ", ".join(f"{label} less {reference}" for label, reference in references.items())


def _spectra(measured: Measured) -> Drawn:
    from gruland.landscape import pictures

    figure = pictures.spectra(_densities(measured), models=measured.labels)
    return "spectra", "Densities of the Hessian's eigenvalues, the first training seed.", figure


def _paths(measured: Measured) -> Iterator[Drawn]:
    from gruland.landscape import pictures

    for label, seeds in measured.paths.items():
        seed, (surface, path) = next(iter(seeds.items()))
        caption = (
            f"{label}, seed {seed}: the path of the training on the plane of its two principal components, which hold "
            f"{sum(path['explained']):.0%} of its variance (a random walk of as many points: "
            f"{sum(path['random_walk'][:2]):.0%})."
        )
        table = {key: path[key] for key in ("alpha", "beta", "epoch", "loss", "residual")}
        yield (
            f"path-{measured.labels.index(label)}",
            caption,
            pictures.trajectory_figure(surface, table, label),
        )


def _barriers(measured: Measured) -> Iterator[Drawn]:
    from gruland.landscape import pictures

    for label, pairs in measured.barriers.items():
        curves_of = {
            pair: {stage: (found[stage]["curve"]["t"], found[stage]["curve"]["loss"]) for stage in STAGES}
            for pair, found in pairs.items()
        }
        caption = f"{label}: the loss on the line between two training seeds."
        yield (
            f"barriers-{measured.labels.index(label)}",
            caption,
            pictures.barrier_curves(curves_of, title=label),
        )


def _lines(measured: Measured) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Excess losses along both axes of every plane [replicates, X] of each model, and the steps [X]."""
    lines = {}
    for label, seeds in measured.surfaces.items():
        found = [surface for surfaces in seeds.values() for surface in surfaces]
        axes = [(s, s.loss.sel({axis: 0.0}).values) for s in found for axis in ("beta", "alpha")]
        lines[label] = np.stack([values - surface.attrs["origin_loss"] for surface, values in axes])
    return lines, next(iter(_first_planes(measured).values()))["alpha"].values


def _interval_table(rows: Sequence[Row], differences: bool) -> dict[str, list[Any]]:
    """Estimates with finite intervals, as columns."""
    names = ("model", "measure", "unit", "estimate", "low", "high", "significant")
    lines = []
    for item in rows:
        about = item.quantity.title, item.quantity.unit
        intervals = {k: d.interval for k, d in item.differences.items()} if differences else item.values
        for label, found in intervals.items():
            if np.isfinite(found.width):
                # Rounded, since a difference of 1e-17 would scale its axis.
                numbers = (round(value, 12) for value in (found.estimate, found.low, found.high))
                lines.append((label, *about, *numbers, differences and item.differences[label].significant))
    return {name: [line[place] for line in lines] for place, name in enumerate(names)}


def _densities(measured: Measured) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    first = {label: next(iter(seeds.values()))["density"] for label, seeds in measured.curvature.items()}
    return {label: (np.array(d["eigenvalues"]), np.array(d["density"])) for label, d in first.items()}
