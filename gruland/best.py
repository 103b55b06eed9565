"""The run of least validation loss of each regularizer.

python -m gruland.best PATH…               its folder, a line each
python -m gruland.best --overrides PATH…        the overrides that train the same cell again
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from gruland import runs
from gruland.errors import one_line_errors


def best(*paths: str | Path) -> dict[str, runs.Run]:
    """From regularizer to its finished run of least validation loss, at or below the paths.

    Raises:
        FileNotFoundError: a path does not exist, or holds no run.
        ValueError: no run is finished, or they were trained on different data: their losses do not compare.
    """
    chosen: dict[str, tuple[float, runs.Run]] = {}
    seen: dict[str, runs.Run] = {}  # by fingerprint, the first run on these data
    for folder in runs.find(*paths):
        run = runs.Run(folder)
        results = run.results
        if results.get("status") != "finished":
            continue
        data = results.get("data") or {}
        seen.setdefault(f"{data.get('source')} ({str(data.get('fingerprint'))[:8]})", run)
        loss, kind = results["metrics"]["best"]["validation"]["loss"], results["model"]["regularizer"]
        if kind not in chosen or loss < chosen[kind][0]:
            chosen[kind] = loss, run
    if not chosen:
        raise ValueError(f"no finished run at or below {', '.join(map(str, paths))}")
    if len(seen) > 1:
        groups = "; ".join(f"{run.path} on {data}" for data, run in seen.items())
        raise ValueError(
            f"the runs were trained on {len(seen)} different data sets or parts of one, and their losses do not "
            f"compare ({groups}): give the runs of one"
        )
    return {kind: run for kind, (_, run) in chosen.items()}


def overrides(run: runs.Run) -> str:
    """What selects the run's cell of the grid on gruland.train's command line."""
    model = run.results["model"]
    line = f"regularizer={model['regularizer']} model.hidden_size={model['hidden_size']}"
    return line if model["regularizer"] == "none" else f"{line} regularizer.rate={model['rate']}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m gruland.best", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="run folders, or folders of runs")
    parser.add_argument("--overrides", action="store_true", help="print overrides instead of folders")
    options = parser.parse_args(arguments)
    with one_line_errors():
        for run in best(*options.paths).values():
            print(overrides(run) if options.overrides else run.path)


if __name__ == "__main__":
    main()
