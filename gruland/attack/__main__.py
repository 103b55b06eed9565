"""Attack finished runs: as they say themselves, or with other settings or attacks.

python -m gruland.attack outputs/reviews/zoneout-0.1-h128-s0-1a2b3c4d
python -m gruland.attack outputs/reviews rate=0.5 mode=composite      every run below the folder
python -m gruland.attack outputs/reviews attack=[typing_errors,mine] typing_errors.rate=0.5 --config-dir conf
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gruland import config
from gruland.errors import USER_ERRORS, one_line
from gruland.exits import one_line_errors
from gruland.terminal import lines, visible

if TYPE_CHECKING:
    from gruland.attack import Attack
    from gruland.runs import Run

_SETTINGS = """settings of an attack, the run's own unless given:
  attack=NAME       or [NAME,NAME]: another file, or several, of conf/attack
  rate=0.5          a setting of the only attack; attack.typing_errors.rate=0.5, or without attack., among several

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
  flags=fail        or report: suspect numbers are said, and change no status

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
        "words", nargs="+", metavar="PATH or key=value",
        help="a finished run's folder, or a folder of runs; a setting",
    )  # fmt: skip
    parser.add_argument("--config-dir", metavar="FOLDER", help="where an attack/NAME.yaml of yours lies")
    given = parser.parse_intermixed_args(arguments)
    paths, settings = config.split(given.words)
    if not paths:
        parser.error("give at least one run folder")
    with one_line_errors():
        return _attack(paths, [*config.searching(given.config_dir), *settings])
    return 1


def _attack(paths: Sequence[str], words: Sequence[str]) -> int:
    import logging

    from gruland import runs
    from gruland.attack import evaluate_run
    from gruland.attack.gate import Verdict

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("gruland").setLevel(logging.INFO)
    of_command = [word for word in words if word.startswith(("gate.", "checkpoint=", "flags="))]
    own = config.over({"checkpoint": "best", "flags": "fail", "gate": {}}, of_command, "command")
    verdict, which = Verdict(own.gate, str(own.flags)), str(own.checkpoint)
    if not re.fullmatch(r"best|last|epoch-\d+", which):
        raise ValueError(f"checkpoint={which}: expected best, last or an epoch such as epoch-3")
    words = [word for word in words if word not in of_command]
    found, left_out = runs.readable(*paths)
    # A typo is refused before the first run is touched.
    attacks = [_attacks(run.config.attack, words) for run in found]
    for run, chosen in zip(found, attacks, strict=True):
        try:
            with run.locked():
                _check_kept(run, which)
                model = run.load_model(which).to(_device())
                entries = evaluate_run(run, chosen, model=model, which=which)
            verdict.add(run.path.name, entries)
        except USER_ERRORS as error:
            left_out[run.path] = one_line(error)
            continue
        for name, entry in entries.items():
            print_table(f"{run.path.name}, {name.replace('_', ' ')}", entry)
    for path, reason in left_out.items():
        print(f"gruland: {visible(path)}: {reason}", file=sys.stderr)
    for line in verdict.lines:
        print(f"gruland: {line}", file=sys.stderr)
    return int(bool(left_out)) or verdict.status


def _check_kept(run: Run, which: str) -> None:
    """Raises ValueError for the weights of an epoch that the run did not keep."""
    if which.startswith("epoch-") and int(which.removeprefix("epoch-")) not in run.epochs:
        kept = f"it kept {', '.join(map(str, run.epochs))}" if run.epochs else "it kept none"
        raise ValueError(
            f"checkpoint={which}: the run has no weights of that epoch ({kept}); a training with "
            "callbacks=[default,epoch_weights] keeps all"
        )


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _attacks(own: Any, words: Sequence[str]) -> dict[str, Attack]:
    """The attacks of a run's configuration, or the chosen ones, with the settings that were given.

    Raises:
        ValueError: an option, a key or a value that does not exist.
    """
    from gruland.attack import build

    choice = [word for word in words if word.startswith(("attack=", "hydra."))]
    settings = config.over(own or config.compose().attack, choice, "attack")
    names = list(map(str, settings))
    if not names:
        raise ValueError(f"{' '.join(choice)}: expected an attack")
    full = []
    for word in (word.lstrip("+").removeprefix("attack.") for word in words if word not in choice):
        known = re.split(r"[.=]", word)[0] in names
        if not known and len(names) != 1:
            raise ValueError(f"{word}: expected {' or '.join(f'{name}.{word}' for name in names)}")
        full.append(word if known else f"{names[0]}.{word}")
    return build(config.over(settings, full, "attack"))


def print_table(title: str, entry: Mapping[str, Any]) -> None:
    """An entry of ``attacks`` in results.json, on the terminal."""
    rates = {"achieved_rate": "of the words changed", "hit_again_rate": "hit more than once"}
    said = [f"{entry[key]:.1%} {words}" for key, words in rates.items() if key in entry]
    print(", ".join([f"{visible(title)}: {entry['reviews']} test reviews", *said]))
    rows = [["", "loss", "accuracy", "loss with dropout", "accuracy with dropout"]]
    for text, scores in entry["scores"].items():
        rows.append([text, *_cells(scores["plain"]), *_cells(scores["dropout"])])
    if not any(row[3] for row in rows[1:]):  # a model without masks
        rows = [row[:3] for row in rows]
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
