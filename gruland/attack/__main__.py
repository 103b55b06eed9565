"""Measure finished runs on perturbed reviews again, with other settings where some are given.

python -m gruland.attack outputs/reviews/zoneout-0.1-h128-s0-1a2b3c4d
python -m gruland.attack outputs/reviews rate=0.5 mode=composite      every run below the folder
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from gruland.errors import one_line_errors
from gruland.overrides import overridden, split

_SETTINGS = """settings, each the run's own unless given:
  reviews=200       test reviews
  rate=0.3          swaps of a pass, as a share of the words
  mode=sequence     or composite
  seed=0            of the choice of reviews and of their typing errors
  draws=5           of the masks, for dropout at test time
  dropout_seed=0    of the masks

results.json and attack/texts.csv in each run's folder are replaced."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m gruland.attack",
        usage="python -m gruland.attack PATH... [key=value ...]",
        description=(__doc__ or "").split("\n")[0],
        epilog=_SETTINGS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "arguments", nargs="+", metavar="PATH", help="a finished run's folder, or a folder of runs"
    )
    paths, overrides = split(parser.parse_args(arguments).arguments)
    if not paths:
        parser.error("give at least one run folder")
    with one_line_errors():
        _attack(paths, overrides)


def _attack(paths: Sequence[str], overrides: Sequence[str]) -> None:
    import logging

    from gruland import runs
    from gruland.attack.evaluate import Settings, evaluate_run

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("gruland").setLevel(logging.INFO)
    found = [runs.load(path) for path in runs.find(*paths)]
    every = {field.name: None for field in fields(Settings)}  # an older run's configuration may lack some
    settings = [overridden({**every, **run.config.attack}, overrides) for run in found]
    for one in settings:
        Settings.of(one)  # a typo is refused before the first run is touched
    for run, one in zip(found, settings, strict=True):
        with run.locked():
            print_table(run.path.name, evaluate_run(run, one))


def print_table(name: str, entry: Mapping[str, Any]) -> None:
    """The ``attack`` entry of results.json, on the terminal."""
    print(
        f"{name}: {entry['reviews']} test reviews, {entry['achieved_rate']:.1%} of the words changed, "
        f"{entry['hit_again_rate']:.1%} hit more than once"
    )
    print(f"  {'':10}{'loss':>15}{'accuracy':>10}{'with dropout':>16}{'accuracy':>10}")
    for text, scores in entry["scores"].items():
        print(f"  {text:10}{_cells(scores['plain'], 15)}{_cells(scores['dropout'], 16)}".rstrip())


def _cells(scores: Mapping[str, Any] | None, width: int) -> str:
    if scores is None:
        return ""
    loss = f"{scores['loss']:.3f} ± {scores['loss_se']:.3f}"
    return f"{loss:>{width}}{scores['accuracy']:>10.1%}"


if __name__ == "__main__":
    main()
