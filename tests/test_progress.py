import io
import json

import pytest

from gruland import progress
from gruland.progress import Progress, clock, part


@pytest.fixture
def time(monkeypatch):
    class Clock:
        now = 0.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (75, "1:15"), (4000, "1:06:40")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_a_line_now_and_then_where_there_is_no_terminal(time):
    stream = io.StringIO()
    with Progress(100, "surface", every=10, stream=stream) as shown:
        for _ in range(50):
            time.now += 1
            shown.advance()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 6  # one each 10 seconds, one at the end
    assert lines[0] == "surface:  10%, 1:30 left"
    assert lines[-1] == "surface: done in 0:50"


def test_resumed_work_does_not_count_for_the_time_left(time):
    shown = Progress(100, "x", done=80, stream=io.StringIO())
    time.now = 10
    shown.advance(10)
    assert shown.seconds_left == pytest.approx(10)


def test_a_terminals_line_is_redrawn_and_removed(time):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    with Progress(2, "x", stream=stream) as shown:
        time.now = 0.5
        shown.advance(1, "loss 0.3")
    assert "\n" not in stream.getvalue()
    assert "x:  50%, loss 0.3, 0:00 left" in stream.getvalue() or "0:01 left" in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_a_job_of_a_sweep_writes_its_share_to_the_file(time, tmp_path, monkeypatch):
    monkeypatch.setenv(progress.FILE_VARIABLE, str(tmp_path / "state"))
    stream = io.StringIO()
    with part(0.5, 1.0), Progress(4, "x", stream=stream) as shown:
        time.now = 1
        shown.advance(2)
        assert json.loads((tmp_path / "state").read_text())["share"] == 0.75
    assert stream.getvalue() == ""


def test_more_work_than_was_expected_leaves_no_negative_time(time):
    shown = Progress(10, "eigenvalues", stream=io.StringIO())
    time.now = 12
    shown.advance(12)
    assert shown.seconds_left == 0
    assert shown.line() == "eigenvalues: 100%, 0:00 left"
