"""Folders of classes: a text file a review, as in ``aclImdb``.

``train/pos/0_9.txt`` where the source has splits, ``pos/0.txt`` where it has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from gruland.data.sources.table import SPLIT_NAMES, Table
from gruland.text_files import read_utf8

#: The folders of ``aclImdb`` that hold reviews, in the order in which they are read.
ACL = tuple(Path(split) / label for split in ("train", "test") for label in ("neg", "pos"))


def review_files(root: Path) -> tuple[list[Path], dict[str, int]]:
    """The files that are reviews, and how many others lie among them.

    In ``aclImdb`` (a folder train/neg) these are ``<number>_<rating>.txt`` of its four folders, elsewhere
    ``*.txt`` of each class's folder, unless the name begins with a dot. Nothing else is looked at.

    Raises:
        FileNotFoundError: a folder of a class is missing, or there is none.
        ValueError: one holds no review.
    """
    acl = (root / "train" / "neg").is_dir() or (root / "train" / "pos").is_dir()
    folders = [root / part for part in ACL] if acl else list(_class_folders(root))
    pattern = re.compile(r"[0-9]+_[0-9]+\.txt" if acl else r"[^.].*\.txt")
    found: list[Path] = []
    others = 0
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"data.path={root} has no folder {folder.relative_to(root)}")
        names = sorted(entry.name for entry in folder.iterdir())
        reviews = [folder / name for name in names if pattern.fullmatch(name)]
        if not reviews:
            named = "<number>_<rating>.txt" if acl else "*.txt"
            raise ValueError(f"{folder} holds no review: expected files {named}, found {len(names)} others")
        found += reviews
        others += len(names) - len(reviews)
    if not found:
        raise FileNotFoundError(
            f"data.path={root} holds no folders of classes: expected train/neg, train/pos, … or a folder a class"
        )
    return found, {"files that are no review": others} if others else {}


def _class_folders(root: Path) -> Iterable[Path]:
    parts = [path for path in _folders(root) if path.name.lower() in SPLIT_NAMES]
    for part in parts or [root]:
        yield from _folders(part)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def read(root: Path, files: list[Path], passed_over: dict[str, int]) -> Table:
    """The reviews of ``files``, under ``text``, ``label`` and, where there are splits, ``split``.

    Raises:
        ValueError: a file is no text in UTF-8.
        OSError: it cannot be read.
    """
    # A review's line ends are no part of what it says.
    columns: dict[str, list[str]] = {"text": [read_utf8(file).replace("\r\n", "\n") for file in files]}
    columns["label"] = [file.parent.name for file in files]
    if files[0].parent.parent != root:
        columns["split"] = [file.parent.parent.name for file in files]
    return Table(root, columns, lambda row: str(files[row].relative_to(root)), passed_over)
