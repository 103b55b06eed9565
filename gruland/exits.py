"""How a command ends: an error that a user can mend is one line on the terminal and an exit status."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from gruland.config import explained
from gruland.errors import USER_ERRORS, one_line


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn a user's error into ``gruland: message`` on stderr and exit status 1.

    ``GRULAND_TRACEBACK=1`` in the environment keeps the traceback.
    """
    try:
        yield
    except BrokenPipeError:  # who reads the output has seen enough, as in `gruland best runs | head -1`
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None
    except USER_ERRORS as error:
        if os.environ.get("GRULAND_TRACEBACK"):
            raise
        message = one_line(error)
        if isinstance(error, HydraException | OmegaConfBaseException):
            message = explained(error)
        print(f"gruland: {message}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("gruland: interrupted; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None
