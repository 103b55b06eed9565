"""The best model of each regularizer: that of least validation loss, the mean over its seeds.

python -m gruland.best PATH…               its runs' folders, a line each
python -m gruland.best --overrides PATH…        the overrides that train the same model again
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from gruland.exits import one_line_errors
from gruland.terminal import visible


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m gruland.best", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="run folders, or folders of runs")
    parser.add_argument("--overrides", action="store_true", help="print overrides instead of folders")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="NAME",
        help="a class or package besides gruland's that the runs' configurations may name; only what you trust",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    with one_line_errors():
        from gruland.report.collect import best_of, collect
        from gruland.report.commands import words

        collection = collect(options.paths, options.allow)
        chosen = best_of(collection)
        for path, why in collection.left_out.items():
            print(f"gruland: left out {visible(path)}: {why}", file=sys.stderr)
        for choice in chosen.values():
            if options.overrides:
                print(shlex.join(words(choice.model)))
            else:
                print("\n".join(str(run.path) for run in choice.model.runs.values()))


if __name__ == "__main__":
    main()
