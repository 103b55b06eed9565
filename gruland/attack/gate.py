"""Thresholds that a model has to keep under attack, so that a command can fail for a model that does not.

``gate.accuracy_under_attack=0.6`` is missed by an attack that leaves 0.55 of the reviews right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

#: Exit statuses of a command: a threshold was missed; an attack's numbers are suspect (:mod:`gruland.attack.flags`).
MISSED, FLAGGED = 3, 4
#: What a flag does to a command: it ends with a status of its own, or as without.
FLAGS = ("fail", "report")
#: Measures that have to be at least so large, and those that have to be at most so large.
LEAST = (
    "accuracy_under_attack",
    "clean_accuracy",
    "pair_accuracy",
    "majority",
    "worst",
    "similarity",
    "certified_0",
    "certified_1",
    "certified_2",
    "certified_4",
    "queries_mean",
    "queries_median",
)
MOST = ("success", "calibration_clean", "calibration_attacked", "loss")  # fmt: skip


class Verdict:
    """What a command says in the end of all attacks that it made.

    Args:
        thresholds: of the measures.
        flags: one of :data:`FLAGS`: whether a flag decides the exit status or is said alone.

    Raises:
        ValueError: thresholds that cannot be held, or another word for ``flags``.
    """

    def __init__(self, thresholds: Mapping[str, Any], flags: str = "fail") -> None:
        if flags not in FLAGS:
            raise ValueError(f"flags={flags}: expected {' or '.join(FLAGS)}")
        self.thresholds, self.status, self._fails = check(thresholds), 0, flags == "fail"
        self.lines: list[str] = []

    def add(self, where: str, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Hold the entries of a run's attacks against the thresholds, and note their flags.

        Raises:
            ValueError: a threshold that none of the attacks can miss.
        """
        for name, bound in self.thresholds.items():
            if not any(_has(entry, name) for entry in entries.values()):
                raise ValueError(
                    f"gate.{name}={bound:g}: of {' and '.join(entries)} none reports it, leave it out or give an "
                    "attack that does"
                )
        for name, entry in entries.items():
            short = missed(entry, self.thresholds)
            flagged = list(entry.get("flags", {}).values())
            self.lines += [f"{where}: {name}: {line}" for line in (*short, *flagged)]
            # A missed threshold says more than a flag.
            new = MISSED if short else FLAGGED if flagged and self._fails else 0
            self.status = MISSED if MISSED in (new, self.status) else max(new, self.status)


def check(thresholds: Mapping[str, Any]) -> dict[str, float]:
    """The thresholds as numbers.

    Raises:
        ValueError: a measure that there is not, or no number.
    """
    for name, value in thresholds.items():
        if name not in (*LEAST, *MOST):
            raise ValueError(f"gate.{name}={value}: expected one of {', '.join((*LEAST, *MOST))}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"gate.{name}={value}: expected a finite number")
    return {name: float(value) for name, value in thresholds.items()}


def missed(entry: Mapping[str, Any], thresholds: Mapping[str, float]) -> list[str]:
    """What an attack's entry of results.json does not keep, a line each.

    A measure that the attack could not take, such as the queries for reviews that are all wrong already, is not missed.
    """
    lines = []
    for name, bound in thresholds.items():
        measured = _measured(entry, name) if "measures" in entry else None
        if measured is None:
            continue
        value, least = measured["estimate"], name in LEAST
        # What is no number, such as the loss of a model that diverged, keeps no threshold.
        if not (value >= bound if least else value <= bound):
            ends = f" [{measured['low']:.3g}, {measured['high']:.3g}]" if measured["low"] is not None else ""
            lines.append(
                f"gate.{name}={bound:g}: {value:.3g}{ends}, expected at {'least' if least else 'most'} {bound:g}"
            )
    return lines


def _measured(entry: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    judged = entry.get("verdict", {}).get("attacked", {})
    found: Mapping[str, Any] | None = entry["measures"].get(name, judged.get(name))
    return found


def _has(entry: Mapping[str, Any], name: str) -> bool:
    """Whether an attack of this kind takes a measure, if only on other reviews."""
    return name in entry.get("measures", {}) or name in entry.get("verdict", {}).get("attacked", {})
