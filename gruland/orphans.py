"""A worker process ends as soon as the process that started it is gone."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

#: ``PR_SET_PDEATHSIG`` of prctl(2).
_PARENT_DEATH_SIGNAL = 1
#: Seconds between two looks whether that process lives.
_LOOK = 0.5


def end_with(parent: int) -> None:
    """End this process once ``parent`` is its parent no longer; what is half-written the next command writes anew.

    A process that is killed (SIGKILL, out of memory) cannot tell its workers. A thread looks after it.
    """

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=look, daemon=True).start()


def terminate_with(parent: int) -> None:
    """In a child that becomes another program: Linux ends that by SIGTERM once ``parent`` is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != parent:  # it went meanwhile
        os._exit(1)
