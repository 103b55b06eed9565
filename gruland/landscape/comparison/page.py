"""What a comparison leaves: comparison.md, comparison.json and the pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gruland.files import atomic_path, write_json
from gruland.landscape.comparison.models import Model
from gruland.landscape.comparison.table import Quantity, Row, markdown, row
from gruland.landscape.measures import MEASURES, flat_area_curve
from gruland.stats import crossed_band

if TYPE_CHECKING:
    import xarray

#: Excess losses of the area curve, in nats.
THRESHOLDS = np.geomspace(0.005, 1.0, 60)

_OPPOSITE = {"flatter": "sharper", "sharper": "flatter", "smoother": "rougher", "rougher": "smoother"}


@dataclass
class Measured:
    """Everything that was measured, by model label and training seed."""

    settings: dict[str, Any]
    models: list[Model]
    surfaces: dict[str, dict[int, list[xarray.Dataset]]] = field(default_factory=dict)
    paths: dict[str, dict[int, tuple[xarray.Dataset, dict[str, Any]]]] = field(default_factory=dict)
    curvature: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    barriers: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """The models' labels; the first is what the others are compared with."""
        return [model.label for model in self.models]


def write_page(measured: Measured, folder: Path) -> Path:
    """Write the tables and pictures; returns comparison.md."""
    rows = list(_rows(measured))
    pictures = _pictures(measured, rows, folder)
    write_json(
        folder / "comparison.json",
        {
            "settings": measured.settings,
            "models": {
                model.label: {str(seed): str(run.path) for seed, run in model.runs.items()}
                for model in measured.models
            },
            "measures": {item.quantity.key: item.to_dict() for item in rows},
            "area_curves": _curves(measured),
            "barriers": measured.barriers,
        },
    )
    path = folder / "comparison.md"
    with atomic_path(path) as temporary:
        temporary.write_text(_text(measured, rows, pictures))
    return path


# -- the rows


def _rows(measured: Measured) -> Iterable[Row]:
    radius = _radius(measured.settings["extent"])
    for key, measure in MEASURES.items():
        values = {
            label: {
                seed: [measure(surface, radius=radius) for surface in surfaces]
                for seed, surfaces in seeds.items()
            }
            for label, seeds in measured.surfaces.items()
        }
        meaning = (measure.larger, _OPPOSITE[measure.larger])
        yield row(Quantity(key, measure.title, measure.unit, measure.definition, *meaning), values)
    if measured.curvature:
        for quantity, read in _CURVATURES:
            yield row(
                quantity,
                {
                    label: {seed: [read(found)] for seed, found in seeds.items()}
                    for label, seeds in measured.curvature.items()
                },
            )


def _radius(extent: Any) -> float:
    """The radius of the largest circle around the origin that the planes hold."""
    return float(min(extent)) if isinstance(extent, list) else float(extent)


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
            "less convex", "more convex",
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


def _curves(measured: Measured) -> dict[str, dict[str, list[float]]]:
    """The flat area against its threshold, with its band, of each model."""
    curves = {}
    for label, seeds in measured.surfaces.items():
        count = min(map(len, seeds.values()))
        areas_SDX = [
            [flat_area_curve(surface, THRESHOLDS) for surface in found[:count]] for found in seeds.values()
        ]
        band = crossed_band(areas_SDX)
        parts = {"thresholds": THRESHOLDS, "estimate": band.estimate, "low": band.low, "high": band.high}
        curves[label] = {name: values.tolist() for name, values in parts.items()}
    return curves


# -- the pictures


def _pictures(measured: Measured, rows: Sequence[Row], folder: Path) -> list[tuple[str, str]]:
    """Draw; returns (file name without suffix, caption) of each."""
    from gruland.landscape import pictures

    drawn: list[tuple[str, str]] = []

    def keep(name: str, caption: str, figure: Any) -> None:
        pictures.write(figure, folder / name)
        drawn.append((name, caption))

    labels = measured.labels
    first = {label: next(iter(seeds.values()))[0] for label, seeds in measured.surfaces.items()}
    keep(
        "contours",
        "The first plane of each model's first training seed: one scale of loss, one set of excess losses.",
        pictures.contour_sheet(first),
    )
    keep("surfaces", "The same planes in relief, on one axis of loss.", pictures.surface_sheet(first))
    if 2 <= len(first) <= 9:
        pictures.write(pictures.linked_surfaces(first), folder / "surfaces")
    for label, seeds in measured.surfaces.items():
        sheet = {
            f"seed {seed}, plane {n}": s for seed, found in seeds.items() for n, s in enumerate(found[:4])
        }
        keep(
            f"planes-{labels.index(label)}",
            f"{label}: four planes of each training seed.",
            pictures.contour_sheet(sheet, columns=min(4, len(sheet)), title=label),
        )
    curves = {
        label: tuple(np.array(curve[key]) for key in ("thresholds", "estimate", "low", "high"))
        for label, curve in _curves(measured).items()
    }
    keep(
        "areas",
        "Share of the plane within a threshold of the trained loss, with 95% bands over seeds and planes.",
        pictures.area_curves(curves, models=labels),
    )
    lines, steps = _lines(measured)
    keep(
        "lines",
        "Along random directions (both axes of every plane): median and the range of 90% of them.",
        pictures.bands(lines, x=steps, models=labels),
    )
    for name, differences in (("measures", False), ("differences", True)):
        table = _interval_table(rows, differences)
        if table["model"]:
            caption = (
                f"less {labels[0]}; hollow: not distinguishable from zero"
                if differences
                else "mean of each model"
            )
            keep(
                name,
                f"Measures with 95% intervals: {caption}.",
                pictures.interval_plot(table, differences=differences, models=labels),
            )
    if measured.curvature:
        keep(
            "spectra",
            "Densities of the Hessian's eigenvalues, the first training seed.",
            pictures.spectra(_densities(measured), models=labels),
        )
    for label, walked in measured.paths.items():
        seed, (surface, path) = next(iter(walked.items()))
        keep(
            f"path-{labels.index(label)}",
            f"{label}, seed {seed}: the path of the training on the plane of its two principal components, which hold "
            f"{sum(path['explained']):.0%} of its variance (a random walk of as many points: "
            f"{sum(path['random_walk'][:2]):.0%}).",
            pictures.trajectory_figure(
                surface, {k: path[k] for k in ("alpha", "beta", "epoch", "loss", "residual")}, label
            ),
        )
    if measured.barriers:
        curves_of_pairs = {
            f"{label}, {pair}": {
                stage: (found[stage]["curve"]["t"], found[stage]["curve"]["loss"])
                for stage in ("before alignment", "after alignment")
            }
            for label, pairs in measured.barriers.items()
            for pair, found in pairs.items()
        }
        keep(
            "barriers",
            "The loss on the line between two training seeds of a model.",
            pictures.barrier_curves(curves_of_pairs),
        )
    return drawn


def _lines(measured: Measured) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Excess losses along both axes of every plane, as far as it has cells there."""
    lines: dict[str, np.ndarray] = {}
    steps = None
    for label, seeds in measured.surfaces.items():
        found = []
        for surface in (s for surfaces in seeds.values() for s in surfaces):
            along = {"alpha": surface.loss.sel(beta=0.0), "beta": surface.loss.sel(alpha=0.0)}
            steps = surface["alpha"].values
            found += [line.values - surface.attrs["origin_loss"] for line in along.values()]
        lines[label] = np.stack(found)
    assert steps is not None
    return lines, steps


def _interval_table(rows: Sequence[Row], differences: bool) -> dict[str, list[Any]]:
    table: dict[str, list[Any]] = {key: [] for key in ("model", "measure", "unit", "estimate", "low", "high")}
    for item in rows:
        for label, interval in (item.differences if differences else item.values).items():
            if np.isfinite(interval.width):
                for key, value in zip(
                    table,
                    (
                        label,
                        item.quantity.title,
                        item.quantity.unit,
                        interval.estimate,
                        interval.low,
                        interval.high,
                    ),
                    strict=True,
                ):
                    table[key].append(value)
    return table


def _densities(measured: Measured) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    first = {label: next(iter(seeds.values()))["density"] for label, seeds in measured.curvature.items()}
    return {label: (np.array(d["eigenvalues"]), np.array(d["density"])) for label, d in first.items()}


# -- the text


def _text(measured: Measured, rows: Sequence[Row], drawn: Sequence[tuple[str, str]]) -> str:
    settings = measured.settings
    first = next(iter(next(iter(measured.surfaces.values())).values()))
    about = first[0].attrs
    parts = [
        "# Loss landscapes compared",
        _models_table(measured),
        f"{about['objective']} on {about['reviews']:,} {about['split']} reviews, {len(first)} planes of random "
        f"{settings['normalization']}-normalized directions (seeds {settings['seed']} to "
        f"{settings['seed'] + len(first) - 1}, the same for every model), {first[0].loss.shape[1]} x "
        f"{first[0].loss.shape[0]} cells, extent {settings['extent']}.",
        "Each value is the mean over training seeds and planes with its 95% interval (both factors random and crossed, "
        "see `gruland.stats`). The intervals speak of other training seeds and other directions, not of other reviews.",
        markdown(rows, measured.labels),
        _barrier_table(measured.barriers),
        *(f"![{caption}]({name}.png)\n\n{caption}" for name, caption in drawn),
        "Definitions: " + "; ".join(f"{r.quantity.title}: {r.quantity.definition}" for r in rows) + ".",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _models_table(measured: Measured) -> str:
    lines = ["| model | training seeds | test loss | test accuracy |", "| --- | --- | --- | --- |"]
    for model in measured.models:
        scores = [run.results["metrics"]["best"]["test"] for run in model.runs.values()]
        loss, accuracy = ([score[key] for score in scores] for key in ("loss", "accuracy"))
        seeds = ", ".join(map(str, model.runs))
        lines.append(
            f"| {model.label} | {seeds} | {', '.join(f'{v:.3f}' for v in loss)} | "
            f"{', '.join(f'{v:.1%}' for v in accuracy)} |"
        )
    return "\n".join(lines)


def _barrier_table(barriers: Mapping[str, Mapping[str, Any]]) -> str:
    if not barriers:
        return ""
    lines = [
        "| model | seeds | barrier before alignment, nats | after | error before | after |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for label, pairs in barriers.items():
        for pair, found in pairs.items():
            cells = [
                _height(found[stage][kind])
                for kind in ("loss", "error")
                for stage in ("before alignment", "after alignment")
            ]
            lines.append(f"| {label} | {pair} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _height(height: Sequence[float]) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*height)
