"""What a comparison leaves: comparison.json, the pictures, and a page of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gruland.files import write_json
from gruland.report.differences import count_tests
from gruland.report.landscapes.figures import draw
from gruland.report.landscapes.measurements import Measured
from gruland.report.landscapes.rows import curves, rows


def write_page(measured: Measured, folder: Path) -> Path:
    """Write the tables and pictures; returns comparison.md."""
    from gruland.report.landscapes.chapter import read_chapter
    from gruland.report.page import write_chapters

    found = list(rows(measured))
    tests = count_tests(found)
    file = folder / "comparison.json"
    write_json(
        file,
        {
            "settings": measured.settings,
            "models": {model.label: _model(model) for model in measured.models},
            "measures": {item.quantity.key: item.to_dict(tests) for item in found},
            "area_curves": curves(measured),
            "barriers": measured.barriers,
            "text": _text(measured),
            "other_data": _other_data(measured),
            "pictures": draw(measured, found, folder),
        },
    )
    return write_chapters("Loss landscapes compared", [read_chapter(file, "")], folder, "comparison")


def _model(model: Any) -> dict[str, Any]:
    return {
        "runs": {str(seed): str(run.path) for seed, run in model.runs.items()},
        "test_loss": list(model.values("best", "test").values()),
        "test_accuracy": list(model.values("best", "test", "accuracy").values()),
    }


def _text(measured: Measured) -> list[str]:
    settings = measured.settings
    first = next(iter(next(iter(measured.surfaces.values())).values()))
    about = first[0].attrs
    without = [label for label in measured.labels if label not in measured.curvature]
    missing = f"No Hessians and sharpnesses of {', '.join(without)}: their cell is another one."
    return [
        f"Objective: {about['objective']} on {about['reviews']:,} {about['split']} reviews. Planes of random "
        f"{settings['normalization']}-normalized directions: {len(first)} for each training (seed {settings['seed']} "
        f"and on, the same for every model), {first[0].loss.shape[1]} x "
        f"{first[0].loss.shape[0]} cells, extent {settings['extent']}: flat areas are "
        "of the disc of that radius, loss gaps of its circle.",
        *([missing] if without and settings["curvature"] else []),
    ]


def _other_data(measured: Measured) -> list[str]:
    """A warning where the models were not trained on the same reviews and word vectors."""
    by_data: dict[str, list[str]] = {}
    for model in measured.models:
        by_data.setdefault(model.data, []).append(model.label)
    if len(by_data) < 2:
        return []
    groups = "; ".join(", ".join(labels) for labels in by_data.values())
    return [
        f"The models differ in their data (reviews or word vectors), and their differences in that: {groups}."
    ]
