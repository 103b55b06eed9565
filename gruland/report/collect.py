"""Run folders become models: what differs between configurations, each trained with some seeds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gruland.errors import USER_ERRORS, one_line
from gruland.runs import Run, flat, folders, identity

if TYPE_CHECKING:
    import pandas as pd

    from gruland.report.choice import Choice

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
#: The settings that every model is called by, and what their columns are called.
REGULARIZER, RATE, UNITS = "regularizer", "regularizer.rate", "model.hidden_size"
#: Where some of the models have one.
DEFENCE = "defence"
#: Keys of a regularizer's configuration that its name and rate say already.
_SAID = ("_target_", "name", "rate", "zoneout", "dropconnect")
#: Settings that choose the reviews; with others of these, losses are of other test reviews.
_REVIEWS = ("source", "split", "split_seed", "limit")
#: The order in which regularizers are shown; others follow by name.
_ORDER = ("none", "zoneout", "dropconnect")


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
        first = next(iter(left_out.values()))
        raise ValueError(
            f"none of the {len(left_out)} runs in {where} is finished (the first: {first}): run them again"
        )
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


def scores(run: Run, when: str, split: str) -> dict[str, Any]:
    """loss, accuracy, f1, count, loss_se of a ``split`` at the ``best`` or the ``last`` epoch."""
    return run.results["metrics"][when][split]


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
    return attacks(run).get("typing_errors")


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


def title(regularizer: str, own: Any = None) -> str:
    """A regularizer's name as the tables print it: its own where the run recorded one."""
    known = {"none": "No dropout", "dropconnect": "DropConnect"}
    return known.get(regularizer) or str(own or regularizer.replace("_", " ").capitalize())


def method(regularizer: str, rate: float) -> str:
    """For instance ``Zoneout 0.1``."""
    return f"{title(regularizer)}{f' {rate:g}' if rate else ''}"


class Place(NamedTuple):
    """A place in the paper's grid of models."""

    regularizer: str
    rate: float
    hidden_size: int

    @property
    def label(self) -> str:
        """For instance ``Zoneout 0.1, H=128``."""
        return f"{method(self.regularizer, self.rate)}, H={self.hidden_size}"


@dataclass(frozen=True, eq=False)
class Model:
    """A configuration, trained once for each seed.

    Attributes:
        factors: regularizer, rate, hidden units, and every other setting in which the models that were collected
            together differ, by dotted key: ``{"regularizer": "zoneout", "regularizer.rate": 0.1, "model.hidden_size":
            128, "optimizer.lr": 0.01}``.
        runs: from training seed to run, rising.
    """

    factors: Mapping[str, Any]
    runs: Mapping[int, Run]

    @property
    def regularizer(self) -> str:
        return self.factors[REGULARIZER]

    @property
    def rate(self) -> float:
        return self.factors[RATE]

    @property
    def hidden_size(self) -> int:
        return self.factors[UNITS]

    @property
    def place(self) -> Place:
        """Regularizer, rate and hidden units: what the paper's grid has."""
        return Place(self.regularizer, self.rate, self.hidden_size)

    @property
    def others(self) -> dict[str, Any]:
        """The factors besides those of :attr:`place`."""
        return {key: value for key, value in self.factors.items() if key not in (REGULARIZER, RATE, UNITS)}

    @property
    def title(self) -> str:
        """The regularizer as the tables print it."""
        return title(
            self.regularizer, next((run.results["model"].get("title") for run in self.runs.values()), None)
        )

    @property
    def method(self) -> str:
        """For instance ``Zoneout 0.1``."""
        return f"{self.title}{f' {self.rate:g}' if self.rate else ''}"

    @property
    def setting(self) -> str:
        """For instance ``H=128, lr=0.01``."""
        return ", ".join([f"H={self.hidden_size}", *(f"{head(k)}={v}" for k, v in self.others.items())])

    @property
    def label(self) -> str:
        """For instance ``Zoneout 0.1, H=128``."""
        return f"{self.method}, {self.setting}"

    @property
    def data(self) -> str:
        """A hash of the data that its runs share: word ids, labels and vectors."""
        return _fingerprint(next(iter(self.runs.values())))

    def values(self, when: str, split: str, key: str = "loss") -> dict[int, float]:
        """A score of each seed that has it."""
        found = {seed: scores(run, when, split).get(key) for seed, run in self.runs.items()}
        return {seed: float(value) for seed, value in found.items() if value is not None}


def head(factor: str) -> str:
    """A factor's name in a table: ``optimizer.lr`` -> ``lr``."""
    return {UNITS: "units"}.get(factor, factor.rpartition(".")[2])


def by_place(place: Place) -> tuple[Any, ...]:
    """The sort key of a model: regularizer, hidden units, rate."""
    regularizer, rate, hidden_size = place
    return (
        (_ORDER.index(regularizer) if regularizer in _ORDER else len(_ORDER)),
        regularizer,
        hidden_size,
        rate,
    )


def place_of(run: Run) -> Place:
    """Regularizer, rate and hidden units of a run."""
    model = run.results["model"]
    return Place(str(model["regularizer"]), float(model.get("rate") or 0), int(model["hidden_size"]))


def _order(run: Run) -> tuple[Any, ...]:
    return run.results["experiment"], by_place(place_of(run)), run.results["seed"], str(run.path)


def _fingerprint(run: Run) -> str:
    return str((run.results.get("data") or {}).get("fingerprint"))


def models(runs: Iterable[Run], left_out: dict[Path, str] | None = None) -> list[Model]:
    """Finished runs as models: those that differ in nothing but their seed are one.

    Args:
        left_out: where a second run of the same model and seed is noted, in a line.
    """
    left_out = {} if left_out is None else left_out
    groups: dict[str, dict[int, Run]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for run in runs:
        own = _settings(run)
        key = json.dumps(own, sort_keys=True, default=str)
        seeds, seed = groups.setdefault(key, {}), int(run.results["seed"])
        settings[key] = own
        if seed in seeds:
            left_out[run.path] = f"the same model and seed as {seeds[seed].path}"
        else:
            seeds[seed] = run
    differing = [
        key for key in sorted({k for own in settings.values() for k in own}) if _differs(key, settings)
    ]
    found = []
    for key, seeds in groups.items():
        regularizer, rate, units = place_of(next(iter(seeds.values())))
        factors = {REGULARIZER: regularizer, RATE: rate, UNITS: units}
        factors |= {factor: settings[key][factor] for factor in differing if factor in settings[key]}
        found.append(Model(factors, dict(sorted(seeds.items()))))
    return sorted(found, key=lambda model: (by_place(model.place), str(list(model.others.items()))))


def _settings(run: Run) -> dict[str, Any]:
    """The settings that determine a run's model but for its seed, by dotted key, and its data."""
    settings = flat({key: value for key, value in identity(run.config).items() if key != "seed"})
    if target := settings.pop("defence._target_", None):
        settings[DEFENCE] = str(run.results["model"].get(DEFENCE, target))
    return {DEFENCE: "none", **settings, "data.fingerprint": _fingerprint(run)[:8]}


def _differs(key: str, settings: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a setting tells models apart that regularizer, rate, units and the settings of the data do not."""
    group, _, name = key.partition(".")
    if key == UNITS or (group == "regularizer" and name in _SAID):
        return False
    # A regularizer's own setting is absent from another's.
    of_all = group not in ("regularizer", DEFENCE) or key == DEFENCE
    values = {
        json.dumps(own.get(key), sort_keys=True, default=str)
        for own in settings.values()
        if of_all or key in own
    }
    if key != "data.fingerprint" or len(values) < 2:
        return len(values) > 1
    # Other data are told by the settings that make them where these differ, else by their hash.
    by_settings: dict[str, set[str]] = {}
    for own in settings.values():
        made_of = {k: v for k, v in own.items() if k != key and k.startswith(("data.", "embedding."))}
        by_settings.setdefault(json.dumps(made_of, sort_keys=True, default=str), set()).add(own[key])
    return any(len(prints) > 1 for prints in by_settings.values())


def references(models: Sequence[Model]) -> dict[Model, Model]:
    """What each model is compared with: like with like where that can be.

    It is the model without a regularizer that agrees in everything else; where there is none, the first model, and the
    difference is then one of sizes or other settings, too. Others without a regularizer are compared with the first.
    """
    plain = {_but_regularizer(model): model for model in reversed(models) if model.regularizer == "none"}
    first = models[0]
    return {
        model: plain.get(_but_regularizer(model), first) if model.regularizer != "none" else first
        for model in models
        if model is not first
    }


def _but_regularizer(model: Model) -> str:
    others = {key: value for key, value in model.others.items() if not key.startswith("regularizer")}
    return json.dumps([model.hidden_size, others], sort_keys=True, default=str)


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
        from gruland.report.choice import best

        return best(self.models)

    @property
    def best_models(self) -> list[Model]:
        """The models that were chosen."""
        return [choice.model for choice in self.best.values()]

    @cached_property
    def references(self) -> dict[Model, Model]:
        """See :func:`references`."""
        return references(self.models)

    def at(self, place: Place) -> Model | None:
        """The model with this regularizer, rate and hidden units; of several, the one of least validation loss."""
        from gruland.report.choice import choose

        found = [model for model in self.models if model.place == place]
        return choose(found).model if found else None


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
        settings, data = _settings(run), run.results.get("data") or {}
        path = paths.setdefault(_fingerprint(run), (run.config.get("data") or {}).get("path"))
        made_of = {
            k: v
            for k, v in settings.items()
            if k.startswith(("data.", "embedding.")) and k[5:] != "fingerprint"
        }
        known = contents.setdefault(json.dumps([path, made_of], sort_keys=True, default=str), [])
        if _fingerprint(run) not in known:
            known.append(_fingerprint(run))
        chosen = {
            k: v
            for k, v in settings.items()
            if k.split(".")[1:2] and k.split(".")[1] in _REVIEWS and k[:5] == "data."
        }
        counts = {key: data.get(key) for key in ("source", "sizes", "class_counts")}
        keys.append([chosen, counts, path, known.index(_fingerprint(run))])
    return keys


def same_reviews(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs in groups whose losses are of the same reviews, whatever their experiment."""
    groups: dict[str, list[Run]] = {}
    for run, key in zip(runs, _reviews(runs), strict=True):
        groups.setdefault(json.dumps(key, sort_keys=True, default=str), []).append(run)
    return list(groups.values())
