"""Every option of every group builds its objects, and what cannot work is refused before anything is written."""

import re
from importlib.util import find_spec

import pytest
from omegaconf import OmegaConf

import gruland
from gruland import config, experiment, runs
from gruland.surfaces import Surface

GROUPS = sorted(p.name for p in config.CONF.iterdir() if p.is_dir() and p.name not in ("hydra", "experiment"))
OPTIONS = [f"{group}={p.stem}" for group in GROUPS for p in sorted((config.CONF / group).glob("*.yaml"))]
#: What an option needs besides itself: a key that is ??? in its file, or a device that this machine may lack.
GIVEN = {
    "embedding=file": ["embedding.path=glove.txt"],
    "experiment=paper": ["embedding.path=glove.txt"],
    **{
        f"callbacks={name}": [f"callbacks=[default,{name}]"] for name in ("epoch_weights", "weight_averaging")
    },
    "trainer=gpu": ["trainer.accelerator=cpu"],
    **{f"data={name}": ["data.path=reviews.csv"] for name in ("sst2", "sst5", "reuters")},
}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.csv").write_text("text,label\n")
    (tmp_path / "glove.txt").write_text("word 0.1 0.2\n")


@pytest.mark.parametrize("option", [*OPTIONS, "experiment=paper", "experiment=smoke"])
def test_every_option_builds_its_objects(option):
    words = GIVEN.get(option, [])
    experiment.check(
        gruland.compose(*([option] if f"{option.split('=')[0]}=" not in "".join(words) else []), *words)
    )


def test_several_loggers_and_callbacks_at_once():
    cfg = gruland.compose("logger=[wandb,tensorboard]", "callbacks=[default,epoch_weights]")
    experiment.check(cfg)
    assert set(cfg.logger) == {"wandb", "tensorboard"}
    assert {"best", "last", "epoch_weights"} <= set(cfg.callbacks)


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
        (["regularizer=zoneout", "regularizer.rate=1.0"], r"rate=1\.0: expected a number in \[0, 1\)"),
        (["regularizer=dropconnect", "regularizer.rate=-0.1"], r"regularizer\.rate=-0\.1"),
        (["regularizer=zoneout", "regularizer.rate=high"], r"regularizer\.rate=high"),
        (["optimizer.lr=abc"], r"optimizer"),
        (["optimizer.lr=-1"], r"optimizer.*learning rate: -1"),
        (["optimizer.lr=null"], r"optimizer"),
        (["optimizer.lr=1e300"], r"optimizer\.lr=1e\+300: expected a finite number"),
        (["threads=-1"], r"threads=-1: expected a whole number of at least 1"),
        (["threads=two"], r"threads=two"),
        (["trainer.threads=2"], r"trainer\.threads is no longer a key, give threads=2"),
        (["trainer.keep_epochs=true"], r"give callbacks=\[default,epoch_weights\]"),
        (["logger.name=wandb"], r"give logger=tensorboard"),
        (["model.hidden_size=0"], r"model: hidden_size is 0"),
        (["model.hidden_size=1.5"], r"model: "),
        (["model.hidden_size=10000000"], r"model\.hidden_size=10000000: training needs .* GiB"),
        (["model.hidden_size=100000000000"], r"model"),
        (["trainer.max_epochs=0"], r"trainer\.max_epochs=0"),
        (["trainer.max_epochs=-1"], r"trainer\.max_epochs=-1"),
        (["trainer.gradient_clip_val=nan"], r"trainer\.gradient_clip_val=nan"),
        (["trainer.gradient_clip_val=-1"], r"trainer\.gradient_clip_val=-1: expected a number above 0"),
        (["trainer.gradient_clip_val=abc"], r"trainer: .*gradient_clip_val.*abc"),
        (["trainer.accelerator=abacus"], r"trainer: .*invalid accelerator"),
        (["trainer.devices=2", "data.batch_size=1"], r"data\.batch_size=1: .* each of the 2 devices"),
        (["trainer.devices=2", "+trainer.strategy=ddp"], r"trainer\.strategy=ddp: expected ddp_spawn"),
        (["trainer.devices=2", "logger=wandb"], r"trainer\.devices=2: logger=wandb follows one process"),
        (["trainer.precision=7"], r"trainer: .*7"),
        (["+trainer.logger=true"], r"trainer\.logger is set by the program itself"),
        (["landscape.size=0"], r"landscape\.size=0: expected a whole number of at least 1"),
        (["landscape.size=[5,0]"], r"landscape\.size=\[5, 0\]|landscape\.size\[1\]=0"),
        (["landscape.size=99999999999999999999"], r"size=99999999999999999999: .* fits in 64 bits"),
        (["landscape.plane=trajectory"], r"plane=trajectory needs .*callbacks=\[default,epoch_weights\]"),
        (["landscape.plane=[final,initial]"], r"landscape\.plane=\['final', 'initial'\] needs"),
        (["attack.typing_errors.rate=2"], r"attack\.typing_errors\.rate=2"),
        (["attack.rate=0.5"], r"attack\.rate is no longer a key, give attack\.typing_errors\.rate"),
        (["seed=-1"], r"seed=-1"),
        (["seed=18446744073709551616"], r"seed=18446744073709551616: .* fits in 64 bits"),
        (["seed=2^64"], r"seed=2\^64"),
        (["embedding=file"], r"embedding\.path is missing"),
        (["embedding.path=nowhere.txt"], r"embedding\.path=nowhere\.txt does not exist"),
        (["data.path=nowhere.csv"], r"nowhere\.csv does not exist"),
        (["experiment_name=a/b"], r"experiment_name=a/b: expected the name of one folder"),
        (["experiment_name=.."], r"experiment_name=\.\.: expected the name of one folder"),
        (["experiment_name=.x"], r"experiment_name=\.x: .* which does not begin with a dot"),
        (["+trainer.check_val_every_n_epoch=2"], r"check_val_every_n_epoch=2: expected 1, every epoch is"),
        (["+trainer.limit_val_batches=0"], r"limit_val_batches=0: expected a number above 0, every epoch is"),
        (["~callbacks.best"], r"callbacks\.best is missing, and every run needs it"),
        (["model._target_=nosuch.Model"], r"model\._target_=nosuch\.Model: cannot be imported"),
        (["model._target_=os.path"], r"model\._target_=os\.path: expected a class"),
    ],
)  # fmt: skip
def test_values_that_cannot_work(overrides, message):
    with pytest.raises((ValueError, OSError), match=message):
        experiment.check(gruland.compose(*overrides))


@pytest.mark.parametrize(
    ("override", "near"),
    [
        ("+trainer.max_epoch=3", "max_epochs"),
        ("+trainer.limit_train_batchs=3", "limit_train_batches"),
        ("+landscape.sise=3", "size"),
        ("+data.max_lenght=3", "max_length"),
        ("data.max_lenght=3", "max_length"),
        ("+embedding.freze=true", "freeze"),
        ("+model.units=3", "hidden_size|expected one of"),
        ("model.hiden_size=3", "hidden_size"),
        ("+optimizer.beta=[0.9,0.99]", "betas"),
        ("+callbacks.loss_surface.every_n_epoch=2", "every_n_epochs"),
        ("callbacks.best.monitor=val/accuracy", "its class takes no setting"),
        ("+attack.typing_errors.reviws=3", "reviews"),
        ("logger=wandb,+logger.wandb.projct=x", "project"),
        ("+label_smoothing=0.1", "expected one of"),
        ("+scheduler.gamma=0.1", "regularizer|expected one of"),
        ("regularizer.zoneout=0.1", "expected one of|takes no"),
        ("sed=1", "seed"),
        ("regulariser=zoneout", "regularizer"),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_is_named(override, near):
    with pytest.raises(ValueError, match=f"is unknown: .*({near})"):
        experiment.check(
            gruland.compose(*override.split(",") if override.startswith("logger") else [override])
        )


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("regularizer=zoneotu", "regularizer=zoneotu is unknown: did you mean zoneout?"),
        ("data=cifar", "data=cifar is unknown: expected one of imdb, reuters, reviews, "),
        ("hydra/launcher=jobblib", "hydra/launcher=jobblib is unknown: did you mean joblib?"),
        ("regularizer=[zoneout,ar_tar]", "option of their own, here regularizer=zoneout_ar_tar"),
        ("regularizer=[zoneout,locked]", "expected one option; several at once are an option of their own"),
        ("data=[imdb,reviews]", "data=[imdb,reviews]: expected one option"),
        ("attack=[smoke,smok]", "attack=smok is unknown: did you mean smoke?"),
        ("~landscape", "landscape is missing: leave ~landscape out"),
        (
            "landscape.size=99999999999999999999",
            "landscape.size=99999999999999999999: expected a whole number",
        ),
    ],
)
def test_an_unknown_option_is_refused_and_the_nearest_is_named(word, message):
    with pytest.raises(ValueError, match=re.escape(message)) as failure:
        gruland.compose(word)
    assert not str(failure.value).startswith("callbacks")


@pytest.mark.parametrize(
    "word", ["landscape.size=&a [*a]", "landscape.extent=${", "~landscape", "data=[3,[1]]", "data=3", "~seed",
             "seed", "landscape.extent=${nowhere}"],
)  # fmt: skip
def test_words_that_cannot_be_read_are_one_line(word):
    with pytest.raises(ValueError, match=r".+") as failure:
        experiment.check(gruland.compose(word))
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("kind", ["sweeper", "launcher"])
def test_a_plug_in_that_is_not_installed_is_named(kind):
    with pytest.raises(
        ValueError, match=f"hydra/{kind}=rubber is not installed: pip install hydra-rubber-{kind}"
    ):
        gruland.compose(f"hydra/{kind}=rubber")


@pytest.mark.skipif(find_spec("hydra_plugins.hydra_ray_launcher") is not None, reason="it is installed")
def test_a_plug_in_with_requirements_of_its_own_is_installed_without_them():
    with pytest.raises(
        ValueError, match=r"installed: pip install ray && pip install --no-deps hydra-ray-launcher$"
    ):
        gruland.compose("hydra/launcher=ray")


@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_slurm", "submitit_local", "slurm"])
@pytest.mark.parametrize("trainer", ["cpu", "gpu", "slurm"])
def test_every_launcher_composes_beside_every_trainer(trainer, launcher):
    gruland.compose(f"trainer={trainer}", f"hydra/launcher={launcher}")


@pytest.mark.parametrize(
    "name",
    ["IMDB Dataset.csv", "imdb (1).csv", "~/imdb.csv", "/home/rené/imdb.csv", "a=b.csv", "日本.csv", "it's.csv",
     "a[1].csv", "50% of {all}.csv", "~imdb.csv", "C:\\reviews\\imdb.csv", "a,b.csv"],
)  # fmt: skip
def test_a_path_is_taken_as_it_is_typed(name, tmp_path):
    if "/" not in name:
        (tmp_path / name).write_text("review,sentiment\n")
    assert gruland.compose(f"data.path={name}").data.path == name


def test_a_sweep_over_paths_stays_a_sweep():
    assert config.typed(["data.path=a (1).csv,b.csv"]) == ["data.path='a (1).csv',b.csv"]
    assert config.parse(config.typed(["data.path=a (1).csv,b.csv"]))[0].is_sweep_override()


def test_a_key_of_an_older_version_is_left_out_of_a_finished_run_with_a_line(caplog):
    surface = {"_target_": "gruland.surfaces.Surface", "size": 3, "interpolation": "cubic"}
    attack = {"mine": {"_target_": "gruland.attack.TypingErrors", "rate": 0.2, "letters": 2}}
    assert config.over(surface, ["size=5"], "landscape") == {"_target_": surface["_target_"], "size": 5}
    assert config.over(attack, [], "attack") == {
        "mine": {"_target_": attack["mine"]["_target_"], "rate": 0.2}
    }
    assert [record.getMessage().partition(" is ")[0] for record in caplog.records] == [
        "landscape.interpolation=cubic",
        "attack.mine.letters=2",
    ]
    with pytest.raises(ValueError, match=r"landscape\.interpolation=linear: there is no such key"):
        Surface.of(config.over(surface, ["interpolation=linear"], "landscape"))


def test_an_output_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file, expected a folder"):
        experiment.check(gruland.compose(f"output_dir={tmp_path}/file/runs"))


def test_an_object_names_its_argument_and_the_configuration_adds_the_key():
    node = OmegaConf.create({"model": {"_target_": f"{__name__}.Picky", "units": 0}})
    with pytest.raises(ValueError, match=r"^model\.units=0: expected more$"):
        config.instantiate(node.model)
    with pytest.raises(ValueError, match=r"^model\.unit is unknown: did you mean units\?$"):
        config.instantiate(OmegaConf.create({"model": {**node.model, "unit": 1}}).model)


class Picky:
    def __init__(self, units, things=None):
        if not units:
            raise ValueError("units=0: expected more")
        self.units, self.things = units, things


def test_what_is_given_by_the_program_arrives_as_it_is():
    node = OmegaConf.create({"model": {"_target_": f"{__name__}.Picky", "units": [1, 2]}})
    things = [object(), object()]
    made = config.instantiate(node.model, things=things)
    assert made.things is things
    assert type(made.units) is list


@pytest.fixture(scope="module")
def usual_name():
    return runs.name(gruland.compose())


def test_the_name_is_readable_and_holds_no_character_of_hydras_grammar():
    name = runs.name(gruland.compose("regularizer=zoneout", "seed=3"))
    assert name.startswith("zoneout-0.1-h128-s3-")
    assert not set(name) & set("=,/ ")


@pytest.mark.parametrize(
    "override",
    ["seed=1", "data.limit=100", "optimizer.lr=0.01", "trainer.max_epochs=7", "+optimizer.eps=1e-6",
     "+trainer.accumulate_grad_batches=4", "+trainer.limit_train_batches=1", "+trainer.fast_dev_run=true",
     "+callbacks.stop={_target_:pytorch_lightning.callbacks.EarlyStopping,monitor:val/loss}"],
)  # fmt: skip
def test_what_determines_the_model_changes_the_name(override, usual_name):
    assert runs.name(gruland.compose(override)) != usual_name


@pytest.mark.parametrize(
    "override",
    ["trainer=gpu", "logger=wandb", "data.num_workers=2", "data.cache_dir=x", "threads=1", "output_dir=x",
     "landscape.size=5", "attack=none", "model.backend=torch", "experiment_name=other",
     "callbacks=[default,epoch_weights]", "trainer.enable_progress_bar=true"],
)  # fmt: skip
def test_what_does_not_determine_the_model_keeps_the_name(override, usual_name):
    assert runs.name(gruland.compose(override)) == usual_name


def test_every_file_is_commented():
    for path in sorted(config.CONF.rglob("*.yaml")):
        lines = path.read_text().splitlines()
        assert any(line.startswith("#") and "@package" not in line for line in lines), path


def test_the_configuration_lies_beside_the_package():
    assert (config.CONF / "train.yaml").is_file()
