"""Make a report of finished runs: report.html, which opens from disk without a network, and report.md.

python -m gruland.report outputs/reviews
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gruland.exits import one_line_errors
from gruland.terminal import visible


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m gruland.report", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="run folders, or folders that contain run folders"
    )
    parser.add_argument("--output", metavar="FOLDER", help="where to write (default: the first PATH)")
    parser.add_argument(
        "--wandb", metavar="PROJECT", help="publish pictures and tables to Weights & Biases, too"
    )
    options = parser.parse_args(arguments)
    with one_line_errors():
        from gruland.report import collect, write

        collection = collect(options.paths)
        page = write(collection, Path(options.output or options.paths[0]), options.wandb)
        for path, why in collection.left_out.items():
            print(f"gruland: left out {visible(path)}: {why}", file=sys.stderr)
        print(f"report: {page}")


if __name__ == "__main__":
    main()
