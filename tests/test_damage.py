"""Killed, cut, flipped: what becomes of a run's files, and that the same command ends with the undisturbed numbers."""

import logging
import os
import shutil
import subprocess
import tempfile

import pytest
import torch
from safetensors.torch import load_file

import gruland
from gruland import runs
from gruland.errors import one_line
from gruland.files import TEMPORARY, read_json, write_json
from gruland.train import train


def small(folder, *overrides):
    """A training of a second."""
    return gruland.compose(
        "experiment=smoke", "regularizer=zoneout", f"output_dir={folder}", "threads=1", "attack=none",
        "landscape.enabled=false", "trainer.max_epochs=3", "model.hidden_size=4", "callbacks=[default,epoch_weights]",
        *overrides,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    return train(small(tmp_path_factory.mktemp("whole")))


@pytest.fixture
def run(whole, tmp_path):
    """A copy of it that a test may damage, where :func:`small` of ``tmp_path`` looks for it."""
    copy = runs.Run(runs.folder(small(tmp_path)))
    shutil.copytree(whole.path, copy.path)
    return copy


def same(a, b):
    """Whether two runs have the same weights, scores and sums of their files."""
    assert a.results["metrics"] == b.results["metrics"]
    weights = [name for name in a.results["files"] if name.startswith("checkpoints/")]
    assert len(weights) == 6  # the best, the last, those of three epochs and of none
    assert all(a.results["files"][name] == b.results["files"][name] for name in weights)
    assert a.damaged() == b.damaged() == []
    columns = [column for column in a.metrics.columns if column != "seconds"]
    assert a.metrics[columns].equals(b.metrics[columns])


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("place", [0.0, 0.01, 0.3, 0.6, 0.99])
def test_a_flipped_bit_in_the_weights_is_noticed(run, place):
    flip(run.checkpoint(), place)
    with pytest.raises(
        ValueError, match=r"best\.safetensors is not what the run wrote .*same gruland\.train"
    ):
        _ = runs.load(run.path).model


def test_missing_weights_are_named(run):
    run.checkpoint().unlink()
    with pytest.raises(FileNotFoundError, match=r"best\.safetensors does not exist: the same gruland\.train"):
        _ = runs.load(run.path).model


@pytest.mark.parametrize("content", ["cut", "other", "pickle"])
def test_weights_without_a_checksum_are_read_whole_or_refused(run, content):
    run.update_results(files={})
    path = run.checkpoint()
    if content == "cut":
        path.write_bytes(path.read_bytes()[:500])
    elif content == "other":
        torch.manual_seed(0)
        from gruland.weights import save_weights

        save_weights({name: part[:1] for name, part in load_file(path).items()}, path)
    else:
        torch.save({"state_dict": {}}, path)
    message = "of another model" if content == "other" else "not a readable file of weights"
    with pytest.raises(ValueError, match=message):
        _ = runs.load(run.path).model


LOST = {
    "best": ["checkpoints/best.safetensors"],
    "last": ["checkpoints/last.safetensors"],
    "metrics": ["metrics.csv"],
    "an epoch": ["checkpoints/epoch-1.safetensors"],
    "all but what it goes on from": ["checkpoints/best.safetensors", "checkpoints/last.safetensors", "metrics.csv"],
    "all": [
        "checkpoints/best.safetensors", "checkpoints/last.safetensors", "checkpoints/last.ckpt", "metrics.csv"
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("lost", "how"),
    [
        ("best", "flipped"),
        ("last", "missing"),
        ("metrics", "flipped"),
        ("an epoch", "flipped"),
        ("all but what it goes on from", "missing"),
        ("all", "missing"),
    ],
)
def test_a_finished_run_is_made_whole_by_the_same_command(run, whole, tmp_path, caplog, lost, how):
    for name in LOST[lost]:
        if how == "missing":
            (run.path / name).unlink()
        else:
            flip(run.path / name, 0.5)
    with caplog.at_level(logging.WARNING, "gruland"):
        same(train(small(tmp_path)), whole)
    for name in LOST[lost]:
        assert lost == "all" or any(str(run.path / name) in line for line in caplog.messages)
    caplog.clear()
    with caplog.at_level(logging.INFO, "gruland"):
        train(small(tmp_path))
    assert any("is finished already" in line for line in caplog.messages)


def test_results_and_configuration_are_made_again_by_the_same_command(run, whole, tmp_path, caplog):
    flip(run.path / "results.json", 0.3)
    flip(run.path / "config.yaml", 0.5)
    for broken in ("results.json", "config.yaml"):
        with pytest.raises(ValueError, match=rf"{broken} is not "):
            _ = runs.load(run.path).config
        shutil.copyfile(whole.path / "results.json", run.path / "results.json")
    flip(run.path / "results.json", 0.3)
    with caplog.at_level(logging.WARNING, "gruland"):
        same(train(small(tmp_path)), whole)
    for broken in ("results.json", "config.yaml"):
        assert any(str(run.path / broken) in line for line in caplog.messages)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_broken_last_checkpoint_starts_the_training_anew_with_a_line(run, whole, tmp_path, caplog, damage):
    run.update_results(status="running", requested=None, metrics=None, files={})
    results = {key: value for key, value in run.results.items() if key not in ("metrics", "requested")}
    write_json(run.path / "results.json", results)
    data = run.resumption.read_bytes()
    run.resumption.write_bytes(data[: len(data) // 2])
    if damage == "flipped":
        run.resumption.write_bytes(data)
        flip(run.resumption, 0.5)
    with caplog.at_level(logging.WARNING, "gruland"):
        same(train(small(tmp_path)), whole)
    assert any("last.ckpt cannot be read" in line and "starts anew" in line for line in caplog.messages)


class Killed(BaseException):
    """As good as SIGKILL for what lies on the disk: nothing catches it but the test."""


@pytest.mark.parametrize("boundary", range(0, 24, 5))  # make soak has every one
def test_a_kill_at_a_file_boundary_leaves_what_the_same_command_completes(
    whole, tmp_path, monkeypatch, boundary
):
    count = 0
    replace = os.replace

    def dying(source, target):
        nonlocal count
        if str(target).startswith(str(tmp_path)):
            count += 1
            if count > boundary:
                raise Killed
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", dying)
        try:
            train(small(tmp_path))
        except Killed:
            assert count == boundary + 1
        else:
            assert count <= boundary, "every file was renamed to its place before the end"
    same(train(small(tmp_path)), whole)


@pytest.fixture
def disk(tmp_path):
    """A disk of its own: ``disk("size=64k")`` makes it as large, ``disk("ro")`` read-only."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options, *words):
        return subprocess.run(
            ["mount", *words, "-o", options, "tmpfs", place], capture_output=True, text=True
        )

    if (made := mount("size=1m", "-t", "tmpfs")).returncode:
        pytest.skip(f"needs the right to mount a disk ({made.stderr.strip()})")
    yield place, lambda options: mount(f"remount,{options}").check_returncode()
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.parametrize("size", ["16k", "48k"])  # which ends at the first records, and at the weights
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(whole, disk, size):
    place, change = disk
    change(f"size={size}")
    with pytest.raises(OSError, match="No space left on device") as error:
        train(small(place))
    line = one_line(error.value)
    assert str(place) in line
    assert line.endswith(": make room, then the same command goes on")
    assert not [path for path in place.rglob(".*") if TEMPORARY.fullmatch(path.name)]
    for path in place.rglob("*.json"):
        read_json(path)
    change("size=4m")
    same(train(small(place)), whole)


def test_a_read_only_folder_is_read_and_refused_in_one_line(whole, disk):
    place, change = disk
    change("size=4m")
    run = runs.Run(runs.folder(small(place)))
    shutil.copytree(whole.path, run.path)
    before = sorted(place.rglob("*"))
    change("ro")
    assert runs.load(run.path).model is not None
    with pytest.raises(OSError, match=f"output_dir={place}: .* is not writable"):
        train(small(place))
    with pytest.raises(OSError, match="Read-only file system") as error, run.locked():
        pass
    assert str(run.path) in one_line(error.value)
    assert one_line(error.value).endswith(": give a folder that can be written")
    assert sorted(place.rglob("*")) == before


def test_checkpoints_are_written_beside_their_place(tmp_path, monkeypatch):
    """Lightning's own would be written to TMPDIR, which may be another file system, and be copied from there."""
    moved = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (moved.append((str(a), str(b))), replace(a, b))[1])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    run = train(small(tmp_path / "runs"))
    made = {os.path.dirname(source) for source, target in moved if target.endswith("last.ckpt")}
    assert made == {str((run.path / "checkpoints").absolute())}


@pytest.mark.parametrize("path", ["a::b", "s3://bucket/runs"])
def test_a_folder_that_lightning_would_take_for_an_address_is_refused(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_text("mine")
    with pytest.raises(ValueError, match=r"output_dir=.*: expected a folder of this machine"):
        train(small(path))
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a", "mine")]


def test_scores_of_other_weights_are_forgotten(run, tmp_path, caplog):
    """Trained again elsewhere, the weights may differ in their last digits: their scores are measured again."""
    run.update_results(
        files={**run.results["files"], "checkpoints/best.safetensors": "0" * 64},
        metrics={"best": {"test": {"loss": 99.0}}},
    )
    assert train(small(tmp_path)).results["metrics"]["best"]["test"]["loss"] < 10


def test_what_a_comparison_keeps_is_no_part_of_the_seals(tmp_path):
    run = runs.Run(tmp_path)
    for folder in ("surface.zarr", "comparison"):
        (tmp_path / "landscape" / folder).mkdir(parents=True)
        (tmp_path / "landscape" / folder / "curvature-1.json").write_text("hours")
    run.update_results(landscape={"cells": 1})
    assert list(run.results["files"]) == ["landscape/surface.zarr"]
    run.update_results(files={**run.results["files"], "landscape/comparison": "sealed by an earlier version"})
    (tmp_path / "landscape" / "comparison" / "curvature-2.json").write_text("more")
    assert run.discard_damaged() == []
    assert len(list((tmp_path / "landscape" / "comparison").iterdir())) == 2


def test_what_other_commands_made_is_forgotten_where_it_is_damaged(run, tmp_path, caplog):
    for file in ("attack/pwws/texts.csv", "attack/hotflip/texts.csv", "landscape/contour.png"):
        (run.path / file).parent.mkdir(parents=True, exist_ok=True)
        (run.path / file).write_text("whole")
    run.update_results(attacks={"pwws": {}, "hotflip": {}}, landscape={})
    for file in ("attack/hotflip/texts.csv", "landscape/contour.png"):
        (run.path / file).write_text("cut")
    with caplog.at_level(logging.WARNING, "gruland"):
        train(small(tmp_path))
    for name, command in (
        ("attack/hotflip", "gruland.attack"),
        ("landscape/contour.png", "gruland.landscape"),
    ):
        assert (
            f"{run.path / name} is missing or not what the run wrote: the same gruland.train or {command} "
            in caplog.text
        )
    assert list(run.results["attacks"]) == ["pwws"]
    caplog.clear()
    with caplog.at_level(logging.INFO, "gruland"):
        train(small(tmp_path))
    assert caplog.messages == [f"{run.path} is finished already"]


SHOUTING = """
from dataclasses import dataclass

from gruland.attack import score_forms


@dataclass(frozen=True)
class Shouting:
    def __call__(self, victim, texts):
        sample = texts.sample(2, 0)
        return score_forms(victim, sample, {"raw": sample.texts, "loud": [text.upper() for text in sample.texts]})
"""


def test_an_attack_whose_code_changed_is_made_again_by_the_same_command(run, tmp_path, monkeypatch, caplog):
    (tmp_path / "shouting.py").write_text(SHOUTING)
    monkeypatch.syspath_prepend(tmp_path)
    cfg = small(tmp_path, "+attack.shouting._target_=shouting.Shouting")
    before = train(cfg).results["attacks"]["shouting"]["code"]
    (tmp_path / "shouting.py").write_text(f"{SHOUTING}# edited\n")
    assert train(cfg).results["attacks"]["shouting"]["code"] != before
    with caplog.at_level(logging.INFO, "gruland"):
        train(cfg)
    assert any("is finished already" in line for line in caplog.messages)
