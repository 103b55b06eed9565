"""JSON lines: an object a line, its keys are the columns.

N rows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from gruland.data.sources.table import Table
from gruland.text_files import read_utf8


def read(path: Path) -> Table:
    """Rows of a file such as ``{"text": "A fine film.", "label": 1}``; a key may be missing from some rows.

    Raises:
        ValueError: a line that is no object, a key twice in it, half a surrogate pair, no UTF-8; with the line.
    """
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    blank = 0
    for number, line in enumerate(read_utf8(path).removesuffix("\n").split("\n"), 1):
        if not line.strip():
            blank += 1
            continue
        try:
            row = json.loads(line, object_pairs_hook=_unique)
        except ValueError as error:
            _wrong(path, number, f"is no JSON ({error})")
        if not isinstance(row, dict):
            _wrong(path, number, "is no object")
        if "\\u" in line:
            _refuse_half_pairs(path, number, row)
        rows.append(row)
        lines.append(number)
    if not rows:
        raise ValueError(f"{path} holds no reviews")
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    return Table(path, columns, lambda row: f"line {lines[row]}", {"blank lines": blank} if blank else {})


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key comes twice")
    return result


def _refuse_half_pairs(path: Path, number: int, row: dict[str, Any]) -> None:
    """``"\\ud83d"`` alone is no character: nothing could write it."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        _wrong(path, number, "holds half a surrogate pair")


def _wrong(path: Path, line: int, what: str) -> NoReturn:
    raise ValueError(
        f'{path}, line {line} {what}: expected an object a line, such as {{"text": "A fine film.", "label": 1}}'
    )
