"""Texts and tables on a terminal, these at most 80 columns wide."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

WIDTH = 80
#: What moves the cursor, colours, sets a title, or turns the direction of writing.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: object) -> str:
    r"""A text from elsewhere, for a terminal: its control characters are written out (``\x1b``) and do nothing."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def lines(rows: Sequence[Sequence[str]], width: int = WIDTH) -> list[str]:
    """A table as lines, the first row its heads, texts to the left and numbers to the right.

    A head breaks at its spaces where that makes its column narrower. A table that is still too wide has its widest
    column cut in the middle with an ellipsis.
    """
    rows = [list(map(visible, row)) for row in rows]
    count = len(rows[0])
    texts = [any(not _is_number(row[i]) for row in rows[1:]) for i in range(count)]
    heads = _heads(rows)
    widths = _widths(rows)
    while _total(widths) > width and max(widths) > 8:
        widths[widths.index(max(widths))] -= 1
    height = max(map(len, heads))
    broken = [[""] * (height - len(parts)) + parts for parts in heads]
    whole = [[broken[i][line] for i in range(count)] for line in range(height)] + [
        list(row) for row in rows[1:]
    ]
    return ["  ".join(_fit(row[i], widths[i], texts[i]) for i in range(count)).rstrip() for row in whole]


def needed(rows: Sequence[Sequence[str]]) -> int:
    """The columns of a terminal that a table takes when nothing of it is cut."""
    return _total(_widths(rows))


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    columns = zip(_heads(rows), *rows[1:], strict=True)
    return [max(map(len, [*head, *cells])) for head, *cells in columns]


def _heads(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The lines of each head."""
    return [
        textwrap.wrap(head, max(map(len, ["-", *cells, *head.split()]))) or [""]
        for head, *cells in zip(*rows, strict=True)
    ]


def _is_number(text: str) -> bool:
    return not text or text[0].isdigit() or text[0] in "!+-–." or text in ("nan", "inf")


def _fit(text: str, width: int, left: bool) -> str:
    if len(text) > width:
        start = (width - 1) // 2
        text = f"{text[:start]}…{text[len(text) - (width - 1 - start) :]}"
    return text.ljust(width) if left else text.rjust(width)
