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
from functools import cache, cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from gruland import config, runs, trust
from gruland.arguments import check_whole
from gruland.exits import one_line_errors
from gruland.files import read_json, remove_abandoned, write_json
from gruland.orphans import terminate_with
from gruland.progress import clock
from gruland.report import commands
from gruland.report.choice import best
from gruland.report.models import RATE, UNITS, Model, by_place, models, place_of
from gruland.report.paper import MODELS

STAGES = ("sweep", "select", "repeat", "landscape", "attack", "report")
#: The trainings only train: the chosen models are measured in stages of their own.
_TRAINING_ALONE = ("landscape.enabled=false", "attack=none")
#: The keys that make a model of a grid, whatever else the grid has.
_OF_CELL = ("regularizer", RATE, UNITS, "seed")


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
class Chosen:
    """A model of study.json.

    Attributes:
        label: for instance ``Zoneout 0.1, H=128``.
        words: what its trainings are told besides the study's own words.
    """

    label: str
    words: tuple[str, ...]


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
            raise ValueError(f"{self.folder} holds no finished run of these settings: add the stage sweep")
        wanted = [
            (
                model.place,
                model.label,
                self._words(next(iter(model.runs.values()))),
                "the best of its regularizer",
            )
            for model in best_models(found)
        ]
        if self.settings.paper_models:
            wanted += [(place, place.label, commands.of_place(place), "the paper's") for place in MODELS]
        chosen: dict[str, dict[str, Any]] = {}
        for place, label, words, why in sorted(wanted, key=lambda one: by_place(one[0])):
            # By the name of its run: the paper's model may be the best one.
            entry = {**place._asdict(), "label": label, "words": words, "why": why}
            known = chosen.setdefault(runs.name(self.configuration(words)), entry)
            if known is not entry:
                known["why"] += f" and {why}"
        write_json(
            self.folder / "study.json", {"overrides": list(self.overrides), "models": list(chosen.values())}
        )
        for entry in chosen.values():
            print(f"  {entry['label']}: {entry['why']}")

    def repeat(self) -> None:
        """Train the chosen models with every seed."""
        for model in self.chosen():
            if not all(map(_results, self.trainings(model))):
                self._train(*self._common, *model.words, f"seed={','.join(map(str, self.seeds))}")

    def landscape(self) -> None:
        """Compute the loss surfaces of the chosen models' runs, with what the words of the study say of them."""
        self._run("gruland.landscape", *self._measured(), *self._of_group("landscape"))

    def attack(self) -> None:
        """Attack the chosen models' runs, with what the words of the study say of attacks."""
        attacks = f"attack={_listed(self._composed.hydra.runtime.choices['attack'])}"
        self._run("gruland.attack", *self._measured(), attacks, *self._of_group("attack."))

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

    def finished(self) -> list[runs.Run]:
        """The finished runs of the study's own settings: they differ in what the study varies and in nothing else."""
        found = [_run(path, self._allow) for path in runs.folders(self.folder, "results.json")]
        settled = self._settled(runs.settings(self.configuration([])))
        return [run for run in found if _results(run) and self._settled(_settings(run)) == settled]

    def chosen(self) -> list[Chosen]:
        """The models of study.json.

        Raises:
            ValueError: nothing was chosen yet, or the file is damaged.
        """
        path = self.folder / "study.json"
        if not path.exists():
            raise ValueError(f"{path} is not there, which says what was chosen: add the stage select")
        chosen = read_json(path)
        try:
            return [
                Chosen(str(model["label"]), tuple(map(str, model["words"]))) for model in chosen["models"]
            ]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} does not say what was chosen: add the stage select") from error

    def trainings(self, model: Chosen) -> list[runs.Run]:
        """The run of each seed of a chosen model, finished or not."""
        return [self.training([*model.words, f"seed={seed}"]) for seed in self.seeds]

    def training(self, words: Sequence[str]) -> runs.Run:
        """The run of a training with these words besides the study's own, finished or not."""
        return _run(_folder(tuple(self._common), tuple(words)), self._allow)

    def configuration(self, words: Sequence[str]) -> DictConfig:
        """The configuration of a training with these words besides the study's own, without Hydra's part."""
        return _configuration(tuple(self._common), tuple(words))

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
    def _composed(self) -> DictConfig:
        """The configuration that the trainings have in common, with Hydra's own part."""
        for word, parsed in self._parsed:
            if parsed.key_or_group == "defence" and parsed.is_sweep_override():
                raise ValueError(
                    f"{word}: a study chooses models under one defence; gruland.train sweeps over several"
                )
        fixed = [word for word, parsed in self._parsed if not parsed.is_sweep_override()]
        config.compose(*fixed)  # its errors are the ones to show
        return _compose(*fixed)

    @cached_property
    def _parsed(self) -> list[tuple[str, Any]]:
        return list(zip(self.overrides, config.parse(self.overrides), strict=True))

    @property
    def _common(self) -> list[str]:
        """The words that every training has."""
        return [
            word
            for word, parsed in self._parsed
            if not parsed.is_sweep_override() and parsed.key_or_group not in _OF_CELL
        ]

    @cached_property
    def grids(self) -> dict[str, Mapping[str, Sequence[Any]]]:
        """From each regularizer to what its sweep tries: from keys of the configuration to their values."""
        composed = {name: self.configuration([f"regularizer={name}"]) for name in self.settings.regularizers}
        return {name: config.instantiate(cfg.regularizer).grid for name, cfg in composed.items()}

    @cached_property
    def _allow(self) -> tuple[str, ...]:
        """The classes that the study's own words name."""
        composed = [self.configuration([f"regularizer={name}"]) for name in self.settings.regularizers]
        return tuple(target for cfg in composed for target in trust.targets(cfg))

    def _settled(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Those of a model's settings, by dotted key, that the study does not vary."""
        swept = [parsed.key_or_group for _, parsed in self._parsed if parsed.is_sweep_override()]
        varied = {*_OF_CELL, *swept, *(key for grid in self.grids.values() for key in grid)}
        return {
            key: value
            for key, value in settings.items()
            if not any(key == one or key.startswith(f"{one}.") for one in varied)
        }

    def _words(self, run: runs.Run) -> list[str]:
        """What tells a run's model from the study's own settings: all axes of its grid, and whatever else differs.

        An axis that is not named would be swept again.
        """
        place = place_of(run)
        named = {RATE, UNITS, *self.grids[place.regularizer]}
        usual = runs.settings(self.configuration([f"regularizer={place.regularizer}"]))
        return [f"regularizer={place.regularizer}"] + [
            f"{'' if key in usual else '++'}{key}={commands.text(value)}"
            for key, value in _settings(run).items()
            if key in named or (value != usual.get(key) and key != "seed")
        ]

    def _measured(self) -> list[str]:
        """The folders of the chosen models' runs.

        Raises:
            ValueError: there is none.
        """
        found = [run for model in self.chosen() for run in self.trainings(model) if _results(run)]
        if not found:
            raise ValueError(f"{self.folder} holds no finished run of a chosen model: add the stage repeat")
        return [str(run.path) for run in found]

    def _of_group(self, start: str) -> list[str]:
        """The words of the study whose key begins so, as a command on finished runs takes them."""
        return [
            word
            for word, parsed in self._parsed
            if parsed.key_or_group.startswith((start, "hydra.searchpath"))
            and parsed.key_or_group != "landscape.enabled"
        ]

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


def best_models(found: Iterable[runs.Run]) -> list[Model]:
    """Of each regularizer the model of least validation loss, see :mod:`gruland.report.choice`.

    Args:
        found: finished runs that may be compared with each other.
    """
    return [choice.model for choice in best(models(found)).values()]


@cache
def _configuration(common: tuple[str, ...], words: tuple[str, ...]) -> DictConfig:
    keys = {word: parsed.key_or_group for word, parsed in zip(words, config.parse(words), strict=True)}
    settings = [word for word, key in keys.items() if "." in key or key == "seed"]
    cfg = DictConfig(_plain(*common, *(word for word in words if word not in settings)))
    for parsed in config.parse(settings):  # in place: to compose takes a quarter of a second
        OmegaConf.update(cfg, parsed.key_or_group, parsed.value())
    return cfg


@cache
def _folder(common: tuple[str, ...], words: tuple[str, ...]) -> Path:
    return runs.folder(_configuration(common, words))


@cache
def _run(path: Path, allow: tuple[str, ...]) -> runs.Run:
    """A run's folder; its configuration is read once."""
    return runs.Run(path, allow)


@cache
def _settings(run: runs.Run) -> dict[str, Any]:
    """The settings that determine a run's model, by dotted key; none where they cannot be read."""
    try:
        return runs.settings(run.config)
    except (OSError, ValueError):
        return {}


def _results(run: runs.Run) -> dict[str, Any]:
    """The results of a finished run; nothing of another one, or where they cannot be read."""
    try:
        return run.results if run.results.get("status") == "finished" else {}
    except (OSError, ValueError):
        return {}


@cache
def _compose(*words: str) -> DictConfig:
    """A training's configuration as Hydra composes it, with its interpolations and with Hydra's own part."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        return compose("train", list(words), return_hydra_config=True)


@cache
def _plain(*words: str) -> dict[str, Any]:
    """The same without Hydra's own part, as plain data."""
    plain: Any = OmegaConf.to_container(_compose(*words), resolve=False)
    return {key: value for key, value in plain.items() if key != "hydra"}


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return math.fsum(known) / len(known)


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
        took = sum(map(time_of, jobs))
        seconds += took
        lines.append(f"  {stage:<10}{len(jobs)} {what}, about {clock(took)}")
    whole = f"about {clock(seconds)}" if seconds else "not known yet"
    return [*lines, f"  in all    {whole}{' and what is not known yet' if guessed and seconds else ''}"]


def _jobs(study: Study, stage: str) -> list[int] | None:
    """The hidden units of each model that a stage has still to train or to measure; None where not known yet."""
    if stage in ("select", "report"):
        return []
    if stage == "sweep":
        grid = [words for name in study.settings.regularizers for words in _grid(study, name)]
        return [_units(study, words) for words in grid if not _results(study.training(words))]
    try:
        chosen = study.chosen()
    except ValueError:
        return None
    done = {"repeat": "status", "landscape": "landscape", "attack": "attacks"}[stage]
    return [
        _units(study, model.words)
        for model in chosen
        for run in study.trainings(model)
        if done not in _results(run)
    ]


def _units(study: Study, words: Sequence[str]) -> int:
    return int(study.configuration(words).model.hidden_size)


def _grid(study: Study, regularizer: str) -> list[list[str]]:
    """What tells each training of a regularizer's sweep from the study's own settings."""
    chosen = study.configuration([f"regularizer={regularizer}"])
    axes = {key: [f"{key}={value}" for value in values] for key, values in study.grids[regularizer].items()}
    for word, parsed in study._parsed:
        key = parsed.key_or_group
        if key == "regularizer" or (key.startswith("regularizer.") and not config.has(chosen, key)):
            continue
        if parsed.is_discrete_sweep():
            axes[key] = [f"{key}={value}" for value in parsed.sweep_string_iterator()]
        elif key in (*_OF_CELL, *axes):
            axes[key] = [word]
    return [[f"regularizer={regularizer}", *words] for words in product(*axes.values())]


def _pace(study: Study, stage: str) -> Callable[[int], float] | None:
    """From a model's hidden units to the seconds that a stage takes for it; None where no run has told yet.

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
        return (lambda units: _mean(known) * units**1.15 / side_by_side) if known else None
    entries = [run.results.get("landscape") or {} for run in study.finished()]
    if stage == "attack":
        entries = [entry for run in study.finished() for entry in (run.results.get("attacks") or {}).values()]
    seconds = [entry["seconds"] for entry in entries if "seconds" in entry]
    return (lambda units: _mean(seconds)) if seconds else None


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
    from omegaconf.errors import OmegaConfBaseException

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
