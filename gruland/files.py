"""Files that are either whole or absent, their checksums, and what killed processes left of them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

#: Four digits that tell machines apart: a process number means something on its own machine alone.
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:4]
#: The name that :func:`atomic_path` gives: the process, the machine, eight random digits.
TEMPORARY = re.compile(r"\..*-(?P<process>\d+)-(?P<host>[0-9a-f]{4})[0-9a-f]{8}(\.[^.]*)?")
#: The entry of a JSON object, or the attribute of an array's folder, that holds the checksum of all others.
SUM = "sha256"
#: Seconds after which a temporary file of another machine counts as abandoned.
_DAY = 86_400


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` (same suffix); rename it to ``path`` on success, remove it on failure.

    An error of the system that names no file, such as that of a full disk, names ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):  # what went wrong is what is told
            shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink(missing_ok=True)
        if (
            isinstance(error, OSError)
            and error.errno is not None
            and error.filename in (None, str(temporary), temporary)
        ):
            error.filename, error.filename2 = str(path), None
        raise


def discard(folder: Path) -> None:
    """Remove a folder in one step for whoever looks at its name; there need not be one."""
    aside = _temporary(folder)
    with suppress(FileNotFoundError):
        os.rename(folder, aside)
    shutil.rmtree(aside, ignore_errors=True)


def _temporary(path: Path) -> Path:
    """A name beside ``path`` that nobody else has; what a killed process leaves of it is known to be abandoned."""
    return path.with_name(f".{path.stem}-{os.getpid()}-{_HOST}{uuid.uuid4().hex[:8]}{path.suffix}")


def remove_abandoned(folder: Path) -> None:
    """Remove what processes that were killed left of files that they wrote with :func:`atomic_path`."""
    for where, inside, files in os.walk(folder):
        for name in [*inside, *files]:
            match, path = TEMPORARY.fullmatch(name), Path(where, name)
            with suppress(OSError):  # it is gone already, or may not be removed
                if match and _is_abandoned(path, int(match["process"]), match["host"]):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_abandoned(path: Path, process: int, host: str) -> bool:
    if host != _HOST:
        return time.time() - path.stat().st_mtime > _DAY
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # somebody else's
    return False


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files below a folder."""
    if not path.is_dir():
        return file_hash(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    named = [[file.relative_to(path).as_posix(), file_hash(file)] for file in files]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN and infinity stay readable by Python alone.

    An object gets a last entry ``sha256``, by which :func:`read_json` knows it again.
    """
    if isinstance(value, dict):
        value = {**value, SUM: json_hash(value)}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON; an object with the checksum of :func:`write_json` is held against it, and comes without.

    Raises:
        ValueError: the file is no JSON in UTF-8, or another one than was written, with its path and what to do.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # a number of too many digits is a ValueError of its own
        raise ValueError(f"{path} is not valid JSON ({error}): remove it and run again") from error
    if not isinstance(value, dict) or not isinstance(value.get(SUM), str):
        return value
    if value.pop(SUM) != json_hash(value):
        raise ValueError(
            f"{path} is not what was written (its checksum differs): remove it and run again; an edit that is meant "
            f"takes the entry {SUM} out"
        )
    return value


def json_hash(value: Any) -> str:
    """SHA-256 of plain data as JSON holds them, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
