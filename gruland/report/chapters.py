"""What the report says of a study, whatever the page it is printed on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gruland.report import adversarial, attacks, defences, differences, figures, flatness, losses, paper
from gruland.report.collect import TYPING_ERRORS, Study, surface_path, typing_errors
from gruland.report.columns import columns
from gruland.report.examples import Examples, examples
from gruland.report.figures import Picture, Surfaces
from gruland.report.models import Model
from gruland.report.tables import Table, difference_table, number, run_label
from gruland.runs import Run

#: Browsers give up the oldest of more than 16 WebGL drawings.
MOST_SURFACES = 12

#: Panels of the picture of all learning curves.
MOST_PANELS = 80

Block = Table | Picture | Surfaces | Examples


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs, and what follows them."""

    key: str
    title: str
    blocks: Sequence[Block]
    text: Sequence[str] = field(default=())


@dataclass(frozen=True)
class Chapter:
    """What one study has to say: its answer, a list of facts, then everything."""

    key: str
    title: str
    answer: Sequence[str]
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]


def chapter(study: Study, most_surfaces: int = MOST_SURFACES) -> Chapter:
    """Everything about one study."""
    clean, attacked = losses.compared_losses(study), adversarial.compared_attacks(study)
    sections = [
        _losses(study, clean),
        _grids(study),
        _curves(study),
        _surfaces(study, most_surfaces),
        _attacks(study, attacked),
        _defences(study),
    ]
    kept = [section for section in sections if section.blocks or section.text]
    said = answer(study, clean, attacked)
    return Chapter(study.key, f"Experiment {study.experiment}", said, facts(study), kept)


def answer(study: Study, clean: Sequence[differences.Row], attacked: Sequence[differences.Row]) -> list[str]:
    """What the study says, in a few sentences: the best models, and which differences are more than chance."""
    lines = []
    for choice in study.best.values():
        test = choice.model.values("best", "test")
        over = f"mean of {_count(len(test), 'training')}" if len(test) > 1 else "one training"
        rivals = f" of {len(choice.rivals)}" if len(choice.rivals) > 1 else ""
        lines.append(
            f"{choice.model.title}: best{rivals} is {choice.model.label}, test loss "
            f"{number(sum(test.values()) / len(test))} ({over})."
        )
    for rows, what in ((clean, "test losses"), (attacked, "adversarial losses")):
        if line := _verdict(rows, what):
            lines.append(line)
    warned = [model for model in study.models if any(map(losses.warn, model.runs.values()))]
    if warned:
        lines.append(
            f"{_count(len(warned), 'model')} learned nothing or diverged: {', '.join(m.label for m in warned[:3])}"
            f"{' and others' if len(warned) > 3 else ''}."
        )
    return lines


def _verdict(rows: Sequence[Any], what: str) -> str:
    tests = differences.count_tests(rows)
    if not tests:
        several = any(len(row.values) > 1 for row in rows)
        return (
            "No model shares two training seeds with the one that it is compared with: nothing can be said of their "
            f"{what}."
            if several
            else ""
        )
    found = [
        f"{label} less {row.references[label]}: {row.quantity.title} {row.verdict(label, tests)}"
        for row in rows
        for label, difference in row.differences.items()
        if difference.significant
    ]
    if found:
        return f"More than chance, after correction for {tests} tests: {'; '.join(found)}."
    return (
        f"Of the {_count(tests, 'tested difference')} in {what} and accuracies none is more than chance would give. "
        + " ".join(differences.remark(rows)[:1])
    )


def _losses(study: Study, rows: Sequence[Any]) -> Section:
    compared = difference_table(f"{study.key}-losses-compared", "Differences of test losses", rows)
    blocks = [losses.table_1(study), compared, losses.choices(study), losses.all_models(study)]
    title = "Losses with and without dropout"
    return Section(f"{study.key}-losses", title, [block for block in blocks if block], [_honesty(study)])


def _honesty(study: Study) -> str:
    """What a single run can and cannot tell, from this study's own repetitions where it has some."""
    printed = paper.TABLE_1[paper.DROPCONNECT]["test"]
    start = (
        f"Another seed gives another loss: the paper’s {len(printed)} trainings of {paper.DROPCONNECT.label} "
        f"have test losses from {min(printed):.3f} to {max(printed):.3f}."
    )
    spread = {m: list(m.values("last", "test").values()) for m in study.models if len(m.runs) > 1}
    if not spread:
        return f"{start} Here every model was trained once, so small differences between two tell nothing."
    model = max(spread, key=lambda m: max(spread[m]) - min(spread[m]))
    low, high = min(spread[model]), max(spread[model])
    return (
        f"{start} Here the {len(spread[model])} trainings of {model.label} have test losses from {low:.3f} to "
        f"{high:.3f} at the last epoch. Smaller differences between models trained once tell nothing."
    )


def _grids(study: Study) -> Section:
    drawn = [figures.grids(study)] if len(study.models) > 1 else []
    return Section(f"{study.key}-grid", "Hidden units and rates", drawn)


def _curves(study: Study) -> Section:
    shown: list[Model | None] = [column.model for column in columns(study) if column.model]
    rows = [shown[i : i + 3] for i in range(0, len(shown), 3)]
    drawn = [figures.learning_curves(rows, f"{study.key}-curves", "Loss per epoch (figure 3)")]
    text = []
    if not set(study.models) <= set(shown):
        grid = figures.whole_grid(study)
        if sum(map(len, grid)) <= MOST_PANELS:
            heading = "Loss per epoch, every model"
            drawn.append(figures.learning_curves(grid, f"{study.key}-all-curves", heading))
        else:
            text = [
                f"{len(study.models)} models are too many for one picture: each run’s metrics.csv has its curve."
            ]
    return Section(f"{study.key}-loss-curves", "Learning curves", [block for block in drawn if block], text)


def _surfaces(study: Study, most: int) -> Section:
    found = figures.read_surfaces(_foremost(study))
    whole = {run for run, _ in found}
    broken = [run.path.name for run in study.runs if surface_path(run) is not None and run not in whole]
    text = []
    if broken:
        names = ", ".join(broken[:3]) + (f" and {len(broken) - 3} more" if len(broken) > 3 else "")
        text = [
            f"{_count(len(broken), 'surface')} could not be read, or changed since the run wrote it: {names}. "
            "python -m gruland.landscape makes up for it."
        ]
    if not found:
        text = text or ["No run has a loss surface yet: python -m gruland.landscape makes up for it."]
        return Section(f"{study.key}-landscape", "Loss landscapes", [], text)
    drawn = [(run_label(run, study), run, surface) for run, surface in found[:most]]
    if len(found) > most:
        text += [f"{most} of {len(found)} surfaces are drawn, the paper’s and our best models’ first."]
    radius = figures.disc(surface for _, surface in found)
    areas = {run: figures.area(surface, radius) for run, surface in found}
    blocks: list[Block] = [figures.surfaces(study, drawn)] if drawn else []
    return Section(
        f"{study.key}-landscape",
        "Loss landscapes",
        [*blocks, flatness.landscapes(study, areas, radius)],
        text,
    )


def _foremost(study: Study) -> list[Run]:
    """The study's runs, those of the paper’s models and of the best ones first."""
    foremost = [run for column in columns(study) for run in column.runs]
    return [*foremost, *(run for run in study.runs if run not in foremost)]


def _attacks(study: Study, rows: Sequence[Any]) -> Section:
    other = study.attacked_otherwise(TYPING_ERRORS)
    compared = difference_table(
        f"{study.key}-attacks-compared", "Differences of adversarial losses", rows, other
    )
    blocks: list[Block | None] = [adversarial.table_2(study), compared, adversarial.table_3(study)]
    if study.by_attack:
        blocks += [adversarial.robustness(study)]
    if attacked := [run for run in _foremost(study) if typing_errors(run)]:
        blocks += [examples(attacked[0], study, f"{study.key}-examples")]
    blocks += attacks.blocks(study)
    for name, (*_, last) in study.by_attack.items():
        if name != TYPING_ERRORS:
            blocks += [examples(last, study, f"{study.key}-examples-{name}", 2, name)]
    text = []
    if not study.by_attack:
        text = ["No run has an adversarial evaluation yet: python -m gruland.attack makes up for it."]
    kept = [block for block in blocks if block]
    return Section(f"{study.key}-attack", "Adversarial robustness", kept, text)


def _defences(study: Study) -> Section:
    table = defences.table(study)
    return Section(f"{study.key}-defence", "Defences", [table] if table else [])


def facts(study: Study) -> list[tuple[str, str]]:
    """What was compared, and with which versions."""
    data = study.runs[0].results.get("data") or {}
    seeds = sorted({run.results["seed"] for run in study.runs})
    kinds = ", ".join(model.title for model in study.best_models)
    compared = f"{_count(len(study.models), 'model')} ({kinds}), {_count(len(study.runs), 'run')}, "
    compared += f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    return [
        ("Data", _data(data)),
        ("Word vectors", _words(data)),
        ("Compared", compared),
        ("Settings", _settings(study.runs[0].config, study)),
        ("Versions", _versions(study.runs)),
    ]


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def _data(data: dict[str, Any]) -> str:
    available, sizes = data.get("available") or {}, data.get("sizes") or {}
    parts = [
        f"{split} {size:,}" + (f" of {available[split]:,}" if available.get(split, size) != size else "")
        for split, size in sizes.items()
    ]
    source = str(data.get("source", "unknown source"))
    part = " (a stratified part)" if data.get("limited") else ""
    across = (data.get("duplicates") or {}).get("across") or {}
    twice = f"; {sum(across.values()):,} texts of one split stand in another, too" if across else ""
    return f"{source}: {', '.join(parts)} reviews{part}{twice}"


def _words(data: dict[str, Any]) -> str:
    vectors = data.get("vocabulary") or {}
    text = f"{vectors.get('name', 'unknown vectors')}, {vectors.get('dimension', '?')} dimensions"
    covered = ((data.get("coverage") or {}).get("tokens") or {}).get("train")
    return text if covered is None else f"{text}; {covered:.1%} of the words of the training reviews have one"


def _settings(config: Any, study: Study) -> str:
    """The settings that most change the numbers; config.yaml has them all."""
    named = {
        "epochs": ("trainer", "max_epochs"),
        "layers": ("model", "num_layers"),
        "batch": ("data", "batch_size"),
        "words of a review": ("data", "max_length"),
        "learning rate": ("optimizer", "lr"),
        "seed of the split": ("data", "split_seed"),
    }
    varied = {key for model in study.models for key in model.others}
    found = {
        name: (config.get(group) or {}).get(key, "?")
        for name, (group, key) in named.items()
        if f"{group}.{key}" not in varied
    }
    return ", ".join(
        f"{name} {'all' if value is None else value}" for name, value in found.items() if value != "?"
    )


def _versions(runs: Iterable[Run]) -> str:
    found: dict[str, set[str]] = {}
    for run in runs:
        environment = run.results.get("environment") or {}
        versions = {
            "gruland": run.results.get("gruland"),
            **environment,
            "backend": run.results["model"].get("backend"),
        }
        for name, value in versions.items():
            found.setdefault(name, set()).add(str(value))
    return ", ".join(
        f"{name} {' or '.join(sorted(values))}" for name, values in found.items() if values != {"None"}
    )
