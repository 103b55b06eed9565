"""Tables on a terminal of 80 columns."""

from __future__ import annotations

import pytest

from gruland.errors import one_line
from gruland.terminal import lines, visible


def test_numbers_stand_to_the_right_and_heads_break_at_their_spaces() -> None:
    assert lines([["model", "validation loss"], ["none", "0.5"], ["zoneout", "0.25"]]) == [
        "         validation",
        "model          loss",
        "none            0.5",
        "zoneout        0.25",
    ]


@pytest.mark.parametrize("width", [40, 80])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    rows = [
        ["path", "a long head of many words", "x"],
        ["/" + "very/long/" * 20, "0.123", "word " * 9],
        ["b", "1", "c"],
    ]
    found = lines(rows, width)
    assert max(map(len, found)) <= width
    assert "…" in found[-2]
    assert found[-1].split() == ["b", "1", "c"]


def test_what_would_act_on_the_terminal_is_written_out() -> None:
    text = "\x1b]0;title\x07\x1b[2Jred\r\n\x9b31m\u202etfel\tनमस्ते العربية"
    assert visible(text) == r"\x1b]0;title\x07\x1b[2Jred\r\n\x9b31m\u202etfel\t" + "नमस्ते العربية"
    table = "\n".join(lines([["name", "x"], [text, "1"]], 200))
    assert "\x1b" not in table
    assert r"\x1b]0;title" in table
    assert one_line(ValueError(f"{text}: expected a name")).startswith(r"\x1b]0;title\x07\x1b[2Jred \x9b31m")
