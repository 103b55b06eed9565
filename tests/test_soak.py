"""A sample of `make soak`, and that its own instruments see what they are to see."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from soak import __main__ as command
from soak import batches, children, kills
from soak.boundaries import Boundaries
from soak.damage import DAMAGES, wrong_message
from soak.malformed import mutated
from soak.work import Room, contents


def write(folder: Path) -> None:
    """Create (2 boundaries: before and after), half of a write, rename, remove, a folder and its end."""
    with open(folder / "new", "w") as file:
        file.write("0123456789")
    os.replace(folder / "new", folder / "file")
    os.unlink(folder / "file")
    (folder / "inside").mkdir()
    (folder / "inside").rmdir()
    (folder.parent / "elsewhere").write_text("no boundary: it lies outside")


LEFT = [
    {},
    {"new": ""},
    {"new": "01234"},
    {"new": "0123456789"},
    {"file": "0123456789"},
    {},
    {"inside": None},
    {},
]


def test_a_process_is_killed_at_each_boundary_of_its_writes(tmp_path):
    for number, left in enumerate(LEFT, 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        seen = Boundaries(folder, number)

        def work(seen=seen, folder=folder):
            seen.watch()
            write(folder)

        ended = children.call(work)
        assert ended.status == (-signal.SIGKILL if number <= seen.count and number < len(LEFT) else 0), ended
        found = {path.name: path.read_text() if path.is_file() else None for path in folder.iterdir()}
        assert found == left
    assert seen.count == len(LEFT) - 1


def test_boundaries_between_which_nothing_changes_are_one(tmp_path):
    def work():
        seen.watch()
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder").mkdir(exist_ok=True)  # it is there by now: 2
        (tmp_path / "folder" / "file").write_text("0123")  # before it is created nothing has changed: 3

    seen = Boundaries(tmp_path, compare=True)
    assert children.call(work).status == 0
    assert (seen.count, seen.different) == (5, [1, 2, 4, 5])


def test_an_error_can_take_the_place_of_a_kill(tmp_path):
    def fail():
        raise OSError(28, "No space left on device")

    def work():
        Boundaries(tmp_path, 3, fail).watch()
        (tmp_path / "file").write_text("0123456789")

    ended = children.call(work)
    assert ended.status == 1
    assert "No space left on device" in ended.said
    assert (tmp_path / "file").read_text() == "01234"


def test_children_tell_how_they_ended():
    assert children.call(lambda: 3).status == 3
    assert children.call(lambda: time.sleep(60), kill_after=0.05).status == -signal.SIGKILL
    assert children.call(lambda: time.sleep(60), seconds=1).status == -signal.SIGALRM
    ended = children.call(lambda: print("said") or 1 / 0)
    assert ended.status == 1
    assert ended.said.startswith("said\nTraceback")


def test_a_case_that_dies_is_told_and_the_next_ones_are_done(monkeypatch):
    monkeypatch.setattr(batches, "SECONDS", 1)

    def one(draw):
        kind = draw.randrange(4)
        if kind == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == 1:
            bytearray(batches.ROOM * 2)
        return "case", "was wrong" if kind == 2 else None

    draws = [random.Random(f"seed/{number}").randrange(4) for number in range(12)]
    shares = list(batches.run(one, range(12), "seed"))
    assert [number for share, _ in shares for number in share] == list(range(12))
    found = {finding.number: finding.what for _, findings in shares for finding in findings}
    assert sorted(found) == [number for number, kind in enumerate(draws) if kind < 3]
    for number, what in found.items():
        assert ["ended the process with -9", "MemoryError", "was wrong"][draws[number]] in what


def test_a_difference_of_folders_is_told(tmp_path):
    for name, files in {
        "a": {"same": "1", "gone": "2", "other": "3"},
        "b": {"same": "1", "other": "4", "new": "5"},
    }.items():
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
    said = list(kills.differences(contents(tmp_path / "a"), contents(tmp_path / "b")))
    assert said == ["gone is missing", "new is left behind", "other differs"]


def test_damages_and_mutations_change_a_file():
    content = bytes(range(1, 200))
    for how in DAMAGES:
        assert how(content, b"other", random.Random(0)) != content
    assert len({mutated(content, random.Random(seed)) for seed in range(20)}) > 18


def test_a_message_names_a_file_and_is_a_line(tmp_path):
    assert wrong_message(ValueError(f"{tmp_path}/a is damaged"), tmp_path) is None
    assert "names no file" in str(wrong_message(ValueError("damaged"), tmp_path))


def test_a_sample_of_malformed_inputs(capsys):
    words = ["--every", "0", "--kills", "0", "--damage", "0", "--malformed", "40"]
    assert command.main(words) == 0
    assert capsys.readouterr().out == "malformed: 40 cases, 0 went wrong (seed 0)\n"


def test_what_went_wrong_is_told_and_the_rest_counted_also_when_it_is_interrupted(capsys):
    def told():
        yield "damage/0", None
        yield "damage/1", "it was read as data"
        raise KeyboardInterrupt

    assert command._tell(told(), 7) == 1
    assert capsys.readouterr().out.splitlines() == [
        "damage/1: it was read as data",
        "interrupted",
        "damage: 2 cases, 1 went wrong (seed 7)",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["training", "surface", "cache"])
def test_a_sample_of_kills(tmp_path, kind):
    room = Room(tmp_path)
    whole = kills.undisturbed(room, kind)
    assert whole.boundaries > 50
    for number in random.Random(kind).sample(range(1, whole.boundaries + 1), 8):
        assert kills.at_boundary(room, kind, whole, number) is None, number
    assert kills.at_random(room, kind, whole, random.Random(kind)) is None


def stopped_for_a_moment() -> None:
    """SIGSTOP to this process, and SIGCONT by another one."""
    subprocess.Popen(["sh", "-c", f"sleep 0.2; kill -CONT {os.getpid()}"])
    os.kill(os.getpid(), signal.SIGSTOP)


SIGNALS = {
    "SIGTERM": (
        lambda: signal.raise_signal(signal.SIGTERM),
        {130, -signal.SIGTERM},
    ),  # Lightning minds it in an epoch
    "SIGUSR1": (lambda: signal.raise_signal(signal.SIGUSR1), {-signal.SIGUSR1}),
    "SIGUSR2": (lambda: signal.raise_signal(signal.SIGUSR2), {-signal.SIGUSR2}),
    "an interrupt": (lambda: signal.raise_signal(signal.SIGINT), {130}),
    "SIGSTOP and on": (stopped_for_a_moment, {0}),
}


@pytest.mark.slow
def test_a_training_that_gets_a_signal_goes_on(tmp_path):
    room = Room(tmp_path)
    whole = kills.undisturbed(room, "training")
    for name, (send, expected) in SIGNALS.items():
        for number in (5, whole.boundaries // 2):
            room.reset("training")
            at = Boundaries(room.path, number, send)
            ended = children.call(lambda at=at: at.watch() or room.do("training"))
            assert ended.status in expected, f"{name}: {ended.said}"
            assert ended.status != 130 or "interrupted; the same command goes on" in ended.said
            assert kills._finish(room, "training", whole) is None, name


@pytest.mark.slow
def test_a_sample_of_errors_of_the_disk(tmp_path):
    room = Room(tmp_path)
    whole = kills.undisturbed(room, "training")
    for number in range(2, whole.boundaries + 1, 9):
        assert kills.failing(room, "training", whole, number) is None, number
