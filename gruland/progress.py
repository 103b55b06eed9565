"""How far a long piece of work is, and how long it will still take: a line of tqdm's."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any, ClassVar, TextIO

from tqdm import tqdm

#: ``75`` -> ``"01:15"``; ``4000`` -> ``"1:06:40"``.
clock = tqdm.format_interval
#: Where this is 1 in the environment of a process when it starts, it has no progress lines: tqdm's own variable.
QUIET = "TQDM_DISABLE"


class Progress(tqdm):
    """One line: ``with Progress(total=25, label="loss surface") as progress: ... progress.advance()``.

    On a terminal it is redrawn, and removed at the end. Elsewhere a plain line appears every 15 seconds. What took a
    second or more leaves a line that says how long. A loop within another one has no line of its own: the outer line
    names it, so that there is one time left.

    Args:
        total: the amount of work, in any unit; what turns out to be more raises it.
        label: what is being done, a few words.
        done: work that an earlier, interrupted run did; it does not count for the pace.
        stream: None = stderr.
    """

    monitor_interval = 0  # no thread that redraws
    total: float
    _outer: ClassVar[Progress | None] = None

    def __init__(self, total: float, label: str, *, done: float = 0, stream: TextIO | None = None) -> None:
        stream, self.label = stream or sys.stderr, label
        redrawn, self._inner = stream.isatty(), Progress._outer is not None
        left = "{desc}: {percentage:3.0f}%, {remaining} left{postfix}"
        options: dict[str, Any] = {"disable": True} if self._inner else {}
        super().__init__(
            total=total,
            desc=label,
            initial=done,
            file=stream if redrawn else _Lines(stream),
            bar_format=f"{left} {{bar:12}}"
            if redrawn
            else left,  # at the end, where a narrow terminal cuts it off
            mininterval=0.1 if redrawn else 15,
            delay=0 if redrawn else 15,
            miniters=0,
            smoothing=0,
            dynamic_ncols=redrawn,
            leave=False,
            **options,
        )
        if not self.disable:
            Progress._outer = self

    @property
    def done(self) -> float:
        """How much is done, with what an earlier run did."""
        return self.n

    def advance(self, amount: float = 1, detail: str | None = None) -> None:
        """Count ``amount`` more as done; ``detail`` (a loss, an epoch) stands beside it."""
        if detail is not None:
            self.set_postfix_str(detail, refresh=False)
        self.total = max(self.total, self.n + amount)
        if not self.disable:
            self.update(amount)
            return
        self.n += amount
        if self._inner and Progress._outer is not None:
            share = self.n / self.total if self.total else 1
            Progress._outer.advance(0, f"{self.label} {share:.0%}")

    def close(self) -> None:
        """Remove the line; what is done to the end and took a second leaves another."""
        if self.disable:
            return
        Progress._outer = None
        super().close()
        took = self.format_dict["elapsed"]
        if took >= 1 and self.n >= self.total:
            print(f"{self.label}: done in {clock(took)}", file=self.fp, flush=True)


class Terminal(logging.Handler):
    """Messages on stderr, above the progress line where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        Progress.write(self.format(record), file=sys.stderr)


class LogFile(logging.FileHandler):
    """Messages in a file; one that it does not take (a full disk) is said in a line, once, and the work goes on."""

    _said = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._said:
            self._said = True
            name, error = Path(self.baseFilename).name, sys.exc_info()[1]
            Progress.write(f"{name} lacks what could not be written: {error}", file=sys.stderr)


class _Lines:
    """A stream that is no terminal: each state is a line, and what clears a line is nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        if text.strip():
            self._stream.write(f"{text.strip()}\n")

    def flush(self) -> None:
        self._stream.flush()
