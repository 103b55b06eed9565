import contextlib
import io
import logging
import os
import subprocess
import sys

import pytest
import tqdm.std

from gruland.progress import QUIET, LogFile, Progress, clock


@pytest.fixture
def time(monkeypatch):
    class Clock:
        now = 0.0

    monkeypatch.setattr(tqdm.std, "time", lambda: Clock.now)
    return Clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("seconds", "text"), [(0, "00:00"), (75, "01:15"), (4000, "1:06:40")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_a_line_now_and_then_where_there_is_no_terminal(time):
    stream = io.StringIO()
    with Progress(100, "surface", stream=stream) as shown:
        for _ in range(50):
            time.now += 1
            shown.advance()
        shown.advance(50)
    assert stream.getvalue().splitlines() == [
        "surface:  15%, 01:25 left",
        "surface:  30%, 01:10 left",
        "surface:  45%, 00:55 left",
        "surface: done in 00:50",
    ]


def test_resumed_work_does_not_count_for_the_time_left(time):
    stream = io.StringIO()
    with Progress(100, "x", done=80, stream=stream) as shown:
        time.now = 20
        shown.advance(10)
    assert stream.getvalue() == "x:  90%, 00:20 left\n"  # not to its end: nothing says that it is done


def test_a_terminals_line_is_redrawn_and_removed(time):
    stream = Terminal()
    with Progress(2, "x", stream=stream) as shown:
        time.now = 0.5
        shown.advance(1, "loss 0.3")
    assert "\n" not in stream.getvalue()
    assert "x:  50%, 00:00 left, loss 0.3" in stream.getvalue()
    *_, last, end = stream.getvalue().split("\r")
    assert last.isspace()
    assert end == ""


def test_more_work_than_was_expected_leaves_no_negative_time(time):
    stream = io.StringIO()
    with Progress(10, "eigenvalues", stream=stream) as shown:
        time.now = 20
        shown.advance(12)
    assert stream.getvalue() == "eigenvalues: 100%, 00:00 left\neigenvalues: done in 00:20\n"


def test_a_loop_in_another_is_told_by_the_outer_line(time):
    stream, inner = io.StringIO(), io.StringIO()
    with Progress(2, "comparison", stream=stream) as whole:
        time.now = 20
        whole.advance()
        with Progress(4, "plane", stream=inner) as part:
            time.now = 40
            part.advance(3)
    assert inner.getvalue() == ""
    assert stream.getvalue().splitlines()[-1] == "comparison:  50%, 00:40 left, plane 75%"
    assert part.done == 3
    with Progress(1, "alone", stream=inner):
        time.now = 80
    assert whole._outer is None  # the next one has a line again


CODE = """
import sys, time
from gruland.progress import Progress
with Progress(3, "a label that is longer than the terminal is wide") as shown:
    for _ in range(3):
        time.sleep(0.11)
        shown.advance(1, "and more")
"""


def test_a_process_whose_environment_says_so_is_quiet():
    done = subprocess.run([sys.executable, "-c", CODE], env=os.environ | {QUIET: "1"}, capture_output=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_a_narrow_terminal_keeps_the_line_on_one_row():
    pty, fcntl, termios, struct = (
        pytest.importorskip(name) for name in ("pty", "fcntl", "termios", "struct")
    )
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 20, 0, 0))
    subprocess.run([sys.executable, "-c", CODE], stderr=its, check=True)
    os.close(its)
    written = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "\n" not in written
    assert 0 < max(map(len, written.split("\r"))) <= 20


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_log_that_takes_no_more_is_said_once(capsys):
    handler = LogFile("/dev/full")
    for number in range(2):
        handler.handle(logging.makeLogRecord({"msg": f"epoch {number}", "levelno": logging.INFO}))
    with contextlib.suppress(OSError):
        handler.close()
    assert (
        capsys.readouterr().err
        == "full lacks what could not be written: [Errno 28] No space left on device\n"
    )
