"""The configuration: where it lies, how it is composed, and how its groups become objects.

Each option of each group names a class (``_target_``), and its keys are that class's arguments. What an argument may
be the class itself says when it is built; here every key is held against the class's signature.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from hydra.utils import get_object
from hydra.utils import instantiate as hydra_instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gruland.errors import one_line

log = logging.getLogger("gruland")

_PACKAGE = Path(__file__).parent

#: In a wheel the configuration lies inside the package, in a checkout beside it.
CONF = next(p for p in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if p.is_dir())

#: What a key was called before, and how the same is said now.
RENAMED = {
    "attack.enabled": "attack=none, or attack=typing_errors",
    "attack.reviews": "attack.typing_errors.reviews",
    "attack.rate": "attack.typing_errors.rate",
    "attack.mode": "attack.typing_errors.mode",
    "attack.seed": "attack.typing_errors.seed",
    "attack.draws": "attack.typing_errors.draws",
    "attack.dropout_seed": "attack.typing_errors.dropout_seed",
    "trainer.threads": "threads=2",
    "trainer.keep_epochs": "callbacks=[default,epoch_weights]",
    "logger.name": "logger=tensorboard or logger=[csv,tensorboard]",
}
#: What Hydra's ``instantiate`` reads itself.
_HYDRA = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}
#: How Hydra says that a group has no such option, alone or in a list.
_OPTION = re.compile(r"Could not (?:find|load) '(.+)/(.*?)'")
_OPTIONS = re.compile(r"Available options in '.+':\s+((?:\t.+\s+)+)Config search path")
#: Groups of which several options may be chosen at once.
_SEVERAL = {"attack", "callbacks", "logger"}
#: The largest numbers that weights, seeds and sizes can hold.
_FLOAT32, _INT64 = 3.4028234663852886e38, 2**63 - 1

#: How a plug-in is installed whose own requirements exclude what this package needs (an older cloudpickle).
_INSTALL = {"hydra-ray-launcher": "ray && pip install --no-deps hydra-ray-launcher"}
#: The environment variable by which a job knows how many the sweep has.
SWEEP_JOBS = "GRULAND_SWEEP_JOBS"


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- from words on a command line to a configuration ---


def compose(*overrides: str) -> DictConfig:
    """Compose a configuration as the command line does: ``compose("regularizer=zoneout", "seed=1")``.

    Raises:
        ValueError: an override that names an unknown option or key, or that cannot be read.
    """
    words = typed(overrides)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = resolved(hydra_compose("train", [_forced(override) for override in parse(words)]))
    except ValueError:
        raise
    # Hydra meets some words, such as data=[3,[1]], with errors of its own internals.
    except Exception as error:
        where = "" if isinstance(error, MissingConfigException) else f"cannot compose {' '.join(words)}: "
        raise ValueError(f"{where}{explained(error)}") from error
    check_keys(cfg)
    return cfg


def parse(words: Sequence[str]) -> list[Override]:
    """The words in Hydra's grammar.

    Raises:
        ValueError: a word that is no override.
    """
    result = []
    for word in words:
        override = _parsed(word)
        _refuse_renamed(override.key_or_group)
        _refuse_unknown_top(override)
        _refuse_several(override)
        result.append(override)
    return result


def _parsed(word: str) -> Override:
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{word}: cannot be read ({reason}); a value with special characters is typed as \"key='value'\""
        ) from None


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The paths and the settings among a command's words; one with an = in it is a path where there is such a file."""
    settings = [word for word in words if "=" in word and not Path(word).exists()]
    return [word for word in words if word not in settings], settings


def over(own: Any, words: Sequence[str], group: str) -> DictConfig:
    """A finished run's settings of a group with words over them, e.g. ``over(run.config.attack, words, "attack")``.

    ``attack=mine`` takes the settings of another option of the group in their place. Of the other words the keys may
    stand with the group in front and without, ``landscape.size=51`` and ``size=51``. A key of the run's own that this
    version no longer has is named and left out.

    Raises:
        ValueError: a word that cannot be read, names an unknown option, or gives several values to choose from.
    """
    parsed = [_parsed(word) for word in typed(words)]
    for override in parsed:
        if override.is_sweep_override() or override.is_delete():
            raise ValueError(
                f"{override.input_line}: expected one value; a command on finished runs has no sweep"
            )
    chosen = [o for o in parsed if o.key_or_group == group or o.is_hydra_override()]
    if any(o.key_or_group == group for o in chosen):
        own = compose(*(str(o.input_line) for o in chosen))[group]
    plain = OmegaConf.to_container(own) if OmegaConf.is_config(own) else dict(own)
    whole = DictConfig({group: _without_former(plain, group)})
    try:
        for override in parsed:
            if override not in chosen:
                key = override.key_or_group.removeprefix(f"{group}.")
                OmegaConf.update(whole, f"{group}.{key}", override.value())
        _check_numbers(OmegaConf.to_container(whole, resolve=True))
    except OmegaConfBaseException as error:
        raise ValueError(f"{' '.join(words)}: {explained(error)}") from error
    settings: DictConfig = whole[group]
    return settings


def _without_former(settings: Any, key: str) -> Any:
    """The settings without the keys that their classes do not take: an older version wrote them."""
    if not isinstance(settings, Mapping):
        return settings
    known = _arguments(settings["_target_"], key) if "_target_" in settings else None
    kept = {}
    for name, value in settings.items():
        if known is None or name in known or name in _HYDRA:
            kept[name] = _without_former(value, f"{key}.{name}")
        else:
            log.warning(
                "%s.%s=%s is a key of an older version and left out: this one does without", key, name, value
            )
    return kept


def has(cfg: DictConfig, key: str) -> bool:
    """Whether a configuration has a dotted key, be its value null: ``has(cfg, "defence.unlabelled")``."""
    group, _, name = key.rpartition(".")
    parent = OmegaConf.select(cfg, group) if group else cfg
    return OmegaConf.is_dict(parent) and name in parent


def searching(folder: str | None) -> list[str]:
    """The words by which Hydra finds groups in a folder of the user's, too (``--config-dir``)."""
    return [f"hydra.searchpath=['file://{_escaped(str(Path(folder).absolute()))}']"] if folder else []


def typed(words: Sequence[str]) -> list[str]:
    """The words with the values of paths quoted for Hydra, where its grammar cannot take them as they are typed.

    ``data.path=IMDB (1).csv`` becomes ``data.path='IMDB (1).csv'``; ``data.path=a.csv,b.csv`` stays a sweep over two
    files unless there is one of that name.
    """
    return [_quoted(word) for word in words]


def _quoted(word: str) -> str:
    key, equals, value = word.partition("=")
    # What names a file or a folder: data.path, embedding.path, data.cache_dir, output_dir, landscape.plane.
    if not equals or not re.search(r"(^|[._])(path|dir|plane)$", key) or value.strip()[:1] in ("'", '"'):
        return word
    if value.startswith("[") and not Path(value).exists():  # a list
        return word
    try:
        plain = not OverridesParser.create().parse_override(word).is_sweep_override()
    except HydraException:
        plain = False
        if re.fullmatch(r"(choice|glob)\(.*\)|.*,.*", value) and not Path(value).expanduser().exists():
            pieces = [_quoted(f"{key}={piece}").partition("=")[2] for piece in value.split(",")]
            return f"{key}={','.join(pieces)}"
    else:
        if plain or not Path(value).expanduser().exists():
            return word
    return f"{key}='{_escaped(value)}'"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")


def _forced(override: Override) -> str:
    """An override that Hydra takes even for a key that no file has: :func:`check_keys` refuses it in better words."""
    key, word = override.key_or_group, str(override.input_line)
    plain = override.type == OverrideType.CHANGE and "." in key and not key.startswith("hydra.")
    return f"++{word}" if plain else word


def explained(error: BaseException) -> str:
    """The message of an error of Hydra's or OmegaConf's on one line.

    Of an option that no group has: the nearest one, or the package to install.
    """
    if option := _OPTION.search(str(error)):
        group, name = option.groups()
        listed = _OPTIONS.search(str(error))
        known = listed[1].split() if listed else [path.stem for path in (CONF / group).glob("*.yaml")]
        said = unknown(name, sorted(known))
        if group.startswith("hydra/") and "did you mean" not in said:
            package = f"hydra-{name.split('_')[0]}-{group.removeprefix('hydra/')}"
            said = f"is not installed: pip install {_INSTALL.get(package, package)}"
        return f"{group}={name} {said}"
    text = re.sub(r"\s*(full_key|object_type|reference_type)[:=].*", "", str(error))
    return " ".join(text.split()) or type(error).__name__


def resolved(cfg: DictConfig) -> DictConfig:
    """A copy without interpolations and without Hydra's own part.

    Raises:
        ValueError: an interpolation that leads nowhere.
    """
    whole: Any = OmegaConf.to_container(cfg, resolve=False)
    whole.pop("hydra", None)
    try:
        return DictConfig(OmegaConf.to_container(DictConfig(whole), resolve=True))
    except OmegaConfBaseException as error:
        raise ValueError(explained(error)) from error


# --- from a configuration to objects ---


def instantiate(node: Any, **more: Any) -> Any:
    """The object that a group's settings describe, e.g. ``instantiate(cfg.optimizer)``.

    Args:
        node: settings with a ``_target_``.
        more: arguments that do not come from the configuration.

    Raises:
        ValueError, OSError, ImportError: an unknown key, or what the class says of a value.
    """
    key = str(node._get_full_key(None))
    _check_arguments(OmegaConf.to_container(node, resolve=True), key)
    if taken := sorted(set(more) & set(map(str, node))):
        raise ValueError(f"{key}.{taken[0]} is set by the program itself, leave it out")
    try:
        # In two steps: what Hydra itself is given as an argument it copies, and a list becomes one of its own.
        make = hydra_instantiate(node, _partial_=True, _convert_="all")
        return partial(make, **more) if node.get("_partial_") else make(**more)
    except InstantiationException as error:
        raise _named(error.__cause__ or error, key) from error
    except Exception as error:  # what Lightning or torch think of a value comes in many types
        raise _named(error, key) from error


def instantiate_all(group: DictConfig, **more: Any) -> dict[str, Any]:
    """The objects of a group that holds several by name (``callbacks``, ``logger``), in their order."""
    return {str(name): instantiate(node, **more) for name, node in group.items() if node is not None}


def _named(error: BaseException, key: str) -> BaseException:
    """The error with the full key of the argument that it speaks of."""
    message = one_line(error)
    if re.match(r"[a-z_]+(\[\w+\])?=", message):
        message = f"{key}.{message}"
    elif key.split(".")[0] not in message:
        message = f"{key}: {message}"
    elif isinstance(error, ValueError | OSError | ImportError):
        return error
    return (type(error) if isinstance(error, OSError | ImportError) else ValueError)(message)


def check_keys(cfg: DictConfig) -> None:
    """Refuse keys that nothing reads, in every group and at the top, and numbers that nothing can hold.

    Raises:
        ValueError: with the nearest known key.
    """
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    for name in plain:
        if name not in _top():
            raise ValueError(f"{name} {unknown(name, _top())}")
    for name in _top():
        if name not in plain:
            raise ValueError(f"{name} is missing: leave ~{name} out")
    # The callbacks last: they repeat other groups, whose own keys say more.
    plain = dict(sorted(plain.items(), key=lambda item: item[0] == "callbacks"))
    for key, _ in _leaves(plain):
        _refuse_renamed(key)
    _check_numbers(plain)
    for name, group in plain.items():
        if name in _groups() and not isinstance(group, Mapping | list):
            raise ValueError(f"{name}={group}: expected an option of the group, e.g. {name}={_option(name)}")
        _check_arguments(group, name)


def _check_numbers(settings: Any) -> None:
    for key, value in _leaves(settings):
        if isinstance(value, float) and not abs(value) <= _FLOAT32:
            raise ValueError(f"{key}={value}: expected a finite number that fits in 32 bits")
        if isinstance(value, int) and abs(value) > _INT64:
            raise ValueError(f"{key}={value}: expected a whole number that fits in 64 bits")


def _check_arguments(node: Any, key: str) -> None:
    """Refuse, in every node with a ``_target_``, the keys that the class does not take."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            _check_arguments(item, f"{key}[{index}]")
    if not isinstance(node, Mapping):
        return
    known = _arguments(node["_target_"], key) if "_target_" in node else None
    for name, item in node.items():
        if known is not None and name not in known and name not in _HYDRA:
            raise ValueError(f"{key}.{name} {unknown(str(name), known)}")
        _check_arguments(item, f"{key}.{name}")


def _arguments(target: Any, key: str) -> list[str] | None:
    """The names of a class's arguments; None where it takes any."""
    if callable(target):
        made = target
    elif not isinstance(target, str):
        raise ValueError(f"{key}._target_={target}: expected the name of a class")
    else:
        try:
            made = get_object(str(target))
        except Exception as error:  # whatever the module raises when it is imported
            raise ValueError(f"{key}._target_={target}: cannot be imported ({explained(error)})") from None
    if not callable(made):
        raise ValueError(f"{key}._target_={target}: expected a class or a function")
    try:
        parameters = inspect.signature(made).parameters.values()
    except ValueError:  # a class of Python's own, such as dict, does not say what it takes
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters]


def unknown(name: str, known: Sequence[str]) -> str:
    """The end of a sentence about a key that nothing reads: the nearest known one, or all."""
    if not known:
        return "is unknown: its class takes no setting"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return (
        f"is unknown: did you mean {near[0]}?" if near else f"is unknown: expected one of {', '.join(known)}"
    )


def _refuse_renamed(key: str) -> None:
    if key in RENAMED:
        raise ValueError(f"{key} is no longer a key, give {RENAMED[key]}")


def _refuse_unknown_top(override: Override) -> None:
    """``sed=1`` and ``regulariser=zoneout``: Hydra's own answer to these is to add them with +."""
    name = override.key_or_group.split("@")[0]
    if override.is_delete() and name in _top():
        raise ValueError(f"{name} is missing: leave ~{name} out")
    if not re.search(r"[./]", name) and name not in (*_top(), "experiment"):
        raise ValueError(f"{name} {unknown(name, [*_top(), 'experiment'])}")


def _refuse_several(override: Override) -> None:
    """``regularizer=[zoneout,ar_tar]``: Hydra would put the settings of both into one object."""
    group, value = override.key_or_group, override.value()
    if group in _groups() and group not in _SEVERAL and isinstance(value, list):
        both = "_".join(map(str, value))
        several = f", here {group}={both}" if (CONF / group / f"{both}.yaml").exists() else ""
        hint = f"; several at once are an option of their own{several}" if group == "regularizer" else ""
        raise ValueError(f"{override.input_line}: expected one option{hint}")


@cache
def _groups() -> tuple[str, ...]:
    return tuple(
        sorted(p.name for p in CONF.iterdir() if p.is_dir() and p.name not in ("hydra", "experiment"))
    )


@cache
def _top() -> tuple[str, ...]:
    """The keys of a composed configuration: the groups, and the scalars of train.yaml."""
    own = OmegaConf.load(CONF / "train.yaml")
    return (*_groups(), *(str(key) for key in own if key not in ("defaults", "hydra")))


def _option(group: str) -> str:
    return min(path.stem for path in (CONF / group).glob("*.yaml"))


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{key}[{index}]")
    else:
        yield key, value
