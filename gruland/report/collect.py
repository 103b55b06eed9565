"""Run folders as the report reads them: plain data, without a model or a review being loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gruland import trust
from gruland.cells import Cell, by_cell
from gruland.files import read_json
from gruland.runs import SCHEMA, folders, identity

if TYPE_CHECKING:
    import pandas as pd

#: What a finished run's results.json must hold for the report.
REQUIRED = (
    "name",
    "experiment",
    "seed",
    "model.regularizer",
    "model.hidden_size",
    *(
        f"metrics.{when}.{split}.loss"
        for when in ("best", "last")
        for split in ("train", "validation", "test")
    ),
)


@dataclass(frozen=True, eq=False)
class Run:
    """One run folder.

    Args:
        path: the folder.
        status: ``finished``, ``failed``, ``unfinished`` (no results.json yet) or ``unreadable``.
        error: what went wrong, one line; None for a finished run.
        results: results.json, empty where there is none.
        config: the resolved configuration, empty where it cannot be read.
    """

    path: Path
    status: str
    error: str | None
    results: dict[str, Any]
    config: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.results.get("name") or self.path.name)

    @property
    def experiment(self) -> str:
        return str(self.results.get("experiment") or self.path.parent.name)

    @property
    def seed(self) -> int | None:
        return self.results.get("seed")

    @cached_property
    def cell(self) -> Cell | None:
        """None where a failed run did not get as far as to record its model."""
        model = self.results.get("model") or {}
        if "regularizer" not in model or "hidden_size" not in model:
            return None
        return Cell(str(model["regularizer"]), float(model.get("rate") or 0), int(model["hidden_size"]))

    def scores(self, when: str, split: str) -> dict[str, Any]:
        """loss, accuracy, f1, count, loss_se of a ``split`` at the ``best`` or the ``last`` epoch."""
        return self.results["metrics"][when][split]

    @cached_property
    def curves(self) -> pd.DataFrame | None:
        """metrics.csv: a row per epoch; None where it is absent, empty or broken."""
        import pandas as pd

        try:
            return pd.read_csv(self.path / "metrics.csv")
        except (OSError, ValueError):
            return None

    @property
    def surface_path(self) -> Path | None:
        """The store of a finished loss surface."""
        path = self.path / "landscape" / "surface.zarr"
        return path if self.results.get("landscape") and path.exists() else None

    @property
    def attacks(self) -> dict[str, dict[str, Any]]:
        """The adversarial evaluations that were done, by the attack's name."""
        return self.results.get("attacks") or {}

    @property
    def attack(self) -> dict[str, Any] | None:
        """The paper's adversarial evaluation, by typing errors, if it was done."""
        return self.attacks.get("typing_errors")


def landscape_setting(runs: Iterable[Run]) -> str:
    """What the runs' surfaces are of, in words: the reviews, the loss and the plane."""
    losses, planes = [], []
    for measured in (run.results["landscape"] for run in runs):
        split = str(measured.get("split", "train")).replace("train", "training")
        masks = ", evaluation mode"
        if measured.get("objective") == "training loss":
            masks = f" with masks as in training (mean of {measured['draws']} draws)"
        losses.append(f"{split} reviews{masks}")
        kind = measured.get("plane", "random")
        planes.append(
            "two seeded random directions, normalized to the weights"
            if kind == "random"
            else f"a {kind} plane"
        )
    return "; ".join(" or ".join(dict.fromkeys(words)) for words in (losses, planes))


def collect(paths: Sequence[str | Path]) -> list[Run]:
    """Read every run folder at or below ``paths``, each once, in the order of the tables.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: there is no run folder, or none holds a finished run.
    """
    where = ", ".join(str(path) for path in paths)
    found = {folder.resolve(): folder for path in paths for folder in _run_folders(Path(path))}
    runs = sorted((read_run(folder) for folder in found.values()), key=_order)
    if not runs:
        raise ValueError(
            f"no run folder in {where}: expected a results.json, as python -m gruland.train leaves it"
        )
    if not any(run.status == "finished" for run in runs):
        first = next((run.error for run in runs if run.error), "no error recorded")
        raise ValueError(
            f"none of the {len(runs)} runs in {where} is finished (the first: {first}): run them again"
        )
    return runs


def _run_folders(path: Path) -> Iterator[Path]:
    """Folders with a results.json, or with the config.yaml of a run that has none yet."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist: give run folders, or folders that contain run folders"
        )
    if not path.is_dir():
        raise NotADirectoryError(f"{path} is a file: give run folders, or folders that contain run folders")
    yield from folders(path, "results.json", "config.yaml")


def read_run(folder: Path) -> Run:
    """Read one run folder; whatever is wrong with it ends up in its ``status`` and ``error``."""
    config = _read_config(folder)
    if not (folder / "results.json").exists():
        return Run(
            folder, "unfinished", "no results.json: the run was interrupted or is under way", {}, config
        )
    try:
        results = read_json(folder / "results.json")
        _check(results)
    except (OSError, ValueError) as error:
        return Run(folder, "unreadable", " ".join(str(error).split()), {}, config)
    status = results["status"] if results.get("status") in ("finished", "failed") else "unfinished"
    message = results.get("error") or "no error recorded: interrupted, or under way"
    return Run(
        folder, status, None if status == "finished" else " ".join(str(message).split()), results, config
    )


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        return trust.read_config(folder / "config.yaml")
    except (OSError, ValueError):
        return {}


def _check(results: Any) -> None:
    """Raise ValueError where ``results`` is not what this version can read."""
    if not isinstance(results, dict) or results.get("schema") != SCHEMA:
        found = results.get("schema") if isinstance(results, dict) else type(results).__name__
        raise ValueError(
            f"results.json has schema {found!r}, this version reads {SCHEMA}: run the training again"
        )
    if results.get("status") == "finished":
        missing = [key for key in REQUIRED if _lookup(results, key) is None]
        if missing:
            raise ValueError(f"results.json lacks {', '.join(missing)}: run the training again")


def _lookup(value: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _order(run: Run) -> tuple[Any, ...]:
    cell = run.cell
    return run.experiment, cell is None, by_cell(cell) if cell else (), run.seed or 0, str(run.path)


@dataclass(frozen=True, eq=False)
class Study:
    """Finished runs that may be compared: one experiment and configuration, but for cell and seed.

    Args:
        key: begins the anchors and file names of all that is shown of it.
    """

    key: str
    experiment: str
    runs: tuple[Run, ...]

    @cached_property
    def cells(self) -> dict[Cell, tuple[Run, ...]]:
        """The runs of each cell, one per seed, in the order of the tables."""
        cells = sorted({run.cell for run in self.runs if run.cell}, key=by_cell)
        return {cell: tuple(run for run in self.runs if run.cell == cell) for cell in cells}

    @cached_property
    def best(self) -> dict[str, Cell]:
        """Of each regularizer the cell with the run of least validation loss (section 5.1 of the paper)."""
        best: dict[str, Cell] = {}
        for cell in sorted(self.cells, key=self._least_validation_loss):
            best.setdefault(cell.regularizer, cell)
        return {cell.regularizer: cell for cell in sorted(best.values(), key=by_cell)}

    def _least_validation_loss(self, cell: Cell) -> float:
        losses = [run.scores("best", "validation")["loss"] for run in self.cells[cell]]
        return min((loss for loss in losses if not math.isnan(loss)), default=math.inf)


def studies(runs: Iterable[Run]) -> list[Study]:
    """Part the finished runs into those that may be compared with each other."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.status == "finished":
            groups.setdefault(_setting(run), []).append(run)
    return [Study(f"s{i}", group[0].experiment, tuple(group)) for i, group in enumerate(groups.values(), 1)]


def _setting(run: Run) -> str:
    """What must agree between two runs beside their cell and seed, as text."""
    try:
        same = identity(OmegaConf.create(run.config))
        same["model"].pop("hidden_size")
        same.pop("regularizer")
        same.pop("seed")
    except (
        KeyError,
        AttributeError,
        OmegaConfBaseException,
    ):  # no configuration: the sizes of the data must do
        same = {"sizes": (run.results.get("data") or {}).get("sizes")}
    same["fingerprint"] = (run.results.get("data") or {}).get(
        "fingerprint"
    )  # files are no part of the identity
    return json.dumps([run.experiment, same], sort_keys=True, default=str)
