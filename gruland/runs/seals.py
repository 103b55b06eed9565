"""The checksums by which a reader knows that a run's files are what the run wrote."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from gruland.files import content_hash, json_hash

#: The keys that name files: what these hold counts, not where they lie.
FILES = ("data.path", "data.exclude", "embedding.path", "defence.unlabelled.path")
#: Besides these, what says where things lie: it may be edited after they were moved.
_PLACES = (*FILES, "data.cache_dir", "embedding.cache_dir", "output_dir")
#: How the first line of config.yaml begins, before the checksum of its values.
_SUM = "# sha256: "


def checksums(folder: Path, *patterns: str) -> dict[str, str]:
    """SHA-256 of the files and folders in ``folder`` that match, by their names in it; none that is hidden."""
    found = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    return {
        path.relative_to(folder).as_posix(): content_hash(path)
        for path in found
        if not path.name.startswith(".")
    }


def damaged(folder: Path, known: Mapping[str, str]) -> list[str]:
    """The names of ``known`` whose files are missing, or have another checksum."""
    return [
        name
        for name, digest in known.items()
        if not (folder / name).exists() or content_hash(folder / name) != digest
    ]


def seal_config(text: str) -> str:
    """The text of config.yaml with the checksum of its values in a line before it."""
    config: Any = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    return f"{_SUM}{_hash(config)}\n{text}"


def check_config(path: Path, config: Mapping[str, Any]) -> None:
    """Hold the values of a config.yaml against the checksum in it, where it has one.

    Raises:
        ValueError: they were changed since.
    """
    with path.open(encoding="utf-8") as file:
        first = file.readline().strip()
    if first.startswith(_SUM) and first != f"{_SUM}{_hash(config)}":
        raise ValueError(
            f"{path} is not what the run wrote (its checksum differs): the same gruland.train command writes it anew; "
            "an edit that is meant takes its first line out"
        )


def _hash(config: Mapping[str, Any]) -> str:
    values = deepcopy(dict(config))
    for place in _PLACES:
        *groups, key = place.split(".")
        node: Any = values
        for group in groups:
            node = node.get(group) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.pop(key, None)
    return json_hash(values)
