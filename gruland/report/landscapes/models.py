"""The models that are compared: runs that differ in nothing but their seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gruland import runs
from gruland.cells import Cell, by_cell
from gruland.runs import Run


@dataclass(frozen=True)
class Model:
    """A configuration, trained once for each seed.

    Attributes:
        label: for instance ``Zoneout 0.1, H=128``, with what tells it from another model of the same cell.
        cell: its place in the grid.
        runs: from training seed to run, rising.
    """

    label: str
    cell: Cell
    runs: dict[int, Run]

    @property
    def data(self) -> str:
        """A hash of the data that its runs share: word ids, labels and vectors."""
        return _data(next(iter(self.runs.values())))


def models(*paths: str | Path) -> list[Model]:
    """The finished runs at or below the paths, as models; models without a regularizer first.

    Raises:
        FileNotFoundError: a path does not exist, or holds no run.
        ValueError: no run is finished, two are the same model and seed, or two of one model are of different data.
    """
    found = [run for path in runs.find(*paths) if (run := Run(path)).results.get("status") == "finished"]
    if not found:
        raise ValueError(f"no finished run at or below {', '.join(map(str, paths))}: run gruland.train first")
    groups: dict[str, list[Run]] = {}
    for run in found:
        groups.setdefault(json.dumps(_without_seed(run), sort_keys=True), []).append(run)
    chosen = [(_cell(group[0]), json.loads(key), _by_seed(group)) for key, group in groups.items()]
    chosen.sort(key=lambda model: by_cell(model[0]))
    labels = _labels([(cell, settings) for cell, settings, _ in chosen])
    return [Model(label, cell, seeds) for label, (cell, _, seeds) in zip(labels, chosen, strict=True)]


def references(models: Sequence[Model]) -> dict[str, str]:
    """What each model is compared with, by label: like with like where that can be.

    It is the model without a regularizer that has as many hidden units; where there is none, the first model, and the
    difference is then one of sizes, too. Other models without a regularizer are compared with the first.
    """
    plain: dict[int, str] = {}
    for model in models:
        if model.cell.regularizer == "none":
            plain.setdefault(model.cell.hidden_size, model.label)
    first = models[0].label
    return {
        model.label: plain.get(model.cell.hidden_size, first) if model.cell.regularizer != "none" else first
        for model in models
        if model.label != first
    }


def _without_seed(run: Run) -> dict[str, Any]:
    return {key: value for key, value in runs.identity(run.config).items() if key != "seed"}


def _cell(run: Run) -> Cell:
    model = run.results["model"]
    return Cell(str(model["regularizer"]), float(model.get("rate") or 0), int(model["hidden_size"]))


def _data(run: Run) -> str:
    return str(run.results.get("data", {}).get("fingerprint"))


def _by_seed(group: Sequence[Run]) -> dict[int, Run]:
    seeds: dict[int, Run] = {}
    for run in sorted(group, key=lambda run: int(run.results["seed"])):
        seed = int(run.results["seed"])
        if seed in seeds:
            raise ValueError(
                f"{seeds[seed].path} and {run.path} are the same model and seed: give one of them"
            )
        seeds[seed] = run
        first = next(iter(seeds.values()))
        if _data(run) != _data(first):
            raise ValueError(
                f"{first.path} and {run.path} have one configuration but different data (a file given by "
                "data.path or embedding.path): they are not one model, give one of them"
            )
    return seeds


def _labels(chosen: Sequence[tuple[Cell, Mapping[str, Any]]]) -> list[str]:
    """The cells' labels; those of one cell are told apart by the settings in which they differ."""
    labels = []
    for cell, settings in chosen:
        others = [other for same, other in chosen if same == cell and other is not settings]
        flat = runs.flat(settings)
        apart = sorted(
            key for key, value in flat.items() if any(runs.flat(o).get(key) != value for o in others)
        )
        labels.append(", ".join([cell.label, *(f"{key}={flat[key]}" for key in apart)]))
    return labels
