"""Defences crossed with regularizers: what the one is worth beside the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from gruland.report.choice import choose
from gruland.report.collect import Study
from gruland.report.models import DEFENCE, Model, scores
from gruland.report.tables import NOT_RUN, NOTHING, Row, Table, mean_of
from gruland.runs import Run

#: A measure of a run; None where it was not made.
Measure = Callable[[Run], float | None]

#: The one measure that is no share.
TEST_LOSS = "Test loss"
#: The end of the name of an attack on another checkpoint than the best.
_OTHER_CHECKPOINT = re.compile(r"-(last|epoch-\d+)$")


def table(study: Study) -> Table | None:
    """A row for each measure and defence, a column for each regularizer; None where there is one defence alone."""
    cells: dict[tuple[str, str], list[Model]] = {}
    for model in study.models:
        cells.setdefault((model.others.get(DEFENCE, "none"), model.regularizer), []).append(model)
    defences, regularizers = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    if len(defences) < 2:
        return None
    defences.sort(key=lambda name: (name != "none", name))
    chosen = {cell: choose(models).model for cell, models in cells.items()}
    titles = {model.regularizer: model.title for model in study.models}
    rows = [
        Row(
            f"{name}, {defence}",
            [_cell(chosen.get((defence, regularizer)), name, measure) for regularizer in regularizers],
        )
        for name, measure in measures(study).items()
        for defence in defences
    ]
    named = [model.label for model in chosen.values()]
    return Table(
        f"{study.key}-defences",
        "Defences and regularizers",
        ["Measure, defence", *(titles[regularizer] for regularizer in regularizers)],
        rows,
        [
            "Of each defence and regularizer the model of least validation loss, the mean over its seeds, whose best "
            f"epoch was measured: {'; '.join(named)}.",
            "Of several seeds the mean, from three on with its 95% interval (Student’s t over the seeds).",
            *study.attacked_otherwise(),
        ],
    )


def measures(study: Study) -> dict[str, Measure]:
    """The test scores, the accuracy under each attack and the certified accuracies that some run has."""
    found: dict[str, Measure] = {
        TEST_LOSS: lambda run: scores(run, "best", "test").get("loss"),
        "Test accuracy": lambda run: scores(run, "best", "test").get("accuracy"),
    }
    for name in study.by_attack:
        if _OTHER_CHECKPOINT.search(name):
            continue
        alike = study.alike(name)
        for entry in alike.values():
            called = name.replace("_", " ")
            if len(entry.get("scores") or {}) > 1:
                found.setdefault(f"Accuracy under {called}", partial(_under_attack, alike))
            for key in entry.get("measures") or {}:
                if key.startswith("certified"):
                    said = key.replace("_", " for ")
                    found.setdefault(f"{said.capitalize()} edits", partial(_measured, alike, key))
    return found


def _under_attack(entries: Mapping[Run, Any], run: Run) -> float | None:
    """The accuracy on the last form of the texts, the attacked one: with dropout where the attack met it."""
    if (measured := _measured(entries, "accuracy_under_attack", run)) is not None:
        return measured
    forms: dict[str, Any] = entries.get(run, {}).get("scores") or {}
    return list(forms.values())[-1]["plain"]["accuracy"] if len(forms) > 1 else None


def _measured(entries: Mapping[Run, Any], key: str, run: Run) -> float | None:
    """A measure of an attack."""
    measured = (entries.get(run, {}).get("measures") or {}).get(key)
    return measured["estimate"] if measured else None


def _cell(model: Model | None, name: str, measure: Measure) -> str:
    if model is None:
        return NOT_RUN
    values = {seed: measure(run) for seed, run in model.runs.items()}
    known = {seed: value for seed, value in values.items() if value is not None}
    return mean_of(known, share=name != TEST_LOSS) or NOTHING
