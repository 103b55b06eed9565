"""The whole study: sweep the grids, choose models, train these with more seeds, measure and report them.

python -m gruland.study experiment=smoke                      every stage
python -m gruland.study stages=[select,report] seeds=1        some stages; the keys are those of conf/study.yaml
python -m gruland.study experiment=paper data.path=imdb.csv embedding.path=glove.6B.100d.txt

Every other word goes to each training. A stage leaves out what is finished already: the same command takes up an
interrupted study. What was chosen lies in study.json, beside the runs.
"""

from __future__ import annotations

import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gruland import runs
from gruland.arguments import check_whole
from gruland.exits import one_line_errors
from gruland.files import read_json, remove_abandoned, write_json
from gruland.orphans import terminate_with
from gruland.progress import clock
from gruland.report.choice import best
from gruland.report.models import RATE, REGULARIZER, UNITS, Model, Place, by_place, place_of
from gruland.report.paper import MODELS

STAGES = ("sweep", "select", "repeat", "landscape", "attack", "report")
#: The trainings only train: the chosen models are measured in stages of their own.
_TRAINING_ALONE = ("landscape.enabled=false", "attack=none")
#: The keys that make a model of the grid.
_OF_CELL = ("regularizer", "regularizer.rate", "model.hidden_size", "seed")


@dataclass(frozen=True)
class Settings:
    """The keys of conf/study.yaml, which explains them.

    Raises:
        ValueError: a value that cannot work.
    """

    stages: Sequence[str]
    regularizers: Sequence[str]
    seeds: int
    paper_models: bool

    def __post_init__(self) -> None:
        if not isinstance(self.stages, list) or not self.stages or not set(self.stages) <= set(STAGES):
            raise ValueError(f"stages={self.stages}: expected some of [{','.join(STAGES)}]")
        if not isinstance(self.regularizers, list) or not self.regularizers:
            raise ValueError(f"regularizers={self.regularizers}: expected a list, such as [none,zoneout]")
        check_whole("seeds", self.seeds, 1)
        if not isinstance(self.paper_models, bool):
            raise ValueError(f"paper_models={self.paper_models}: expected true or false")


@dataclass(frozen=True)
class Study:
    """A study: what is asked for, and the folder of runs that it fills.

    Each stage is a method that runs the commands that one would type, and tells them.

    Args:
        settings: of the study.
        overrides: words for every training.

    Raises:
        ValueError: words that do not compose.
    """

    settings: Settings
    overrides: Sequence[str] = field(default=())

    # ---- the stages ----

    def sweep(self) -> None:
        """Train the grid of each regularizer."""
        self._train(f"regularizer={','.join(self.settings.regularizers)}", *self.overrides)

    def select(self) -> None:
        """Choose the best model of each regularizer and, where asked for, the paper's own; write study.json.

        Raises:
            ValueError: no run is finished.
        """
        found = [r for r in self.finished() if place_of(r).regularizer in self.settings.regularizers]
        if not found:
            raise ValueError(f"{self.folder} holds no finished run: add the stage sweep")
        why = {cell: ["the best of its regularizer"] for cell in best_places(found)}
        for cell in MODELS if self.settings.paper_models else ():
            why.setdefault(cell, []).append("the paper's")
        models = [{**cell._asdict(), "why": " and ".join(why[cell])} for cell in sorted(why, key=by_place)]
        write_json(self.folder / "study.json", {"overrides": list(self.overrides), "models": models})
        for cell in self.chosen():
            print(f"  {cell.label}: {' and '.join(why[cell])}")

    def repeat(self) -> None:
        """Train the chosen models with every seed."""
        for cell in self.chosen():
            if self._missing(cell):
                words = [word for word, parsed in self._parsed if parsed.key_or_group not in _OF_CELL]
                self._train(*words, *_words(cell), f"seed={','.join(map(str, self.seeds))}")

    def landscape(self) -> None:
        """Compute the loss surfaces of the chosen models' runs."""
        self._run("gruland.landscape", *self._measured())

    def attack(self) -> None:
        """Attack the chosen models' runs, with what the words of the study say of attacks."""
        self._run("gruland.attack", *self._measured(), *self._attacks())

    def report(self) -> None:
        """Write report.html and report.md; where the trainings went to Weights & Biases, they go there, too."""
        logged = self._composed.logger.get("wandb")
        self._run("gruland.report", str(self.folder), *(["--wandb", logged.project] if logged else []))

    # ---- what they share ----

    @property
    def folder(self) -> Path:
        """Where the runs lie."""
        return Path(self._composed.output_dir) / str(self._composed.experiment_name)

    @property
    def seeds(self) -> list[int]:
        """Those of the chosen models."""
        first = int(self._composed.seed)
        return list(range(first, first + self.settings.seeds))

    def finished(self, cell: Place | None = None) -> list[runs.Run]:
        """The finished runs of the study, or of one model."""
        found = [runs.Run(path) for path in runs.folders(self.folder, "results.json")]
        return [run for run in found if _is_finished(run) and cell in (None, place_of(run))]

    def chosen(self) -> list[Place]:
        """The models of study.json.

        Raises:
            ValueError: nothing was chosen yet, or the file is damaged.
        """
        path = self.folder / "study.json"
        if not path.exists():
            raise ValueError(f"{path} is not there, which says what was chosen: add the stage select")
        chosen = read_json(path)
        try:
            return [Place(**{name: model[name] for name in Place._fields}) for model in chosen["models"]]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} does not say what was chosen: add the stage select") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second study out of the folder; what killed ones left half-written in it is removed.

        Raises:
            ValueError: another process is at it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".study.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"another process is at the study {self.folder}: wait for it to end") from None
        try:
            remove_abandoned(self.folder)
            yield
        finally:
            lock.release()

    def estimate(self) -> str:
        """What each stage will do and how long it takes, from the runs that are there already, in lines."""
        return "\n".join(_estimated(self))

    @cached_property
    def _composed(self) -> Any:
        """The configuration that the trainings have in common, with Hydra's own part."""
        from hydra import compose, initialize_config_dir
        from hydra.core.global_hydra import GlobalHydra

        from gruland import config

        for word, parsed in self._parsed:
            if parsed.key_or_group == "defence" and parsed.is_sweep_override():
                raise ValueError(
                    f"{word}: a study chooses models under one defence; gruland.train sweeps over several"
                )
        fixed = [word for word, parsed in self._parsed if not parsed.is_sweep_override()]
        config.compose(*fixed)  # its errors are the ones to show
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(config.CONF), version_base="1.3"):
            return compose("train", fixed, return_hydra_config=True)

    @cached_property
    def _parsed(self) -> list[tuple[str, Any]]:
        from gruland import config

        return list(zip(self.overrides, config.parse(self.overrides), strict=True))

    def _missing(self, cell: Place) -> list[int]:
        """The seeds without a finished run."""
        return sorted(set(self.seeds) - {run.results["seed"] for run in self.finished(cell)})

    def _measured(self) -> list[str]:
        """The folders of the chosen models' runs.

        Raises:
            ValueError: there is none.
        """
        found = [
            run for cell in self.chosen() for run in self.finished(cell) if run.results["seed"] in self.seeds
        ]
        if not found:
            raise ValueError(f"{self.folder} holds no finished run of a chosen model: add the stage repeat")
        return [str(run.path) for run in found]

    def _attacks(self) -> list[str]:
        """The words of the study that speak of attacks, as the command takes them."""
        words = [f"attack={_listed(self._composed.hydra.runtime.choices['attack'])}"]
        return words + [word for word in self.overrides if word.startswith("attack.")]

    def _train(self, *words: str) -> None:
        self._run("gruland.train", *words, *_TRAINING_ALONE, "-m")

    def _run(self, module: str, *words: str) -> None:
        print(f"  python -m {module} {shlex.join(words)}", flush=True)
        if status := _call([sys.executable, "-m", module, *words]):
            raise StageFailed(status)


class StageFailed(Exception):
    """A command ended with this status; it has said why."""

    @property
    def status(self) -> int:
        return int(self.args[0])


def best_places(found: Iterable[runs.Run]) -> list[Place]:
    """Of each regularizer the model of least validation loss, see :mod:`gruland.report.choice`.

    Args:
        found: finished runs that may be compared with each other.
    """
    models: dict[Place, dict[int, runs.Run]] = {}
    for run in found:
        models.setdefault(place_of(run), {})[run.results["seed"]] = run
    names = (REGULARIZER, RATE, UNITS)
    chosen = best(Model(dict(zip(names, place, strict=True)), seeds) for place, seeds in models.items())
    return sorted((choice.model.place for choice in chosen.values()), key=by_place)


def _is_finished(run: runs.Run) -> bool:
    """Whether the run is finished; one whose results cannot be read is not."""
    try:
        return run.results.get("status") == "finished"
    except (OSError, ValueError):
        return False


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return math.fsum(known) / len(known)


def _words(cell: Place) -> list[str]:
    """What selects a model of the grid on a training's command line."""
    words = [f"regularizer={cell.regularizer}", f"model.hidden_size={cell.hidden_size}"]
    return [*words, f"regularizer.rate={cell.rate:g}"] if cell.rate else words


def _listed(choice: Any) -> str:
    return choice if isinstance(choice, str) else f"[{','.join(choice)}]"


# ---- what the stages will take ----


def _estimated(study: Study) -> list[str]:
    """A line a stage, and one for all: number of jobs, those that are done, seconds."""
    lines, seconds, guessed = [], 0.0, False
    for stage in study.settings.stages:
        jobs, time_of = _jobs(study, stage), _pace(study, stage)
        if jobs is None:
            lines.append(f"  {stage:<10}follows from the choice")
            guessed = True
            continue
        if not jobs:
            lines.append(f"  {stage:<10}nothing left" if stage not in ("select", "report") else f"  {stage}")
            continue
        what = "trainings" if stage in ("sweep", "repeat") else "runs"
        if time_of is None:
            lines.append(f"  {stage:<10}{len(jobs)} {what}; how long is known after the first")
            guessed = True
            continue
        took = sum(time_of(cell) for cell in jobs)
        seconds += took
        lines.append(f"  {stage:<10}{len(jobs)} {what}, about {clock(took)}")
    whole = f"about {clock(seconds)}" if seconds else "not known yet"
    return [*lines, f"  in all    {whole}{' and what is not known yet' if guessed and seconds else ''}"]


def _jobs(study: Study, stage: str) -> list[Place] | None:
    """The models that a stage has still to train or to measure; None where that is not known yet."""
    if stage in ("select", "report"):
        return []
    if stage == "sweep":
        return [cell for cell in _grid(study) if not study.finished(cell)]
    try:
        chosen = study.chosen()
    except ValueError:
        return None
    if stage == "repeat":
        return [cell for cell in chosen for _ in study._missing(cell)]
    done = {"landscape": "landscape", "attack": "attacks"}[stage]
    measured = [run for cell in chosen for run in study.finished(cell) if done in run.results]
    return [cell for cell in chosen for _ in study.seeds][len(measured) :]


def _grid(study: Study) -> list[Place]:
    """The models of the sweep."""
    given = {parsed.key_or_group: parsed for _, parsed in study._parsed}

    def values(key: str, usual: Any) -> list[Any]:
        if key not in given:
            return list(usual)
        swept = given[key].is_sweep_override()
        return list(given[key].sweep_iterator()) if swept else [given[key].value()]

    cells = []
    for name in study.settings.regularizers:
        grid = _axes(study, name)
        sizes = values("model.hidden_size", grid.get("model.hidden_size"))
        rates = values("regularizer.rate", grid["regularizer.rate"]) if "regularizer.rate" in grid else [0]
        cells += [Place(name, float(rate), int(size)) for rate in rates for size in sizes]
    return cells


def _axes(study: Study, regularizer: str) -> Mapping[str, Sequence[Any]]:
    """The grid of a regularizer: from keys of the configuration to their values."""
    from gruland import config

    chosen = config.compose(f"regularizer={regularizer}")
    return {
        "model.hidden_size": [chosen.model.hidden_size],
        **config.instantiate(chosen.regularizer).grid,
    }


def _pace(study: Study, stage: str) -> Callable[[Place], float] | None:
    """From a model to the seconds that a stage takes for it; None where no run of the study has told yet.

    A training takes as long as those of the study did, more with more units: stock layers of 64, 128, 256 units take
    1 : 2 : 5. Trainings run side by side.
    """
    if stage in ("sweep", "repeat"):
        known = [
            run.results["training"]["seconds"] / place_of(run).hidden_size ** 1.15
            for run in study.finished()
            if run.results.get("training")
        ]
        launcher = study._composed.hydra.launcher
        side_by_side = max(1, int(launcher.get("n_jobs", 1)))
        return (lambda cell: _mean(known) * cell.hidden_size**1.15 / side_by_side) if known else None
    entries = [run.results.get("landscape") or {} for run in study.finished()]
    if stage == "attack":
        entries = [entry for run in study.finished() for entry in (run.results.get("attacks") or {}).values()]
    seconds = [entry["seconds"] for entry in entries if "seconds" in entry]
    return (lambda cell: _mean(seconds)) if seconds else None


# ---- the command ----


def main(arguments: Sequence[str] | None = None) -> int:
    """The command.

    Returns:
        The exit status: that of a command of a stage that failed.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(words):
        print((__doc__ or "").strip())
        return 0
    with one_line_errors():
        study = parse(words)
        with study.locked():
            return _run_stages(study)
    return 0


def _run_stages(study: Study) -> int:
    print(f"study: {study.folder}\n{study.estimate()}", flush=True)
    for number, stage in enumerate(study.settings.stages, 1):
        print(f"study: {stage} ({number} of {len(study.settings.stages)})", flush=True)
        start = time.monotonic()
        try:
            getattr(study, stage)()
        except StageFailed as failed:
            print(f"gruland: the stage {stage} failed; the same command goes on from here", file=sys.stderr)
            return failed.status
        print(f"study: {stage} took {clock(time.monotonic() - start)}", flush=True)
    return 0


def parse(words: Sequence[str]) -> Study:
    """The study that a command line describes.

    Raises:
        ValueError: a word that is no override, or a value that cannot work.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from gruland import config

    if wrong := [word for word in words if word.startswith("-")]:
        raise ValueError(f"{wrong[0]}: expected key=value; a study sweeps by itself")
    known = [field.name for field in fields(Settings)]
    own = [word for word in words if word.partition("=")[0] in known]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config.CONF), version_base="1.3"):
            settings: Any = OmegaConf.to_container(compose("study", own), resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"{' '.join(own)}: {' '.join(str(error).split())}") from error
    return Study(Settings(**settings), config.typed([word for word in words if word not in own]))


def _call(command: Sequence[str]) -> int:
    """Run a command to its end; what ends this process ends it, too."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    process = subprocess.Popen(command, preexec_fn=partial(terminate_with, os.getpid()))
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
