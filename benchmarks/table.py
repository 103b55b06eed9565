"""The rows that are measured, the JSON that holds them, and the Markdown that is drawn from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.clock import Timings
from gruland.files import atomic_path, read_json, write_json

BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"


@dataclass
class Row:
    """One measurement.

    Attributes:
        what, against: as in the table of targets; rows that share them and the target are summed up in one line.
        setting: in what it was measured: sizes, precision, threads.
        value: what was reached, in ``unit`` (``x``: times faster than ``against``); None where it could not be.
        target: what is to be reached; None for a row that only informs.
        at_least: whether more is better.
        seconds: raw times of each candidate, one a repetition.
        note: what a reader has to know: the peer's best setting, what was projected.
        error: why there is no value, in one line.
    """

    what: str
    against: str
    setting: str
    value: float | None
    unit: str
    target: float | None = None
    at_least: bool = True
    seconds: dict[str, list[float]] = field(default_factory=dict)
    note: str = ""
    error: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None where there is no target or no value."""
        if self.target is None or self.value is None or math.isnan(self.value):
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with the medians and whether the target is met."""
        medians = {name: _median(times) for name, times in self.seconds.items() if times}
        return asdict(self) | {"medians": medians, "met": self.met}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Row:
        """The inverse of :meth:`to_dict`."""
        return cls(**{name: value[name] for name in cls.__dataclass_fields__})


def _median(times: list[float]) -> float:
    ordered = sorted(times)
    return (ordered[len(ordered) // 2] + ordered[(len(ordered) - 1) // 2]) / 2


def ratio(
    what: str,
    against: str,
    setting: str,
    timings: Timings,
    ours: str,
    theirs: str,
    target: float | None = None,
    note: str = "",
) -> Row:
    """How many times faster ``ours`` is than ``theirs``, or why there is no such number."""
    missing = [timings.errors[name] for name in (ours, theirs) if name in timings.errors]
    value = None if missing else timings.median(theirs) / timings.median(ours)
    chosen = "" if missing else timings.settings[theirs]
    notes = [f"its best setting: {chosen}" if chosen else "", note]
    seconds = {name: timings.seconds[name] for name in (ours, theirs) if name in timings.seconds}
    return Row(
        what, against, setting, value, "x", target, True, seconds, "; ".join(filter(None, notes)), "; ".join(missing)
    )  # fmt: skip


class Results:
    """What was measured, on disk after every row: ``performance.json`` and the table in ``performance.md``.

    Parts that this run leaves out stay as an earlier run on the same machine and versions left them. ``order`` is
    that of the parts in the table.
    """

    def __init__(self, folder: Path, machine: Mapping[str, Any], order: Sequence[str] = ()) -> None:
        self._json, self._markdown = folder / "performance.json", folder / "performance.md"
        before = read_json(self._json) if self._json.exists() else {}
        known = before.get("machine") == machine
        self.machine, self._order = dict(machine), tuple(order)
        self.parts: dict[str, dict[str, Any]] = before["parts"] if known else {}

    def begin(self, part: str, facts: Mapping[str, Any]) -> None:
        """Forget what an earlier run found of this part."""
        self.parts[part] = {**facts, "rows": []}
        self.parts = {name: self.parts[name] for name in sorted(self.parts, key=self._place)}

    def _place(self, part: str) -> int:
        return self._order.index(part) if part in self._order else len(self._order)

    def add(self, part: str, row: Row) -> None:
        """Keep a row."""
        self.parts[part]["rows"].append(row.to_dict())
        self.write()

    def end(self, part: str, facts: Mapping[str, Any]) -> None:
        """Add what is known of a part once it is through."""
        self.parts[part].update(facts)
        self.write()

    def write(self) -> None:
        """Write both files."""
        write_json(self._json, {"machine": self.machine, "parts": self.parts})
        text = self._markdown.read_text() if self._markdown.exists() else f"{BEGIN}\n{END}\n"
        with atomic_path(self._markdown) as temporary:
            temporary.write_text(inserted(text, self.markdown()))

    def rows(self, part: str) -> list[Row]:
        """The rows of a part."""
        return [Row.from_dict(row) for row in self.parts[part]["rows"]]

    def markdown(self) -> str:
        """The machine, the table of targets, and every single measurement."""
        sections = [self._machine(), "### Targets", self.summary()]
        for part, facts in self.parts.items():
            sections += [f"### {facts['title']}", _circumstances(facts), details(self.rows(part))]
        return "\n\n".join(section for section in sections if section)

    def summary(self) -> str:
        """A line for each target."""
        return summary(row for part in self.parts for row in self.rows(part) if row.target is not None)

    def _machine(self) -> str:
        lines = [f"- {name}: {_plain(value)}" for name, value in self.machine.items()]
        return "\n".join(["### Machine", "", *lines])


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _circumstances(facts: Mapping[str, Any]) -> str:
    said = [str(facts.get("conditions", ""))]
    took = facts.get("seconds")
    begun = " ".join(filter(None, (facts["date"], f"at {facts['commit']}" if facts.get("commit") else "")))
    said.append(f"Begun {begun}, not finished." if took is None else f"Measured {begun} in {took:.0f} s.")
    if facts.get("load") is not None:
        said.append(f"Load average at the start: {facts['load']:.1f}.")
    if facts.get("busy"):
        said.append(f"**The machine was busy: {facts['busy']}.**")
    return " ".join(filter(None, said))


def inserted(text: str, table: str) -> str:
    """``text`` with the table between its two markers.

    Raises:
        ValueError: the markers are missing.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"performance.md has to hold the lines {BEGIN} and {END} once each: put them back")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.partition(END)[2]}"


def summary(rows: Iterable[Row]) -> str:
    """A line for each target, over all settings in which it was measured."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.what, row.against, row.target, row.at_least, row.unit), []).append(row)
    lines = ["| what | against | reached | to reach | |", "|---|---|---|---|---|"]
    for (what, against, target, at_least, unit), group in groups.items():
        goal = f"{'≥' if at_least else '≤'} {shown(target, unit)}"
        lines.append(f"| {what} | {against} | {_reached(group, unit)} | {goal} | {_verdict(group)} |")
    return "\n".join(lines)


def _reached(group: list[Row], unit: str) -> str:
    values = sorted(row.value for row in group if row.value is not None)
    if not values:
        return "—"
    low, high = shown(values[0], unit), shown(values[-1], unit)
    return low if low == high else f"{low} to {high}"


def _verdict(group: list[Row]) -> str:
    measured = [row.met for row in group if row.met is not None]
    missing = sorted({row.error for row in group if row.met is None})
    short = measured.count(False)
    if not measured:
        return "; ".join(missing) or "not measured"
    verdict = (
        "met"
        if not short
        else f"**short** in {short} of {len(measured)}"
        if len(measured) > 1
        else "**short**"
    )
    return "; ".join([verdict, *missing])


def details(rows: Iterable[Row]) -> str:
    """Every measurement of a part."""
    lines = ["| what | against | setting | reached | to reach | | |", "|---|---|---|---:|---:|---|---|"]
    for row in rows:
        goal = "" if row.target is None else f"{'≥' if row.at_least else '≤'} {shown(row.target, row.unit)}"
        verdict = {True: "met", False: "**short**", None: ""}[row.met]
        note = "; ".join(filter(None, (row.error, row.note)))
        cells = row.what, row.against, row.setting, shown(row.value, row.unit), goal, verdict, note
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(value: float | None, unit: str) -> str:
    """A number with its unit, as a table has it: 2.31x, 64%, 1.2 s, 3e-04."""
    if value is None:
        return "—"
    if unit == "":
        return f"{value:.0e}"
    if unit == "%":
        return f"{value:.0f}%"
    digits = f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    return f"{digits}x" if unit == "x" else f"{digits} {unit}"
