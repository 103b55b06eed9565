"""Runs as models: what differs between configurations, each trained with some seeds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gruland.runs import Run, flat, identity

#: The settings that every model is called by, and what their columns are called.
REGULARIZER, RATE, UNITS = "regularizer", "regularizer.rate", "model.hidden_size"
#: Where some of the models have one.
DEFENCE = "defence"
#: Keys of a regularizer's configuration that its name and rate say already.
_SAID = ("_target_", "name", "rate")
#: The order in which regularizers are shown; others follow by name.
_ORDER = ("none", "zoneout", "dropconnect")


def scores(run: Run, when: str, split: str) -> dict[str, Any]:
    """loss, accuracy, f1, count, loss_se of a ``split`` at the ``best`` or the ``last`` epoch."""
    return run.results["metrics"][when][split]


def title(regularizer: str, own: Any = None) -> str:
    """A regularizer's name as the tables print it: its own where the run recorded one."""
    known = {"none": "No dropout", "dropconnect": "DropConnect"}
    return known.get(regularizer) or str(own or regularizer.replace("_", " ").capitalize())


def method(regularizer: str, rate: float) -> str:
    """For instance ``Zoneout 0.1``."""
    return f"{title(regularizer)}{f' {rate}' if rate else ''}"


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
    def defence(self) -> str:
        """The name of its defence, ``none`` where it has none."""
        return str(next(iter(self.runs.values())).results["model"].get(DEFENCE, "none"))

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
        return f"{self.title}{f' {self.rate}' if self.rate else ''}"

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
        return fingerprint(next(iter(self.runs.values())))

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


def fingerprint(run: Run) -> str:
    return str((run.results.get("data") or {}).get("fingerprint"))


def models(runs: Iterable[Run], left_out: dict[Path, str] | None = None) -> list[Model]:
    """Finished runs as models: those that differ in nothing but their seed are one.

    Args:
        left_out: where a second run of the same model and seed is noted, in a line.

    Raises:
        ValueError: two models would have one label, by which tables and pictures tell them apart.
    """
    left_out = {} if left_out is None else left_out
    groups: dict[str, dict[int, Run]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for run in runs:
        own = settings_of(run)
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
    called: dict[str, Model] = {}
    for model in found:
        if (other := called.setdefault(model.label, model)) is not model:
            one, two = (next(iter(m.runs.values())).path for m in (other, model))
            raise ValueError(
                f"{one} and {two} are of different models that are both called {model.label}: report them apart, or "
                "give their regularizers titles of their own"
            )
    return sorted(found, key=_by_place_and_defence)


def _by_place_and_defence(model: Model) -> tuple[Any, ...]:
    """The sort key: what has no defence comes first, the others are compared with it."""
    return by_place(model.place), model.others.get(DEFENCE, "none") != "none", str(list(model.others.items()))


def settings_of(run: Run) -> dict[str, Any]:
    """The settings that determine a run's model but for its seed, by dotted key, and its data."""
    settings = flat({key: value for key, value in identity(run.config).items() if key != "seed"})
    if target := settings.pop("defence._target_", None):
        settings[DEFENCE] = str(run.results["model"].get(DEFENCE, target))
    return {DEFENCE: "none", **settings, "data.fingerprint": fingerprint(run)[:8]}


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
