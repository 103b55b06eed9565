"""Errors that a user can mend, and how they read on one line."""

from __future__ import annotations

import errno

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from gruland.terminal import visible

#: What bad input raises here and in the libraries below: anything else is a defect and keeps its traceback.
USER_ERRORS = (ValueError, OSError, ImportError, HydraException, OmegaConfBaseException)


#: What to do about errors of the system that say only what is wrong.
REMEDIES = {
    errno.ENOSPC: "make room, then the same command goes on",
    errno.EDQUOT: "make room, then the same command goes on",
    errno.EROFS: "give a folder that can be written",
    errno.EIO: "the disk or its connection fails; once it works the same command goes on",
}
#: The longest line of an error: of what quotes a damaged file the middle is left out.
LONGEST = 1000


def one_line(error: BaseException) -> str:
    """The error's message on one line, with its type in front where the message alone says too little."""
    message = visible(" ".join(str(error).split()))
    if isinstance(error, OSError) and error.errno in REMEDIES:
        message = f"{message}: {REMEDIES[error.errno]}"
    if len(message) > LONGEST:
        message = f"{message[: LONGEST // 2]} … {message[-LONGEST // 2 + 3 :]}"
    return message if message and not isinstance(error, KeyError) else f"{type(error).__name__}: {message}"
