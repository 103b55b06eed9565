"""Loss surfaces of finished runs.

python -m gruland.landscape PATH... [key=value ...]             compute and draw them
python -m gruland.landscape export PATH FILE                    .npz, HDF5 or VTP for other tools
python -m gruland.landscape compare PATH... [key=value ...]     compare the models of several runs
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gruland import config
from gruland.errors import USER_ERRORS, one_line
from gruland.exits import one_line_errors
from gruland.terminal import visible

#: Seconds to wait for another process that writes its results of the same run.
_PATIENCE = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute the surface of each run; a run that fails does not keep the others back.

    The first word may be the command ``export`` instead. It is one even where a folder has that name; ``./export`` is
    the folder. So it is with ``compare``, which belongs to :mod:`gruland.report.landscapes`.

    Returns:
        The exit status: 1 where a run failed.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["export"]:
        return _export(words[1:])
    parser = argparse.ArgumentParser(
        prog="python -m gruland.landscape",
        usage="python -m gruland.landscape PATH... [key=value ...] [--config-dir FOLDER]",
        description="Compute the loss surface of finished runs and draw it into their folders. "
        "A surface that is complete is left alone, an interrupted one goes on; workers=4 computes in four processes.",
        epilog="examples: python -m gruland.landscape outputs/reviews size=51 reviews=all; with tolerance=0.01 as "
        "few reviews and cells as keep every cell's loss within 1% of the loss range; plane=trajectory extent=null the "
        "plane of a run's epochs. "
        "Commands: export PATH FILE writes a run's surface for other tools, compare PATH... compares models. "
        "A folder of one of these names is given as ./export or ./compare.",
    )
    parser.add_argument(
        "words", nargs="+", metavar="PATH or key=value",
        help="a run's folder, or a folder of runs; size, extent, plane, normalization, reviews, objective, split, "
        "seed, max_seconds or another key of conf/landscape/default.yaml, over the run's own settings; "
        "landscape=NAME: those of another file of conf/landscape",
    )  # fmt: skip
    parser.add_argument("--config-dir", metavar="FOLDER", help="where a landscape/NAME.yaml of yours lies")
    given = parser.parse_intermixed_args(words)
    paths, settings = config.split(given.words)
    if not paths:
        parser.error("no PATH given: expected a run's folder, or a folder of runs")
    if any(word.startswith(("enabled=", "landscape.enabled=")) for word in settings):
        parser.error("enabled is for gruland.train: this command computes the surface in any case")
    return _compute_all(paths, [*config.searching(given.config_dir), *settings])


def _compute_all(paths: Sequence[str], words: Sequence[str]) -> int:
    from gruland import runs

    failed = 0
    for path in runs.find(*paths):
        try:
            print(visible(_line(path, _compute(path, words))))
        except USER_ERRORS as error:
            failed += 1
            print(f"gruland: {visible(path)}: {one_line(error)}", file=sys.stderr)
    return int(failed > 0)


def _export(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m gruland.landscape export",
        description="Write a loss surface to a file that other tools read; its ending says which.",
    )
    parser.add_argument(
        "path", metavar="PATH", help="a run's folder, or a surface's (surface.zarr), also its address"
    )
    parser.add_argument("file", metavar="FILE", help="where to write it")
    given = parser.parse_args(arguments)
    from gruland.landscape.export import export_surface
    from gruland.landscape.store import is_address, load_surface

    is_surface = is_address(given.path) or Path(given.path).suffix == ".zarr"
    export_surface(load_surface(given.path if is_surface else _surface_of(Path(given.path))), given.file)
    print(given.file)
    return 0


def _surface_of(folder: Path) -> Path:
    """Where a run's surface lies or will lie.

    Raises:
        ValueError: the one that lies there is not what the run wrote, or the run has a later one on its way.
    """
    from gruland import runs

    run, path = runs.Run(folder), folder / "landscape" / "surface.zarr"
    if path.exists():
        run.verified("landscape/surface.zarr")
        if not run.results.get("landscape", {}).get("complete", True):
            raise ValueError(
                f"{folder}: its surface is not complete, the command that computed it goes on; "
                f"export {path} writes the one before it"
            )
    return path


def _compute(path: Path, words: Sequence[str]) -> dict[str, Any]:
    import torch

    from gruland import runs
    from gruland.surfaces import Surface, compute_run

    run = runs.load(path)
    settings = Surface.of(config.over(run.config.landscape, words, "landscape"))
    device = "cuda" if torch.cuda.is_available() else None
    # The run is not locked while it computes: only the surface is.
    return compute_run(run, settings, device=device, writing=lambda: run.locked(_PATIENCE))


def _line(path: Path, results: Mapping[str, Any]) -> str:
    parts = [
        f"{path}: {_cells(results)} over {results['reviews']:,} reviews",
        f"loss {results['center_loss']:.3f} at the centre",
    ]
    if results["min_loss"] is not None:
        parts.append(f"{results['min_loss']:.3f} to {results['max_loss']:.3f} on the surface")
    if results["settings"]["tolerance"] is not None and results["achieved_tolerance"] is not None:
        parts.append(f"each cell within {results['achieved_tolerance']:.2%} of that range (95%)")
    if not results["complete"]:
        parts.append("the time ran out: the same command goes on")
    return ", ".join([*parts, f"{results['seconds']:.0f} s"])


def _cells(results: Mapping[str, Any]) -> str:
    if not results["interpolated"]:
        return f"{results['cells']:,} cells"
    error = results["interpolation_error"]
    within = "with an error that nothing is known about yet"
    if error is not None and math.isfinite(error):
        within = f"within about {error:.2%} of the range"
    return f"{results['evaluated']:,} of {results['cells']:,} cells (the others interpolated {within})"


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
