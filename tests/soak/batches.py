"""Thousands of short cases: some hundred in a child, which may die of one and goes on behind it."""

from __future__ import annotations

import random
import re
import resource
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

from . import children

#: Cases of a child, seconds that a case may take, bytes that a child may ask for beyond what it has.
SIZE, SECONDS, ROOM = 200, 20, 3 << 30

_CASE = re.compile(r"^case (\d+)(?:, (.*))?$", re.MULTILINE)


@dataclass(frozen=True)
class Finding:
    """A case that went wrong."""

    number: int
    what: str


class Hanging(BaseException):
    """A case took longer than it may."""


def run(
    one: Callable[[random.Random], tuple[str, str | None]], numbers: range, seed: str
) -> Iterator[tuple[range, list[Finding]]]:
    """Do the cases; each child's share of them, and what was found in it.

    Args:
        one: does a case with draws of its own; it says what the case was, and what is wrong if anything is.
        seed: with a case's number it gives the draws.
    """
    start = numbers.start
    while start < numbers.stop:
        share = range(start, min(start + SIZE, numbers.stop))
        done = children.call(lambda share=share: _serve(one, share, seed), seconds=60 + SECONDS * len(share))
        told = [(int(number), what) for number, what in _CASE.findall(done.said)]
        found = [Finding(number, what) for number, what in told if what]
        if done.status:
            share = range(start, told[-1][0] + 1 if told else share.stop)
            found.append(Finding(share[-1], f"it ended the process with {done.status}: {done.said[-300:]!r}"))
        yield share, found
        start = share.stop


def _serve(one: Callable[[random.Random], tuple[str, str | None]], numbers: range, seed: str) -> None:
    def hang(number: int, frame: FrameType | None) -> None:
        raise Hanging(f"after {SECONDS} s")

    signal.signal(signal.SIGALRM, hang)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    for number in numbers:
        print(f"case {number}", flush=True)
        signal.alarm(SECONDS)
        name, wrong = one(random.Random(f"{seed}/{number}"))
        signal.alarm(0)
        if wrong:
            print(f"case {number}, {name}: {' '.join(wrong.split())}", flush=True)
