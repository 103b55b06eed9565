"""CSV and TSV, read strictly: every row has the header's number of fields, every quote is closed.

N rows.
"""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import Literal

from gruland.data.sources.table import Table
from gruland.text_files import read_utf8


def read(path: Path) -> Table:
    """Rows of a file that ends in .csv (commas) or in .tsv or .tab (tabs); its first line names the columns.

    Fields may stand in double quotes, with quotes inside written twice (RFC 4180). In a TSV file whose quotes do not
    pair so they are letters like others, as in the GLUE benchmark's.

    Raises:
        ValueError: a row with more or fewer fields than the header, a quote that is not closed, a column twice, no
            UTF-8; with the line.
    """
    text = read_utf8(path)
    delimiter = "," if path.suffix.lower() == ".csv" else "\t"
    try:
        return _parse(path, text, delimiter, csv.QUOTE_MINIMAL)
    except ValueError:
        if delimiter == "," or '\\"' in text:
            raise
        try:
            return _parse(path, text, delimiter, csv.QUOTE_NONE)
        except ValueError:
            pass  # the first reading says what is wrong
        raise


def _parse(path: Path, text: str, delimiter: str, quoting: Literal[0, 3]) -> Table:
    csv.field_size_limit(sys.maxsize)  # the module's own limit is 131,072 characters
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []  # where each row begins, from 1
    blank = end = 0
    try:
        for row in reader:
            start, end = end + 1, reader.line_num
            if not row:
                blank += 1
                continue
            if rows and len(row) != len(rows[0]):
                _wrong(path, start, f"has {len(row)} field{'s' * (len(row) != 1)}, the header {len(rows[0])}")
            rows.append(row)
            lines.append(start)
    except csv.Error as error:
        _wrong(path, end + 1, f"is no row of a CSV file ({error})")
    if not rows:
        raise ValueError(f"{path} is empty: expected a line that names the columns, and rows")
    header = rows.pop(0)
    if twice := [name for name in header if header.count(name) > 1]:
        raise ValueError(f"{path} has the column {twice[0]} twice: give each column a name of its own")
    lines.pop(0)
    columns = dict(
        zip(header, map(list, zip(*rows, strict=True)) if rows else [[] for _ in header], strict=True)
    )

    def swallowed(column: str, labels: set[str]) -> int | None:
        """The first row with a text of several lines of which one is a whole row: ``...,positive``.

        A quote that is never closed swallows the rows up to the next quote, which is a well-formed file.
        """
        index = header.index(column)
        for number, row in enumerate(rows):
            for field in row:
                for line in field.split("\n")[:-1] if "\n" in field else ():
                    fields = line.split(delimiter)
                    if len(fields) == len(header) and fields[index].strip() in labels:
                        return number
        return None

    passed_over = {"blank lines": blank} if blank else {}
    return Table(path, columns, lambda row: f"line {lines[row]}", passed_over, swallowed)


def _wrong(path: Path, line: int, what: str) -> None:
    raise ValueError(
        f"{path}, line {line} {what}: put texts with separators or line ends in double quotes, and write quotes inside "
        'them twice ("")'
    )
