"""The checksums by which a reader knows that a run's files are what the run wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gruland.files import content_hash


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
