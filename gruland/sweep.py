"""A sweep: the regularizer's grid as jobs side by side, one progress line, a table at the end."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from gruland import config, runs, trust
from gruland.errors import one_line
from gruland.files import read_json
from gruland.progress import clock
from gruland.terminal import lines, needed

log = logging.getLogger("gruland")

#: The groups of which a sweep may take several options, each with settings of its own.
KINDS = ("regularizer", "defence")
#: The environment variable by which a worker knows the sweep's own process.
_SWEEP = "GRULAND_SWEEP_PROCESS"
#: Seconds between two looks whether that process lives.
_LOOK = 0.5


def check(configs: Sequence[DictConfig]) -> None:
    """Refuse a sweep before its first job starts: a job that cannot work, or two that would share a folder.

    Raises:
        ValueError, OSError, ImportError: with the key.
    """
    places: dict[Path, DictConfig] = {}
    for cfg in configs:
        config.check(cfg)
        other = places.setdefault(runs.folder(cfg), cfg)
        if other is not cfg:
            before, now = (runs.flat(OmegaConf.to_container(c)) for c in (other, cfg))  # type: ignore[arg-type]
            key = next((key for key in now if now[key] != before.get(key)), "nothing")
            raise ValueError(
                f"two jobs of the sweep would share the folder {runs.folder(cfg)}: they differ in {key}, which does "
                f"not tell runs apart; sweep over it in commands of their own with an experiment_name each"
            )


def launch(launcher: Launcher, jobs: Sequence[Sequence[str]], configs: Sequence[DictConfig]) -> list[float]:
    """Run the jobs with a progress line, then print the table.

    Returns:
        The validation loss of each job, for Hydra.

    Raises:
        SystemExit: a job failed, with status 1 after what it said.
    """
    os.environ[_SWEEP] = str(os.getpid())
    with _Watch(configs), _terminable():
        try:
            returns: Sequence[JobReturn] = launcher.launch(jobs, initial_job_idx=0)
            errors = [said for said in map(_error_of, returns) if said]
        # A killed worker breaks the pool: what is finished is on disk all the same.
        except Exception as error:
            log.debug("launcher failed", exc_info=True)
            returns, errors = [], [f"the launcher stopped: {type(error).__name__}: {one_line(error)}"]
    print_table([runs.folder(cfg) for cfg in configs])
    for said in errors:
        print(f"gruland: {said}", file=sys.stderr)
    if errors:
        raise SystemExit(1)
    return [ended.return_value for ended in returns]


def _error_of(ended: JobReturn) -> str | None:
    """What stopped a job; to ask for its value raises that, and writes to the terminal."""
    try:
        with redirect_stderr(io.StringIO()):
            _ = ended.return_value
    except Exception as failure:
        return one_line(failure)
    return None


def threads_per_job() -> int:
    """The cores of a run, divided among the jobs that the launcher runs side by side on this machine."""
    cores = config.cores()
    if not HydraConfig.initialized() or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return cores
    launcher = HydraConfig.get().launcher
    if "n_jobs" in launcher:  # joblib: a negative number counts back from all cores
        jobs = launcher.n_jobs if launcher.n_jobs > 0 else cores + 1 + launcher.n_jobs
        return max(1, cores // max(1, jobs))
    if "cpus_per_task" in launcher:  # submitit
        return min(cores, launcher.cpus_per_task or cores)
    if "ray" in launcher:
        remote = launcher.ray.get("remote") or {}
        return max(1, int(remote.get("num_cpus") or 1))
    return cores


def progress_file(folder: Path) -> Path:
    """Where a job tells the sweep how far it is: beside its folder, so that a refused job makes none."""
    return folder.parent / f".{folder.name}.progress"


def cost(cfg: DictConfig) -> float:
    """A job's length in relative terms: stock layers of 64, 128, 256 units take 1 : 2 : 5."""
    return float(cfg.model.hidden_size) ** 1.15


@cache
def end_with_sweep() -> None:
    """In a worker process of a sweep: end as soon as the sweep's own process is gone.

    A sweep that is killed (SIGKILL, out of memory) cannot tell its workers, and joblib's would finish the queue and
    then stay for ever. A thread looks after it. Another launcher's jobs have parents of their own.
    """
    sweep = int(os.environ.get(_SWEEP, "0"))
    if "joblib" not in str(HydraConfig.get().launcher._target_).lower() or sweep in (0, os.getpid()):
        return

    def look() -> None:
        while os.getppid() == sweep:
            time.sleep(_LOOK)
        os.kill(os.getpid(), signal.SIGKILL)  # what is half-written is written anew by the next command

    threading.Thread(target=look, daemon=True).start()


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the jobs, too, as Ctrl-C does; left to itself it ends this process alone and they go on."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Watch:
    """While a sweep runs, say how far it is: one redrawn line on a terminal, a line now and then elsewhere."""

    def __init__(self, configs: Sequence[DictConfig]) -> None:
        self._folders = [runs.folder(cfg) for cfg in configs]
        self._asked = dict(zip(self._folders, map(runs.requested, configs), strict=True))
        self._costs = [cost(cfg) for cfg in configs]
        self._terminal = sys.stderr.isatty()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._ended: set[Path] = set()
        self._start = time.monotonic()
        self._first = 0.0

    def __enter__(self) -> _Watch:
        for folder in self._folders:
            folder.parent.mkdir(parents=True, exist_ok=True)
            progress_file(folder).unlink(missing_ok=True)
        self._before = {folder: _stamp(folder) for folder in self._folders}
        self._ended |= {folder for folder, asked in self._asked.items() if _is_finished(folder, asked)}
        self._first = self._share()
        finished = f", {len(self._ended)} of them finished already" if self._ended else ""
        print(f"sweep: {len(self._folders)} jobs{finished}", file=sys.stderr, flush=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._report_ended()
        if self._terminal:
            sys.stderr.write("\r\x1b[K")
        took = time.monotonic() - self._start
        print(f"sweep: {len(self._folders)} jobs ended in {clock(took)}", file=sys.stderr, flush=True)

    def _loop(self) -> None:
        shown = 0.0
        while not self._stop.wait(1.0):
            self._report_ended()
            if self._terminal or time.monotonic() - shown >= 15:
                shown = time.monotonic()
                end = "" if self._terminal else "\n"
                start = "\r\x1b[K" if self._terminal else ""
                width = shutil.get_terminal_size().columns - 1 if self._terminal else None
                print(f"{start}{self._line()[:width]}", end=end, file=sys.stderr, flush=True)

    def _report_ended(self) -> None:
        for folder in self._folders:
            if (
                folder in self._ended
                or _stamp(folder) == self._before[folder]
                or progress_file(folder).exists()
            ):
                continue
            results = runs.Run(folder).results
            if results.get("status") in ("finished", "failed"):
                self._ended.add(folder)
                clear = "\r\x1b[K" if self._terminal else ""
                print(
                    f"{clear}[{len(self._ended)}/{len(self._folders)}] {_summary(results)}", file=sys.stderr
                )

    def _state(self, folder: Path) -> tuple[float, str]:
        if folder in self._ended:
            return 1.0, ""
        try:
            state = json.loads(progress_file(folder).read_text())
            return float(state["share"]), str(state["label"])
        except (OSError, ValueError):
            return 0.0, ""

    def _share(self) -> float:
        done = sum(
            cost * self._state(folder)[0] for cost, folder in zip(self._costs, self._folders, strict=True)
        )
        return done / sum(self._costs)

    def _line(self) -> str:
        share, elapsed = self._share(), time.monotonic() - self._start
        left = f", {clock(elapsed * (1 - share) / (share - self._first))} left" if share > self._first else ""
        now = "; ".join(label for _, label in map(self._state, self._folders) if label)
        return f"sweep: {len(self._ended)} of {len(self._folders)} jobs, {share:.0%}{left}{f' [{now}]' if now else ''}"


def _is_finished(folder: Path, requested: dict[str, Any]) -> bool:
    """Whether the job has nothing to do."""
    try:
        return runs.Run(folder).results.get("requested") == requested
    except ValueError:  # a broken file is the job's to report
        return False


def _stamp(folder: Path) -> float:
    path = folder / "results.json"
    return path.stat().st_mtime if path.exists() else 0.0


def _summary(results: dict[str, Any]) -> str:
    if results.get("status") != "finished":
        return f"{results.get('name')}: failed: {results.get('error')}"
    scores = results["metrics"]["best"]
    return (
        f"{results['name']}: validation loss {scores['validation']['loss']:.3f}, "
        f"test loss {scores['test']['loss']:.3f}, accuracy {scores['test']['accuracy']:.1%}"
    )


class Table(Callback):
    """Hydra's callback that prints the table of the runs where a sweeper that is not ours has swept."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note the time."""
        self._start = time.time()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """The runs whose records Hydra wrote since, finished before or not."""
        if is_grid(config.hydra.sweeper):
            return
        records = Path(config.hydra.sweep.dir).glob("*/.hydra/overrides.yaml")
        written = {record.parents[1]: record.stat().st_mtime for record in records}
        print_table(sorted((run for run in written if written[run] >= self._start), key=written.__getitem__))


def is_grid(sweeper: DictConfig) -> bool:
    """Whether the sweeper is ours, which prints a table of its own and gives no job twice."""
    return str(sweeper._target_).endswith(".GridSweeper")


def print_table(folders: Sequence[Path], width: int | None = None) -> None:
    """A row a run on stdout, in the order given, then what failed and the best cell: the least validation loss.

    What differs between the runs has a column; the last columns give way where the terminal is narrow.

    Args:
        width: of the terminal, in characters; None = as it says itself.
    """
    width = width or shutil.get_terminal_size().columns
    found = [(folder, _read(folder)) for folder in folders]
    finished = [(folder, results) for folder, results in found if results.get("status") == "finished"]
    rows = [{**_place(results), **_scores(results)} for _, results in finished]
    swept = _swept([folder for folder, _ in finished])
    for row, extra in zip(rows, swept, strict=True):
        row.update({key: value for key, value in extra.items() if key not in row})
    order = ["regularizer", "rate", "defence", "units", "seed", *(swept[0] if swept else [])]
    if any("defence" in row for row in rows):
        rows = [{"defence": "none", **row} for row in rows]
    else:
        order.remove("defence")
    if len(rows) > 1:  # what is the same everywhere needs no column, but who it is does
        order = [k for k in order if k in ("regularizer", "units") or len({row.get(k) for row in rows}) > 1]
    header = [*dict.fromkeys(order), "val loss", "test loss", "accuracy", "F1", "epoch"]
    while len(header) > 3 and needed(_table(header, rows)) > width:
        header.remove(next(k for k in ("epoch", "F1", "test loss", *reversed(header)) if k in header))
    if rows:
        print("\n".join(lines(_table(header, rows), width)))
    for folder, results in found:
        if results.get("status") != "finished":
            said = f"failed: {results['error']}" if results.get("error") else "not finished"
            print(f"{folder.name}: {said}")
    if worse := [results["name"] for _, results in finished if _is_worse_than_guessing(results)]:
        print(
            f"! worse than guessing by the frequency of the classes: {', '.join(worse)}; try a lower optimizer.lr"
        )
    if finished:
        _print_best(finished, swept)


def _print_best(finished: Sequence[tuple[Path, dict[str, Any]]], swept: Sequence[dict[str, str]]) -> None:
    """The runs that differ in their seed alone whose mean validation loss is least: never the luckiest seed."""
    cells: dict[str, list[tuple[Path, float]]] = {}
    for (folder, results), extra in zip(finished, swept, strict=True):
        cell = {**_place(results), **extra, "seed": ""}
        loss = results["metrics"]["best"]["validation"]["loss"]
        cells.setdefault(str(cell), []).append((folder, loss))
    means = {cell: math.fsum(loss for _, loss in found) / len(found) for cell, found in cells.items()}
    best = min(means, key=lambda cell: (math.isnan(means[cell]), means[cell]))
    seeds = f", mean of {len(cells[best])} seeds" if len(cells[best]) > 1 else ""
    what = "best cell" if len(finished) > 1 else "run"
    print(f"{what}: {cells[best][0][0]} (validation loss {means[best]:.3f}{seeds})")


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "results.json"
    return read_json(path) if path.exists() else {}


def _place(results: dict[str, Any]) -> dict[str, str]:
    model = results["model"]
    return {
        "regularizer": str(model["regularizer"]),
        "rate": f"{model['rate']:g}",
        **({"defence": str(model["defence"])} if "defence" in model else {}),
        "units": str(model["hidden_size"]),
        "seed": str(results["seed"]),
    }


def _scores(results: dict[str, Any]) -> dict[str, str]:
    scores = results["metrics"]["best"]
    mark = "!" if _is_worse_than_guessing(results) else ""
    return {
        "val loss": f"{mark}{scores['validation']['loss']:.4g}",
        "test loss": f"{scores['test']['loss']:.4g}",
        "accuracy": f"{scores['test']['accuracy']:.1%}",
        "F1": f"{scores['test']['f1']:.3f}",
        "epoch": str(results["training"]["best_epoch"]),
    }


def _is_worse_than_guessing(results: dict[str, Any]) -> bool:
    """Whether the validation loss is far above the entropy of the classes, which needs no reading at all."""
    loss, data = results["metrics"]["best"]["validation"]["loss"], results.get("data") or {}
    counts = (data.get("class_counts") or {}).get("validation") or {}
    numbers = list(counts.values()) if isinstance(counts, dict) else list(counts)
    total = sum(numbers)
    if (results.get("task") or {}).get("kind") == "multilabel" or not total:
        return False
    return loss > 2 * -sum(n / total * math.log(n / total) for n in numbers if n)


def _swept(folders: Sequence[Path]) -> list[dict[str, str]]:
    """Of each run the settings in which the runs differ, besides the regularizer, by the last part of their keys."""
    settings = []
    for folder in folders:
        path = folder / "config.yaml"
        # As values: a class of the user's own need not be allowed to be printed.
        cfg = OmegaConf.create(trust.read_config(path)) if path.exists() else None
        settings.append({} if cfg is None else runs.flat(runs.identity(cfg)))
    keys = dict.fromkeys(key for one in settings for key in one)
    differing = [
        key
        for key in keys
        if not key.startswith("regularizer.")
        and key not in ("seed", "model.hidden_size", "defence._target_")
        and len({str(one.get(key)) for one in settings}) > 1
    ]
    return [{key.rpartition(".")[2]: str(one.get(key)) for key in differing} for one in settings]


def _table(header: Sequence[str], rows: Sequence[Mapping[str, str]]) -> list[list[str]]:
    return [list(header), *([row.get(key, "") for key in header] for row in rows)]
