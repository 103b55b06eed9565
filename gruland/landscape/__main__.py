"""Loss surfaces of finished runs.

python -m gruland.landscape PATH... [key=value ...]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gruland.errors import USER_ERRORS, one_line, one_line_errors


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute the surface of each run; a run that fails does not keep the others back.

    Returns:
        The exit status: 1 where a run failed.
    """
    paths, overrides = _parse(arguments)
    from gruland import runs

    failed = 0
    for path in runs.find(*paths):
        try:
            print(_line(path, _compute(path, overrides)))
        except USER_ERRORS as error:
            failed += 1
            print(f"gruland: {path}: {one_line(error)}", file=sys.stderr)
    return int(failed > 0)


def _parse(arguments: Sequence[str] | None) -> tuple[list[str], list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m gruland.landscape",
        description="Compute the loss surface of finished runs and draw it into their folders. "
        "A surface that is complete is left alone, an interrupted one goes on.",
        epilog="examples: python -m gruland.landscape outputs/reviews size=51 reviews=all; with tolerance=0.01 as "
        "few reviews as keep differences to the centre within 1% of the loss range, with interpolation=0.005 as few "
        "cells as interpolate the others within 0.5% of it",
    )
    parser.add_argument("path", nargs="+", metavar="PATH", help="a run's folder, or a folder of runs")
    # Only for the help: argparse cannot tell the two kinds of positional arguments apart.
    parser.add_argument(
        "override", nargs="*", default=[], metavar="key=value",
        help="size, extent, normalization, reviews, seed, precision, tolerance or interpolation, "
        "over the run's own settings",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    words = [*given.path, *given.override]
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    paths = [word for word in words if word not in overrides]
    if not paths:
        parser.error("no PATH given: expected a run's folder, or a folder of runs")
    return paths, overrides


def _compute(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    import torch

    from gruland import runs
    from gruland.landscape.run import compute_run

    run = runs.load(path)
    settings = _settings(run.config.landscape, overrides)
    with run.locked():
        return compute_run(run, settings, device="cuda" if torch.cuda.is_available() else None)


def _settings(own: Any, overrides: Sequence[str]) -> dict[str, Any]:
    """The run's settings with the overrides in place.

    Raises:
        ValueError: an override of something that is no setting, or with a value that cannot be read.
    """
    from omegaconf import OmegaConf
    from yaml import YAMLError

    from gruland.landscape import DEFAULTS

    given: Any = OmegaConf.to_container(own, resolve=True)
    settings = {**DEFAULTS, **given}
    for override in overrides:
        key = override.split("=")[0]
        if key not in settings:
            raise ValueError(f"{override}: expected one of {', '.join(sorted(settings))} before the =")
        try:
            settings[key] = OmegaConf.from_dotlist([override])[key]
        except YAMLError:
            raise ValueError(f"{override}: the value cannot be read, expected a number or a word") from None
    return settings


def _line(path: Path, results: Mapping[str, Any]) -> str:
    parts = [
        f"{path}: {_cells(results)} over {results['reviews']:,} reviews",
        f"loss {results['center_loss']:.3f} at the centre",
        f"{results['min_loss']:.3f} to {results['max_loss']:.3f} on the surface",
    ]
    if results["settings"]["tolerance"] is not None and results["achieved_tolerance"] is not None:
        parts.append(f"differences within {results['achieved_tolerance']:.2%} of that range")
    return ", ".join([*parts, f"{results['seconds']:.0f} s"])


def _cells(results: Mapping[str, Any]) -> str:
    if not results["interpolated"]:
        return f"{results['cells']:,} cells"
    return (
        f"{results['evaluated']:,} of {results['cells']:,} cells (the others interpolated within about "
        f"{results['interpolation_error']:.2%} of the range)"
    )


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
