"""What to type for the numbers of a run, worked out from the configuration in its folder."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from omegaconf import OmegaConf

from gruland.cells import Cell
from gruland.config import CONF, compose
from gruland.report.collect import Run, Study
from gruland.runs import flat, identity


def training(study: Study, cells: Iterable[Cell]) -> list[str]:
    """A command for each cell that trains its runs again, or for the first time where there are none."""
    base = _base(study.runs[0])
    return [_line("gruland.train", [*base, *_selection(cell, study.cells.get(cell, ()))]) for cell in cells]


def measuring(module: str, key: str, runs: Sequence[Run]) -> list[str]:
    """Commands that measure finished runs again: ``python -m <module> PATH… [key=value …]``.

    Args:
        key: ``landscape`` or ``attack``; a setting is named where it is not the configuration's.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for run in runs:
        usual, settings = _attacks(run) if key == "attack" else _landscape(run)
        given = tuple(
            f"{name}={_text(value)}" for name, value in settings.items() if value != usual.get(name, value)
        )
        groups.setdefault(given, []).append(str(run.path))
    return [_line(module, [*paths, *given]) for given, paths in groups.items()]


def _landscape(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of a run's surface: what its configuration says, and what was measured."""
    usual = run.config.get("landscape") or {}
    return usual, (run.results.get("landscape") or {}).get("settings") or {}


def _attacks(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same of its attacks, as ``name.setting``; one that was trained with attack=none gets the usual ones."""
    settings = {name: entry.get("settings") or {} for name, entry in run.attacks.items()}
    return flat(run.config.get("attack") or compose().attack), flat(settings)


def _selection(cell: Cell, runs: Iterable[Run]) -> list[str]:
    seeds = sorted({run.seed for run in runs if run.seed is not None}) or [0]
    words = [f"regularizer={cell.regularizer}", f"model.hidden_size={cell.hidden_size}"]
    words += [f"regularizer.rate={cell.rate:g}"] if cell.rate else []
    return [*words, f"seed={','.join(map(str, seeds))}", *(["-m"] if len(seeds) > 1 else [])]


def _base(run: Run) -> list[str]:
    """The overrides that a run's cell and seed do not explain: an experiment's file, then the rest."""
    files = sorted((CONF / "experiment").glob("*.yaml"))
    starts: list[list[str]] = [[], *([f"experiment={file.stem}"] for file in files)]
    lines = [start + rest for start in starts if (rest := _left_over(run, start)) is not None]
    return min(lines, key=len) if lines else [f"experiment_name={run.experiment}"]


def _left_over(run: Run, start: list[str]) -> list[str] | None:
    """What has to follow ``start`` on the command line; None where the configuration does not say."""
    if run.cell is None:
        return None
    try:
        composed = compose(*start, *_selection(run.cell, [run]))
        usual, own = _flat(composed), _flat(OmegaConf.create(run.config))
    except (ValueError, KeyError, AttributeError):
        return None
    words = [] if composed.experiment_name == run.experiment else [f"experiment_name={run.experiment}"]
    words += [f"{key}={_text(value)}" for key, value in own.items() if value != usual.get(key)]
    paths = {f"{group}.path": (run.config[group] or {}).get("path") for group in ("data", "embedding")}
    return words + [f"{key}={path}" for key, path in paths.items() if path]


def _flat(config: Any) -> dict[str, Any]:
    """The settings that determine a model, as ``group.key`` to value."""
    groups = identity(config)
    return {
        f"{name}.{key}": v
        for name, group in groups.items()
        if isinstance(group, dict)
        for key, v in group.items()
    }


def _text(value: Any) -> str:
    """A value in Hydra's grammar."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _line(module: str, words: Iterable[str]) -> str:
    return shlex.join(["python", "-m", module, *words])
