"""Data sets that the library ``datasets`` saved to disk (``save_to_disk``).

N rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gruland.data.sources.parquet import to_names
from gruland.data.sources.table import Table


def is_saved(folder: Path) -> bool:
    """Whether ``folder`` was written by ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk``."""
    return (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file()


def read(folder: Path) -> Table:
    """All rows; the names of a ``DatasetDict``'s parts are the column ``split``.

    Raises:
        ValueError: it cannot be read, or its parts have other columns.
    """
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # the library raises errors of many kinds
        raise ValueError(f"{folder} is no readable data set of the library datasets: {error}") from error
    parts = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {None: loaded}
    columns: dict[str, list[Any]] = {}
    for split, part in parts.items():
        read = {name: _values(part, name) for name in part.column_names}
        if split is not None:
            read["split"] = [split] * part.num_rows
        if columns and set(read) != set(columns):
            raise ValueError(f"{folder}: the part {split} has other columns than the one before")
        columns = {name: columns.get(name, []) + values for name, values in read.items()}
    return Table(folder, columns)


def _values(part: Any, name: str) -> list[Any]:
    feature, values = (
        part.features[name],
        part.data.column(name).to_pylist() if part._indices is None else list(part[name]),
    )
    names = getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)
    return to_names(values, names) if names else values
