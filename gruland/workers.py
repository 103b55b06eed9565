"""Chunks of work as tasks: in this process, in several of this machine, or on a Ray cluster, with the same results.

What the tasks have in common is one function, which each worker gets once. A task is whatever the function takes. The
process that asks for the results is the only one that keeps them: a killed worker costs the tasks that it was at, and
these are done again by another one.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from gruland.arguments import check_whole
from gruland.orphans import end_with

Task = TypeVar("Task")
Result = TypeVar("Result")

ENGINES = ("local", "ray")
#: How often in a row workers may die without a result in between.
DEATHS = 3


class Done(NamedTuple, Generic[Task, Result]):
    """A task, what came out of it, and the seconds it took where it was done."""

    task: Task
    result: Result
    seconds: float


class Workers(Generic[Task, Result]):
    """Workers that apply one function to tasks; a context manager.

    ::

        with Workers(function, 4) as workers:
            for task, result, seconds in workers.map(tasks):
                ...

    Args:
        function: from a task to its result. It is a function of the task alone, so that the results depend neither on
            the number of workers nor on who died; it is pickled (closures, too) unless it stays in this process.
        number: how many tasks are at work at a time. 1 on ``local`` is this process itself, without any other.
        engine: ``local``, processes of this machine, each with its share of this process's threads; or ``ray``,
            tasks of one core on the cluster that ``RAY_ADDRESS`` names (without it, on one of this machine).
        fork: local processes are copies of this one, of one thread each, which need not import anything; fresh ones
            all the same where the system has no fork or this process uses a GPU.

    Raises:
        ValueError: a number below 1, or an unknown engine.
    """

    def __init__(
        self,
        function: Callable[[Task], Result],
        number: int = 1,
        engine: str = "local",
        *,
        fork: bool = False,
    ) -> None:
        check_workers(number, engine)
        self._function, self._number, self._engine, self._fork = function, number, engine, fork
        self._pool: _Pool | None = None

    @property
    def alone(self) -> bool:
        """Whether the work is done in this process."""
        return self._number == 1 and self._engine == "local"

    def map(self, tasks: Iterable[Task]) -> Iterator[Done[Task, Result]]:
        """Each task with its result, as they come: in order from this process alone, in any order from several.

        A task is asked for when a worker is about to be free for it: ``tasks`` that end early end the work.

        Raises:
            ImportError: the engine is not installed.
            ChildProcessError: workers died again and again.
            Exception: what the function raised.
        """
        if self.alone:
            for task in tasks:
                yield Done(task, *_timed(self._function, task))
            return
        pool = self._started()
        waiting, again, running = iter(tasks), deque[Task](), dict[Hashable, Task]()
        while True:
            while len(running) < pool.ahead * self._number:
                try:
                    task = again.popleft() if again else next(waiting)
                except StopIteration:
                    break
                running[pool.submit(task)] = task
            if not running:
                return
            for handle in pool.wait(running):
                task = running.pop(handle)
                try:
                    outcome = pool.outcome(handle)
                except _WorkerDied:
                    again.append(task)
                else:
                    yield Done(task, *outcome)

    def _started(self) -> _Pool:
        if self._pool is None:
            if self._engine == "ray":
                self._pool = _Ray(self._function, self._number)
            else:
                self._pool = _Processes(self._function, self._number, self._fork)
        return self._pool

    def __enter__(self) -> Workers[Task, Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.stop()
            self._pool = None


def check_workers(number: int, engine: str) -> None:
    """Refuse what :class:`Workers` would.

    Raises:
        ValueError: a number below 1, or an unknown engine.
    """
    check_whole("workers", number, 1)
    if engine not in ENGINES:
        raise ValueError(f"engine={engine}: expected {' or '.join(ENGINES)}")


def _timed(function: Callable[[Task], Result], task: Task) -> tuple[Result, float]:
    start = time.perf_counter()
    return function(task), time.perf_counter() - start


class _WorkerDied(Exception):
    """The task has no result, since its worker was killed."""


class _Pool(Protocol):
    """Where tasks are done."""

    ahead: int  #: tasks that are handed over for each that may be at work, so that no worker waits for the parent

    def submit(self, task: Any) -> Hashable:
        """Begin a task; a handle for what comes of it."""

    def wait(self, handles: Iterable[Any]) -> list[Any]:
        """Those of the handles that have an outcome, at least one."""

    def outcome(self, handle: Any) -> tuple[Any, float]:
        """The result and its seconds; raises what the function raised, or :class:`_WorkerDied`."""

    def stop(self) -> None:
        """End the workers, whatever they are at."""


# -- processes of this machine


class _Processes:
    """A pool of loky's. One that has lost a worker takes no more tasks: another one follows."""

    ahead = 2

    def __init__(self, function: Callable[[Any], Any], number: int, fork: bool = False) -> None:
        import cloudpickle
        import torch

        self._number, self._deaths = number, 0
        self._fork = (
            fork and "fork" in multiprocessing.get_all_start_methods() and not torch.cuda.is_initialized()
        )
        # A copy of this process has the function already.
        self._handed = function if self._fork else cloudpickle.dumps(function)
        self._threads = max(1, torch.get_num_threads() // number)
        self._executor = self._begun()

    def _begun(self) -> Any:
        from joblib.externals.loky import ProcessPoolExecutor

        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        return ProcessPoolExecutor(
            self._number,
            context=multiprocessing.get_context("fork") if self._fork else None,
            initializer=_begin_copy if self._fork else _begin,
            initargs=(self._handed, os.getpid()),
            env=dict.fromkeys(names, str(self._threads)),
        )

    def submit(self, task: Any) -> Any:
        from concurrent.futures.process import BrokenProcessPool

        try:
            return self._executor.submit(_work, task)
        except BrokenProcessPool:
            self._deaths += 1
            if self._deaths > DEATHS:
                raise ChildProcessError(_killed(self._number)) from None
            self._executor.shutdown()
            self._executor = self._begun()
            return self._executor.submit(_work, task)

    def wait(self, handles: Iterable[Any]) -> list[Any]:
        from concurrent.futures import FIRST_COMPLETED, wait

        return list(wait(handles, return_when=FIRST_COMPLETED).done)

    def outcome(self, handle: Any) -> tuple[Any, float]:
        from concurrent.futures.process import BrokenProcessPool

        try:
            found: tuple[Any, float] = handle.result()
        except BrokenProcessPool:  # as of all other tasks that were begun
            raise _WorkerDied from None
        self._deaths = 0
        return found

    def stop(self) -> None:
        self._executor.shutdown(kill_workers=True)


def _killed(number: int) -> str:
    return (
        f"worker processes were killed again and again: expected memory for {number} of them at a time, "
        "give fewer workers; the same call goes on"
    )


_function: Any = None


def _begin(function: Any, parent: int) -> None:
    """In a worker, once."""
    global _function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt of the terminal is the parent's to handle
    end_with(parent)
    _function = function


def _begin_copy(function: Any, parent: int) -> None:
    """In a copy of the parent, once: PyTorch's threads stayed there."""
    import torch

    torch.set_num_threads(1)
    _begin(function, parent)


def _work(task: Any) -> tuple[Any, float]:
    global _function
    if isinstance(_function, bytes):  # here, so that what goes wrong is an error of the task
        _function = pickle.loads(_function)
    try:
        return _timed(_function, task)
    except Exception as error:
        if _can_travel(error):
            raise
        raise RuntimeError(f"{type(error).__name__}: {error}") from None


def _can_travel(error: Exception) -> bool:
    """Whether it reaches another process: one that cannot be pickled would look like a worker that was killed."""
    import cloudpickle

    try:
        pickle.loads(cloudpickle.dumps(error))
    except Exception:
        return False
    return True


# -- a Ray cluster


class _Ray:
    """Tasks of a Ray cluster, which does those of lost workers and nodes again by itself."""

    ahead = 1  # the cluster begins whatever it has cores for

    def __init__(self, function: Callable[[Any], Any], number: int) -> None:
        import cloudpickle

        try:
            import ray
        except ImportError:
            raise ImportError("engine=ray needs Ray: pip install 'gruland[ray]'") from None
        self._ray, self._number, self._own = ray, number, not ray.is_initialized()
        if self._own:
            ray.init(log_to_driver=False)
        self._pickled = ray.put(cloudpickle.dumps(function))
        self._remote = ray.remote(num_cpus=1, max_retries=DEATHS)(_work_on_cluster)

    def submit(self, task: Any) -> Any:
        # In a list the reference stays one: a worker that has the function already need not fetch it.
        return self._remote.remote([self._pickled], task)

    def wait(self, handles: Iterable[Any]) -> list[Any]:
        return list(self._ray.wait(list(handles), num_returns=1)[0])

    def outcome(self, handle: Any) -> tuple[Any, float]:
        try:
            found: tuple[Any, float] = self._ray.get(handle)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except (self._ray.exceptions.WorkerCrashedError, self._ray.exceptions.NodeDiedError):
            raise ChildProcessError(_killed(self._number)) from None
        return found

    def stop(self) -> None:
        if self._own:
            self._ray.shutdown()


_functions: dict[str, Any] = {}


def _work_on_cluster(pickled: list[Any], task: Any) -> tuple[Any, float]:
    import ray

    key = pickled[0].hex()
    if key not in _functions:
        _functions.clear()  # a worker of the cluster outlives what it was made for
        _functions[key] = pickle.loads(ray.get(pickled[0]))
    return _timed(_functions[key], task)
