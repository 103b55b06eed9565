"""Finished runs: one, or all below some folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from gruland.errors import USER_ERRORS, one_line
from gruland.runs.run import Run


def load(path: str | Path, allow: Iterable[str] = ()) -> Run:
    """Open a finished run: the only loader there is.

    Args:
        path: its folder.
        allow: modules, classes or functions that its configuration may name besides this package's, as dotted
            names; only what you trust. See :mod:`gruland.trust`.

    Raises:
        FileNotFoundError: no run lies there.
        ValueError: the run is not finished, or its files are not what they were when it was.
    """
    run = Run(path, allow)
    if not (run.path / "config.yaml").is_file():
        raise FileNotFoundError(
            f"{path} is no run folder (no config.yaml in it): give a folder that gruland.train made"
        )
    if run.results.get("status") != "finished":
        raise ValueError(
            f"{path} is not finished (status {run.results.get('status')}): run gruland.train again"
        )
    run.check()
    return run


def readable(*paths: str | Path, allow: Iterable[str] = ()) -> tuple[list[Run], dict[Path, str]]:
    """The finished runs at or below the paths, and why each of the others is left out, in a line.

    Raises:
        FileNotFoundError: a path does not exist, or holds no run.
    """
    found, refused = [], {}
    for path in find(*paths):
        try:
            found.append(load(path, allow))
        except USER_ERRORS as error:
            refused[path] = one_line(error)
    return found, refused


def find(*paths: str | Path) -> list[Path]:
    """Run folders at or below the paths, in order. What lies in a run or in a hidden folder (``.trash``) is none.

    Raises:
        FileNotFoundError: a path does not exist, or holds no run.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: expected a run folder or a folder of runs")
        here = sorted(folders(path, "config.yaml"))
        if not here:
            raise FileNotFoundError(f"{path} holds no run (no config.yaml at or below it)")
        found += [run for run in here if run not in found]
    return found


def folders(path: Path, *names: str) -> Iterator[Path]:
    """Folders at or below ``path`` that hold one of the files; none that is hidden or inside such a folder."""
    for folder, inside, files in os.walk(path):
        if not set(names).isdisjoint(files):
            inside.clear()  # what loggers keep in a run's folder has such files, too
            yield Path(folder)
        inside[:] = sorted(name for name in inside if not name.startswith("."))
