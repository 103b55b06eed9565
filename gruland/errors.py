"""Errors that a user can mend, and how they read on one line."""

from __future__ import annotations

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

#: What bad input raises here and in the libraries below: anything else is a defect and keeps its traceback.
USER_ERRORS = (ValueError, OSError, ImportError, HydraException, OmegaConfBaseException)


def one_line(error: BaseException) -> str:
    """The error's message on one line, with its type in front where the message alone says too little."""
    message = " ".join(str(error).split())
    return message if message and not isinstance(error, KeyError) else f"{type(error).__name__}: {message}"
