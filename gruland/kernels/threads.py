"""What several Python threads that run kernels at the same time share: locks, and what happens once in a process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from functools import wraps
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Lock:
    """A reentrant lock that a forked process finds open, whichever thread held it: that thread is not forked."""

    def __init__(self) -> None:
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()


class once(Generic[T]):
    """A function that runs once for each arguments; threads that ask meanwhile wait for the result.

    ``functools.cache`` would run it in each of them.
    """

    def __init__(self, function: Callable[..., T]) -> None:
        self._function, self._lock, self._results = function, Lock(), dict[Hashable, T]()
        wraps(function)(self)

    def __call__(self, *arguments: Hashable) -> T:
        if arguments not in self._results:
            with self._lock:
                if arguments not in self._results:
                    self._results[arguments] = self._function(*arguments)
        return self._results[arguments]

    def cache_clear(self) -> None:
        """Let it run again."""
        self._results.clear()
