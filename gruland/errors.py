"""Errors that a user can mend reach the terminal as one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

#: What bad input raises here and in the libraries below: anything else is a defect and keeps its traceback.
USER_ERRORS = (ValueError, OSError, ImportError, HydraException, OmegaConfBaseException)


def one_line(error: BaseException) -> str:
    """The error's message on one line, with its type in front where the message alone says too little."""
    message = " ".join(str(error).split())
    return message if message and not isinstance(error, KeyError) else f"{type(error).__name__}: {message}"


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn a user's error into ``gruland: message`` on stderr and exit status 1.

    ``GRULAND_TRACEBACK=1`` in the environment keeps the traceback.
    """
    try:
        yield
    except USER_ERRORS as error:
        if os.environ.get("GRULAND_TRACEBACK"):
            raise
        message = one_line(error)
        if isinstance(error, HydraException | OmegaConfBaseException):
            from gruland.config import explained

            message = explained(error)
        print(f"gruland: {message}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("gruland: interrupted; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None
