"""How far a long piece of work is, and how long it will still take."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TextIO

#: A job of a sweep writes its progress to this file instead of the terminal; the sweep reads it.
FILE_VARIABLE = "GRULAND_PROGRESS_FILE"


def clock(seconds: float) -> str:
    """``75`` -> ``1:15``; ``4000`` -> ``1:06:40``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


_part = (0.0, 1.0)


@contextmanager
def part(start: float, end: float) -> Iterator[None]:
    """What happens inside is this part of the whole job, for the time left of a sweep."""
    global _part
    before, _part = _part, (start, end)
    try:
        yield
    finally:
        _part = before


class Progress:
    """A context manager that reports how much of ``total`` is done.

    On a terminal one line is redrawn; elsewhere a new line appears every ``every`` seconds; in a job of a
    sweep the state goes to the file that the environment names.

    Args:
        total: the amount of work, in any unit.
        label: what is being done, a few words.
        done: work that an earlier, interrupted run did; it does not count for the time left.
        every: seconds between two lines where the output is not a terminal.
    """

    def __init__(
        self, total: float, label: str, *, done: float = 0, every: float = 15.0, stream: TextIO | None = None
    ) -> None:
        self.total, self.label, self.done, self.detail = total, label, done, ""
        self._resumed, self._stream = done, stream or sys.stderr
        self._file = os.environ.get(FILE_VARIABLE)
        self._redraw = not self._file and self._stream.isatty()
        self._every = 0.1 if self._redraw else 0.5 if self._file else every
        self._start = self._shown = time.monotonic()
        self._visible = False

    def __enter__(self) -> Progress:
        if self._redraw or self._file:
            self._show()
        return self

    def advance(self, amount: float = 1, detail: str | None = None) -> None:
        """Count ``amount`` more as done; ``detail`` (a loss, an epoch) stands beside it."""
        self.done += amount
        if detail is not None:
            self.detail = detail
        if time.monotonic() - self._shown >= self._every:
            self._show()

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the pace so far; None before anything is done, 0 where more was done than was expected."""
        worked, left = self.done - self._resumed, max(0.0, self.total - self.done)
        return (time.monotonic() - self._start) / worked * left if worked > 0 else None

    def line(self) -> str:
        """The state in one line."""
        share = min(1.0, self.done / self.total) if self.total else 1.0
        left = self.seconds_left
        parts = [f"{self.label}: {share:4.0%}", self.detail]
        parts.append(f"{clock(left)} left" if left is not None else "")
        return ", ".join(part for part in parts if part)

    def _show(self) -> None:
        self._shown = time.monotonic()
        if self._file:
            start, end = _part
            share = min(1.0, self.done / self.total) if self.total else 1.0
            _write_state(self._file, self.line(), start + (end - start) * share)
        elif self._redraw:
            self._stream.write(f"\r\x1b[K{self.line()}")
            self._stream.flush()
            self._visible = True
        else:
            print(self.line(), file=self._stream, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._visible:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
        if kind is None and not self._file:
            took = time.monotonic() - self._start
            if took >= 1:
                print(f"{self.label}: done in {clock(took)}", file=self._stream, flush=True)


def _write_state(path: str, label: str, share: float) -> None:
    """Not durable on purpose: a lost state is replaced within a second."""
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w") as file:
        json.dump({"label": label, "share": share}, file)
    os.replace(temporary, path)
