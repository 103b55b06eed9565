"""What a run's folder may ask for: its configuration is data, whoever wrote it.

A configuration names classes (``_target_: gruland.data.TextDataModule``), and Hydra calls whatever is named, be it a
function that starts a program. Of a folder that may have come from elsewhere only the names of :data:`ALLOWED` are
taken, and those that the caller adds::

    runs.load("outputs/reviews/mine-0.1-h128-s0-1a2b3c4d", allow=["my_package.regularizers"])
    GRULAND_ALLOW=my_package.regularizers,my_package.data python -m gruland.landscape outputs/reviews

Nothing else is imported, let alone called.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

#: A class of this name, or any class of this module or package. Functions count only by their own full name.
ALLOWED = (
    "gruland.attack",
    "gruland.classifier.Classifier",
    "gruland.data",
    "gruland.defence",
    "gruland.embedding",
    "gruland.regularizers",
    "gruland.surfaces.Surface",
    "gruland.surfaces.settings.Surface",  # where it lies
    "torch.optim",
)

#: The groups of a configuration that are built from a run's folder; trainer, loggers and callbacks never are.
GROUPS = ("data", "embedding", "model", "regularizer", "defence", "optimizer", "landscape", "attack")

#: A run's config.yaml takes some thousand bytes.
MAX_BYTES, MAX_DEPTH = 1_000_000, 50

_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def check(config: Mapping[str, Any], allow: Iterable[str] = ()) -> None:
    """Refuse a configuration that names a class outside the list, at any depth of :data:`GROUPS`.

    Args:
        config: plain data, as :func:`read_config` returns it.
        allow: modules, classes or functions besides :data:`ALLOWED`, as dotted names.

    Raises:
        ValueError: the first such name, and how to allow it.
    """
    for key in GROUPS:
        for place, target in _targets(config.get(key), key):
            resolve(target, allow, place)


def targets(config: Mapping[str, Any]) -> list[str]:
    """The names in :data:`GROUPS` of a configuration that the caller composed: what he trusts."""
    return [
        target for key in GROUPS for _, target in _targets(config.get(key), key) if isinstance(target, str)
    ]


def _targets(node: Any, place: str) -> Iterable[tuple[str, Any]]:
    """Every ``_target_`` at or below the node, with its dotted key."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "_target_":
                yield f"{place}._target_", value
            else:
                yield from _targets(value, f"{place}.{key}")
    elif isinstance(node, Sequence) and not isinstance(node, str | bytes):
        for index, value in enumerate(node):
            yield from _targets(value, f"{place}.{index}")


def resolve(target: Any, allow: Iterable[str] = (), place: str = "_target_") -> Any:
    """The class or function of an allowed name.

    The name must begin with an entry of the list, for to look an object up is to import its modules, and importing
    runs them. The object's own ``__module__`` and ``__qualname__`` must be on the list, too:
    ``gruland.data.module.os.system`` begins well and is ``posix.system``.

    Raises:
        ValueError: the name is not allowed, or there is no such object.
    """
    named = filter(None, os.environ.get("GRULAND_ALLOW", "").split(","))
    known = (*ALLOWED, *allow, *named)
    refusal = (
        f"{place}={target} is not among the classes that a run's folder may name: if you trust it and know what it "
        "does, allow its module or itself by name (GRULAND_ALLOW=NAME before a command, allow=[NAME] of runs.load)"
    )
    if not isinstance(target, str) or not any(_lies_in(target, entry) for entry in known):
        raise ValueError(refusal)
    found = _look_up(target, place)
    own = f"{getattr(found, '__module__', None)}.{getattr(found, '__qualname__', None)}"
    if not any(_is_allowed(found, own, entry) for entry in known) or _bearer(found) is not found:
        raise ValueError(refusal if own == target else f"{refusal} (it is {own})")
    return found


def _lies_in(name: str, entry: str) -> bool:
    return name == entry or name.startswith(f"{entry}.")


def _is_allowed(found: Any, own: str, entry: str) -> bool:
    if not isinstance(found, type):
        # A function of this package by its own name alone; what the caller allows is allowed as a whole.
        return callable(found) and (own == entry or (entry not in ALLOWED and _lies_in(own, entry)))
    if entry == "torch.optim":
        from torch.optim import Optimizer

        return _lies_in(own, entry) and issubclass(found, Optimizer)
    return _lies_in(own, entry)


def _look_up(name: str, place: str) -> Any:
    """The object of a dotted name; what is no attribute may be a module that was not imported yet."""
    parts = name.split(".")
    try:
        found: Any = import_module(parts[0])
        for index, part in enumerate(parts[1:], 2):
            found = getattr(found, part) if hasattr(found, part) else import_module(".".join(parts[:index]))
    except (ImportError, ValueError, TypeError) as error:
        raise ValueError(f"{place}={name} names nothing that is installed ({error})") from error
    return found


def _bearer(found: Any) -> Any:
    """What really lies where an object says that it was defined: names can be set by anyone."""
    bearer: Any = sys.modules.get(found.__module__)
    for part in found.__qualname__.split("."):
        bearer = getattr(bearer, part, None)
    return bearer


def read_config(path: Path) -> dict[str, Any]:
    """A run's config.yaml as plain data: nothing in it is called, looked up in the environment or multiplied.

    ``${seed}`` stands for the value of that key; every other interpolation is refused, and so are YAML's anchors and
    aliases, by which a small file can hold a large one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no YAML in UTF-8; too large or too deep; an alias; an interpolation.
    """
    remedy = "take config.yaml from a copy of the run, or train again in another output_dir"
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES:,} bytes: a run's configuration is not; {remedy}")
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_aliases(text, path, remedy)
        # OmegaConf's reader, which wrote it: YAML 1.1 alone takes 1e-3 for a text.
        from omegaconf import OmegaConf

        config: Any = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        message = " ".join(str(error).split())
        raise ValueError(f"{path} is not readable YAML ({message}): {remedy}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds a {type(config).__name__}, expected keys and values: {remedy}")
    return _resolved(config, config, path)


def _refuse_aliases(text: str, path: Path, remedy: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH or isinstance(event, yaml.AliasEvent):
            what = f"is nested deeper than {MAX_DEPTH} levels" if depth > MAX_DEPTH else "holds a YAML alias"
            raise ValueError(
                f"{path}, line {event.start_mark.line + 1} {what}: a run's configuration is not so; {remedy}"
            )


def _resolved(node: Any, config: dict[str, Any], path: Path) -> Any:
    """The node with the values in place of references to keys of the same file."""
    if isinstance(node, dict):
        return {key: _resolved(value, config, path) for key, value in node.items()}
    if isinstance(node, list):
        return [_resolved(value, config, path) for value in node]
    if not isinstance(node, str) or "${" not in node:
        return node
    value: Any = config
    match = _REFERENCE.fullmatch(node)
    for key in match[1].split(".") if match else ():
        value = value.get(key) if isinstance(value, dict) else None
    if match is None or value is None or isinstance(value, dict | list) or "${" in str(value):
        raise ValueError(
            f"{path} holds the interpolation {node}: a run's configuration holds values, or names another key's value "
            "as ${key}"
        )
    return value
