"""Finding runs, and refusing what is none."""

import json
import math

import pytest

from gruland import best, config, runs
from gruland.files import write_json


def make(folder, name, regularizer, loss, status="finished", **model):
    path = folder / name
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("seed: 0\n")
    scores = {"best": {"validation": {"loss": loss}}}
    model = {"regularizer": regularizer, "rate": 0.1, "hidden_size": 64, **model}
    (path / "results.json").write_text(json.dumps({"status": status, "model": model, "metrics": scores}))
    return path


def test_a_folder_given_twice_counts_once(tmp_path):
    path = make(tmp_path, "a", "none", 0.5)
    for hidden in (tmp_path / ".trash" / "old", path / ".hydra", path / "wandb" / "run-1" / "files"):
        hidden.mkdir(parents=True)
        (hidden / "config.yaml").write_text("{}")
    assert runs.find(tmp_path, path) == [path]
    assert runs.find(tmp_path / ".trash") == [tmp_path / ".trash" / "old"], "it was named"


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_paths_without_runs_are_named(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=name):
        runs.find(tmp_path / name)


def test_no_finished_run(tmp_path, capsys):
    make(tmp_path, "a", "none", 0.5, status="running")
    with pytest.raises(SystemExit) as exit_:
        best.main([str(tmp_path)])
    assert exit_.value.code == 1
    assert f"no run in {tmp_path} can be read: unfinished" in capsys.readouterr().err


def test_a_refused_run_is_withdrawn_and_nothing_else(tmp_path):
    def folder(name):
        path = tmp_path / "mine" / name
        (path / ".hydra").mkdir(parents=True)
        for file in ("config.yaml", "log.txt"):
            (path / file).touch()
        return path

    refused, trained, foreign, busy = map(folder, ("refused", "trained", "foreign", "busy"))
    write_json(refused / "results.json", {"status": "failed"})
    write_json(trained / "results.json", {"status": "failed", "data": {}})
    (foreign / "notes.txt").touch()
    with runs.Run(busy).locked():
        for path in (refused, trained, foreign, busy, tmp_path / "mine" / "nowhere"):
            runs.withdraw(path)
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["busy", "foreign", "trained"]
    assert all((path / "config.yaml").exists() for path in (trained, foreign, busy))


def test_loading_what_is_no_finished_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run folder"):
        runs.load(tmp_path)
    with pytest.raises(ValueError, match="not finished"):
        runs.load(make(tmp_path, "a", "none", 0.5, status="running"))


@pytest.mark.parametrize(
    ("kind", "counts", "expected"),
    [
        ("binary", {"a": 50, "b": 50}, math.log(2)),
        ("multilabel", {"a": 500, "b": 50}, (0.6931 + 0.1985) / 2),  # of 1,000 texts
        ("multilabel", {"a": 0, "b": 1000}, None),
        ("multiclass", None, None),
    ],
)
def test_who_guesses_has_the_loss_of_the_classes_shares(kind, counts, expected):
    data = {"sizes": {"train": 1000}, "class_counts": {"train": counts}}
    found = runs.guessing_loss({"task": {"kind": kind}, "data": data})
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-4))


def test_where_something_is_computed_is_not_what_was_asked_for() -> None:
    words = ("attack=[deepwordbug,certificate]", "experiment=smoke")
    elsewhere = ("landscape.workers=2", "attack.deepwordbug.workers=4", "attack.certificate.engine=ray")
    wanted, again = (runs.requested(config.compose(*words, *more)) for more in ((), elsewhere))
    assert wanted == again
    assert wanted != runs.requested(config.compose(*words, "attack.deepwordbug.budget=7"))
