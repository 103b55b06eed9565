"""Words ``key=value`` on a command line: told from paths, and put into settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The paths and the overrides among the words; one with an = in it is a path where there is such a file."""
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    return [word for word in words if word not in overrides], overrides


def overridden(settings: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of the settings with the overrides in place, values as YAML has them.

    Raises:
        ValueError: an override of something that is no setting, or with a value that cannot be read.
    """
    from yaml import YAMLError

    result = dict(settings)
    for override in overrides:
        key = override.split("=")[0]
        if key not in result:
            raise ValueError(f"{override}: expected one of {', '.join(sorted(result))} before the =")
        try:
            result[key] = _value(override)
        except YAMLError:
            raise ValueError(
                f"{override}: the value cannot be read, expected a number, a word or a [list]"
            ) from None
    return result


def _value(override: str) -> Any:
    from omegaconf import OmegaConf

    key, _, text = override.partition("=")
    if text.startswith("*"):  # a pattern, not YAML's alias
        return text
    settings: Any = OmegaConf.to_container(OmegaConf.from_dotlist([override]))
    return settings[key]
