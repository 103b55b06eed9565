"""What lies in the run folders, and which of it may be compared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gruland.errors import USER_ERRORS, one_line
from gruland.report.choice import Choice, best, choose
from gruland.report.models import (
    Model,
    Place,
    by_place,
    fingerprint,
    models,
    place_of,
    references,
    settings_of,
)
from gruland.runs import Run, folders

if TYPE_CHECKING:
    import pandas as pd


#: What a finished run's results.json must hold for the report.
REQUIRED = (
    "name", "experiment", "seed", "model.regularizer", "model.hidden_size",
    *(f"metrics.{when}.{split}.loss" for when in ("best", "last") for split in ("train", "validation", "test")),
)  # fmt: skip
#: What must be a number where it is given; ``*`` stands for any key.
NUMBERS = (
    "seed", "model.hidden_size", "model.rate", "model.parameters", "training.seconds", "metrics.*.*.loss",
    "metrics.*.*.accuracy", "metrics.*.*.f1", "metrics.*.*.count", "metrics.*.*.loss_se",
    "landscape.center_loss", "landscape.min_loss", "landscape.max_loss", "attacks.*.achieved_rate",
    "attacks.*.scores.*.*.loss", "attacks.*.scores.*.*.accuracy", "attacks.*.scores.*.*.loss_se",
)  # fmt: skip
#: The paper's adversarial evaluation.
TYPING_ERRORS = "typing_errors"
#: Settings that choose the reviews; with others of these, losses are of other test reviews.
_REVIEWS = ("source", "split", "split_seed", "limit")


@dataclass(frozen=True)
class Collection:
    """What was found.

    Attributes:
        runs: finished ones, in the order of the tables.
        left_out: why each other folder is left out, in a line.
        comparisons: comparison.json of the landscapes that were compared.
    """

    runs: list[Run]
    left_out: dict[Path, str] = field(default_factory=dict)
    comparisons: list[Path] = field(default_factory=list)


def collect(paths: Sequence[str | Path], allow: Iterable[str] = ()) -> Collection:
    """Read every run folder at or below ``paths``, each once.

    Args:
        paths: run folders, or folders that contain some.
        allow: classes that configurations may name besides this package's, see :mod:`gruland.trust`.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: there is no run folder, or none holds a finished run.
    """
    where = ", ".join(str(path) for path in paths)
    found = {folder.resolve(): folder for path in paths for folder in _run_folders(Path(path))}
    if not found:
        raise ValueError(
            f"no run folder in {where}: expected a config.yaml, as python -m gruland.train leaves it"
        )
    runs: list[Run] = []
    left_out = {}
    for folder in found.values():
        try:
            runs.append(_read(folder, allow))
        except USER_ERRORS as error:
            left_out[folder] = one_line(error)
    if not runs:
        more = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
        raise ValueError(f"no run in {where} can be read: {next(iter(left_out.values()))}{more}")
    comparisons = {
        (folder / "comparison.json").resolve(): None
        for path in paths
        for folder in folders(Path(path), "comparison.json")
    }
    return Collection(sorted(runs, key=_order), left_out, list(comparisons))


def _run_folders(path: Path) -> Iterator[Path]:
    """Folders with the config.yaml of a run, or with its results.json alone."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist: give run folders, or folders that contain run folders"
        )
    if not path.is_dir():
        raise NotADirectoryError(f"{path} is a file: give run folders, or folders that contain run folders")
    yield from folders(path, "results.json", "config.yaml")


def _read(folder: Path, allow: Iterable[str]) -> Run:
    """A finished run.

    Raises:
        OSError, ValueError: why it has no place in a report.
    """
    run = Run(folder, allow)
    results = run.results
    if not results:
        raise ValueError("unfinished: no results.json, the run was interrupted or is under way")
    if results.get("status") != "finished":
        status = "failed" if results.get("status") == "failed" else "unfinished"
        raise ValueError(f"{status}: {results.get('error') or 'no error recorded, interrupted or under way'}")
    for key in REQUIRED:
        if not any(value is not None for _, value in _lookup(results, key)):
            raise ValueError(f"{folder / 'results.json'} lacks {key}: run the training again")
    for pattern in NUMBERS:
        for key, value in _lookup(results, pattern):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ValueError(
                    f"{folder / 'results.json'}: {key} is {value!r}, expected a number: run the training again"
                )
    run.check()
    return run


def _lookup(value: Any, pattern: str, found: str = "") -> Iterator[tuple[str, Any]]:
    """The values at a dotted key, where ``*`` stands for any, with their keys; none where there is nothing."""
    head, _, rest = pattern.partition(".")
    if not isinstance(value, Mapping):
        return
    for key in value if head == "*" else [head]:
        if key in value:
            dotted = f"{found}.{key}" if found else str(key)
            if rest:
                yield from _lookup(value[key], rest, dotted)
            else:
                yield dotted, value[key]


def curves(run: Run) -> pd.DataFrame | None:
    """metrics.csv: a row per epoch; None where it is absent, empty or broken."""
    import pandas as pd

    columns = ["epoch", "train_loss", "validation_loss"]
    try:
        return run.metrics[columns].apply(pd.to_numeric)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def surface_path(run: Run) -> Path | None:
    """The store of a finished loss surface."""
    path = run.path / "landscape" / "surface.zarr"
    return path if run.results.get("landscape") and path.exists() else None


def attacks(run: Run) -> dict[str, dict[str, Any]]:
    """The adversarial evaluations that were done, by the attack's name."""
    return run.results.get("attacks") or {}


def typing_errors(run: Run) -> dict[str, Any] | None:
    """The paper's adversarial evaluation, if it was done."""
    return attacks(run).get(TYPING_ERRORS)


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
        random = "two seeded random directions, normalized to the weights"
        planes.append(random if kind == "random" else f"a {kind} plane")
    return "; ".join(" or ".join(dict.fromkeys(words)) for words in (losses, planes))


def _order(run: Run) -> tuple[Any, ...]:
    return run.results["experiment"], by_place(place_of(run)), run.results["seed"], str(run.path)


@dataclass(frozen=True, eq=False)
class Study:
    """Models whose losses may be compared: of one experiment, on the same reviews.

    Args:
        key: begins the anchors and file names of all that is shown of it.
    """

    key: str
    experiment: str
    models: tuple[Model, ...]

    @property
    def runs(self) -> list[Run]:
        """The runs of all models."""
        return [run for model in self.models for run in model.runs.values()]

    @cached_property
    def best(self) -> dict[str, Choice]:
        """Of each regularizer the model of least validation loss, see :mod:`gruland.report.choice`."""
        return best(self.models)

    @property
    def best_models(self) -> list[Model]:
        """The models that were chosen."""
        return [choice.model for choice in self.best.values()]

    @cached_property
    def references(self) -> dict[Model, Model]:
        """See :func:`references`."""
        return references(self.models)

    @cached_property
    def by_attack(self) -> dict[str, dict[Run, dict[str, Any]]]:
        """From an attack's name to what it did to each run that it met."""
        found: dict[str, dict[Run, dict[str, Any]]] = {}
        for run in self.runs:
            for name, entry in attacks(run).items():
                found.setdefault(name, {})[run] = entry
        return found

    def alike(self, attack: str) -> dict[Run, dict[str, Any]]:
        """The same, of the runs that the attack met with the commonest class, settings and files.

        Others are not to be averaged with these or held against them: of 13 runs 7 may have been attacked at rate=0.1.
        """
        found = self.by_attack.get(attack, {})
        return {run: found[run] for run in alike({run: _made_by(entry) for run, entry in found.items()})}

    def attacked_otherwise(self, *names: str) -> list[str]:
        """A sentence for each attack, of all or of these, that did not meet all runs alike: how many are left out."""
        counts = {name: len(self.by_attack.get(name, {})) for name in names or self.by_attack}
        rest = {name: count - len(self.alike(name)) for name, count in counts.items()}
        return [
            f"Left out: {rest[name]} of {counts[name]} runs under {name.replace('_', ' ')}, which has other settings "
            "or files there than in most."
            for name in counts
            if rest[name]
        ]

    def at(self, place: Place) -> Model | None:
        """The model with this regularizer, rate and hidden units, without a defence where there is one without.

        Of several it is the one of least validation loss.
        """
        found = [model for model in self.models if model.place == place]
        undefended = [model for model in found if model.defence == "none"]
        return choose(undefended or found).model if found else None


def _made_by(entry: Mapping[str, Any]) -> list[Any]:
    """What an attack's entry follows from, besides the run: equal for two that may be compared."""
    known = [entry.get(key) for key in ("class", "settings", "revision", "inputs", "code")]
    # Which stopwords there are depends on the machine; near words differ by intent, with the models' vectors.
    return [*known, (entry.get("stand_ins") or {}).get("stopwords")]


def alike(made_by: Mapping[Run, Any]) -> list[Run]:
    """The runs that were measured in the commonest way.

    Args:
        made_by: what each run's measurement follows from, as plain data.
    """
    ways = {run: json.dumps(way, sort_keys=True, default=str) for run, way in made_by.items()}
    commonest = [way for way, _ in Counter(ways.values()).most_common(1)]
    return [run for run, way in ways.items() if way in commonest]


def studies(collection: Collection) -> list[Study]:
    """Part the finished runs into those that may be compared with each other."""
    groups: dict[str, list[Run]] = {}
    for run, key in zip(collection.runs, _reviews(collection.runs), strict=True):
        groups.setdefault(
            json.dumps([run.results["experiment"], key], sort_keys=True, default=str), []
        ).append(run)
    return [
        Study(f"s{i}", str(group[0].results["experiment"]), tuple(models(group, collection.left_out)))
        for i, group in enumerate(groups.values(), 1)
    ]


def _reviews(runs: Sequence[Run]) -> list[Any]:
    """For each run what says which reviews it saw; equal for two runs whose losses are of the same reviews.

    A file counts by what it holds, not by where it lies: runs of one fingerprint share the first one's path, and one
    path with two fingerprints of the same settings counts as two files.
    """
    paths: dict[str, Any] = {}
    contents: dict[str, list[str]] = {}
    keys: list[Any] = []
    for run in runs:
        settings, data = settings_of(run), run.results.get("data") or {}
        path = paths.setdefault(fingerprint(run), (run.config.get("data") or {}).get("path"))
        made_of = {
            k: v
            for k, v in settings.items()
            if k.startswith(("data.", "embedding.")) and k[5:] != "fingerprint"
        }
        known = contents.setdefault(json.dumps([path, made_of], sort_keys=True, default=str), [])
        if fingerprint(run) not in known:
            known.append(fingerprint(run))
        chosen = {
            k: v
            for k, v in settings.items()
            if k.split(".")[1:2] and k.split(".")[1] in _REVIEWS and k[:5] == "data."
        }
        counts = {key: data.get(key) for key in ("source", "sizes", "class_counts")}
        keys.append([chosen, counts, path, known.index(fingerprint(run))])
    return keys


def same_reviews(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs in groups whose losses are of the same reviews, whatever their experiment."""
    groups: dict[str, list[Run]] = {}
    for run, key in zip(runs, _reviews(runs), strict=True):
        groups.setdefault(json.dumps(key, sort_keys=True, default=str), []).append(run)
    return list(groups.values())


def best_of(collection: Collection) -> dict[str, Choice]:
    """Of each regularizer the best model of all runs that were found, see :mod:`gruland.report.choice`.

    Raises:
        ValueError: they are of different reviews, so that their losses do not compare; with the runs of each.
    """
    groups = same_reviews(collection.runs)
    if len(groups) > 1:
        named = "; ".join(_named(group) for group in groups)
        raise ValueError(
            f"the runs were trained on {len(groups)} different data sets or parts of one, and their losses do not "
            f"compare ({named}): give the runs of one"
        )
    return best(models(collection.runs, collection.left_out))


def _named(group: Sequence[Run]) -> str:
    """A group of runs in a few words: the source, the folders that the runs lie in, their number."""
    source = (group[0].results.get("data") or {}).get("source", "unknown source")
    folders = ", ".join(sorted({str(run.path.parent) for run in group}))
    return f"{source} in {folders} ({len(group)} run{'s' * (len(group) > 1)}, the first {group[0].path.name})"
