"""python -m soak [--kills N] [--damage N] [--malformed N] [--seed S] [--case KIND/...]"""

from __future__ import annotations

import argparse
import logging
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gruland.progress import Progress

from . import batches, kills
from .damage import Kept
from .malformed import Inputs
from .work import KINDS, Room, import_everything

#: What is killed at random moments: the work that is short enough to be killed a thousand times.
RANDOM = ("training", "surface", "estimate", "cache")
#: Of the boundaries that kill, every so many-th has an error of the disk besides.
ERRORS = 3
#: A case, and what is wrong if anything is.
Told = tuple[str, str | None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do all cases, or one; the exit status is 1 where one went wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m soak", description="Kills, damaged files, malformed inputs."
    )
    parser.add_argument(
        "--kills", type=int, default=1000, help="at random moments, besides those at each boundary"
    )
    parser.add_argument("--every", type=int, default=1, help="of the boundaries, every so many-th")
    parser.add_argument("--damage", type=int, default=10_000, help="damaged files")
    parser.add_argument("--malformed", type=int, default=10_000, help="malformed inputs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="kinds of work, separated by commas")
    parser.add_argument("--case", help="one case alone, by the name that it was told under")
    given = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    import_everything()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        room = Room(Path(folder))
        kinds = (
            given.only.split(",") if given.only else [kind for kind, work in KINDS.items() if work.commands]
        )
        return _tell(
            [_one(room, given.case, given.seed)] if given.case else _all(room, kinds, given), given.seed
        )


def _tell(told: Iterator[Told] | Sequence[Told], seed: int) -> int:
    """Say what went wrong as it comes, and how much there was at the end or when it is interrupted."""
    count: dict[str, list[int]] = {}
    try:
        for name, wrong in told:
            done = count.setdefault(name.partition("/")[0], [0, 0])
            done[0] += 1
            if wrong:
                done[1] += 1
                print(f"{name}: {wrong}", flush=True)
    except KeyboardInterrupt:
        print("interrupted")
    print(
        ", ".join(f"{kind}: {n:,} cases, {bad} went wrong" for kind, (n, bad) in count.items()),
        f"(seed {seed})",
    )
    return int(any(bad for _, bad in count.values()))


def _all(room: Room, kinds: Sequence[str], given: argparse.Namespace) -> Iterator[Told]:
    for kind in kinds if given.every else ():
        whole = kills.undisturbed(room, kind)
        numbers = whole.different[:: given.every]
        with Progress(len(numbers), f"kills of {kind}") as progress:
            for number in numbers:
                yield f"kills/{kind}/{number}", kills.at_boundary(room, kind, whole, number)
                progress.advance()
        numbers = whole.different[:: given.every * ERRORS]
        with Progress(len(numbers), f"disk errors of {kind}") as progress:
            for number in numbers:
                yield f"errors/{kind}/{number}", kills.failing(room, kind, whole, number)
                progress.advance()
    killed = [kind for kind in RANDOM if kind in kinds] if given.kills else []
    for place, kind in enumerate(killed):
        whole = kills.undisturbed(room, kind)
        numbers = range(place, given.kills, len(killed))
        with Progress(len(numbers), f"kills of {kind} at random moments") as progress:
            for number in numbers:
                draw = random.Random(f"{given.seed}/{number}")
                yield f"kills/{kind}/random-{number}", kills.at_random(room, kind, whole, draw)
                progress.advance()
    for name, make, count in (("damage", _kept, given.damage), ("malformed", _inputs, given.malformed)):
        if count:
            yield from _batches(name, make(room), range(count), given.seed)


def _batches(name: str, one: Callable[[random.Random], Told], numbers: range, seed: int) -> Iterator[Told]:
    with Progress(len(numbers), name) as progress:
        for share, found in batches.run(one, numbers, f"{seed}/{name}"):
            wrong = {finding.number: finding.what for finding in found}
            for number in share:
                yield f"{name}/{number}", wrong.get(number)
            progress.advance(len(share))


def _one(room: Room, case: str, seed: int) -> Told:
    kind, _, rest = case.partition("/")
    if kind in ("kills", "errors"):
        work, _, number = rest.partition("/")
        whole = kills.undisturbed(room, work)
        if kind == "errors":
            return case, kills.failing(room, work, whole, int(number))
        if number.startswith("random-"):
            draw = random.Random(f"{seed}/{number.removeprefix('random-')}")
            return case, kills.at_random(room, work, whole, draw)
        return case, kills.at_boundary(room, work, whole, int(number))
    one = {"damage": _kept, "malformed": _inputs}[kind](room)
    return next(_batches(kind, one, range(int(rest), int(rest) + 1), seed))


def _kept(room: Room) -> Callable[[random.Random], Told]:
    room.prepare("everything")
    room.reset("everything")
    os.environ["GRULAND_CACHE"] = str(room.path / "cache")
    return Kept(room).damage


def _inputs(room: Room) -> Callable[[random.Random], Told]:
    folder = room.base / "inputs"
    folder.mkdir()
    return Inputs(folder).mutate


if __name__ == "__main__":
    sys.exit(main())
