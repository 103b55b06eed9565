"""``python -m gruland.landscape``: the commands that it hands over to lie in the rooms above this library."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from gruland.exits import one_line_errors

#: From a command's first word to the module whose ``main`` it is; without one of them the words are runs and settings.
COMMANDS = {"compare": "gruland.report.landscapes.__main__"}
SURFACES = "gruland.surfaces.__main__"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command that the first word names, or else the surfaces of runs; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    module = SURFACES
    if words and words[0] in COMMANDS:
        module = COMMANDS[words.pop(0)]
    status: int = importlib.import_module(module).main(words)
    return status


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
