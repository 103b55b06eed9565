"""Strong and weak scaling of the commands on this machine, and a simulated cluster that dies: docs/scaling.md.

python -m benchmarks.scaling                         the tables of what docs/scaling.json holds
python -m benchmarks.scaling --measure [--runs RUN…]     measure anew, with the epochs of finished runs
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.simulation import Cluster, Tally, simulate
from gruland.exits import one_line_errors
from gruland.files import atomic_path, read_json, write_json
from gruland.runs import Run

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- make scaling: begin -->", "<!-- make scaling: end -->"
MODEL = ("model.hidden_size=64", "data.limit=500", "trainer.max_epochs=2", "threads=1")
NOTHING = ("landscape.enabled=false", "attack=none")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--measure", action="store_true", help="measure anew instead of reading docs/scaling.json"
    )
    parser.add_argument(
        "--runs", nargs="*", default=[], help="finished runs, for the seconds of their epochs"
    )
    parser.add_argument("--output", default=str(ROOT / "docs"), help="folder of scaling.md and scaling.json")
    given = parser.parse_args(arguments)
    folder = Path(given.output)
    if given.measure:
        write_json(folder / "scaling.json", measured([Run(path) for path in given.runs]))
    facts = read_json(folder / "scaling.json")
    tables = "\n\n".join([scaling_table(facts), durations_table(facts), simulation_table(facts)])
    page = (folder / "scaling.md").read_text()
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    with atomic_path(folder / "scaling.md") as temporary:
        temporary.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}")
    print(tables)


# -- measured on this machine


def measured(runs: Sequence[Run]) -> dict[str, Any]:
    """What docs/scaling.json holds: seconds of commands by workers, of epochs, of a cell, of a worker's start."""
    others, load = machine.OtherWork(), machine.load()
    facts: dict[str, Any] = {"date": f"{datetime.now():%Y-%m-%d %H:%M}", "commit": machine.commit()}
    facts["machine"] = {key: machine.describe()[key] for key in ("processor", "cores")}
    with tempfile.TemporaryDirectory() as folder:
        facts["commands"] = list(_commands(Path(folder)))
        (run,) = [path.parent for path in Path(folder, "one").rglob("results.json")][:1]
        facts["cells"] = _cells(run)
        stored = [path for path in (run / "landscape/surface.zarr").rglob("*") if path.is_file()]
        facts["surface"] = {"files": len(stored), "bytes": sum(path.stat().st_size for path in stored)}
    facts["epochs"] = {run.results["name"]: run.metrics["seconds"].tolist() for run in runs}
    share = others.share()
    return {**facts, "load": load, "others": None if share is None else round(share, 2)}


def _commands(folder: Path) -> Iterator[dict[str, Any]]:
    """Each command with one worker and with two: the same work, and twice the work."""
    train, one = ("gruland.train", *MODEL), f"output_dir={folder / 'one'}"
    yield {"what": "start", "workers": 1, "work": 0, "seconds": _timed("gruland.train", "--help")}
    _timed(*train, *NOTHING, one)
    (run,) = [path.parent for path in (folder / "one").rglob("results.json")]
    for workers, work in ((1, 1), (2, 1), (2, 2)):
        said = {"workers": workers, "work": work}
        jobs = ",".join(map(str, range(2 * work)))
        words = (
            f"seed={jobs}",
            f"hydra.launcher.n_jobs={workers}",
            f"output_dir={folder / f'{workers}-{work}'}",
            "-m",
        )
        yield {"what": "sweep", **said, "seconds": _timed(*train, *NOTHING, *words)}
        words = (f"size=[9,{9 * work}]", "reviews=500", f"workers={workers}", f"seed={workers}{work}")
        yield {"what": "surface", **said, "seconds": _timed("gruland.landscape", str(run), *words)}
        words = ("attack=deepwordbug", f"reviews={8 * work}", f"workers={workers}", "fresh=1")
        yield {"what": "attack", **said, "seconds": _timed("gruland.attack", str(run), *words)}


def _timed(module: str, *words: str) -> float:
    start = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", module, *words], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    if done.returncode:
        raise ChildProcessError(f"{module} {' '.join(words)} failed: {done.stderr.strip()[-300:]}")
    return time.perf_counter() - start


def _cells(path: Path) -> list[float]:
    """Seconds of 50 cells of a plane of a run, one after the other, each over 500 reviews."""
    from gruland import runs
    from gruland.landscape import random_directions
    from gruland.landscape.chunks import Chunk, PlaneExamples
    from gruland.surfaces import Surface, objective_of

    run = runs.load(path)
    weights = run.model.trainable()
    plane = PlaneExamples(
        objective_of(run.model, run.data, Surface(reviews=500)), weights, random_directions(weights, 0)
    )
    found = []
    for step in np.linspace(0.1, 1, 51):
        start = time.perf_counter()
        plane(Chunk(np.array([[step, -step]])))
        found.append(time.perf_counter() - start)
    return found[1:]  # the first one prepares what all have in common


# -- the tables


def scaling_table(facts: dict[str, Any]) -> str:
    """Strong scaling (the same work) and weak (twice the work) from one worker to two."""
    seconds = {(row["what"], row["workers"], row["work"]): row["seconds"] for row in facts["commands"]}
    rows = [
        "| command | one worker | two, the same work | speed-up | two, twice the work | efficiency |",
        "|---|" + "---:|" * 5,
    ]
    for what in ("sweep", "surface", "attack"):
        if (what, 2, 2) not in seconds:
            rows.append(f"| {what} | not measured | | | | |")
            continue
        one, strong, weak = (seconds[what, *key] for key in ((1, 1), (2, 1), (2, 2)))
        rows.append(
            f"| {what} | {one:.1f} s | {strong:.1f} s | {one / strong:.2f} | {weak:.1f} s | {one / weak:.0%} |"
        )
    busy = (
        "" if facts["others"] is None else f"; others took {facts['others']:.0%} of its processors meanwhile"
    )
    place = f"{facts['machine']['processor']}, {facts['machine']['cores']} cores"
    rows.append(f"\nMeasured {facts['date']} on {place}, load {facts['load']:.1f} at the start{busy}.")
    return "\n".join(rows)


def durations_table(facts: dict[str, Any]) -> str:
    """What is replayed."""
    start = next(row["seconds"] for row in facts["commands"] if row["what"] == "start")
    rows = ["| measured | how many | median | longest |", "|---|---:|---:|---:|"]
    lists = {f"epoch of {name}": values for name, values in facts["epochs"].items()}
    for name, values in {
        **lists,
        "cell over 500 reviews": facts["cells"],
        "start of a command": [start],
    }.items():
        rows.append(f"| {name} | {len(values)} | {statistics.median(values):.3g} s | {max(values):.3g} s |")
    stored = facts["surface"]
    rows.append(f"\nA surface on disk: {stored['files']} files, {stored['bytes'] / 1000:.0f} kB.")
    return "\n".join(rows)


def simulation_table(facts: dict[str, Any]) -> str:
    """A thousand workers of which 1% die each minute, on the measured durations."""
    start = next(row["seconds"] for row in facts["commands"] if row["what"] == "start")
    ray, slurm = Cluster(start=start), Cluster(start=start, retries=math.inf)
    head = "| work | tasks | step | deaths | done twice | by the model | efficiency | clock | commands | results lost |"
    rows = [head, "|---|" + "---:|" * 9]
    for what, steps in workloads(facts):
        cluster = slurm if len(steps[0]) > 1 else ray  # trainings are jobs, chunks tasks
        tally = simulate(steps, cluster)
        rows.append(f"| {what} | {_told(tally, steps, cluster)} |")
    return "\n".join(rows)


def workloads(facts: dict[str, Any]) -> Iterator[tuple[str, list[tuple[float, ...]]]]:
    """The tasks of each kind of work, their steps drawn from the measured ones."""
    draw = np.random.default_rng(0)
    epochs = [seconds for values in facts["epochs"].values() for seconds in values]
    if epochs:
        yield (
            "trainings of 10 epochs",
            [tuple(row) for row in draw.choice(epochs, (10_000, 10)).tolist()],
        )
    cells = np.array(facts["cells"])
    size = max(1, round(1 / float(np.median(cells))))  # a chunk is about a second
    chunks = draw.choice(cells, (200_000, size)).sum(1)
    yield f"chunks of {size} cells", [(seconds,) for seconds in chunks.tolist()]
    whole = draw.choice(cells, (20_000, 13 * 13)).sum(1)
    yield "surfaces of 13 × 13 cells, a task each", [(seconds,) for seconds in whole.tolist()]


def _told(tally: Tally, steps: Sequence[Sequence[float]], cluster: Cluster) -> str:
    each = [step for task in steps[:1000] for step in task]
    rate, step = cluster.deaths_per_minute / 60, float(np.mean(np.square(each)) / np.mean(each))
    values = (
        f"{tally.tasks:,}", f"{statistics.median(each):.3g} s", f"{tally.deaths:,}", f"{tally.twice:.2%}",
        f"{rate * (step / 2 + cluster.start):.2%}", f"{tally.efficiency(cluster.workers):.1%}",
        f"{tally.seconds / 3600:.2f} h", str(tally.calls), str(tally.tasks - tally.results),
    )  # fmt: skip
    return " | ".join(values)


if __name__ == "__main__":
    with one_line_errors():
        main()
