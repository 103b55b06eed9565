import pytest

from gruland.exits import one_line_errors


def test_a_users_error_is_one_line_and_exit_status_1(capsys):
    with pytest.raises(SystemExit) as exit_, one_line_errors():
        raise ValueError("rate=2:\n  expected a number in [0, 1)")
    assert exit_.value.code == 1
    assert capsys.readouterr().err == "gruland: rate=2: expected a number in [0, 1)\n"


def test_an_interruption_is_130(capsys):
    with pytest.raises(SystemExit) as exit_, one_line_errors():
        raise KeyboardInterrupt
    assert exit_.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_a_defect_keeps_its_traceback():
    with pytest.raises(AssertionError), one_line_errors():
        raise AssertionError


def test_the_traceback_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("GRULAND_TRACEBACK", "1")
    with pytest.raises(ValueError, match="x"), one_line_errors():
        raise ValueError("x")


def test_a_reader_that_has_seen_enough_is_no_error(capsys):
    with pytest.raises(SystemExit) as exit_, one_line_errors():
        raise BrokenPipeError(32, "Broken pipe")
    assert exit_.value.code == 128 + 13  # as a shell says of a program that SIGPIPE ended
    assert capsys.readouterr().err == ""
