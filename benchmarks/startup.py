"""How long the commands take to start, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.clock import Candidate
from benchmarks.subject import Context
from benchmarks.table import Row

TITLE = "Start-up"
ROOT = Path(__file__).parents[1]
COMMANDS = {
    "train --help": ("-m", "gruland.train", "--help"),
    "nothing": ("-c", "pass"),
    "gruland": ("-c", "import gruland"),
    "torch": ("-c", "import torch"),
    "GRU": ("-c", "from gruland import GRU"),
}


def measure(context: Context) -> Iterator[Row]:
    """Seconds, the interpreter's own start taken off an import's."""
    makers = {name: lambda c=command: Candidate(lambda _: _run(*c)) for name, command in COMMANDS.items()}
    timings = context.alternate(makers)

    def row(what: str, against: str, command: str, before: str | None, target: float) -> Row:
        names = [name for name in (command, before) if name]
        error = "; ".join(timings.errors[name] for name in names if name in timings.errors)
        value = None
        if not error:
            value = timings.median(command) - (timings.median(before) if before else 0.0)
        seconds = {name: timings.seconds.get(name, []) for name in names}
        return Row(what, against, "", value, "s", target, at_least=False, seconds=seconds, error=error)

    yield row("start-up: `python -m gruland.train --help`", "—", "train --help", None, 3.0)
    yield row("start-up: `import gruland`", "beyond the interpreter's own", "gruland", "nothing", 1.0)
    yield row("start-up: `from gruland import GRU`", "beyond torch's own import", "GRU", "torch", 1.0)


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=ROOT)
