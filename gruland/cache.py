"""Results on disk, each in a folder that is either whole or absent, and checked when it is read."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from gruland.files import atomic_path, json_hash, read_json, remove_abandoned, write_json

T = TypeVar("T")
log = logging.getLogger("gruland")

#: The file of an entry that holds the checksum of each other file in it.
CHECKSUMS = "checksums.json"

#: Seconds after its last change in which a file may change again without another time stamp.
TICK = 2.0


def cache_folder(configured: str | Path | None = None) -> Path:
    """The cache, made where it is missing: ``configured``, else ``GRULAND_CACHE``, else ``~/.cache/gruland``.

    A filled cache may be read-only: what lies in it is read.

    Raises:
        OSError: it is missing and cannot be made.
    """
    folder = Path(configured or os.environ.get("GRULAND_CACHE") or "~/.cache/gruland").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from error
    return folder


def _unusable(folder: Path, error: OSError) -> OSError:
    return OSError(
        f"the cache folder {folder} cannot be used ({error.strerror or error}): "
        "set data.cache_dir and embedding.cache_dir, or GRULAND_CACHE, to a folder that can be written"
    )


def cached(entry: Path, read: Callable[[Path], T], write: Callable[[Path], None]) -> T:
    """``read(entry)``, after ``write`` has filled the folder once.

    One process at a time writes an entry, the others wait for it. An entry appears by renaming, so that a writer
    that was killed leaves none. It carries the checksums of its files: an entry of which a bit was flipped, or that
    cannot be read, is made again, with a line that says so.

    Raises:
        OSError: the entry has to be written, and the cache cannot be.
    """
    # A whole entry needs no lock, which a cache without write permission could not give.
    with suppress(Exception):
        return _read_checked(entry, read)
    _refuse_unwritable(entry.parent)
    with FileLock(entry.with_name(f".{entry.name}.lock")):
        if entry.exists():
            try:
                return _read_checked(entry, read)
            except Exception as error:  # whatever a damaged file leads to; a defect shows below
                log.warning("cache: %s is damaged (%s) and is made again", entry, error)
                shutil.rmtree(entry, ignore_errors=True)
        for abandoned in entry.parent.glob(f".{entry.name}-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        with atomic_path(entry) as temporary:
            temporary.mkdir()
            write(temporary)
            write_json(temporary / CHECKSUMS, _checksums(temporary))
        return read(entry)


def _read_checked(entry: Path, read: Callable[[Path], T]) -> T:
    expected, found = read_json(entry / CHECKSUMS), _checksums(entry)
    if wrong := sorted(
        name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
    ):
        raise ValueError(f"{wrong[0]} is not what was written")
    return read(entry)


def _checksums(folder: Path) -> dict[str, int]:
    """CRC-32 of each file below ``folder``, by its name there.

    It finds every flipped bit and is twice as fast as SHA-256, which counts: each start checks the vectors (80 MB
    of the packaged ones, 2.6 GB of the largest GloVe).
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / CHECKSUMS)
    return {path.relative_to(folder).as_posix(): _checksum(path) for path in files}


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            value = zlib.crc32(part, value)
    return value


def _refuse_unwritable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from error
    if not os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise _unusable(folder, PermissionError("no permission to write"))


def content_hash(files: Path | Sequence[Path], cache: Path) -> str:
    """SHA-256 of a file, or of several with their names below the folder that they share.

    It is remembered in the cache for as long as names, sizes and time stamps stay the same. Among these is the time
    of the last change (ctime), which no program can set back: labels that are changed in place are seen, whatever
    the file's size and modification time say.
    """
    # Strings: pathlib takes seconds over the 50,000 files of aclImdb.
    paths = [os.path.abspath(path) for path in ([files] if isinstance(files, Path) else sorted(files))]
    root = os.path.commonpath(paths) if paths else ""
    names = [path[len(root) + 1 :] for path in paths]  # a single file has none
    stats = [os.stat(path) for path in paths]
    key = digest_of(paths, [(s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for s in stats])
    memory = cache / "hashes" / f"{key[:32]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        remembered = read_json(memory)
        if remembered["check"] == digest_of(key, remembered["hash"]):
            return str(remembered["hash"])
    digest = digest_of([(name, _file_hash(path)) for name, path in zip(names, paths, strict=True)])
    if time.time() - max((s.st_ctime for s in stats), default=0) > TICK:
        with suppress(OSError):  # a cache without write permission: the next start counts once more
            remove_abandoned(memory.parent)
            write_json(memory, {"path": root, "hash": digest, "check": digest_of(key, digest)})
    return digest


def _file_hash(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(*values: Any) -> str:
    """SHA-256 of plain data."""
    return json_hash(values)
