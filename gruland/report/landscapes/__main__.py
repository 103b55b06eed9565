"""Compare the loss landscapes of models, each trained with several seeds, over several planes.

python -m gruland.landscape compare PATH... [key=value ...] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from gruland import config
from gruland.exits import one_line_errors


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; the exit status is 0."""
    parser = argparse.ArgumentParser(
        prog="python -m gruland.landscape compare",
        usage="python -m gruland.landscape compare PATH... [key=value ...] [--out FOLDER]",
        description="Loss landscapes of models side by side: surfaces over the same random planes, measures with "
        "intervals over training seeds and planes, Hessian spectra, barriers, paths. What is computed already is kept "
        "in the runs' folders, an interrupted comparison goes on; workers=4 computes planes in four processes.",
        epilog="example: python -m gruland.landscape compare outputs/paper directions=10 reviews=1000",
    )
    parser.add_argument(
        "words", nargs="+", metavar="PATH or key=value",
        help="runs' folders, or folders of runs; directions, curvature, barriers or paths, a setting of a surface "
        "(size, reviews, objective, ...) or another key of conf/comparison.yaml",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="FOLDER", help="where to write (default: comparison, beside the runs)"
    )
    given = parser.parse_intermixed_args(arguments)
    paths, settings = config.split(given.words)
    if not paths:
        parser.error("no PATH given: expected runs' folders, or folders of runs")
    from gruland.report.collect import collect
    from gruland.report.landscapes.compare import SETTINGS, compare

    asked: Any = OmegaConf.to_container(config.over(SETTINGS, settings, "comparison"))
    collection = collect(paths)
    page = compare(collection, asked, folder=Path(given.out) if given.out else _common(paths) / "comparison")
    for path, why in collection.left_out.items():
        print(f"gruland: left out {path}: {why}", file=sys.stderr)
    print(page)
    return 0


def _common(paths: Sequence[str]) -> Path:
    """The folder that all paths are in, or the one path where it is a folder of runs."""
    common = Path(os.path.commonpath([Path(path).absolute() for path in paths]))
    return common.parent if (common / "config.yaml").exists() else common


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
