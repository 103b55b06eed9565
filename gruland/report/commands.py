"""What to type for the numbers of a run: what was typed for it, else worked out from its configuration."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from gruland.config import CONF, compose, has, instantiate
from gruland.report.collect import TYPING_ERRORS, Study, typing_errors
from gruland.report.models import DEFENCE, Model, Place, place_of
from gruland.runs import Run, flat, identity

#: The keys that name files, which a command names by where they lay when it was run.
_FILES = ("data.path", "embedding.path")


def training(study: Study, models: Iterable[Model | Place]) -> list[str]:
    """A command for each model that trains its runs again, or for the first time one of the paper's.

    What was typed stands in a run's ``.hydra/overrides.yaml``; without it the command is worked out.
    """
    lines = []
    for model in models:
        if isinstance(model, Model):
            own = words(model)
            axes = _axes(model, own) if len(model.runs) > 1 else []
            lines.append(_line("gruland.train", [*own, *axes, *_seeds(model.runs)]))
        else:
            base = _base(study.runs[0], study.models[0].others)
            lines.append(_line("gruland.train", [*base, *of_place(model), *_seeds([0])]))
    return lines


def words(model: Model) -> list[str]:
    """The overrides that train a model again but for the seed: what was typed for all of its runs, else worked out."""
    typed = [_typed(run) for run in model.runs.values()]
    if typed[0] is not None and all(other == typed[0] for other in typed):
        return typed[0]
    return list(dict.fromkeys([*_base(next(iter(model.runs.values()))), *_selection(model)]))


def _selection(model: Model) -> list[str]:
    """The overrides that select a model's regularizer, rate and hidden units, and what else it differs in."""
    others = {key: value for key, value in model.others.items() if key != "data.fingerprint"}
    start = [
        *of_place(model.place),
        *([f"{DEFENCE}={text(others.pop(DEFENCE))}"] if DEFENCE in others else []),
    ]
    return [*start, *(_setting(key, value, start) for key, value in others.items())]


def _axes(model: Model, typed: Sequence[str]) -> list[str]:
    """The settings of the regularizer's grid that are not typed: with ``-m`` they would be swept."""
    run, named = next(iter(model.runs.values())), {word.partition("=")[0].lstrip("+") for word in typed}
    axes = {key: OmegaConf.select(run.config, key) for key in instantiate(run.config.regularizer).grid}
    return [f"{key}={text(value)}" for key, value in axes.items() if key not in named]


def _setting(key: str, value: Any, others: Sequence[str]) -> str:
    """The override of a setting beside others; a key that no file has is added by ``++``."""
    return f"{'' if has(_composed(*others), key) else '++'}{key}={text(value)}"


def of_place(place: Place) -> list[str]:
    """The overrides that select a model of the paper's grid."""
    regularizer, rate, units = place
    words = [f"regularizer={text(regularizer)}", f"model.hidden_size={units}"]
    return words + ([f"regularizer.rate={rate!r}"] if rate else [])


def _defence(run: Run) -> list[str]:
    name = run.results["model"].get(DEFENCE)
    return [f"{DEFENCE}={text(str(name))}"] if name else []


def _seeds(seeds: Iterable[int]) -> list[str]:
    known = sorted(seeds)
    return [f"seed={','.join(map(str, known))}", *(["-m"] if len(known) > 1 else [])]


def _typed(run: Run) -> list[str] | None:
    """What Hydra wrote down of the command but for the seed, files by their absolute paths; None without it."""
    import yaml

    try:
        words = yaml.safe_load((run.path / ".hydra" / "overrides.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return None
    kept = [word for word in words if word.split("=")[0].lstrip("+") not in ("seed", *_FILES)]
    return [*kept, *_paths(run)]


def _paths(run: Run) -> list[str]:
    paths = {key: (run.config.get(key.split(".")[0]) or {}).get("path") for key in _FILES}
    return [f"{key}={text(path)}" for key, path in paths.items() if path]


def measuring(module: str, key: str, runs: Sequence[Run]) -> list[str]:
    """Commands that measure finished runs again: ``python -m <module> PATH… [key=value …]``.

    Args:
        key: ``landscape``, or ``attack`` for the paper's typing errors; a setting is named where it is not the
            configuration's.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for run in runs:
        chosen, usual, settings = _typing_errors(run) if key == "attack" else _landscape(run)
        given = [
            f"{name}={text(value)}" for name, value in settings.items() if value != usual.get(name, value)
        ]
        groups.setdefault((*chosen, *given), []).append(str(run.path))
    return [_line(module, [*paths, *given]) for given, paths in groups.items()]


def _landscape(run: Run) -> tuple[list[str], dict[str, Any], dict[str, Any]]:
    """The settings of a run's surface: words before them, what its configuration says, and what was measured."""
    usual = run.config.get("landscape") or {}
    return [], usual, (run.results.get("landscape") or {}).get("settings") or {}


def _typing_errors(run: Run) -> tuple[list[str], dict[str, Any], dict[str, Any]]:
    """The same of its typing errors, as ``name.setting``; a run whose configuration has other attacks chooses these.

    One that was trained with attack=none gets the usual attack, which they are.
    """
    own = run.config.get("attack") or {}
    settings = flat({TYPING_ERRORS: (typing_errors(run) or {}).get("settings") or {}})
    if TYPING_ERRORS in own:
        return [], flat(own), settings
    return [f"attack={TYPING_ERRORS}"] if own else [], _usual_attack(), settings


@cache
def _usual_attack() -> dict[str, Any]:
    return flat(compose(f"attack={TYPING_ERRORS}").attack)


def _base(run: Run, besides: Mapping[str, Any] | None = None) -> list[str]:
    """The overrides that a run's place and seed do not explain: an experiment's file, then the rest.

    Args:
        besides: settings in which the study's models differ, which are left to the experiment.
    """
    files = sorted((CONF / "experiment").glob("*.yaml"))
    starts: list[list[str]] = [[], *([f"experiment={file.stem}"] for file in files)]
    lines = [start + rest for start in starts if (rest := _left_over(run, start, besides or {})) is not None]
    experiment = text(str(run.results["experiment"]))
    return min(lines, key=len) if lines else [f"experiment_name={experiment}"]


def _left_over(run: Run, start: list[str], besides: Mapping[str, Any]) -> list[str] | None:
    """What has to follow ``start`` on the command line; None where the configuration does not say."""
    experiment = str(run.results["experiment"])
    try:
        chosen = [*start, *of_place(place_of(run)), *_defence(run)]
        usual_experiment, usual = _usual(*chosen)
        own = _flat(run.config)
    except (ValueError, KeyError, AttributeError):
        return None
    words = [] if usual_experiment == experiment else [f"experiment_name={text(experiment)}"]
    words += [] if DEFENCE in besides else _defence(run)
    words += [
        _setting(key, value, chosen)
        for key, value in own.items()
        if value != usual.get(key) and key not in besides
    ]
    return words + _paths(run)


#: To compose takes most of a second.
_composed = cache(compose)


@cache
def _usual(*words: str) -> tuple[str, dict[str, Any]]:
    """The experiment's name and the settings that overrides give."""
    composed = _composed(*words)
    return str(composed.experiment_name), _flat(composed)


def _flat(config: Any) -> dict[str, Any]:
    """The settings that determine a model, as ``group.key`` to value."""
    groups = identity(config)
    return {
        f"{name}.{key}": v
        for name, group in groups.items()
        if isinstance(group, dict)
        for key, v in group.items()
    }


def text(value: Any) -> str:
    """A value in Hydra's grammar; a text that it could take for something else is quoted."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(text, value)) + "]"
    if not isinstance(value, str):
        return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    if re.fullmatch(r"[A-Za-z_/.][\w/.\-]*", value, flags=re.ASCII) and value.lower() not in _WORDS:
        return value
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text=value.replace("${", "\\${"), quote=Quote.single).with_quotes()


#: Texts that Hydra's grammar takes for other values.
_WORDS = {"null", "true", "false", "nan", "inf", "."}


def _line(module: str, words: Iterable[str]) -> str:
    """A line for bash and its kin: one line, whatever the words hold, without a backtick or a tag."""
    return " ".join(["python", "-m", module, *map(_shell, words)])


def _shell(word: str) -> str:
    if not re.search(r"[\x00-\x1f\x7f`<>]", word):
        return shlex.quote(word)
    escaped = re.sub(
        r"[\x00-\x1f\x7f`<>]", lambda found: f"\\x{ord(found[0]):02x}", re.sub(r"([\\'])", r"\\\1", word)
    )
    return f"$'{escaped}'"
