"""What a cluster whose workers die makes of measured durations: the real :class:`~gruland.workers.Workers` on a clock
that is only counted.

The pool below takes the place of processes: a worker does one task at a time, a task is steps of which each that is
done stays done (a training's epochs; a chunk of cells is one step), and death comes to each worker at a constant rate.
Who waits, asks again and gives up is :meth:`Workers.map` itself.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np

from gruland.workers import DEATHS, Workers


@dataclass(frozen=True)
class Cluster:
    """Workers that die.

    Attributes:
        workers: how many there are; one that dies is followed by another.
        deaths_per_minute: the share of them that dies in a minute.
        start: seconds that a new worker needs before its first task: the interpreter, the model, the data.
        retries: deaths that a task may cost before the command gives up; a Slurm job is queued again without end.
        seed: of the deaths.
    """

    workers: int = 1000
    deaths_per_minute: float = 0.01
    start: float = 10.0
    retries: float = DEATHS
    seed: int = 0


@dataclass
class Tally:
    """What it came to; seconds are workers' seconds.

    Attributes:
        tasks, results: asked for, and how many results there were.
        useful: seconds of steps that were done and kept.
        lost: seconds of steps that a death cut short: they are done twice.
        restarts: seconds in which the workers that followed a dead one started.
        deaths: of workers.
        calls: 1, and one more for each time that a task was given up and the same command was typed again.
        seconds: of the clock, from the first start to the last result.
    """

    tasks: int
    results: int = 0
    useful: float = 0.0
    lost: float = 0.0
    restarts: float = 0.0
    deaths: int = 0
    calls: int = 1
    seconds: float = 0.0

    @property
    def twice(self) -> float:
        """The share of the work that is done twice, the start of workers for it included."""
        return (self.lost + self.restarts) / self.useful

    def efficiency(self, workers: int) -> float:
        """Useful seconds beside those that the workers were there."""
        return self.useful / (workers * self.seconds)


@dataclass
class _Pool:
    """Where tasks are done, in the place of gruland.workers._Ray: a lost one is begun again ``retries`` times."""

    cluster: Cluster
    steps: Sequence[Sequence[float]]
    tally: Tally
    clock: float = 0.0
    done: dict[int, int] = field(default_factory=dict)
    died: dict[int, int] = field(default_factory=dict)
    ahead: int = 2  # tasks that each worker has in front of it, as on this machine

    def __post_init__(self) -> None:
        self._draw = np.random.default_rng(self.cluster.seed)
        self._waiting, self._order = deque[int](), count()
        self._free: list[tuple[float, float, int]] = []  # since when, when it dies, who
        self._ends: list[tuple[float, int, float, float, int, int]] = []
        for worker in range(self.cluster.workers):
            self._start(self.clock, worker)

    def _start(self, now: float, worker: int) -> None:
        start = self.cluster.start
        rate = self.cluster.deaths_per_minute / 60
        life = self._draw.exponential(1 / rate) if rate else math.inf
        heapq.heappush(self._free, (now + start, now + start + life, worker))

    def _replace(self, now: float, worker: int) -> None:
        self.tally.deaths += 1
        self.tally.restarts += self.cluster.start
        self._start(now, worker)

    def submit(self, task: int) -> int:
        self._waiting.append(task)
        return task

    def wait(self, handles: Iterable[int]) -> list[int]:
        """Go on to the next task that has an outcome."""
        while True:
            while self._waiting and self._free:
                self._begin(self._waiting.popleft())
            end, _, begun, dies, worker, task = heapq.heappop(self._ends)
            self.clock = max(self.clock, end)
            left = self.steps[task][self.done.get(task, 0) :]
            if end < dies:
                self.tally.useful += sum(left)
                self.done[task] = len(self.steps[task])
                heapq.heappush(self._free, (end, dies, worker))
                return [task]
            self._lose(task, left, end - begun)
            self._replace(end, worker)
            self.died[task] = self.died.get(task, 0) + 1
            if self.died[task] > self.cluster.retries:
                return [task]
            self._waiting.append(task)

    def _begin(self, task: int) -> None:
        since, dies, worker = heapq.heappop(self._free)
        begun = max(since, self.clock)
        if dies <= begun:  # while it had nothing to do
            self._replace(dies, worker)
            self._waiting.appendleft(task)
            return
        end = begun + sum(self.steps[task][self.done.get(task, 0) :])
        heapq.heappush(self._ends, (min(end, dies), next(self._order), begun, dies, worker, task))

    def _lose(self, task: int, left: Sequence[float], worked: float) -> None:
        """What a killed worker had done of a task: the steps that ended are on disk."""
        for step in left:
            if step > worked:
                break
            worked -= step
            self.tally.useful += step
            self.done[task] = self.done.get(task, 0) + 1
        self.tally.lost += worked

    def outcome(self, handle: int) -> tuple[int, float]:
        if self.done.get(handle, 0) < len(self.steps[handle]):
            raise ChildProcessError("worker processes were killed again and again")
        return handle, sum(self.steps[handle])

    def stop(self) -> None:
        """End the workers, whatever they are at."""
        for _, _, begun, _, _, task in self._ends:
            if begun < self.clock:
                self._lose(task, self.steps[task][self.done.get(task, 0) :], self.clock - begun)


class _Simulated(Workers[int, int]):
    def __init__(self, pool: _Pool) -> None:
        super().__init__(int, pool.cluster.workers, "ray")
        self._pool = pool


def simulate(steps: Sequence[Sequence[float]], cluster: Cluster) -> Tally:
    """Do all tasks, typing the command again where it gave up: the tasks without a result are what is left to do.

    Args:
        steps: of each task the seconds of its steps.
    """
    tally, results = Tally(len(steps)), set[Any]()
    pool = _Pool(cluster, steps, tally)
    while len(results) < len(steps):
        try:
            for task, _, _ in _Simulated(pool).map(n for n in range(len(steps)) if n not in results):
                assert task not in results, "a result came twice"
                results.add(task)
        except ChildProcessError:
            pool.stop()
            tally.calls += 1
            again = replace(cluster, seed=cluster.seed + tally.calls)
            pool = _Pool(again, steps, tally, pool.clock, pool.done)
    tally.results, tally.seconds = len(results), pool.clock
    return tally
