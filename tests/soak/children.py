"""A forked child: it has everything imported, and whatever becomes of it the parent goes on."""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple


class Ended(NamedTuple):
    """How a child ended: its exit status, or minus the signal that killed it; and what it said."""

    status: int
    said: str


def call(
    function: Callable[[], int | None],
    *,
    seconds: int = 300,
    kill_after: float | None = None,
    group: bool = True,
) -> Ended:
    """Call a function in a child.

    Args:
        seconds: after which it counts as hanging; SIGALRM ends it.
        kill_after: seconds after which its whole group is killed.
        group: it has a process group of its own.
    """
    gc.freeze()  # a collection in the child would walk, and copy, what is the parent's
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if group:
            with suppress(OSError):  # both do it, and who is second has nothing to do
                os.setpgid(child, child or os.getpid())
        if not child:
            _serve(function, said.fileno(), seconds)
        timer = threading.Timer(kill_after or 0, _kill, (child,))
        if kill_after is not None:
            timer.start()
        try:
            os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it keeps its number until the timer is gone
        except BaseException:
            _kill(child)
            raise
        finally:
            timer.cancel()
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        return Ended(status, said.read().decode(errors="replace"))


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _serve(function: Callable[[], int | None], said: int, seconds: int) -> None:
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115  # until the end
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background has them ignored
    signal.alarm(seconds)
    status = 1
    try:
        status = function() or 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
