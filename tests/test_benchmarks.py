"""The benchmarks run, at sizes that measure nothing, and their table says what they found."""

import json
import logging
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import accelerator, engine, machine, paper, peak, startup, table
from benchmarks.clock import (
    Candidate,
    Seconds,
    Timings,
    Unavailable,
    alternate,
    fastest,
    limited,
    reason,
    threads,
)
from benchmarks.plain import Plain, PlainSurface
from benchmarks.subject import SMOKE, Context, configuration
from benchmarks.table import BEGIN, END, Results, Row

ROOT = Path(__file__).parents[1]
PEERS = {"loss-landscapes", "landscaper", "loss-landscape-3d", "openvino", "onnxruntime", "haste-pytorch-cpu"}


@pytest.fixture(scope="module")
def context():
    return Context(SMOKE, None, configuration(None, None, smoke=True))


# Each part


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", command.PARTS)
def test_every_part_ends_with_numbers_or_reasons(part, context, tmp_path, monkeypatch):
    # What it starts is tested elsewhere and takes seconds each.
    monkeypatch.setattr("benchmarks.startup.COMMANDS", dict.fromkeys(startup.COMMANDS, ("-c", "pass")))
    results = Results(tmp_path, {"processor": "any"})
    command.measure(part, context, results)
    rows = results.rows(part)
    assert rows
    for row in rows:
        if row.value is None:
            assert row.error, row
            missing_peer = any(peer in row.against for peer in PEERS) or "of them" in row.against
            missing_peer |= "package" in row.against
            lacking = "bfloat16" in row.error or row.error == "no GPU here" or "WordNet" in row.error
            assert lacking or missing_peer or "OpenVINO" in row.against, row
        else:
            assert np.isfinite(row.value), row
            assert not row.error, row
    assert results.parts[part]["seconds"] > 0


@pytest.fixture
def _lightnings_level():
    log = logging.getLogger("pytorch_lightning")
    before = log.level
    yield
    log.setLevel(before)


@pytest.mark.usefixtures("_lightnings_level")
def test_the_command_writes_both_files_and_keeps_other_parts(typed, tmp_path):
    earlier = Results(tmp_path, machine.describe() | {"clock": "wall"})
    earlier.begin("startup", {"title": "Start-up", "date": "yesterday"})
    earlier.add("startup", Row("`import gruland`", "-", "", 0.5, "s", 1.0, at_least=False))
    done = typed("benchmarks", "--smoke", "--only", "growth", "--output", tmp_path)
    assert done.status == 0, done.err
    written = json.loads((tmp_path / "performance.json").read_text())
    assert set(written["parts"]) == {"startup", "growth"}
    assert written["parts"]["startup"]["rows"][0]["met"] is True
    row = written["parts"]["growth"]["rows"][0]
    assert row["medians"]["4"] == row["seconds"]["4"][0] > 0
    text = (tmp_path / "performance.md").read_text()
    assert text.startswith(BEGIN)
    assert "How cost grows" in text
    assert "| `import gruland` | - | 0.50 s | ≤ 1.00 s | met |" in text


def test_an_unknown_part_is_one_line(capsys):
    with pytest.raises(SystemExit):
        command.main(["--only", "surface,nonsense"])
    assert "nonsense: expected some of surface" in capsys.readouterr().err


def test_a_part_that_fails_is_a_row(context, tmp_path, monkeypatch):
    def measure(_):
        yield Row("first", "", "", 1.0, "x")
        raise RuntimeError("it broke")

    monkeypatch.setattr("benchmarks.growth.measure", measure)
    results = Results(tmp_path, {})
    command.measure("growth", context, results)
    assert [(row.what, row.error) for row in results.rows("growth")] == [
        ("first", ""),
        ("How cost grows", "RuntimeError: it broke"),
    ]


# What is compared does the same


@pytest.mark.parametrize("packed", [False, True])
def test_the_simple_loop_gives_the_surface(context, packed):
    encoded, labels = context.reviews(30)
    plain = PlainSurface(context.model, encoded, labels, packed)
    at = engine.cells(context.model, encoded, labels, context.directions, "float32")
    for steps in engine.CELLS[:3]:
        assert plain.at(context.directions, steps) == pytest.approx(float(at(steps)[0].mean()), rel=1e-5)


def test_the_twin_ends_sequences_at_their_padding(context):
    tokens, lengths = context.reviews(9)[0].padded()
    order = lengths.argsort(descending=True)
    plain = Plain(context.model)
    torch.testing.assert_close(plain(tokens[order]), plain(tokens[order], lengths[order]))


def test_batches_come_from_all_of_an_epochs_lengths(context):
    first, *_, last = context.batches(2)
    assert len(first.labels) == len(last.labels) == context.data.batch_size
    assert first.lengths.max() * len(first.labels) <= last.lengths.max() * len(last.labels)


def test_a_precision_that_is_missing_is_no_result(context, monkeypatch):
    monkeypatch.setattr(engine, "precisions", lambda: ("float32",))
    with pytest.raises(Unavailable, match="no bfloat16 products"):
        engine.cells(context.model, *context.reviews(4), context.directions, "bfloat16")


def test_peaks_are_above_what_one_slow_product_takes():
    reached, how = peak.peak("float32", 1)
    assert reached > 1e8
    assert how.startswith(("torch.mm", "multiply-adds"))


def test_a_gpu_is_measured_like_this(context):
    """On the processor, since there may be none."""
    cpu = torch.device("cpu")
    rows = [*accelerator.training(context, cpu), accelerator.surface(context, cpu)]
    assert [row.unit for row in rows] == ["x", "x", "s"]
    for row in rows:
        assert "bfloat16" in row.setting or row.value > 0, row


# Clock


def test_candidates_take_turns_and_errors_are_kept():
    calls = []

    def maker(name):
        return lambda: Candidate(lambda repetition: calls.append((name, repetition)))

    def missing():
        raise ModuleNotFoundError("no module", name="openvino")

    timings = alternate({"a": maker("a"), "gone": missing, "b": maker("b")}, 2)
    assert calls == [("a", 0), ("b", 0), ("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert timings.errors == {"gone": "not installed (openvino)"}
    assert {name: len(times) for name, times in timings.seconds.items()} == {"a": 2, "b": 2}


def test_a_run_may_time_itself():
    timings = alternate({"a": lambda: Candidate(lambda _: Seconds(3.0))}, 2)
    assert timings.seconds == {"a": [3.0, 3.0]}


def test_the_fastest_setting_is_named():
    busy = fastest({"slow": lambda _: sum(range(300_000)), "fast": lambda _: None})
    assert busy.setting == "fast"
    assert fastest({"only": print}).setting == "only"


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_what_takes_too_long_is_stopped():
    with pytest.raises(TimeoutError, match=r"within 0\.01 s"), limited(0.01):
        time.sleep(5)
    with limited(0.01):
        pass
    time.sleep(0.02)


def test_reasons_are_one_line():
    assert reason(ValueError("two\n lines")) == "ValueError: two lines"
    assert reason(Unavailable("its own words")) == "its own words"


# Table


def timings():
    return Timings(
        {"ours": [1.0, 2.0, 9.0], "theirs": [5.0, 4.0, 6.0]}, {"ours": "", "theirs": "packed"}, {"x": "gone"}
    )


def test_a_ratio_is_one_of_medians():
    row = table.ratio("w", "a", "s", timings(), "ours", "theirs", 2.0)
    assert (row.value, row.met, row.note) == (2.5, True, "its best setting: packed")
    assert row.to_dict()["medians"] == {"ours": 2.0, "theirs": 5.0}
    assert table.Row.from_dict(row.to_dict()) == row


def test_a_missing_peer_is_never_beaten():
    row = table.ratio("w", "x", "s", timings(), "ours", "x", 2.0)
    assert (row.value, row.met, row.error) == (None, None, "gone")
    assert "| w | x | — | ≥ 2.00x | gone |" in table.summary([row])


def test_the_summary_tells_how_many_are_short():
    rows = [Row("w", "a", str(value), value, "x", 2.5) for value in (2.0, 3.0, 12.0)]
    assert "| w | a | 2.00x to 12.0x | ≥ 2.50x | **short** in 1 of 3 |" in table.summary(rows)
    assert "| 3.00x | ≥ 2.50x | met |" in table.summary(rows[1:2])
    worse = Row("w", "a", "", 3.0, "s", 1.0, at_least=False)
    assert "| 3.00 s | ≤ 1.00 s | **short** |" in table.summary([worse])


def test_nan_meets_nothing():
    assert Row("w", "a", "", float("nan"), "x", 2.0).met is None


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (None, "x", "—"),
        (2.314, "x", "2.31x"),
        (64.4, "%", "64%"),
        (123.4, "s", "123 s"),
        (2.6e-4, "", "3e-04"),
    ],
)
def test_numbers_as_the_table_shows_them(value, unit, expected):
    assert table.shown(value, unit) == expected


def test_the_table_goes_between_its_markers(tmp_path):
    text = f"# Title\n\n{BEGIN}\nold\n{END}\nafter\n"
    assert table.inserted(text, "new") == f"# Title\n\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    with pytest.raises(ValueError, match="put them back"):
        table.inserted("no markers", "new")
    table.inserted((ROOT / "docs" / "performance.md").read_text(), "new")


def test_parts_are_kept_in_order_and_another_machine_starts_afresh(tmp_path):
    for name, expected in (("one", ["b"]), ("one", ["a", "b"]), ("two", ["c"])):
        results = Results(tmp_path, {"processor": name}, ("a", "b", "c"))
        part = expected[0]
        results.begin(part, {"title": part, "date": "today"})
        results.add(part, Row("w", "a", "", 1.0, "x"))
        assert [*json.loads((tmp_path / "performance.json").read_text())["parts"]] == expected


def test_the_machine_is_described():
    described = machine.describe()
    assert described["cores"] >= 1
    assert described["packages"]["torch"] == torch.__version__
    json.dumps(described)
    share = machine.OtherWork().share()
    assert share is None or 0 <= share <= 1


def test_the_reviews_are_those_asked_for(monkeypatch):
    monkeypatch.delenv("GRULAND_DATA", raising=False)
    assert "data=imdb" not in configuration(None, None, smoke=False)
    assert "embedding.path=v.txt" in configuration("r.csv", "v.txt", smoke=False)
    monkeypatch.setenv("GRULAND_DATA", "/folder")
    assert "data.path=/folder/imdb.parquet" in configuration(None, None, smoke=False)
    assert "data.path=r.csv" in configuration("r.csv", None, smoke=False)


def test_the_best_package_is_projected_to_the_papers_surface(monkeypatch):
    estimated = Row("a surface", "the paper", "threads: 2", 100.0, "s")
    monkeypatch.setattr(paper.peers, "fastest_loss", lambda _: ("landscaper", 0.004, ""))
    row = paper._beside_packages(None, estimated)
    assert row.value == pytest.approx(0.004 * 51 * 51 * 25_000 / 100.0)
    assert (row.met, row.setting, "landscaper" in row.note) == (True, "threads: 2", True)
    monkeypatch.setattr(paper.peers, "fastest_loss", lambda _: (None, 0.0, "landscaper: not installed"))
    row = paper._beside_packages(None, estimated)
    assert (row.value, row.error) == (None, "landscaper: not installed")


def test_an_exact_surface_in_one_process_and_in_several(monkeypatch, context):
    asked = []

    def computed(context, settings):
        asked.append((settings.workers, torch.get_num_threads(), settings.tolerance))
        return {1: 100.0, 2: 52.0}[settings.workers], ""

    monkeypatch.setattr(paper, "_computed", computed)
    row = paper._in_processes(context.with_settings(threads=(1, 2)))
    assert asked == [(1, 1, None), (2, 2, None)]
    assert (row.value, row.met) == (pytest.approx(100 / 52), True)
