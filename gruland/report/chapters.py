"""What the report says of a study, whatever the page it is printed on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gruland.cells import title
from gruland.report import figures, paper, tables
from gruland.report.collect import Run, Study
from gruland.report.examples import Examples, examples
from gruland.report.figures import Picture, Surfaces
from gruland.report.tables import Table

#: Browsers give up the oldest of more than 16 WebGL drawings.
MOST_SURFACES = 12

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
    """What one study has to say, after a list of facts."""

    key: str
    title: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]


def chapter(study: Study) -> Chapter:
    """Everything about one study."""
    sections = [_losses(study), _grids(study), _curves(study), _surfaces(study), _attacks(study)]
    kept = [section for section in sections if section.blocks or section.text]
    return Chapter(study.key, f"Experiment {study.experiment}", facts(study), kept)


def _losses(study: Study) -> Section:
    heading = "Losses with and without dropout"
    return Section(f"{study.key}-losses", heading, [tables.losses(study)], [_honesty(study)])


def _honesty(study: Study) -> str:
    """What a single run can and cannot tell, from this study's own repetitions where it has some."""
    printed = paper.TABLE_1[paper.DROPCONNECT]["test"]
    start = (
        f"Another seed gives another loss: the paper’s {len(printed)} trainings of {paper.DROPCONNECT.label} "
        f"have test losses from {min(printed):.3f} to {max(printed):.3f}."
    )
    repeated = {cell: runs for cell, runs in study.cells.items() if len(runs) > 1}
    if not repeated:
        return f"{start} Here every model was trained once, so small differences between two tell nothing."
    spread = {c: [r.scores("last", "test")["loss"] for r in runs] for c, runs in repeated.items()}
    cell = max(spread, key=lambda c: max(spread[c]) - min(spread[c]))
    low, high = min(spread[cell]), max(spread[cell])
    return (
        f"{start} Here the {len(spread[cell])} trainings of {cell.label} have test losses from {low:.3f} to "
        f"{high:.3f} at the last epoch. Smaller differences between models trained once tell nothing."
    )


def _grids(study: Study) -> Section:
    drawn = [figures.grids(study)] if len(study.cells) > 1 else []
    return Section(f"{study.key}-grid", "Hidden units and rates", drawn)


def _curves(study: Study) -> Section:
    shown = [cell for cell in tables.shown_cells(study) if cell in study.cells]
    rows = [shown[i : i + 3] for i in range(0, len(shown), 3)]
    drawn = [figures.curves(study, rows, f"{study.key}-curves", "Loss per epoch (figure 3)")]
    if not set(study.cells) <= set(shown):
        grid = figures.whole_grid(study)
        drawn.append(figures.curves(study, grid, f"{study.key}-all-curves", "Loss per epoch, every model"))
    return Section(f"{study.key}-loss-curves", "Learning curves", [block for block in drawn if block])


def _surfaces(study: Study) -> Section:
    found = figures.read_surfaces(_foremost(study))
    broken = sum(run.surface_path is not None for run in study.runs) - len(found)
    text = [f"{_count(broken, 'surface')} could not be read."] if broken else []
    if not found:
        text = text or ["No run has a loss surface yet: python -m gruland.landscape makes up for it."]
        return Section(f"{study.key}-landscape", "Loss landscapes", [], text)
    if len(found) > MOST_SURFACES:
        text += [
            f"{MOST_SURFACES} of {len(found)} surfaces are drawn, the paper’s and our best models’ first."
        ]
    areas = {run: figures.area_near_minimum(dataset) for run, dataset in found}
    blocks: list[Block] = [figures.surfaces(study, found[:MOST_SURFACES]), tables.landscapes(study, areas)]
    return Section(f"{study.key}-landscape", "Loss landscapes", blocks, text)


def _foremost(study: Study) -> list[Run]:
    """The study's runs, those of the paper’s models and of the best cells first."""
    order = tables.shown_cells(study)
    rank = {cell: i for i, cell in enumerate(order)}
    return sorted(study.runs, key=lambda run: rank.get(run.cell, len(order)) if run.cell else len(order))


def _attacks(study: Study) -> Section:
    blocks: list[Block] = [tables.adversarial(study), tables.test_time_dropout(study)]
    text = []
    attacked = [run for run in _foremost(study) if run.attacks]
    if attacked:
        shown = examples(attacked[0], f"{study.key}-examples")
        blocks += [tables.robustness(study), *([shown] if shown else [])]
    else:
        text = ["No run has an adversarial evaluation yet: python -m gruland.attack makes up for it."]
    return Section(f"{study.key}-attack", "Adversarial robustness", blocks, text)


def facts(study: Study) -> list[tuple[str, str]]:
    """What was compared, and with which versions."""
    data = study.runs[0].results.get("data") or {}
    seeds = sorted({run.seed for run in study.runs if run.seed is not None})
    kinds = ", ".join(title(kind) for kind in study.best)
    compared = f"{_count(len(study.cells), 'model')} ({kinds}), {_count(len(study.runs), 'run')}, "
    compared += f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    return [
        ("Data", _data(data)),
        ("Word vectors", _words(data)),
        ("Compared", compared),
        ("Settings", _settings(study.runs[0].config)),
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


def _settings(config: dict[str, Any]) -> str:
    """The settings that most change the numbers; config.yaml has them all."""
    named = {
        "epochs": ("trainer", "max_epochs"),
        "layers": ("model", "num_layers"),
        "batch": ("data", "batch_size"),
        "words of a review": ("data", "max_length"),
        "learning rate": ("optimizer", "lr"),
        "seed of the split": ("data", "split_seed"),
    }
    found = {name: (config.get(group) or {}).get(key, "?") for name, (group, key) in named.items()}
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
