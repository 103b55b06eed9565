"""What a comparison leaves: comparison.md, comparison.json and the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gruland.files import atomic_path, write_json
from gruland.report.landscapes.figures import draw
from gruland.report.landscapes.measurements import STAGES, Measured
from gruland.report.landscapes.rows import curves, rows
from gruland.report.landscapes.table import Row, markdown


def write_page(measured: Measured, folder: Path) -> Path:
    """Write the tables and pictures; returns comparison.md."""
    found = list(rows(measured))
    pictures = draw(measured, found, folder)
    write_json(
        folder / "comparison.json",
        {
            "settings": measured.settings,
            "models": {
                model.label: {str(seed): str(run.path) for seed, run in model.runs.items()}
                for model in measured.models
            },
            "measures": {item.quantity.key: item.to_dict() for item in found},
            "area_curves": curves(measured),
            "barriers": measured.barriers,
        },
    )
    path = folder / "comparison.md"
    with atomic_path(path) as temporary:
        temporary.write_text(_text(measured, found, pictures))
    return path


def _text(measured: Measured, rows: Sequence[Row], drawn: Sequence[tuple[str, str]]) -> str:
    settings = measured.settings
    first = next(iter(next(iter(measured.surfaces.values())).values()))
    about = first[0].attrs
    parts = [
        "# Loss landscapes compared",
        _models_table(measured),
        _other_data(measured),
        f"Objective: {about['objective']} on {about['reviews']:,} {about['split']} reviews. Planes of random "
        f"{settings['normalization']}-normalized directions: {len(first)} for each training (seed {settings['seed']} "
        f"and on, the same for every model), {first[0].loss.shape[1]} x "
        f"{first[0].loss.shape[0]} cells, extent {settings['extent']}: flat areas are "
        "of the disc of that radius, loss gaps of its circle.",
        "Each value is the mean over training seeds and planes with its 95% interval (both factors random and crossed, "
        "see `gruland.stats`). The intervals speak of other training seeds and other directions, not of other reviews.",
        markdown(rows, measured.labels),
        _barrier_table(measured.barriers),
        *(f"![{caption}]({name}.png)\n\n{caption}" for name, caption in drawn),
        "Definitions: " + "; ".join(f"{r.quantity.title}: {r.quantity.definition}" for r in rows) + ".",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _other_data(measured: Measured) -> str:
    """A warning where the models were not trained on the same reviews and word vectors."""
    by_data: dict[str, list[str]] = {}
    for model in measured.models:
        by_data.setdefault(model.data, []).append(model.label)
    if len(by_data) < 2:
        return ""
    groups = "; ".join(", ".join(labels) for labels in by_data.values())
    return f"**The models differ in their data** (reviews or word vectors), and their differences in that: {groups}."


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
            cells = [_height(found[stage][kind]) for kind in ("loss", "error") for stage in STAGES]
            lines.append(f"| {label} | {pair} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _height(height: Sequence[float]) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*height)
