"""Every option of every group composes, and values that cannot work are refused before anything is written."""

from pathlib import Path

import pytest

import gruland
from gruland import config, runs

GROUPS = sorted(p.name for p in config.CONF.iterdir() if p.is_dir() and p.name not in ("hydra", "experiment"))
OPTIONS = [f"{group}={p.stem}" for group in GROUPS for p in sorted((config.CONF / group).glob("*.yaml"))]
#: Keys that a user has to give, as ??? in the file.
GIVEN = {"embedding=file": ["embedding.path=glove.txt"], "experiment=paper": ["embedding.path=glove.txt"]}
GIVEN |= {f"data={name}": ["data.path=file.parquet"] for name in ("sst2", "sst5", "reuters")}


@pytest.mark.parametrize("option", [*OPTIONS, "experiment=paper", "experiment=smoke"])
def test_every_option_composes_and_passes_the_checks(option):
    config.check(gruland.compose(option, *GIVEN.get(option, [])))


def test_the_papers_figures():
    cfg = gruland.compose("experiment=paper", "embedding.path=glove.txt", "regularizer=zoneout")
    assert (cfg.data.batch_size, cfg.data.max_length, cfg.data.clean) == (32, None, "none")
    assert (cfg.trainer.max_epochs, cfg.optimizer.lr, cfg.embedding.dimension) == (10, 1e-3, 100)
    assert (cfg.landscape.size, cfg.landscape.extent, cfg.landscape.reviews) == (51, 1.0, 1000)
    errors = cfg.attack.typing_errors
    assert (errors.reviews, errors.rate, errors.mode) == (200, 0.3, "sequence")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["regularizer=zoneout", "regularizer.rate=1.0"],
            r"regularizer\.rate=1\.0: expected a number in \[0, 1\)",
        ),
        (["regularizer=dropconnect", "regularizer.rate=-0.1"], r"regularizer\.rate=-0\.1"),
        (["regularizer=zoneout", "regularizer.rate=high"], r"regularizer\.rate=high"),
        (["optimizer.lr=abc"], r"optimizer\.lr=abc: expected a number above 0"),
        (["optimizer.lr=null"], r"optimizer\.lr=None: expected a number above 0"),
        (["trainer.threads=-1"], r"trainer\.threads=-1: expected a whole number of at least 1"),
        (["trainer.threads=two"], r"trainer\.threads=two"),
        (["model.hidden_size=0"], r"model\.hidden_size=0: expected a whole number of at least 1"),
        (["model.hidden_size=1.5"], r"model\.hidden_size=1\.5"),
        (["trainer.max_epochs=0"], r"trainer\.max_epochs=0"),
        (["landscape.size=0"], r"landscape\.size=0: expected a whole number of at least 1"),
        (["landscape.size=[5,0]"], r"landscape\.size\[1\]=0: expected a whole number of at least 1"),
        (["landscape.plane=trajectory"], r"landscape\.plane=trajectory needs .*trainer\.keep_epochs=true"),
        (["landscape.plane=[final,initial]"], r"landscape\.plane=\['final', 'initial'\] needs"),
        (["attack.typing_errors.rate=2"], r"attack\.typing_errors\.rate=2"),
        (["seed=-1"], r"seed=-1"),
        (["embedding=file"], r"embedding\.path is missing"),
    ],
)
def test_values_that_cannot_work(overrides, message):
    with pytest.raises(ValueError, match=message):
        config.check(gruland.compose(*overrides))


def test_an_unknown_option_or_key_is_named():
    with pytest.raises(ValueError, match="regularizer/dropout"):
        gruland.compose("regularizer=dropout")
    with pytest.raises(ValueError, match="units"):
        gruland.compose("model.units=3")


def test_an_output_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file, expected a folder"):
        config.check(gruland.compose(f"output_dir={tmp_path}/file/runs"))


def test_the_name_is_readable_and_holds_no_character_of_hydras_grammar():
    name = runs.name(gruland.compose("regularizer=zoneout", "seed=3"))
    assert name.startswith("zoneout-0.1-h128-s3-")
    assert not set(name) & set("=,/ ")


@pytest.mark.parametrize(
    "override", ["seed=1", "data.limit=100", "optimizer.lr=0.01", "trainer.max_epochs=7"]
)
def test_what_determines_the_model_changes_the_name(override):
    assert runs.name(gruland.compose()) != runs.name(gruland.compose(override))


@pytest.mark.parametrize(
    "override",
    [
        "trainer=gpu",
        "logger=wandb",
        "data.num_workers=2",
        "data.cache_dir=x",
        "trainer.threads=1",
        "output_dir=x",
        "landscape.size=5",
        "attack=none",
        "model.backend=eager",
        "experiment_name=other",
    ],
)
def test_what_does_not_determine_the_model_keeps_the_name(override):
    assert runs.name(gruland.compose()) == runs.name(gruland.compose(override))


def test_every_key_of_every_file_is_commented():
    for path in sorted(config.CONF.rglob("*.yaml")):
        assert any(
            line.startswith("#") and "@package" not in line for line in path.read_text().splitlines()
        ), path


def test_the_configuration_lies_beside_the_package():
    assert (Path(config.CONF) / "train.yaml").is_file()
