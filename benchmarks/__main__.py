"""Measure, part by part, and write docs/performance.md and docs/performance.json after every row.

python -m benchmarks [--only PART,PART] [--run FOLDER] [--data FILE --embedding FILE] [--output FOLDER] [--smoke]
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import warnings
from collections.abc import Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path

from benchmarks import machine
from benchmarks.clock import CLOCKS, reason
from benchmarks.subject import SMOKE, Context, Settings, configuration
from benchmarks.table import Results, Row, shown
from gruland.exits import one_line_errors

#: In the order of the table.
PARTS = (
    "surface",
    "peers",
    "training",
    "evaluation",
    "startup",
    "epoch",
    "paper",
    "coverage",
    "attacks",
    "accelerator",
    "growth",
)
ROOT = Path(__file__).parents[1]
BUSY = 0.05  # the share of the processor that others may take before it is said


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    given = _parse(arguments)
    # What is compared is told in the table; the libraries' own talk would hide the progress.
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    settings = SMOKE if given.smoke else Settings(clock=given.clock)
    if given.threads:
        settings = Context(settings).with_settings(threads=tuple(map(int, given.threads.split(",")))).settings
    overrides = configuration(given.data, given.embedding, given.smoke)
    context = Context(settings, None if given.run is None else Path(given.run), overrides)
    results = Results(Path(given.output), machine.describe() | {"clock": settings.clock}, PARTS)
    left = given.only.split(",")
    try:
        while left:
            measure(left[0], context, results)
            del left[0]
    except KeyboardInterrupt:
        print(f"\ninterrupted; the rest is --only {','.join(left)}", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        print(f"\n{results.summary()}\n\nwritten to {given.output}: performance.md, performance.json")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default=",".join(PARTS), help="parts to measure, with commas: %(default)s")
    parser.add_argument("--run", help="a run's folder, for its model and data; default: trained for a moment")
    parser.add_argument(
        "--data", help="reviews; default: imdb.parquet in GRULAND_DATA, else the embedded ones"
    )
    parser.add_argument("--embedding", help="vectors; default: glove.6B.100d.txt in GRULAND_DATA, else 50-d")
    parser.add_argument("--threads", help="numbers of threads, with commas; default: 1,2")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: processor time, for a busy machine"
    )
    parser.add_argument("--output", help="folder of performance.md and performance.json; default: docs")
    parser.add_argument("--smoke", action="store_true", help="run everything in sizes that measure nothing")
    given = parser.parse_args(arguments)
    if unknown := [part for part in given.only.split(",") if part not in PARTS]:
        parser.error(f"--only: {', '.join(unknown)}: expected some of {', '.join(PARTS)}")
    given.output = given.output or str(ROOT / ("outputs/benchmarks-smoke" if given.smoke else "docs"))
    return given


def measure(part: str, context: Context, results: Results) -> None:
    """Measure one part; whatever goes wrong in it is a row."""
    module = import_module(f"benchmarks.{part}")
    others, start = machine.OtherWork(), time.monotonic()
    begun = {"date": f"{datetime.now():%Y-%m-%d %H:%M}", "commit": machine.commit(), "load": machine.load()}
    title = getattr(module, "TITLE", part)
    results.begin(part, {"title": title, **begun})
    try:
        for row in module.measure(context):
            results.add(part, row)
            print(
                " | ".join((row.what, row.against, row.setting, shown(row.value, row.unit), row.error)),
                flush=True,
            )
    except Exception as error:
        logging.getLogger("gruland").exception("%s", part)
        results.add(part, Row(title, "", "", None, "", error=reason(error)))
    share = others.share()
    facts: dict[str, object] = {"seconds": time.monotonic() - start, "others": share}
    if "data" in context.__dict__:
        facts["conditions"] = context.conditions()
    if share is not None and share > BUSY:
        facts["busy"] = f"others took {share:.0%} of its processors"
    results.end(part, facts)


if __name__ == "__main__":
    with one_line_errors():
        main()
