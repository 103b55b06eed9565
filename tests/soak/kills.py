"""Work that is killed, or whose disk fails: the same command ends as if nothing had been."""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gruland.files import TEMPORARY

from . import children, compositions
from .boundaries import Boundaries
from .work import Room, contents

#: What is noted to save time, and done without where it cannot be written.
NOTES = "cache/hashes/"
#: Exit statuses of work that is done; 4: an attack finds its own numbers suspect, as on a model of three units.
DONE = (0, 4)


@dataclass
class Undisturbed:
    """What a kind of work leaves, how many boundaries it has, at which the disk differs, the seconds that it takes."""

    contents: dict[str, str]
    boundaries: int
    different: list[int]
    seconds: float


def undisturbed(room: Room, kind: str) -> Undisturbed:
    """Do the work three times: to know what it composes, to watch it, to see how long it takes."""
    room.prepare(kind)
    _succeed(room, kind, lambda: room.compose(kind))
    compositions.read(room.base / "composed")
    seen = Boundaries(room.path, compare=True)
    _succeed(room, kind, lambda: _watched(seen, room, kind))
    left, start = contents(room.path), time.perf_counter()
    _succeed(room, kind, lambda: room.do(kind))
    if found := list(differences(left, contents(room.path))):
        raise ValueError(f"{kind} leaves something else each time: {'; '.join(found)}")
    return Undisturbed(left, seen.count, seen.different, time.perf_counter() - start)


def _succeed(room: Room, kind: str, work: Callable[[], int]) -> None:
    room.reset(kind)
    done = children.call(work)
    if done.status not in DONE:
        raise ValueError(f"{kind} does not work undisturbed: {done.said}")


def at_boundary(room: Room, kind: str, whole: Undisturbed, number: int) -> str | None:
    """Kill the work at a boundary; what is wrong afterwards, if anything is."""
    room.reset(kind)
    at = Boundaries(room.path, number)
    killed = children.call(lambda: _watched(at, room, kind))
    if killed.status not in (*DONE, -signal.SIGKILL):
        return f"it ended with {killed.status} instead of being killed: {killed.said}"
    return _finish(room, kind, whole)


def failing(room: Room, kind: str, whole: Undisturbed, number: int) -> str | None:
    """Let a boundary be an error of the disk: full, or broken; what is wrong with what is said or left, if anything."""
    room.reset(kind)
    code = (errno.ENOSPC, errno.EIO)[number % 2]

    def fail() -> None:
        raise OSError(code, os.strerror(code))

    at = Boundaries(room.path, number, fail)
    failed = children.call(lambda: _watched(at, room, kind))
    if "Traceback" in failed.said or (failed.status and failed.status not in (1, *DONE)):
        return f"it ended with {failed.status}: {failed.said}"
    if failed.status == 1 and os.strerror(code) not in failed.said:
        return f"it says not why: {failed.said}"
    if left := [name for name in contents(room.path) if TEMPORARY.fullmatch(name.rpartition("/")[2])]:
        return f"half-written: {left}"
    return _finish(room, kind, whole, noted=failed.status not in DONE)


def at_random(room: Room, kind: str, whole: Undisturbed, draw: random.Random) -> str | None:
    """Kill the work at up to three moments, each time after it was begun again."""
    room.reset(kind)
    for _ in range(draw.randint(1, 3)):
        children.call(lambda: room.do(kind), kill_after=draw.uniform(0, whole.seconds))
    return _finish(room, kind, whole)


def _watched(boundaries: Boundaries, room: Room, kind: str) -> int:
    boundaries.watch()
    return room.do(kind)


def _finish(room: Room, kind: str, whole: Undisturbed, noted: bool = True) -> str | None:
    """Do the work to its end; what differs then from what it leaves undisturbed, notes only where they are to be."""
    done = children.call(lambda: room.do(kind))
    if done.status not in DONE:
        return f"the same command ended with {done.status}: {done.said}"
    left = contents(room.path)
    expected = {
        name: value
        for name, value in whole.contents.items()
        if noted or name in left or not name.startswith(NOTES)
    }
    return "; ".join(differences(expected, left)) or None


def differences(before: dict[str, str], now: dict[str, str]) -> Iterator[str]:
    """In which files two folders differ."""
    for name in sorted(before.keys() | now.keys()):
        if name not in now:
            yield f"{name} is missing"
        elif name not in before:
            yield f"{name} is left behind"
        elif before[name] != now[name]:
            yield f"{name} differs"
