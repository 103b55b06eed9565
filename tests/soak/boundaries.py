"""The moments at which a process changes what lies on the disk.

Python tells an audit hook of each file that is opened, renamed, removed, ... right before it happens. Files that are
created and those that are half-written are seen by wrapping ``open``. A moment right after a change is the one right
before the next. Between some nothing changes, as where a folder is to be made that is there: to be killed at either is
the same.
"""

from __future__ import annotations

import builtins
import hashlib
import io
import mmap
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

#: Audit events -> where among their arguments a path, and the descriptor of the folder that it is below, stand.
_CHANGES: Mapping[str, tuple[tuple[int, int | None], ...]] = {
    "os.rename": ((0, 2), (1, 3)),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
}


#: Boundaries that a process may have at most.
_MOST = 1 << 16


def kill() -> None:
    """End this process and those of its group, as a machine's end does."""
    os.killpg(0, signal.SIGKILL)


class Boundaries:
    """The boundaries below a folder, counted from 1, of the process that is watched.

    Args:
        folder: what lies elsewhere does not count.
        at: at which one something happens; None: at none.
        then: what happens; it may raise.
        compare: look at what lies below the folder at each, for :attr:`different`.
    """

    def __init__(
        self, folder: Path, at: int | None = None, then: Callable[[], None] = kill, compare: bool = False
    ) -> None:
        self._folder, self._at, self._then = os.path.realpath(folder), at, then
        self._shared = mmap.mmap(-1, 8 + _MOST)  # the parent reads what a forked child counts
        self._process, self._lock = 0, threading.RLock()  # zarr writes in several threads
        self._before: object = None if compare else ...

    @property
    def count(self) -> int:
        """How many were reached."""
        return int(struct.unpack("q", self._shared[:8])[0])

    @property
    def different(self) -> list[int]:
        """At which of them something else lay on the disk than at the one before."""
        return [number for number in range(1, self.count + 1) if self._shared[8 + number]]

    def watch(self) -> None:
        """Watch this process to its end."""
        self._process = os.getpid()
        sys.addaudithook(self._heard)
        real = io.open

        def opened(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
            made = real(file, mode, *rest, **options)
            if set("wxa+") & set(mode) and self._is_within(file):
                self._reach()
                _halve_first_write(made, self._reach)
            return made

        builtins.open = io.open = opened  # type: ignore[assignment]  # overloads
        sync = os.fsync

        def synced(descriptor: int) -> None:
            self._reach()
            sync(descriptor)

        os.fsync = synced

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            written = set(mode or "") & set("wxa+") or (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if written and not isinstance(path, int) and self._is_within(path):
                self._reach()
        elif event in _CHANGES and any(
            self._is_within(arguments[path], arguments[folder] if folder else -1)
            for path, folder in _CHANGES[event]
        ):
            self._reach()

    def _is_within(self, path: Any, folder: int = -1) -> bool:
        if isinstance(path, int) or os.getpid() != self._process:
            return False
        name = os.path.abspath(os.fsdecode(path))
        if folder is not None and folder >= 0:
            name = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
        return name.startswith(f"{self._folder}{os.sep}")

    def _reach(self) -> None:
        with self._lock:
            number = self.count + 1
            self._shared[:8] = struct.pack("q", number)
            if self._before is not ...:
                now = _state(self._folder)
                self._shared[8 + number] = now != self._before
                self._before = now
        if number == self._at:
            self._then()


def _state(folder: str) -> list[tuple[str, bytes]]:
    """What lies below a folder: names, and digests of what is in the files."""
    found = []
    for where, folders, files in os.walk(folder):
        found += [(os.path.join(where, name), b"folder") for name in folders]
        for name in files:
            path = os.path.join(where, name)
            with suppress(FileNotFoundError):  # another thread has just renamed it
                found.append((path, hashlib.sha256(Path(path).read_bytes()).digest()))
    return sorted(found)


def _halve_first_write(file: Any, reach: Callable[[], None]) -> None:
    """Let a file's first write go to the disk in two parts, with a boundary between."""
    write = file.write

    def halved(data: Any) -> int:
        file.write = write
        parts = data if isinstance(data, str) else memoryview(data).cast("B")
        middle = len(parts) // 2
        written = write(parts[:middle])
        file.flush()
        reach()
        return int(written + write(parts[middle:]))

    file.write = halved
