"""A sweep: the regularizer's grid as jobs side by side, one progress line, a table at the end."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf

from gruland import config, runs
from gruland.errors import one_line, one_line_errors
from gruland.files import read_json
from gruland.progress import clock

log = logging.getLogger("gruland")

#: The environment variable by which a worker knows the sweep's own process.
_SWEEP = "GRULAND_SWEEP_PROCESS"
#: Seconds between two looks whether that process lives.
_LOOK = 0.5
#: Set by a sweep with a failed job; the command's exit status.
exit_status = 0


def register() -> None:
    """Make the sweeper known to Hydra, which takes sweepers from a package called hydra_plugins only."""
    Plugins.instance().class_name_to_class["hydra_plugins.gruland.GridSweeper"] = GridSweeper


class GridSweeper(Sweeper):
    """Hydra's basic sweeper, for a grid that belongs to the regularizer.

    The grid is that of the regularizer's class (``grid``), ``hydra.sweeper.params`` and a sweep on the command line
    replace axes of it, and a sweep over another key multiplies it. ``regularizer=a,b`` runs the grid of each, without
    the settings that one of them does not have.
    """

    hydra_context: HydraContext
    config: DictConfig
    launcher: Launcher

    def __init__(self, params: dict[str, str]) -> None:
        self.params = params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        with one_line_errors():  # in here: Hydra shows the traceback of what a sweeper raises
            jobs = self._jobs(arguments)
            self.validate_batch_is_legal(jobs)
            configs = [self._config(job) for job in jobs]
            for cfg in configs:
                config.check(cfg)
        with _Watch(configs), _terminable():
            errors = self._launch(jobs)
        _close([runs.folder(cfg) for cfg in configs], errors)
        return []

    def _jobs(self, arguments: list[str]) -> list[list[str]]:
        overrides = self._parse(arguments)
        swept = [o for o in overrides if o.get_key_element() == "regularizer" and o.is_sweep_override()]
        if not swept:
            return self._grid(self.config, arguments)
        rest = [line for line, o in zip(arguments, overrides, strict=True) if o not in swept]
        jobs = []
        for (choice,) in self._split(swept[-1:]):
            cfg = self._chosen([choice])
            known = [
                line
                for line in rest
                if not line.startswith("regularizer.")
                or OmegaConf.select(cfg, line.partition("=")[0]) is not None
            ]
            jobs += self._grid(self._chosen([choice, *known]), [choice, *known])
        # The longest jobs first keep every worker busy to the end.
        return sorted(jobs, key=lambda job: -_cost(self._config(job)))

    def _grid(self, cfg: DictConfig, arguments: list[str]) -> list[list[str]]:
        grid = {
            key: ",".join(map(str, values))
            for key, values in config.instantiate(cfg.regularizer).grid.items()
        }
        axes = [f"{key}={values}" for key, values in {**grid, **self.params}.items()]
        return self._split(self._parse([*axes, *arguments]))

    @staticmethod
    def _split(overrides: list[Override]) -> list[list[str]]:
        """The product of all sweeps; of two overrides of a key the later counts."""
        # Hydra loads its own plugins anew when it looks for them: a class from there must be met late.
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        return BasicSweeper.split_arguments(overrides, None)[0]

    def _parse(self, overrides: list[str]) -> list[Override]:
        return OverridesParser.create(self.hydra_context.config_loader).parse_overrides(overrides)

    def _chosen(self, overrides: list[str]) -> DictConfig:
        """The configuration that the fixed overrides select."""
        fixed = [
            line
            for line, o in zip(overrides, self._parse(overrides), strict=True)
            if not o.is_sweep_override()
        ]
        return self.hydra_context.config_loader.load_configuration(
            self.config.hydra.job.config_name, fixed, run_mode=RunMode.MULTIRUN
        )

    def _config(self, job: Sequence[str]) -> DictConfig:
        return config.resolved(self.hydra_context.config_loader.load_sweep_config(self.config, list(job)))

    def _launch(self, jobs: list[list[str]]) -> list[str]:
        """Run the jobs; return the error of each job that failed, or of the launcher where that broke."""
        os.environ[_SWEEP] = str(os.getpid())
        try:
            returns = self.launcher.launch(jobs, initial_job_idx=0)
        # A killed worker breaks the pool: what is finished is on disk all the same.
        except Exception as error:
            log.debug("launcher failed", exc_info=True)
            return [f"the launcher stopped: {type(error).__name__}: {one_line(error)}"]
        return [error for error in map(_error_of, returns) if error]


def _error_of(ended: JobReturn) -> str | None:
    try:
        result: Any = ended.return_value
        return result["error"]
    except Exception as failure:  # a job that could not even return raises what stopped it when it is asked
        return one_line(failure)


def threads_per_job() -> int:
    """The cores, divided among the jobs that run side by side."""
    if not HydraConfig.initialized() or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return config.cores()
    jobs = HydraConfig.get().launcher.get("n_jobs", 1)
    return max(1, config.cores() // (jobs if jobs > 0 else config.cores()))


def progress_file(folder: Path) -> Path:
    """Where a job tells the sweep how far it is: beside its folder, so that a refused job makes none."""
    return folder.parent / f".{folder.name}.progress"


def _cost(cfg: DictConfig) -> float:
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
        self._costs = [_cost(cfg) for cfg in configs]
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
                print(f"{start}{self._line()}", end=end, file=sys.stderr, flush=True)

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


def _close(folders: Sequence[Path], errors: Sequence[str]) -> None:
    global exit_status
    print_table(folders)
    for error in errors:
        print(f"gruland: {error}", file=sys.stderr)
    exit_status = 1 if errors else 0


def print_table(folders: Sequence[Path]) -> None:
    """One line a run on stdout, in the order given, and the best cell: the run of least validation loss."""
    header = (
        "regularizer",
        "rate",
        "units",
        "seed",
        "validation loss",
        "test loss",
        "accuracy",
        "F1",
        "best epoch",
    )
    rows, finished = [], []
    for folder in folders:
        path = folder / "results.json"
        results = read_json(path) if path.exists() else {}
        if results.get("status") != "finished":
            rows.append((folder.name, "", "", "", results.get("error") or "not finished", "", "", "", ""))
            continue
        finished.append((results["metrics"]["best"]["validation"]["loss"], folder))
        rows.append(_row(results))
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        print("  ".join(str(cell).rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if finished:
        loss, folder = min(finished)
        best = "best cell" if len(folders) > 1 else "run"
        print(f"{best}: {folder} (validation loss {loss:.3f})")


def _row(results: dict[str, Any]) -> tuple[Any, ...]:
    model, scores = results["model"], results["metrics"]["best"]
    return (
        model["regularizer"],
        f"{model['rate']:g}",
        model["hidden_size"],
        results["seed"],
        f"{scores['validation']['loss']:.3f}",
        f"{scores['test']['loss']:.3f}",
        f"{scores['test']['accuracy']:.1%}",
        f"{scores['test']['f1']:.3f}",
        results["training"]["best_epoch"],
    )
