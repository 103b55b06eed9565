"""Pictures of a study: the grids as heat maps, the curves of figure 3, the surfaces of figure 4."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gruland.landscape.measures import flat_area
from gruland.landscape.pictures import Scale, contour_figure, figure_3d, surface_figure
from gruland.landscape.store import load_surface
from gruland.report import paper
from gruland.report.collect import Study, curves, landscape_setting, surface_path
from gruland.report.models import Model, by_place, scores
from gruland.runs import Run

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: The colour of text and lines: dark in a PNG, the page's own text colour in an SVG.
INK = "#1d2733"
TRAIN, VALIDATION = "#3584c9", "#e0751f"  # a blue and an orange that colour-blind readers tell apart

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "svg.fonttype": "none",
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"),
        INK,
    ),
    "axes.titlesize": 10,
    "legend.facecolor": "white",
    "legend.labelcolor": "black",
}


@dataclass(frozen=True)
class Picture:
    """A drawn figure, ready for both pages.

    Args:
        key: its file's name, without suffix.
        caption: what is to be seen, and how it was obtained.
        svg: for the HTML page, its colours follow the page's; png: for the Markdown page.
    """

    key: str
    title: str
    caption: str
    svg: str
    png: bytes
    kind: ClassVar[str] = "picture"


@dataclass(frozen=True)
class Surface:
    """A loss surface: contours, a still, and what plotly needs to draw it.

    Args:
        plotly: the JSON of a plotly figure as plain data.
    """

    key: str
    title: str
    contour: Picture
    still: bytes
    plotly: dict[str, Any]


@dataclass(frozen=True)
class Surfaces:
    """Surfaces side by side, on one scale."""

    key: str
    title: str
    caption: str
    items: Sequence[Surface]
    kind: ClassVar[str] = "surfaces"


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the report's style; matplotlib's own settings are left as they were."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


def picture(key: str, title: str, caption: str, draw: Callable[[], Figure]) -> Picture:
    """Draw a figure and keep it as SVG and PNG."""
    with styled():
        figure = draw()
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once, for both formats
        return Picture(key, title, caption, _svg(figure, key), _png(figure))


def _svg(figure: Figure, key: str) -> str:
    """An ``<svg>`` element without a size of its own; ``key`` keeps the ids of two of them apart."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": key}):
        # Whole whatever the layout leaves outside: labels of axes and colour bars.
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            bbox_inches="tight",
            metadata={"Date": None, "Creator": None},
        )
    # Nothing refers to groups and images by their ids, which are the same in every figure.
    text = re.sub(r'(<(?:g|image)\b[^>]*?) id="[^"]*"', r"\1", buffer.getvalue())
    return text[text.index("<svg") :].replace(INK, "currentColor")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="png", dpi=110, facecolor="white", bbox_inches="tight", metadata={"Software": None}
    )
    return buffer.getvalue()


QUANTITIES: dict[str, Callable[[Run], float]] = {
    "Validation loss": lambda run: scores(run, "best", "validation")["loss"],
    "Test loss": lambda run: scores(run, "best", "test")["loss"],
    "Test accuracy": lambda run: scores(run, "best", "test").get("accuracy", math.nan),
}


def literal(text: str) -> str:
    """Text that matplotlib shows as it is: two dollar signs would begin a formula."""
    return text.replace("$", r"\$")


def grids(study: Study) -> Picture:
    """Hidden units x rate of every regularizer: a row of heat maps and one scale for each quantity."""
    caption = (
        "At the best epoch, mean over the seeds where there are several. One colour scale for each "
        "quantity. Framed: the best model of each regularizer, chosen by validation loss; dotted: the "
        "paper’s. Grey: not run."
    )
    return picture(f"{study.key}-grids", "The grids", caption, lambda: _draw_grids(study))


def _draw_grids(study: Study) -> Figure:
    from matplotlib.figure import Figure

    kinds = list(study.best)
    rates = {kind: sorted({m.rate for m in study.models if m.regularizer == kind}) for kind in kinds}
    settings = _settings(study)
    width = sum(max(1.4, len(rates[kind])) for kind in kinds) + 0.1 * max(map(len, settings))
    figure = Figure(
        figsize=(2.2 + 0.95 * width, 0.6 + len(QUANTITIES) * (0.8 + 0.5 * len(settings))),
        layout="constrained",
    )
    ratios = [max(1.4, len(rates[kind])) for kind in kinds]
    grid = figure.subplots(len(QUANTITIES), len(kinds), squeeze=False, width_ratios=ratios)
    for axes_row, (name, quantity) in zip(grid, QUANTITIES.items(), strict=True):
        values = {m: float(np.mean([quantity(run) for run in m.runs.values()])) for m in study.models}
        finite = [value for value in values.values() if math.isfinite(value)]
        limits = _apart(min(finite, default=0.0), max(finite, default=1.0))
        for axes, kind in zip(axes_row, kinds, strict=True):
            image = _heat_map(axes, study, kind, rates[kind], settings, values, limits)
        axes_row[0].set_ylabel("hidden units")
        figure.colorbar(image, ax=list(axes_row), label=name, pad=0.02)
    for axes in grid[-1]:
        axes.set_xlabel("rate")
    return figure


def _settings(study: Study) -> list[str]:
    """What the models differ in besides regularizer and rate, in words, by hidden units."""
    models = sorted(study.models, key=lambda model: (model.hidden_size, model.setting))
    return list(dict.fromkeys(model.setting for model in models))


def _apart(low: float, high: float) -> tuple[float, float]:
    """Limits of a colour scale, apart even where all values agree to three decimals."""
    return (low, high) if high - low >= 1e-3 else (low - 5e-4, high + 5e-4)


def _heat_map(
    axes: Axes,
    study: Study,
    kind: str,
    rates: Sequence[float],
    settings: Sequence[str],
    values: dict[Model, float],
    limits: tuple[float, float],
) -> Any:
    found = {(m.setting, m.rate): m for m in study.models if m.regularizer == kind}
    cells = [[found.get((setting, rate)) for rate in rates] for setting in settings]
    table = np.array([[values[model] if model else math.nan for model in row] for row in cells])
    image = axes.imshow(table, cmap="cividis", vmin=limits[0], vmax=limits[1], aspect="auto", origin="lower")
    axes.set_facecolor("#80808060")
    axes.set_title(literal(study.best[kind].model.title))
    axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    axes.set_yticks(range(len(settings)), [literal(setting.removeprefix("H=")) for setting in settings])
    middle = sum(limits) / 2
    for y, row in enumerate(cells):
        for x, model in enumerate(row):
            if model and math.isfinite(table[y, x]):
                color = "white" if table[y, x] < middle else "black"
                axes.text(x, y, f"{table[y, x]:.3f}", ha="center", va="center", color=color)
                _frame(axes, x, y, model, study)
    return image


def _frame(axes: Axes, x: int, y: int, model: Model, study: Study) -> None:
    from matplotlib.patches import Rectangle

    if model.place in paper.MODELS:
        axes.add_patch(
            Rectangle(
                (x - 0.42, y - 0.42), 0.84, 0.84, fill=False, edgecolor="white", linestyle=":", linewidth=1.5
            )
        )
    if model in study.best_models:
        axes.add_patch(
            Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, fill=False, edgecolor="#e0751f", linewidth=2.5)
        )


def learning_curves(rows: Sequence[Sequence[Model | None]], key: str, heading: str) -> Picture | None:
    """Figure 3: train and validation loss per epoch, a panel for each model, a line for each seed, one scale.

    Args:
        rows: the models of each row of panels; None for one that was not trained.

    Returns:
        None where no run of the models has a readable metrics.csv.
    """
    tables = {
        model: [table for run in model.runs.values() if (table := curves(run)) is not None]
        for row in rows
        for model in row
        if model
    }
    if not any(tables.values()):
        return None
    caption = (
        "From each run’s metrics.csv. Train (dashed): running mean in training mode, dropout on, while "
        "the epoch ran. Validation (solid): evaluation mode, after the epoch; the dot is its minimum, the "
        "checkpoint that is kept. A line for each seed, the same axes in every panel."
    )
    return picture(key, heading, caption, lambda: _draw_curves(tables, rows))


def whole_grid(study: Study) -> list[list[Model | None]]:
    """A study's models: a row for each number of units and other settings, a column for each regularizer and rate."""
    ordered = sorted(study.models, key=lambda model: (by_place(model.place)[:2], model.rate))
    methods = list(dict.fromkeys((model.regularizer, model.rate) for model in ordered))
    found = {(model.regularizer, model.rate, model.setting): model for model in study.models}
    return [[found.get((*method, setting)) for method in methods] for setting in _settings(study)]


def _draw_curves(tables: dict[Model, list[Any]], rows: Sequence[Sequence[Model | None]]) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = max(len(row) for row in rows)
    width = 2.0 if columns > 4 else 2.9
    figure = Figure(figsize=(width * columns + 0.4, 0.72 * width * len(rows) + 0.6), layout="constrained")
    panels = figure.subplots(len(rows), columns, squeeze=False, sharex=True, sharey=True)
    for axes in panels.ravel():
        axes.set_visible(False)
    for line, row in zip(panels, rows, strict=True):
        for axes, model in zip(line, row, strict=False):
            if model is None:
                continue
            axes.set_visible(True)
            for table in tables[model]:
                _draw_run(axes, table)
            axes.set_title(literal(model.label), fontsize="small" if columns > 4 else None)
            axes.grid(color=INK, alpha=0.15)
            axes.spines[["top", "right"]].set_visible(False)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.tick_params(labelbottom=True)
    panels[0, 0].set_ylim(bottom=0)
    figure.supxlabel("epoch", fontsize="medium")
    figure.supylabel("mean loss", fontsize="medium")
    lines = {line.get_label(): line for axes in panels.ravel() for line in axes.get_lines()[:2]}
    figure.legend(
        lines.values(), lines.keys(), loc="outside upper right", ncols=2, frameon=False, labelcolor=INK
    )
    return figure


def _draw_run(axes: Axes, table: Any) -> None:
    axes.plot(table["epoch"], table["train_loss"], "--", color=TRAIN, label="train")
    axes.plot(table["epoch"], table["validation_loss"], "-", color=VALIDATION, label="validation")
    if table["validation_loss"].notna().any():
        best = table.loc[table["validation_loss"].idxmin()]
        axes.plot(best["epoch"], best["validation_loss"], "o", color=VALIDATION, markersize=5)


def surfaces(study: Study, found: Sequence[tuple[str, Run, xarray.Dataset]]) -> Surfaces:
    """Figure 4: contours and interactive surfaces, all on one scale of loss."""
    scale = Scale.of(*(dataset for _, _, dataset in found))
    items = [
        _surface(name, dataset, scale, f"{study.key}-surface-{i}")
        for i, (name, _, dataset) in enumerate(found, 1)
    ]
    caption = (
        f"Loss around the best checkpoint ({landscape_setting(run for _, run, _ in found)}). Colours, contour levels "
        f"and height share one scale: {scale.label}, {scale.low:.3g} to {scale.high:.3g}. Circle: the trained weights; "
        "cross: the least loss. Turn one surface, and the others follow."
    )
    return Surfaces(f"{study.key}-surfaces", "Loss surfaces (figure 4)", caption, items)


def _surface(name: str, dataset: xarray.Dataset, scale: Scale, key: str) -> Surface:
    contour = picture(f"{key}-contour", name, "", lambda: _small_contour(dataset, scale))
    with styled():
        still = _png(surface_figure(dataset, literal(name), scale))
    return Surface(key, name, contour, still, _plotly(dataset, scale))


def _small_contour(dataset: xarray.Dataset, scale: Scale) -> Figure:
    """The landscape's own contours, small; what its legend and title say stands beside them on the page."""
    from matplotlib.collections import QuadMesh

    figure = contour_figure(dataset, "", scale)
    figure.suptitle("")
    for legend in list(figure.legends):
        legend.remove()
    for shading in figure.findobj(QuadMesh):
        shading.set_rasterized(True)  # as SVG it would be a gradient for each cell
    figure.set_size_inches(4.0, 3.2)
    return figure


def _plotly(dataset: xarray.Dataset, scale: Scale) -> dict[str, Any]:
    import json

    figure = figure_3d(dataset, "", scale)
    axis = {"gridcolor": "#8a949e", "showbackground": False, "nticks": 5}
    figure.update_traces(showscale=False)
    figure.update_layout(
        template="none",
        title=None,
        margin=dict.fromkeys("lrtb", 0),
        paper_bgcolor="rgba(0,0,0,0)",
        scene={
            "xaxis": axis,
            "yaxis": axis,
            "zaxis": {**axis, "title": {"text": ""}},
            "bgcolor": "rgba(0,0,0,0)",
        },
        scene_camera={"eye": {"x": 1.4, "y": -1.6, "z": 0.8}, "center": {"x": 0, "y": 0, "z": -0.15}},
    )
    return json.loads(figure.to_json())


def read_surfaces(runs: Sequence[Run]) -> list[tuple[Run, xarray.Dataset]]:
    """The runs' surfaces that are what the runs wrote and hold a finite loss, and that results.json speaks of."""
    found = []
    for run in runs:
        path = surface_path(run)
        if path is None:
            continue
        try:
            dataset = load_surface(run.verified(str(path.relative_to(run.path))))
        except (OSError, ValueError, KeyError):
            continue
        # While a new surface is on its way, the store holds the one before it.
        whole = bool(run.results["landscape"].get("complete", True)) or not dataset.attrs.get("complete")
        if whole and np.isfinite(dataset["loss"].values).any():
            found.append((run, dataset))
    return found


def disc(surfaces: Iterable[xarray.Dataset]) -> float:
    """The radius of the largest disc around the trained weights, at most 1, that every surface holds."""
    reach = [1.0]
    for surface in surfaces:
        for axis in ("alpha", "beta"):
            values = surface[axis].values
            if len(values) > 1 and values[0] < 0 < values[-1]:
                reach.append(float(min(-values[0], values[-1])))
    return min(reach)


def area(surface: xarray.Dataset, radius: float) -> float | None:
    """The flat area of a surface; None where it is incomplete or does not hold the disc."""
    try:
        return flat_area(surface, radius=radius)
    except ValueError:
        return None
