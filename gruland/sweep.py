"""A sweep: the regularizer's grid as jobs side by side, one progress line, a table at the end."""

from __future__ import annotations

import io
import logging
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from gruland import config, runs, trust
from gruland.errors import one_line
from gruland.files import read_json
from gruland.orphans import end_with
from gruland.progress import QUIET, Progress, clock
from gruland.terminal import lines, needed, visible

log = logging.getLogger("gruland")

#: The groups of which a sweep may take several options, each with settings of its own.
KINDS = ("regularizer", "defence")
_OWN = tuple(f"{kind}." for kind in KINDS)
#: The keys that a row of a sweep's table tells of in any case, and what its columns are called.
_PLACE = (
    "regularizer._target_", "regularizer.name", "regularizer.rate", "defence._target_", "model.hidden_size", "seed"
)  # fmt: skip
_COLUMNS = (
    "regularizer", "rate", "defence", "units", "seed", "val loss", "test loss", "accuracy", "F1", "epoch"
)  # fmt: skip
#: The environment variable by which a worker knows the sweep's own process.
_SWEEP = "GRULAND_SWEEP_PROCESS"


def check(configs: Sequence[DictConfig]) -> None:
    """Refuse a sweep before its first job starts: a job that cannot work, or two that would share a folder.

    Raises:
        ValueError, OSError, ImportError: with the key.
    """
    from gruland import experiment  # Lightning: Hydra looks at this module in every command

    places: dict[Path, DictConfig] = {}
    for cfg in configs:
        experiment.check(cfg)
        other = places.setdefault(runs.folder(cfg), cfg)
        if other is not cfg:
            plain: list[Any] = [OmegaConf.to_container(c) for c in (other, cfg)]
            before, now = map(runs.flat, plain)
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
    os.environ[_SWEEP], os.environ[config.SWEEP_JOBS] = str(os.getpid()), str(len(jobs))
    os.environ.setdefault(QUIET, "1")  # of the workers, which inherit it: the sweep has a line of its own
    with _watched(configs), _terminable():
        try:
            returns: Sequence[JobReturn] = launcher.launch(jobs, initial_job_idx=0)
            errors = [said for said in map(_error_of, returns) if said]
        # A killed worker breaks the pool: what is finished is on disk all the same.
        except Exception as error:
            log.debug("launcher failed", exc_info=True)
            # logging says which handler failed and leaves the system's reason to the cause.
            reason = error.__cause__ if isinstance(error.__cause__, OSError) else error
            returns, errors = [], [f"the launcher stopped: {type(reason).__name__}: {one_line(reason)}"]
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


def cost(cfg: DictConfig) -> float:
    """A job's length in relative terms: stock layers of 64, 128, 256 units take 1 : 2 : 5."""
    return float(cfg.model.hidden_size) ** 1.15


@cache
def end_with_sweep() -> None:
    """In a worker process of a sweep: end as soon as the sweep's own process is gone.

    joblib's workers would finish the queue and then stay for ever. Another launcher's jobs have parents of their own.
    """
    sweep = int(os.environ.get(_SWEEP, "0"))
    if "joblib" not in str(HydraConfig.get().launcher._target_).lower() or sweep in (0, os.getpid()):
        return
    end_with(sweep)


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


@dataclass
class _Job:
    """A job of a sweep, seen from outside: what it wrote into its run's folder."""

    folder: Path
    requested: dict[str, Any]
    epochs: int
    cost: float

    def __post_init__(self) -> None:
        self._stamp = _modified(self.folder / "results.json")
        self.ended = _has(_read_or_nothing(self.folder), self.requested)

    @classmethod
    def of(cls, cfg: DictConfig) -> _Job:
        return cls(runs.folder(cfg), runs.requested(cfg), cfg.trainer.max_epochs, cost(cfg))

    @property
    def work(self) -> float:
        """All that it has to do; what follows the training counts as one more epoch."""
        return self.cost * (self.epochs + 1)

    @property
    def done(self) -> float:
        """How much of it is done: metrics.csv has a row an epoch."""
        if self.ended:
            return self.work
        try:
            rows = (self.folder / "metrics.csv").read_bytes().count(b"\n") - 1
        except OSError:
            rows = 0
        return self.cost * min(max(rows, 0), self.epochs)

    def look(self) -> dict[str, Any] | None:
        """Its results, once: at the first look after it ended."""
        stamp = _modified(self.folder / "results.json")
        if self.ended or stamp == self._stamp:
            return None
        self._stamp, results = stamp, _read_or_nothing(self.folder)
        self.ended = _has(results, self.requested) or bool(results.get("error"))
        return results if self.ended else None


@contextmanager
def _watched(configs: Sequence[DictConfig]) -> Iterator[None]:
    """While the jobs run, one line says how far all of them are, and one more who ended."""
    jobs, start, stop = [_Job.of(cfg) for cfg in configs], time.monotonic(), threading.Event()
    known = sum(job.ended for job in jobs)
    finished = f", {known} of them finished already" if known else ""
    print(f"sweep: {len(jobs)} jobs{finished}", file=sys.stderr, flush=True)
    with Progress(sum(job.work for job in jobs), "sweep", done=sum(job.done for job in jobs)) as line:

        def look() -> None:
            for job in jobs:
                if results := job.look():
                    ended = sum(job.ended for job in jobs)
                    line.write(f"[{ended}/{len(jobs)}] {_summary(results)}", file=sys.stderr)
            ended = sum(job.ended for job in jobs)
            line.advance(sum(job.done for job in jobs) - line.done, f"{ended} of {len(jobs)} jobs ended")

        def loop() -> None:
            while not stop.wait(1.0):
                look()

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            look()
    took = clock(time.monotonic() - start)
    print(f"sweep: {len(jobs)} jobs ended in {took}", file=sys.stderr, flush=True)


def _has(results: dict[str, Any], requested: dict[str, Any]) -> bool:
    """Whether a run holds what is asked of it, so that its job has nothing to do."""
    return results.get("status") == "finished" and results.get("requested") == requested


def _read_or_nothing(folder: Path) -> dict[str, Any]:
    try:
        return runs.Run(folder).results
    except ValueError:  # a broken file is the job's to report
        return {}


def _modified(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def _summary(results: dict[str, Any]) -> str:
    if results.get("status") != "finished":
        return f"{results.get('name')}: failed: {results.get('error')}"
    scores = results["metrics"]["best"]
    # Short, so that a line of 80 characters holds it with the name of a job.
    return f"{results['name']}: validation loss {scores['validation']['loss']:.3f} (test {scores['test']['loss']:.3f})"


class Table(Callback):
    """Hydra's callback that notes where a sweeper that is not ours sweeps, for the table at its end.

    Hydra says nothing of a sweep that a failure ended: the command itself calls :meth:`tell`.
    """

    _begun: ClassVar[tuple[Path, float] | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note the folder and the time."""
        Table._begun = None if is_grid(config.hydra.sweeper) else (Path(config.hydra.sweep.dir), time.time())

    @classmethod
    def tell(cls) -> None:
        """Print the runs whose records Hydra wrote since, finished before or not; without such a sweep nothing."""
        begun, cls._begun = cls._begun, None
        if begun is None:
            return
        records = begun[0].glob("*/.hydra/overrides.yaml")
        written = {record.parents[1]: record.stat().st_mtime for record in records}
        print_table(sorted((run for run in written if written[run] >= begun[1]), key=written.__getitem__))


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
    settings = [_settings(folder) for folder, _ in finished]
    swept = _swept(settings)
    for row, one in zip(rows, settings, strict=True):
        row.update({name: str(one.get(key, "")) for key, name in swept.items()})
    order = ["regularizer", "rate", "defence", "units", "seed", *swept.values()]
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
            print(visible(f"{folder.name}: {said}"))
    if worse := [results["name"] for _, results in finished if _is_worse_than_guessing(results)]:
        print(
            f"! worse than guessing by the frequency of the classes: {', '.join(worse)}; try a lower optimizer.lr"
        )
    if finished:
        _print_best(finished, settings)


def _print_best(
    finished: Sequence[tuple[Path, dict[str, Any]]], settings: Sequence[Mapping[str, Any]]
) -> None:
    """The runs that differ in their seed alone whose mean validation loss is least: never the luckiest seed."""
    cells: dict[str, list[tuple[Path, float]]] = {}
    for (folder, results), own in zip(finished, settings, strict=True):
        cell = {**_place(results), **own, "seed": ""}
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
    """Whether the validation loss is far above that of who guesses, which needs no reading at all."""
    loss, guess = results["metrics"]["best"]["validation"]["loss"], runs.guessing_loss(results)
    return guess is not None and loss > 2 * guess


def _settings(folder: Path) -> dict[str, Any]:
    """The settings that determine a run's model, by dotted key."""
    path = folder / "config.yaml"
    if not path.exists():
        return {}
    # As values: a class of the user's own need not be allowed to be printed.
    return runs.settings(OmegaConf.create(trust.read_config(path)))


def _swept(settings: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The settings in which runs differ besides those of :func:`_place`, from dotted key to the column's name.

    It is the last part of the key, or all of it where another column has that name.
    """
    # One that only some regularizers, or defences, have is no difference in itself.
    differing = [
        key
        for key in dict.fromkeys(key for one in settings for key in one)
        if key not in _PLACE
        and len({str(one.get(key)) for one in settings if key in one or not key.startswith(_OWN)}) > 1
    ]
    last = {key: key.rpartition(".")[2] for key in differing}
    taken = Counter([*_COLUMNS, *last.values()])
    return {key: name if taken[name] == 1 else key for key, name in last.items()}


def _table(header: Sequence[str], rows: Sequence[Mapping[str, str]]) -> list[list[str]]:
    return [list(header), *([row.get(key, "") for key in header] for row in rows)]
