"""Attack finished runs: as they say themselves, or with other settings or attacks.

python -m gruland.attack outputs/reviews/zoneout-0.1-h128-s0-1a2b3c4d
python -m gruland.attack outputs/reviews rate=0.5 mode=composite      every run below the folder
python -m gruland.attack outputs/reviews attack=[typing_errors,mine] typing_errors.rate=0.5 --config-dir conf
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gruland.errors import USER_ERRORS, one_line, one_line_errors
from gruland.overrides import split

if TYPE_CHECKING:
    from gruland.attack import Attack

_SETTINGS = """settings of an attack, the run's own unless given:
  attack=NAME       or [NAME,NAME]: another file, or several, of conf/attack
  rate=0.5          a setting of the only attack; typing_errors.rate=0.5 where there are several

settings of typing_errors:
  reviews=200       test reviews
  rate=0.3          swaps of a pass, as a share of the words
  mode=sequence     or composite
  seed=0            of the choice of reviews and of their typing errors
  draws=5           of the masks, for dropout at test time
  dropout_seed=0    of the masks

of the command:
  checkpoint=best   or last, epoch-3: the weights that are attacked
  gate.accuracy_under_attack=0.6   or another measure: its least (or greatest) value; a missed one ends with status 3

Flags (an attack's numbers are suspect) end with status 4, a run that failed with status 1.
attacks[NAME] of results.json and attack/NAME/texts.csv in each run's folder are replaced."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. A run that fails, or is not finished, does not keep the others back.

    Returns:
        The exit status: 1 where a run failed, else 3 where a threshold was missed, else 4 where an attack's numbers are
        suspect (:mod:`gruland.attack.flags`).
    """
    parser = argparse.ArgumentParser(
        prog="python -m gruland.attack",
        usage="python -m gruland.attack PATH... [key=value ...] [--config-dir FOLDER]",
        description=(__doc__ or "").split("\n")[0],
        epilog=_SETTINGS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "arguments", nargs="+", metavar="PATH", help="a finished run's folder, or a folder of runs"
    )
    parser.add_argument("--config-dir", metavar="FOLDER", help="where an attack/NAME.yaml of yours lies")
    given = parser.parse_intermixed_args(arguments)
    paths, overrides = split(given.arguments)
    if not paths:
        parser.error("give at least one run folder")
    with one_line_errors():
        return _attack(paths, overrides, given.config_dir)
    return 1


def _attack(paths: Sequence[str], overrides: Sequence[str], config_dir: str | None) -> int:
    import logging

    from gruland import runs
    from gruland.attack import evaluate_run
    from gruland.attack.gate import Verdict

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("gruland").setLevel(logging.INFO)
    own = _parse([word for word in overrides if word.startswith(("gate.", "checkpoint="))])
    overrides = [word for word in overrides if not word.startswith(("gate.", "checkpoint="))]
    which = str(own.pop("checkpoint", "best"))
    verdict = Verdict({key.removeprefix("gate."): value for key, value in own.items()})
    found, left_out = runs.readable(*paths)
    # A typo is refused before the first run is touched.
    attacks = [_attacks(run.config.attack, overrides, config_dir) for run in found]
    for run, chosen in zip(found, attacks, strict=True):
        try:
            with run.locked():
                model = run.load_model(which).to(_device())
                entries = evaluate_run(run, chosen, model=model, which=which)
            verdict.add(run.path.name, entries)
        except USER_ERRORS as error:
            left_out[run.path] = one_line(error)
            continue
        for name, entry in entries.items():
            print_table(f"{run.path.name}, {name.replace('_', ' ')}", entry)
    for path, reason in left_out.items():
        print(f"gruland: {path}: {reason}", file=sys.stderr)
    for line in verdict.lines:
        print(f"gruland: {line}", file=sys.stderr)
    return int(bool(left_out)) or verdict.status


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _attacks(own: Any, overrides: Sequence[str], config_dir: str | None) -> dict[str, Attack]:
    """The attacks of a run's configuration, or the chosen ones, with the settings that were given.

    Raises:
        ValueError: an option, a key or a value that does not exist.
    """
    from omegaconf import DictConfig, OmegaConf

    from gruland.attack import build

    choice = [word for word in overrides if word.startswith("attack=")]
    settings: Any = OmegaConf.to_container(own)
    if choice or not settings:
        settings = OmegaConf.to_container(_compose(choice, config_dir).attack)
    for key, value in _parse([word for word in overrides if word not in choice]).items():
        name, _, field = key.rpartition(".")
        name = name or (next(iter(settings)) if len(settings) == 1 else "")
        known = [
            f"{attack}.{name}" for attack, node in settings.items() for name in node if name != "_target_"
        ]
        if f"{name}.{field}" not in known:
            expected = [word.partition(".")[2] for word in known] if len(settings) == 1 else known
            raise ValueError(f"{key}={value}: expected one of {', '.join(expected)} before the =")
        settings[name][field] = value
    return build(DictConfig({"attack": settings}).attack)


def _compose(overrides: Sequence[str], config_dir: str | None) -> Any:
    from gruland import config

    where = [f"hydra.searchpath=[file://{Path(config_dir).absolute()}]"] if config_dir else []
    return config.compose(*where, *overrides)


def _parse(overrides: Sequence[str]) -> dict[str, Any]:
    """Keys and values by Hydra's grammar."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    result = {}
    for word in overrides:
        try:
            (parsed,) = OverridesParser.create().parse_overrides([word])
        except HydraException as error:
            raise ValueError(f"{word}: the value cannot be read ({str(error).splitlines()[0]})") from error
        if parsed.is_sweep_override() or parsed.is_delete():
            raise ValueError(f"{word}: expected one value; a command on finished runs has no sweep")
        result[parsed.key_or_group] = parsed.value()
    return result


def print_table(title: str, entry: Mapping[str, Any]) -> None:
    """An entry of ``attacks`` in results.json, on the terminal."""
    rates = {"achieved_rate": "of the words changed", "hit_again_rate": "hit more than once"}
    said = [f"{entry[key]:.1%} {words}" for key, words in rates.items() if key in entry]
    print(", ".join([f"{title}: {entry['reviews']} test reviews", *said]))
    from gruland.report.terminal import lines

    rows = [["", "loss", "accuracy", "loss with dropout", "accuracy with dropout"]]
    for text, scores in entry["scores"].items():
        rows.append([text, *_cells(scores["plain"]), *_cells(scores["dropout"])])
    print("\n".join(f"  {line}" for line in lines(rows, 78)))
    if "measures" in entry:
        measured = [
            [name.replace("_", " "), *_measure(value)] for name, value in entry["measures"].items() if value
        ]
        print("\n".join(f"  {line}" for line in lines([["", "", "95% interval"], *measured], 78)))


def _measure(value: Mapping[str, Any]) -> list[str]:
    ends = "" if value["low"] is None else f"[{value['low']:.3f}, {value['high']:.3f}]"
    return [f"{value['estimate']:.3f}", ends]


def _cells(scores: Mapping[str, Any] | None) -> list[str]:
    if scores is None:
        return ["", ""]
    return [f"{scores['loss']:.3f} ± {scores['loss_se']:.3f}", f"{scores['accuracy']:.1%}"]


if __name__ == "__main__":
    sys.exit(main())
