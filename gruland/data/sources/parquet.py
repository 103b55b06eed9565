"""Parquet files.

N rows.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from gruland.data.sources.table import LABELS, SPLITS, TEXTS, Table
from gruland.text_files import HEAD, refuse_foreign


def read(path: Path, wanted: Collection[str] = ()) -> Table:
    """The columns of the names that are ``wanted``, or that have the usual names.

    Numbers of classes whose names the file holds, as files of the library ``datasets`` do, become the names.

    Raises:
        ValueError: it is no Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head.startswith(b"PAR1"):
        refuse_foreign(path, head)
    try:
        schema = pq.read_schema(path)
        usual = (*TEXTS, *LABELS, *SPLITS)
        chosen = [name for name in schema.names if name in wanted or name.strip().lower() in usual]
        columns = pq.read_table(path, columns=chosen).to_pydict()
    except (pa.ArrowException, OSError) as error:  # the latter of broken metadata
        raise ValueError(f"{path} is no readable Parquet file: {error}") from error
    for name, names in _class_names(schema.metadata or {}).items():
        if name in columns:
            columns[name] = to_names(columns[name], names)
    # Columns that are not read are named where a wanted one is missing.
    return Table(path, columns | {name: [] for name in schema.names if name not in columns})


def to_names(values: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """Numbers of classes as names; -1, by which ``datasets`` means no label, as None."""

    def name(value: Any) -> str | None:
        return names[value] if value is not None and value >= 0 else None

    return [[name(v) for v in value] if isinstance(value, list) else name(value) for value in values]


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Column -> the names of its classes."""
    about = json.loads(metadata.get(b"huggingface", b"{}"))
    features = about.get("info", {}).get("features", {})
    return {
        column: feature["names"]
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and "names" in feature
    }
