"""A run from configuration to folder: complete, repeatable, resumable, and clear about what is wrong."""

import contextlib
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from soak import children

import gruland
from gruland import files, runs
from gruland.callbacks import MetricsFile
from gruland.classifier import Classifier
from gruland.train import train


def smoke(folder, *overrides):
    return gruland.compose("experiment=smoke", f"output_dir={folder}", "threads=1", "attack=none", *overrides)


def plain(folder, *overrides):
    """Training alone."""
    return smoke(folder, "landscape.enabled=false", *overrides)


def weights(run, which="last"):
    return load_file(run.checkpoint(which))


def same_weights(a, b):
    return all(
        torch.equal(weights(a, which)[k], v)
        for which in ("best", "last")
        for k, v in weights(b, which).items()
    )


def test_what_a_run_leaves_behind(smoke_run):
    expected = [
        "config.yaml",
        "metrics.csv",
        "results.json",
        "checkpoints/best.safetensors",
        "checkpoints/last.safetensors",
        "checkpoints/last.ckpt",
    ]
    expected += [
        "landscape/surface.zarr",
        "landscape/surface.png",
        "landscape/contour.png",
        "landscape/surface.html",
    ]
    expected += ["attack/typing_errors/texts.csv"]
    assert [name for name in expected if not (smoke_run.path / name).exists()] == []
    results = smoke_run.results
    assert results["schema"] == runs.SCHEMA
    assert results["status"] == "finished"
    assert results["model"]["regularizer"] == "zoneout"
    assert set(results["metrics"]) == {"best", "last"}
    for splits in results["metrics"].values():
        for split, size in results["data"]["sizes"].items():
            assert splits[split]["count"] == size
            assert 0 < splits[split]["loss"] < 10
    assert results["landscape"]["cells"] == 25
    assert set(results["attacks"]["typing_errors"]["scores"]) == {"raw", "stripped", "perturbed"}


def test_the_surfaces_centre_is_the_measured_loss_of_the_same_reviews(smoke_run):
    from gruland.landscape.store import load_surface

    surface = load_surface(smoke_run.path / "landscape" / "surface.zarr")
    assert float(surface.loss.sel(alpha=0, beta=0)) == pytest.approx(
        smoke_run.results["landscape"]["center_loss"]
    )


def test_the_best_epoch_has_the_least_validation_loss_and_its_scores_are_its_own(smoke_run):
    table = smoke_run.metrics
    assert list(table.epoch) == [1, 2]
    best = smoke_run.results["training"]["best_epoch"]
    assert best == int(table.epoch[table.validation_loss.idxmin()])
    scored = smoke_run.results["metrics"]["best"]["validation"]
    row = table[table.epoch == best].iloc[0]
    assert scored["loss"] == pytest.approx(row.validation_loss, rel=1e-5)
    assert scored["accuracy"] == pytest.approx(row.validation_accuracy, abs=1e-6)
    assert scored["f1"] == pytest.approx(row.validation_f1, abs=1e-6)


def test_a_loaded_run_gives_back_config_model_and_data(smoke_run):
    run = runs.load(smoke_run.path)
    assert run.config.regularizer.rate == 0.1
    assert not run.model.training
    assert run.data.report["fingerprint"] == run.results["data"]["fingerprint"]
    assert "vectors" not in weights(run)  # frozen vectors stay outside the checkpoint


def test_a_training_that_stopped_early_has_ended_whatever_is_asked_of_it_later(tmp_path):
    stop = "{_target_:pytorch_lightning.callbacks.EarlyStopping,monitor:val/loss,stopping_threshold:100}"
    words = [f"+callbacks.stop={stop}", "trainer.max_epochs=3", "data.limit=16"]
    run = train(plain(tmp_path, *words))
    before, results = run.checkpoint("last").read_bytes(), run.results
    assert results["training"]["epochs"] == 1
    run = train(plain(tmp_path, *words, "landscape.size=7"))
    assert (run.results["training"], run.checkpoint("last").read_bytes()) == (results["training"], before)
    # Killed after the training, before it was sealed; the checkpoint knows.
    files.write_json(run.path / "results.json", {"status": "running", "name": results["name"]})
    run = train(plain(tmp_path, *words))
    assert (run.results["training"], run.checkpoint("last").read_bytes()) == (results["training"], before)
    assert run.results["metrics"] == results["metrics"]


def test_same_seed_and_config_give_the_same_weights_and_another_seed_others(tmp_path):
    a, b = (train(plain(tmp_path / name, "regularizer=dropconnect")) for name in "ab")
    assert same_weights(a, b)
    c = train(plain(tmp_path / "a", "regularizer=dropconnect", "seed=1"))
    assert not torch.equal(weights(a)["head.weight"], weights(c)["head.weight"])


def cut_in_the_third_epoch(monkeypatch, cfg):
    original = MetricsFile.on_train_epoch_start

    def fail(self, trainer, module):
        original(self, trainer, module)
        if trainer.current_epoch == 2:
            raise OSError("power cut")

    with monkeypatch.context() as patched:
        patched.setattr(MetricsFile, "on_train_epoch_start", fail)
        with pytest.raises(OSError, match="power cut"):
            train(cfg)


@pytest.mark.parametrize("regularizer", ["none", "zoneout", "dropconnect"])
def test_an_interrupted_run_ends_with_the_numbers_of_an_undisturbed_one(tmp_path, monkeypatch, regularizer):
    overrides = (f"regularizer={regularizer}", "trainer.max_epochs=4")
    whole = train(plain(tmp_path / "whole", *overrides))
    cut_in_the_third_epoch(monkeypatch, plain(tmp_path / "cut", *overrides))
    run = runs.Run(runs.folder(plain(tmp_path / "cut", *overrides)))
    assert run.results["status"] == "failed"
    assert run.results["error"] == "power cut"
    with pytest.raises(ValueError, match="not finished"):
        runs.load(run.path)
    resumed = train(plain(tmp_path / "cut", *overrides))
    assert same_weights(whole, resumed)
    assert whole.results["metrics"] == resumed.results["metrics"]
    columns = ["epoch", *MetricsFile.COLUMNS]
    assert whole.metrics[columns].equals(resumed.metrics[columns])


def test_a_run_that_was_moved_while_interrupted_keeps_its_best_epoch(tmp_path, monkeypatch):
    overrides = ("optimizer.lr=1.0", "trainer.max_epochs=4")  # too fast: the best epoch is an early one
    whole = train(plain(tmp_path / "whole", *overrides))
    cut_in_the_third_epoch(monkeypatch, plain(tmp_path / "here", *overrides))
    shutil.move(tmp_path / "here", tmp_path / "there")
    losses = whole.metrics.validation_loss
    assert losses.idxmin() < 2
    assert losses[2] > losses.min()  # Lightning's own callback would take this epoch for the best
    assert same_weights(whole, train(plain(tmp_path / "there", *overrides)))


def test_a_finished_run_is_not_taken_for_one_of_another_file(tmp_path):
    rows = [
        f"{'good' if n % 2 else 'bad'} film number {n},{'positive' if n % 2 else 'negative'}"
        for n in range(160)
    ]
    for name, part in (("one.csv", rows), ("two.csv", rows[::-1])):
        (tmp_path / name).write_text("\n".join(["review,sentiment", *part]))
    run = train(plain(tmp_path / "runs", f"data.path={tmp_path}/one.csv"))
    config, results = (run.path / "config.yaml").read_text(), run.results
    with pytest.raises(ValueError, match="was trained on other data"):
        train(plain(tmp_path / "runs", f"data.path={tmp_path}/two.csv"))
    assert ((run.path / "config.yaml").read_text(), run.results) == (config, results)
    shutil.move(tmp_path / "one.csv", tmp_path / "moved.csv")
    assert train(plain(tmp_path / "runs", f"data.path={tmp_path}/moved.csv")).config.data.path.endswith(
        "moved.csv"
    )


def test_a_failure_before_the_training_is_what_the_report_shows(tmp_path):
    from gruland.report import collect

    cfg = plain(tmp_path, "data.limit=1000000")
    with pytest.raises(ValueError, match="limit") as failure:
        train(cfg)
    with pytest.raises(ValueError, match=r"no run in .* can be read: failed") as left_out:
        collect([tmp_path])
    assert f"failed: {' '.join(str(failure.value).split())}" in str(left_out.value)
    assert runs.Run(runs.folder(cfg)).results["experiment"] == "smoke"


def test_what_was_trained_where_stays_after_a_later_measurement(tmp_path, monkeypatch):
    run = train(plain(tmp_path))
    run.update_results(environment={"device": "cuda:0"})
    assert train(smoke(tmp_path, "landscape.size=3")).results["environment"] == {"device": "cuda:0"}
    model = runs.build_model(run.config, run.data)
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta")), num_devices=1)
    described = runs.describe(run.config, model, trainer)
    assert described["environment"]["device"] == "meta"


def test_epochs_that_were_not_kept_are_not_passed_over(tmp_path):
    run = train(plain(tmp_path))
    before = (run.path / "config.yaml").read_text(), run.results
    with pytest.raises(ValueError, match=r"is trained already, without callbacks=\[default,epoch_weights\]"):
        train(plain(tmp_path, "callbacks=[default,epoch_weights]"))
    assert ((run.path / "config.yaml").read_text(), run.results) == before


def group_lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_a_killed_sweep_takes_its_jobs_along_and_the_same_command_goes_on(tmp_path):
    settings = ["trainer.max_epochs=40", "model.hidden_size=4", "landscape.enabled=false", "attack=none"]
    command = [sys.executable, "-m", "gruland.train", "experiment=smoke", f"output_dir={tmp_path}", *settings]
    quiet = {"stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "start_new_session": True}
    sweep = subprocess.Popen([*command, "seed=0,1", "-m"], **quiet)
    try:
        deadline = time.monotonic() + 300
        while len(list(tmp_path.glob("*/*/checkpoints/last.ckpt"))) < 2 and sweep.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        sweep.kill()
        sweep.wait()
        deadline = time.monotonic() + 20
        while group_lives(sweep.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not group_lives(sweep.pid), "a job goes on"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(sweep.pid, signal.SIGKILL)
    found = runs.find(tmp_path)
    assert {runs.Run(path).results["status"] for path in found} == {"running"}, (
        "it ended before it was killed"
    )
    half = [found[0] / ".contour-999999999-0000ffffffff.pdf"]  # of another machine, a moment ago
    with files.atomic_path(found[0] / "contour.pdf") as temporary:
        temporary.write_text("")
        half.append(temporary.with_name(temporary.name.replace(f"-{os.getpid()}-", "-999999999-")))
    for path in half:
        path.write_text("half")
    cfg = gruland.compose("experiment=smoke", f"output_dir={tmp_path}", *settings, "seed=0")
    assert runs.folder(cfg) == found[0]
    assert train(cfg).results["status"] == "finished"
    assert [path.exists() for path in half] == [True, False]


@pytest.mark.slow
def test_a_terminated_sweep_takes_its_job_along(tmp_path):
    command = [sys.executable, "-m", "gruland.train", "experiment=smoke", f"output_dir={tmp_path}"]
    command += [
        "seed=0",
        "model.hidden_size=4",
        "trainer.max_epochs=5000",
        "attack=none",
        "landscape.enabled=false",
        "-m",
    ]
    sweep = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 300
        while not list(tmp_path.glob("*/*/checkpoints/last.ckpt")) and time.monotonic() < deadline:
            time.sleep(0.05)
        sweep.terminate()
        said = sweep.communicate(timeout=60)[1]
        assert "gruland: interrupted; the same command goes on from here" in said
        assert "Traceback" not in said
        assert sweep.returncode == 130
        while group_lives(sweep.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not group_lives(sweep.pid), "a job goes on"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(sweep.pid, signal.SIGKILL)
    assert list(tmp_path.glob("*/*/checkpoints/last.ckpt")), "no job had begun"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_killed_process_resumes(tmp_path, monkeypatch):
    overrides = ("regularizer=zoneout", "trainer.max_epochs=4")
    cfg = plain(tmp_path / "killed", *overrides)

    def kill_in_the_third_epoch(self, trainer, *_):
        if trainer.current_epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patched:
        patched.setattr(MetricsFile, "on_train_batch_end", kill_in_the_third_epoch, raising=False)
        done = children.call(lambda: train(cfg) and 0)
    assert done.status == -signal.SIGKILL, done.said
    run = runs.Run(runs.folder(cfg))
    assert run.resumption.exists()
    assert run.results["status"] == "running"  # it was killed midway
    assert same_weights(train(cfg), train(plain(tmp_path / "whole", *overrides)))


def test_a_finished_run_is_skipped_and_only_what_is_missing_is_done(tmp_path):
    run = train(plain(tmp_path))
    before = run.checkpoint("best").stat().st_mtime_ns
    run.update_results(error="No space left on device")  # of an attempt to measure more
    assert train(plain(tmp_path)).results["error"] is None
    again = train(smoke(tmp_path, "landscape.size=3"))
    assert again.path == run.path
    assert again.results["landscape"]["cells"] == 9
    assert run.checkpoint("best").stat().st_mtime_ns == before


def test_a_folder_of_another_configuration_is_refused(tmp_path):
    run = train(plain(tmp_path))
    other = OmegaConf.load(run.path / "config.yaml")
    other.optimizer.lr = 0.5
    OmegaConf.save(other, run.path / "config.yaml")
    with pytest.raises(ValueError, match=r"another configuration \(optimizer.lr=0\.5, now 0\.001\)"):
        train(plain(tmp_path))


def test_a_loss_that_is_no_number_is_noticed(tmp_path, monkeypatch):
    forward = Classifier.forward
    monkeypatch.setattr(Classifier, "forward", lambda self, *a, **k: forward(self, *a, **k) * float("nan"))
    with pytest.raises(ValueError, match=r"val/loss is nan in epoch 1.*lower optimizer\.lr"):
        train(plain(tmp_path))


def test_a_training_loss_that_is_no_number_keeps_its_batch(tmp_path, monkeypatch):
    losses, met = Classifier.losses, []

    def second(self, tokens, lengths, labels, draw=None):
        met.append(tokens.clone())
        found, logits = losses(self, tokens, lengths, labels, draw)
        return found * (float("nan") if len(met) == 2 else 1), logits

    monkeypatch.setattr(Classifier, "losses", second)
    cfg = plain(tmp_path)
    with pytest.raises(ValueError, match=r"train/loss is nan in epoch 1, batch 2: .*not_finite\.safetensors"):
        train(cfg)
    run = runs.Run(runs.folder(cfg))
    kept, split = load_file(run.path / "not_finite.safetensors"), runs.build_data(cfg).splits["train"]
    assert torch.equal(kept["tokens"], met[1])
    rows = [split.ids.tolist().index(number) for number in kept["ids"].tolist()]
    assert torch.equal(torch.from_numpy(split.labels[rows]), kept["labels"])
    assert torch.equal(split.encoded.take(np.array(rows)).padded()[0], kept["tokens"])
    assert all(weights.isfinite().all() for name, weights in kept.items() if name.startswith("weights."))
    monkeypatch.undo()
    assert not (train(cfg).path / "not_finite.safetensors").exists()


@pytest.mark.slow
def test_two_processes_train_what_one_trains(tmp_path, monkeypatch):
    # The processes need nothing of the program that runs the tests, which they would import.
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    # 65 reviews in batches of 8: of the last batch, one review, the second process has nothing.
    settings = (
        "regularizer=zoneout",
        "model.hidden_size=4",
        "data.limit={train: 65, validation: 9, test: 8}",
    )
    settings = (*settings, "data.batch_size=8", "trainer.max_epochs=1", "callbacks=[default,epoch_weights]")
    one = train(plain(tmp_path / "one", *settings))
    two = train(plain(tmp_path / "two", *settings, "trainer.devices=2"))
    assert two.path.name == one.path.name  # how many train it is no part of what is trained
    assert two.results["environment"]["devices"] == 2
    for column in MetricsFile.COLUMNS:
        assert two.metrics[column].tolist() == pytest.approx(one.metrics[column].tolist(), rel=2e-6)
    assert not torch.equal(weights(two)["head.weight"], load_file(two.checkpoint("epoch-0"))["head.weight"])
    for which in ("best", "last", "epoch-0", "epoch-1"):
        theirs = weights(two, which)
        for name, mine in weights(one, which).items():
            torch.testing.assert_close(theirs[name], mine, rtol=1e-4, atol=1e-6)
    assert two.results["metrics"]["best"]["test"]["loss"] == pytest.approx(
        one.results["metrics"]["best"]["test"]["loss"], rel=1e-5
    )


def test_trained_vectors_are_part_of_the_checkpoint(tmp_path):
    file = tmp_path / "vectors.txt"
    words = ["the", "a", "and", "of", "to", "is", "it", "in", "this", "that", "film", "good", "bad", "never"]
    file.write_text("\n".join(f"{word} {n} {n % 3} {-n}" for n, word in enumerate(words)))
    words = ["embedding=file", f"embedding.path={file}", "embedding.freeze=false"]
    run = train(plain(tmp_path, *words))
    trained, start = weights(run)["vectors"], torch.from_numpy(np.array(run.data.vocabulary.vectors))
    assert trained.shape == start.shape
    seen = np.unique(run.data.splits["train"].encoded.tokens)
    assert not torch.equal(trained[seen], start[seen])
    assert torch.equal(trained[0], start[0])  # padding


def test_two_processes_cannot_work_in_one_folder(tmp_path):
    cfg = plain(tmp_path)
    run = runs.prepare(cfg)
    runs.write_config(run, cfg)
    with run.locked(), pytest.raises(ValueError, match="another process"):
        train(cfg)


def test_global_random_state_and_threads_do_not_matter(tmp_path):
    torch.manual_seed(1)
    a = train(plain(tmp_path / "a"))
    torch.manual_seed(2)
    np.random.seed(3)  # noqa: NPY002  (the global state is what must not matter)
    assert same_weights(a, train(plain(tmp_path / "b")))


def test_the_number_of_threads_changes_no_bit(tmp_path):
    before = torch.get_num_threads()
    try:
        options = ("model.hidden_size=128", "trainer.max_epochs=1")
        runs = [train(plain(tmp_path / str(n), *options, f"threads={n}")) for n in (1, 2, 3)]
    finally:
        torch.set_num_threads(before)
    assert all(same_weights(run, runs[0]) for run in runs[1:])
    assert {tuple(run.metrics.validation_loss) for run in runs} == {tuple(runs[0].metrics.validation_loss)}


def test_the_first_epochs_loss_is_pinned(tmp_path):
    """A refactor leaves this number as it is; a change of behaviour changes it with its reason."""
    run = train(plain(tmp_path, "regularizer=zoneout", "model.backend=eager"))
    assert math.isfinite(run.metrics.train_loss[0])
    assert run.metrics.train_loss[0] == pytest.approx(GOLDEN, rel=1e-5)


GOLDEN = 0.6871961


def in_a_process(*words):
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True)
    return SimpleNamespace(status=done.returncode, out=done.stdout, err=done.stderr)


@pytest.mark.parametrize("launcher", ["basic", pytest.param("joblib", marks=pytest.mark.slow)])
def test_a_sweep_survives_a_failing_job_and_exits_with_1(typed, tmp_path, monkeypatch, launcher):
    """Its records lie in the runs' folders, and nothing in the working folder."""
    monkeypatch.chdir(tmp_path)
    words = ["experiment=smoke", "output_dir=my runs", "model.hidden_size=4", "data.limit=64,1000000"]
    words += ["landscape.enabled=false", "attack=none", f"hydra/launcher={launcher}", "-m"]
    done = (typed if launcher == "basic" else in_a_process)("gruland", "train", *words)
    assert done.status == 1
    assert "Traceback" not in done.err
    assert "limit" in done.err
    assert "(validation loss" in done.out  # of the only run that finished
    found = runs.find(tmp_path)
    said = {runs.Run(path).results["status"]: (path / "log.txt").read_text() for path in found}
    assert sorted(said) == ["failed", "finished"]
    assert "Traceback" in said["failed"]
    assert "ValueError: data.limit asks for 1000000" in said["failed"]
    assert "data: reviews, 64 of" in said["finished"]
    assert [path.name for path in tmp_path.iterdir()] == ["my runs"]
    assert (tmp_path / "my runs/smoke/multirun.yaml").is_file()
    for path in found:
        assert "experiment=smoke" in OmegaConf.load(path / ".hydra/overrides.yaml")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["regularizer=dropout"], "regularizer=dropout is unknown: did you mean"),
        (
            ["regularizer=zoneout", "regularizer.rate=1.5"],
            "regularizer.rate=1.5: expected a number in [0, 1)",
        ),
        (["regularizer=zoneout", "regularizer.rate=0.1,1.5", "-m"], "regularizer.rate=1.5: expected"),
        (["data=imdb", "data.path=nowhere.csv"], "nowhere.csv"),
        (["model.units=3"], "model.units is unknown"),
        (["data=[3,[1]]"], "data=[3,[1]]: expected one option"),
        (["optimizer.lr=interval(0.1,0.2)", "-m"], "a grid has values"),
        (
            ["data.limit=64", "optimizer.lr=1e30", "model.hidden_size=4", "hydra/sweeper=basic", "-m"],
            "is nan in epoch 1",
        ),
        (["data.split=offcial"], "offcial"),
        (["data.path=three.csv"], "three.csv, line 2 has 3 fields, the header 2"),
        (["trainer.accelerator=abacus"], "invalid accelerator"),
        (["landscape.reviews=0"], "landscape.reviews=0: expected"),
        (["attack.typing_errors.mode=both"], "both"),
    ],
)
def test_wrong_input_is_one_message_and_exit_status_1(typed, tmp_path, monkeypatch, overrides, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "three.csv").write_text("review,sentiment\nGreat, funny film,positive\n")
    multirun = ["hydra/launcher=basic"] if "-m" in overrides else []
    words = [*overrides[:2], "experiment=smoke", "output_dir=runs", *multirun, *overrides[2:]]
    done = typed("gruland.train", *words)
    assert done.status == 1
    assert message in done.err
    assert "Traceback" not in done.err
    assert [line.startswith("gruland: ") for line in done.err.splitlines()][-1]
    assert not list(tmp_path.rglob("*.ckpt"))
    failed = [path.parent.name for path in tmp_path.rglob("results.json")]
    if failed:  # a job of a sweep by another sweeper
        assert f"{failed[0]}: failed: " in done.out
    else:
        assert {path.name for path in tmp_path.rglob("*")} <= {"three.csv", "runs"}


@pytest.mark.parametrize(
    "words", [["--cfg", "job"], ["--info", "defaults"], ["--shell-completion", "install=bash"]]
)
def test_hydras_own_questions_are_answered(typed, words):
    done = typed("gruland.train", *words)
    assert done.status == 0, done.err
    assert "pytorch_lightning.Trainer" in done.out or words[0] != "--cfg"


def test_validate_says_whether_a_command_would_start(typed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gruland.validate("regularizer=zoneout", "seed=1,2", "experiment=smoke")
    with pytest.raises(ValueError, match=r"regularizer\.rate=1\.5"):
        gruland.validate("regularizer=zoneout", "regularizer.rate=0.1,1.5")
    done = typed("gruland", "validate", "model.hiden_size=3")
    assert done.status == 1
    assert done.err == "gruland: model.hiden_size is unknown: did you mean hidden_size?\n"
    assert list(tmp_path.iterdir()) == []


def test_an_argument_of_lightnings_trainer_acts(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(
        MetricsFile,
        "on_fit_end",
        lambda self, trainer, module: steps.append(trainer.global_step),
        raising=False,
    )
    for words in ([], ["+trainer.accumulate_grad_batches=4"], ["+trainer.limit_train_batches=1"]):
        train(plain(tmp_path, "data.batch_size=8", *words))
    assert steps == [2 * 64 // 8, 2 * 64 // 8 // 4, 2]  # two epochs


def test_help_answers_without_heavy_imports():
    code = (
        "import sys, runpy; sys.argv = ['train', '--help']\n"
        "try: runpy.run_module('gruland.train', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules, 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "regularizer" in done.stdout
    assert done.stdout.strip().endswith("False False")


def test_kept_epochs_lead_from_the_first_weights_to_the_last(tmp_path, monkeypatch):
    overrides = ("callbacks=[default,epoch_weights]", "trainer.max_epochs=3")
    whole = train(plain(tmp_path / "whole", *overrides))
    assert whole.epochs == [0, 1, 2, 3]
    path = [whole.load_model(f"epoch-{epoch}").state_dict() for epoch in whole.epochs]
    first = runs.build_model(whole.config, whole.data).state_dict()
    assert all(torch.equal(path[0][name], weights) for name, weights in first.items())
    for name, weights in whole.load_model("last").state_dict().items():
        assert torch.equal(path[3][name], weights)
        assert torch.equal(
            path[whole.results["training"]["best_epoch"]][name], whole.model.state_dict()[name]
        )
    assert not torch.equal(path[1]["head.weight"], path[2]["head.weight"])

    with monkeypatch.context() as patched:
        patched.setattr(
            MetricsFile, "on_train_epoch_start", lambda self, trainer, module: 1 / (2 - trainer.current_epoch)
        )
        with pytest.raises(ZeroDivisionError):
            train(plain(tmp_path / "cut", *overrides))
    cut = runs.Run(runs.folder(plain(tmp_path / "cut", *overrides)))
    assert cut.epochs == [0, 1, 2]
    resumed = train(plain(tmp_path / "cut", *overrides))
    for epoch, weights in zip(resumed.epochs, path, strict=True):
        again = resumed.load_model(f"epoch-{epoch}").state_dict()
        assert all(torch.equal(again[name], value) for name, value in weights.items())
    # Whether they are kept does not make it another run.
    assert train(plain(tmp_path / "whole", "trainer.max_epochs=3")).path == whole.path
