"""Results on disk, each in a folder that is either whole or absent."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from gruland.files import atomic_path, write_json

T = TypeVar("T")
log = logging.getLogger("gruland")


def cache_folder(configured: str | Path | None = None) -> Path:
    """The cache, made where it is missing: ``configured``, else ``GRULAND_CACHE``, else ``~/.cache/gruland``.

    Raises:
        OSError: it cannot be written.
    """
    folder = Path(configured or os.environ.get("GRULAND_CACHE") or "~/.cache/gruland").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from error
    if not os.access(folder, os.W_OK):
        raise _unusable(folder, PermissionError("no permission to write"))
    return folder


def _unusable(folder: Path, error: OSError) -> OSError:
    return OSError(
        f"the cache folder {folder} cannot be used ({error.strerror or error}): "
        "set data.cache_dir and embedding.cache_dir, or GRULAND_CACHE, to a folder that can be written"
    )


def cached(entry: Path, read: Callable[[Path], T], write: Callable[[Path], None]) -> T:
    """``read(entry)``, after ``write`` has filled the folder once.

    One process at a time works on an entry, the others wait for it. An entry appears by renaming, so that a
    writer that was killed leaves none; one that cannot be read is made again, with a line that says so.
    """
    with FileLock(entry.with_name(f".{entry.name}.lock")):
        if entry.exists():
            try:
                return read(entry)
            except Exception as error:  # whatever a damaged file leads to; a defect shows below
                log.warning("cache: %s is damaged (%s) and is made again", entry, error)
                shutil.rmtree(entry, ignore_errors=True)
        for abandoned in entry.parent.glob(f".{entry.name}-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        with atomic_path(entry) as temporary:
            temporary.mkdir()
            write(temporary)
        return read(entry)


def content_hash(path: Path, cache: Path) -> str:
    """SHA-256 of a file, or of all files of a folder with their names.

    It is remembered in the cache for as long as names, sizes and modification times stay the same.
    """
    files = _files(path)
    key = digest_of(str(path.resolve()), files)
    memory = cache / "hashes" / f"{key[:32]}.json"
    try:
        return str(json.loads(memory.read_text())["hash"])
    except (OSError, ValueError, KeyError):
        digest = digest_of([(name, _file_hash(path / name)) for name, _, _ in files])
        write_json(memory, {"path": str(path), "hash": digest})
        return digest


def _files(path: Path) -> list[tuple[str, int, int]]:
    """Name below ``path`` (none of a file itself), size in bytes, modification time in ns of each file."""
    root = str(path)  # os.walk and strings: pathlib takes seconds over aclImdb's 100,000 files
    found = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
    stats = [(file[len(root) + 1 :], os.stat(file)) for file in (sorted(found) if path.is_dir() else [root])]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(*values: Any) -> str:
    """SHA-256 of plain data."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
