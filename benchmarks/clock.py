"""Times of several candidates, taken in turn, so that whatever slows the machine down slows all of them."""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

#: Called with the number of the repetition; what it returns does not matter unless it is :class:`Seconds`.
Run = Callable[[int], object]
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


class Unavailable(Exception):
    """A candidate that cannot run here, in one line; it is reported as such and never as beaten."""


class Seconds(float):
    """Returned by a run that times the part of itself that counts."""


class Candidate(NamedTuple):
    """Something that is timed, and the setting in which it does best."""

    run: Run
    setting: str = ""


@dataclass
class Timings:
    """What :func:`alternate` saw of each candidate."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """Seconds of one repetition."""
        return statistics.median(self.seconds[name])


def alternate(
    makers: Mapping[str, Callable[[], Candidate]], repetitions: int, clock: str = "wall"
) -> Timings:
    """Build every candidate, run it once to warm up, then ``repetitions`` rounds of one run of each.

    A candidate that raises while it is built or warmed up is left out and its error kept.
    """
    timings, now, candidates = Timings(), CLOCKS[clock], {}
    for name, make in makers.items():
        try:
            candidates[name] = make()
            candidates[name].run(0)
        except Exception as error:
            candidates.pop(name, None)
            timings.errors[name] = reason(error)
    timings.settings = {name: candidate.setting for name, candidate in candidates.items()}
    timings.seconds = {name: [] for name in candidates}
    for repetition in range(repetitions):
        for name, candidate in candidates.items():
            start = now()
            returned = candidate.run(repetition)
            took = returned if isinstance(returned, Seconds) else now() - start
            timings.seconds[name].append(float(took))
    return timings


def fastest(settings: Mapping[str, Run], clock: str = "wall") -> Candidate:
    """The candidate in the setting of which a second run is the shortest."""

    def second_run(run: Run) -> float:
        run(0)
        start = CLOCKS[clock]()
        run(0)
        return CLOCKS[clock]() - start

    if len(settings) == 1:
        return next(Candidate(run, name) for name, run in settings.items())
    name = min(settings, key=lambda name: second_run(settings[name]))
    return Candidate(settings[name], name)


def reason(error: BaseException) -> str:
    """One line that says why a candidate could not be measured."""
    if isinstance(error, Unavailable):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return f"not installed ({error.name})"
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:200]}" if said else type(error).__name__


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in here after so many seconds, where the system can."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"not done within {seconds:.3g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch, and gruland's kernels with it, on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
