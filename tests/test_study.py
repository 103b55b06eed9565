"""The study's stages: what they run, what they choose, what they leave out, and what they say beforehand."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from soak import children

from gruland import study
from gruland.config import compose
from gruland.files import atomic_path, write_json
from gruland.report.models import Place as Cell
from gruland.report.paper import MODELS
from gruland.runs import Run, name

SIZES, RATES = (256, 128, 64), (0.05, 0.1, 0.5)
GRID = [Cell("none", 0.0, size) for size in SIZES]
GRID += [Cell(name, rate, size) for name in ("zoneout", "dropconnect") for rate in RATES for size in SIZES]


composed = cache(compose)


def finish(folder: Path, cell: Cell, seed: int, loss: float, *words: str, **settings: Any) -> Path:
    """A finished run's folder, as far as a study reads it.

    Args:
        words: of its training besides ``experiment=smoke`` and the cell's.
        settings: of its regularizer besides the rate.
    """
    cfg: DictConfig = composed("experiment=smoke", f"regularizer={cell.regularizer}", *words).copy()
    cfg.model.hidden_size, cfg.seed = cell.hidden_size, seed
    cfg.regularizer.update({**({"rate": cell.rate} if cell.rate else {}), **settings})
    path = folder / name(cfg)
    scores = {split: {"loss": loss, "loss_se": 0.01} for split in ("train", "validation", "test")}
    results = {
        "schema": 1,
        "status": "finished",
        "name": path.name,
        "experiment": folder.name,
        "seed": seed,
        "model": cell._asdict(),
        "metrics": {"best": scores, "last": scores},
        "training": {"seconds": 10.0, "epochs": 5, "best_epoch": 5},
    }
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    write_json(path / "results.json", results)
    return path


class Commands:
    """Stands in for the commands: records each, and finishes the runs that a training would."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lines, self.status = folder, [], 0

    def __call__(self, command: Sequence[str]) -> int:
        _, _, module, *words = command
        self.lines.append((module, words))
        if module == "gruland.train" and not self.status:
            given = dict(word.split("=", 1) for word in words if "=" in word)
            named = given["regularizer"].split(",")
            cells = [cell for cell in GRID if cell.regularizer in named]
            if "model.hidden_size" in given:
                size, rate = int(given["model.hidden_size"]), float(given.get("regularizer.rate", 0))
                cells = [Cell(named[0], rate, size)]
            for seed in map(int, given.get("seed", "0").split(",")):
                for cell in cells:
                    finish(self.folder, cell, seed, 0.5 - cell.rate / 10 + 1 / cell.hidden_size)
        return self.status

    @property
    def modules(self) -> list[str]:
        return [module for module, _ in self.lines]


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    recorded = Commands(tmp_path / "smoke")
    monkeypatch.setattr(study, "_call", recorded)
    return recorded


def run(tmp_path: Path, *words: str) -> int:
    return study.main(["experiment=smoke", f"output_dir={tmp_path}", *words])


def test_the_stages_train_choose_and_measure(tmp_path: Path, commands: Commands) -> None:
    assert run(tmp_path, "seeds=2") == 0
    repeats = commands.modules.count("gruland.train") - 1
    assert commands.modules == [
        "gruland.train", *["gruland.train"] * repeats, "gruland.landscape", "gruland.attack", "gruland.report",
    ]  # fmt: skip
    sweep = commands.lines[0][1]
    assert {"experiment=smoke", "regularizer=none,zoneout,dropconnect", "attack=none", "-m"} <= set(sweep)
    chosen = json.loads((tmp_path / "smoke" / "study.json").read_text())["models"]
    best = {Cell("none", 0.0, 256), Cell("zoneout", 0.5, 256), Cell("dropconnect", 0.5, 256)}
    assert {Cell(m["regularizer"], m["rate"], m["hidden_size"]) for m in chosen} == best | set(MODELS)
    assert repeats == len(chosen)
    for module in ("gruland.landscape", "gruland.attack"):
        words = dict(commands.lines)[module]
        assert len([word for word in words if "=" not in word]) == 2 * len(chosen)
    assert "attack=smoke" in dict(commands.lines)["gruland.attack"]


def test_a_report_goes_where_the_trainings_went(tmp_path: Path, commands: Commands) -> None:
    run(tmp_path, "stages=[report]")
    run(tmp_path, "stages=[report]", "logger=wandb", "logger.wandb.project=gates")
    assert [words[1:] for _, words in commands.lines] == [[], ["--wandb", "gates"]]


def test_a_second_time_trains_nothing_but_what_is_missing(tmp_path: Path, commands: Commands) -> None:
    run(tmp_path, "stages=[sweep,select,repeat]", "seeds=2", "regularizers=[zoneout]")
    commands.lines.clear()
    run(tmp_path, "stages=[repeat]", "seeds=2", "regularizers=[zoneout]")
    assert commands.lines == []
    (missing,) = (tmp_path / "smoke").glob("zoneout-0.1-h128-s1-*")
    (missing / "results.json").unlink()
    run(tmp_path, "stages=[repeat]", "seeds=2", "regularizers=[zoneout]")
    assert len(commands.lines) == 1
    assert {"regularizer=zoneout", "regularizer.rate=0.1", "model.hidden_size=128", "seed=0,1"} <= set(
        commands.lines[0][1]
    )


def test_stages_run_alone_and_say_what_they_lack(
    tmp_path: Path, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage, message in (("select", "add the stage sweep"), ("landscape", "add the stage select")):
        with pytest.raises(SystemExit):
            run(tmp_path, f"stages=[{stage}]", "regularizers=[zoneout]")
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
    run(tmp_path, "stages=[sweep]", "regularizers=[zoneout]")
    run(tmp_path, "stages=[select,report]", "paper_models=false", "regularizers=[zoneout]")
    assert commands.modules == ["gruland.train", "gruland.report"]
    assert len(json.loads((tmp_path / "smoke" / "study.json").read_text())["models"]) == 1


def test_the_choice_is_by_the_mean_over_shared_seeds_and_never_by_the_luckiest(tmp_path: Path) -> None:
    steady, lucky = Cell("zoneout", 0.1, 128), Cell("zoneout", 0.5, 128)
    diverged, luckier = Cell("zoneout", 0.05, 64), Cell("zoneout", 0.05, 128)
    losses = {
        steady: [0.40, 0.41, 0.42],
        lucky: [0.60, 0.30, 0.60],
        diverged: [0.1, float("nan"), 0.1],
        luckier: [0.50, 0.50, 0.50, 0.01],  # in a seed that the others lack
    }
    found = []
    for cell, values in losses.items():
        for seed, loss in enumerate(values):
            found.append(Run(finish(tmp_path, cell, seed, loss)))
    assert [model.place for model in study.best_models(found)] == [steady]


def test_what_it_will_take_is_said_before(
    tmp_path: Path, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, "seeds=2", "stages=[sweep,select,repeat]", "regularizers=[zoneout]")
    first = capsys.readouterr().out
    assert "sweep     9 trainings; how long is known after the first" in first
    assert "repeat    follows from the choice" in first
    for path in sorted((tmp_path / "smoke").glob("zoneout-*-h256-s0-*"))[:2]:
        (path / "results.json").unlink()
    assert (
        "sweep     2 trainings, about 00:"
        in study.parse(
            ["experiment=smoke", f"output_dir={tmp_path}", "seeds=2", "regularizers=[zoneout]"]
        ).estimate()
    )


def test_a_stage_that_fails_ends_the_study_with_its_status(
    tmp_path: Path, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.status = 3
    assert run(tmp_path, "regularizers=[none]") == 3
    assert len(commands.lines) == 1
    assert "the stage sweep failed; the same command goes on from here" in capsys.readouterr().err


def test_what_is_told_can_be_typed(
    tmp_path: Path, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, "regularizers=[none]", "stages=[sweep]", "data.path=IMDB (1).csv")
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  python"))
    assert shlex.split(line)[3:] == commands.lines[0][1]
    assert "data.path='IMDB (1).csv'" in commands.lines[0][1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stages=[swep]"], "stages=['swep']: expected some of [sweep,select"),
        (["stages=sweep"], "stages=sweep: expected some of"),
        (["seeds=0"], "seeds=0: expected a whole number of at least 1"),
        (["seeds=1,2"], "seeds=1,2"),
        (["regularizers=zoneout"], "regularizers=zoneout: expected a list"),
        (["model.units=3"], "units"),
        (["-m"], "-m: expected key=value"),
    ],
)
def test_wrong_words_are_refused_before_anything_runs(
    tmp_path: Path, commands: Commands, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        run(tmp_path, *words)
    said = capsys.readouterr()
    assert exit_.value.code == 1
    assert message in said.err
    assert said.err.count("\n") == 1
    assert commands.lines == []
    assert list(tmp_path.iterdir()) == []


def test_a_second_study_of_a_folder_is_refused_and_leftovers_are_removed(
    tmp_path: Path, commands: Commands
) -> None:
    first, second = (study.parse([f"output_dir={tmp_path}"]) for _ in range(2))
    with first.locked():
        with (
            pytest.raises(ValueError, match=rf"another process is at the study {first.folder}: wait for it"),
            second.locked(),
        ):
            pass
        with atomic_path(first.folder / "study.json") as temporary:
            temporary.write_text("whole")
            half = temporary.with_name(temporary.name.replace(f"-{os.getpid()}-", "-999999999-"))
    half.write_text("half")
    with second.locked():
        assert not half.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_a_killed_study_takes_its_command_along(tmp_path: Path) -> None:
    told = tmp_path / "process"

    def kill() -> None:
        while not told.exists() or not told.read_text().endswith("\n"):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGKILL)

    def killed() -> int:
        threading.Thread(target=kill).start()
        return study._call(["sh", "-c", f"echo $$ > {told}; exec sleep 60"])

    assert children.call(killed).status == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while Path(f"/proc/{told.read_text().strip()}/exe").exists():  # no zombie has one
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_runs_of_other_settings_in_the_folder_are_no_part_of_a_study(tmp_path: Path) -> None:
    """An earlier study of one epoch, whose losses are lower: neither chosen, nor counted, nor measured."""
    words = [
        "experiment=smoke",
        f"output_dir={tmp_path}",
        "regularizers=[none]",
        "paper_models=false",
        "seeds=2",
    ]
    cell = Cell("none", 0.0, 128)
    for seed in (0, 1):
        finish(tmp_path / "smoke", cell, seed, 0.1, "trainer.max_epochs=1")
    own = finish(tmp_path / "smoke", cell, 0, 0.5)
    one = study.parse(words)
    assert [run.path for run in one.finished()] == [own]
    one.select()
    (chosen,) = one.chosen()
    assert [bool(study._results(run)) for run in one.trainings(chosen)] == [True, False]
    assert one._measured() == [str(own)]


def test_a_model_is_chosen_and_repeated_by_every_axis_of_its_grid(tmp_path: Path, commands: Commands) -> None:
    words = ["experiment=smoke", f"output_dir={tmp_path}", "regularizers=[fraternal]", "paper_models=false"]
    cell, kappas = Cell("fraternal", 0.12345678, 64), (0.05, 0.15)  # the second one is the default
    for seed, losses in enumerate([(0.3, 0.5), (0.9, 0.5), (0.9, 0.5)]):  # a lucky seed of the first
        for kappa, loss in zip(kappas, losses, strict=True):
            path = finish(tmp_path / "smoke", cell, seed, loss, kappa=kappa)
    one = study.parse(words)
    one.select()
    (chosen,) = one.chosen()
    assert {"regularizer=fraternal", "regularizer.kappa=0.15", "model.hidden_size=64"} < set(chosen.words)
    assert one.trainings(chosen)[2].path == path
    (path / "results.json").unlink()
    one.repeat()
    (line,) = [words for _, words in commands.lines]
    assert {*chosen.words, "regularizer.rate=0.12345678", "seed=0,1,2", "experiment=smoke"} <= set(line)


def test_what_a_study_says_of_surfaces_and_attacks_reaches_their_commands(
    tmp_path: Path, commands: Commands
) -> None:
    finish(tmp_path / "smoke", Cell("none", 0.0, 64), 0, 0.5)
    words = ["landscape.size=7", "landscape.enabled=true", "++attack.typing_errors.rate=0.5"]
    run(tmp_path, "stages=[select,landscape,attack]", "regularizers=[none]", "paper_models=false", *words)
    (landscape, measured), (attack, _) = [(words[1:], words[0]) for _, words in commands.lines]
    assert landscape == ["landscape.size=7"]
    assert attack == ["attack=smoke", "++attack.typing_errors.rate=0.5"]
    assert Path(measured).name.startswith("none-h64-s0-")
