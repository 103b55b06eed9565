"""What an offline W&B run and a TensorBoard log hold, read back from their files."""

import json
import struct
import sys
import time

import pytest

import gruland
from gruland import loggers
from gruland.callbacks import MetricsFile
from gruland.train import train

pytest.importorskip("wandb", reason="wandb is not installed: pip install 'gruland[wandb]'")


def records(path):
    """The protobuf records of a .wandb file: LevelDB's log format, blocks of 32 KiB after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or last part
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def offline(folder, *overrides):
    return gruland.compose(
        "experiment=smoke", f"output_dir={folder}", "logger=wandb", "threads=1", "attack.typing_errors.reviews=2",
        "landscape.size=3", "regularizer=zoneout", *overrides,
    )  # fmt: skip


def read(folder):
    (path,) = folder.rglob("*.wandb")
    return list(records(path))


def exit_codes(folder, seconds=30):
    """The exit records; wandb's own process may still be writing them on a busy machine."""
    deadline = time.monotonic() + seconds
    while True:
        codes = [r.exit.exit_code for r in read(folder) if r.WhichOneof("record_type") == "exit"]
        if codes or time.monotonic() > deadline:
            return codes
        time.sleep(0.1)


@pytest.fixture(autouse=True)
def _no_account(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


@pytest.mark.filterwarnings("default")
def test_an_offline_run_holds_curves_summary_tags_and_exit_code(tmp_path):
    start = time.monotonic()
    run = train(offline(tmp_path))
    assert time.monotonic() - start < 120  # neither a prompt nor a wait for a network
    assert exit_codes(run.path) == [0]
    found = read(run.path)
    begun = next(r.run for r in found if r.WhichOneof("record_type") == "run")
    assert begun.project == "gruland"
    assert begun.run_group == "smoke-zoneout"
    assert begun.display_name == run.path.name
    assert begun.job_type == "train"
    assert {"regularizer:zoneout", "rate:0.1", "hidden:8", "seed:0", "data:reviews"} <= set(begun.tags)
    rows = [
        {("/".join(i.nested_key) or i.key): json.loads(i.value_json) for i in r.history.item}
        for r in found
        if r.WhichOneof("record_type") == "history"
    ]
    losses = [row["val/loss"] for row in rows if "val/loss" in row]
    assert losses == pytest.approx(list(run.metrics.validation_loss))
    logged = {key for row in rows for key in row}
    assert any(key.startswith("landscape/contour") for key in logged)
    assert any(key.startswith("attack/typing_errors/examples") for key in logged)
    metrics = {r.metric.name: r.metric for r in found if r.WhichOneof("record_type") == "metric"}
    assert metrics["val/loss"].summary.min


@pytest.mark.filterwarnings("default")
def test_a_failed_run_ends_with_exit_code_1(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(MetricsFile, "on_train_epoch_start", fail)
    with pytest.raises(OSError, match="no space left"):
        train(offline(tmp_path))
    assert exit_codes(tmp_path) == [1]


def test_without_a_network_a_key_does_not_make_it_hang(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nothing listens on the discard port
    start = time.monotonic()
    assert loggers.wandb_mode("auto") == "offline"
    assert time.monotonic() - start < 10


def test_a_cell_has_a_dashboard_run_of_its_own_in_each_experiment(tmp_path):
    ids = {loggers.dashboard_id(tmp_path / name / "none-h8-s0-1a2b3c4d") for name in ("a", "b", "b")}
    assert len(ids) == 2
    assert all(id.startswith("none-h8-s0-1a2b3c4d-") for id in ids)


def test_an_explicit_mode_is_kept(monkeypatch):
    assert loggers.wandb_mode("disabled") == "disabled"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert loggers.wandb_mode("online") == "offline"


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_a_missing_package_names_its_extra(monkeypatch, tmp_path, name):
    monkeypatch.setitem(sys.modules, name, None)
    cfg = gruland.compose("experiment=smoke", f"logger={name}")
    with pytest.raises(ImportError, match=rf"pip install 'gruland\[{name}\]'"):
        loggers.build(cfg, tmp_path)


@pytest.mark.filterwarnings("default")
def test_tensorboard_holds_curves_settings_pictures_and_texts(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(
        gruland.compose("experiment=smoke", f"output_dir={tmp_path}", "logger=[csv,tensorboard]",
                        "attack.typing_errors.reviews=2", "landscape.size=3", "threads=1")
    )  # fmt: skip
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    assert [e.value for e in events.Scalars("val/loss")] == pytest.approx(list(run.metrics.validation_loss))
    tags = events.Tags()
    assert {"landscape/contour", "landscape/surface"} <= set(tags["images"])
    assert any(tag.startswith("attack/typing_errors") for tag in tags["tensors"])
    settings = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"optimizer.lr" in settings
    assert b"best/test/loss" in events.summary_metadata["_hparams_/experiment"].plugin_data.content
