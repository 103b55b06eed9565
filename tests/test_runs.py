"""Finding runs, and refusing what is none."""

import json

import pytest

from gruland import best, runs


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
    assert "none of the 1 runs" in capsys.readouterr().err


def test_loading_what_is_no_finished_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run folder"):
        runs.load(tmp_path)
    with pytest.raises(ValueError, match="not finished"):
        runs.load(make(tmp_path, "a", "none", 0.5, status="running"))
