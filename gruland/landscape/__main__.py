"""``python -m gruland.landscape``: the commands that it hands over to lie in the rooms above this library."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from gruland.exits import one_line_errors


def main(arguments: Sequence[str] | None = None) -> int:
    """The command that the first word names, ``compare``, or else the surfaces of runs."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["compare"]:
        from gruland.report.landscapes.__main__ import main as compare

        return compare(words[1:])
    from gruland.surfaces.__main__ import main as surfaces

    return surfaces(words)


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
