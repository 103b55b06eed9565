"""Text files in UTF-8; of any other file, what it is and how to make it readable."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

#: How a file begins that is no text in UTF-8 -> what it is, and the way out.
SIGNATURES = {
    b"\xff\xfe\x00\x00": "text in UTF-32: make it readable with `iconv -f UTF-32 -t UTF-8 FILE > NEW`",
    b"\xff\xfe": "text in UTF-16: make it readable with `iconv -f UTF-16 -t UTF-8 FILE > NEW`",
    b"\xfe\xff": "text in UTF-16: make it readable with `iconv -f UTF-16 -t UTF-8 FILE > NEW`",
    b"PK\x03\x04": "a zip archive: unpack it (`unzip FILE`) and give the file that is inside",
    b"\x1f\x8b": "compressed by gzip: unpack it (`gunzip -k FILE`) and give the result",
    b"BZh": "compressed by bzip2: unpack it (`bunzip2 -k FILE`) and give the result",
    b"\xfd7zXZ\x00": "compressed by xz: unpack it (`unxz -k FILE`) and give the result",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it (`unzstd FILE`) and give the result",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it (`7z x FILE`) and give the file that is inside",
    b"Rar!": "a rar archive: unpack it (`unrar x FILE`) and give the file that is inside",
    b"PAR1": "a Parquet file: give it a name that ends in .parquet",
    b"ARROW1": "an Arrow file: write it as Parquet (pyarrow.parquet.write_table)",
    b"\x89HDF": "an HDF5 file: write it as text in UTF-8",
    b"\x93NUMPY": "an array of NumPy: write it as text in UTF-8",
    b"%PDF": "a PDF document: write its text as UTF-8",
    b"SQLite format 3": "an SQLite database: write its table as CSV",
    b"\xd0\xcf\x11\xe0": "an Office document: save it as CSV in UTF-8",
    b"\xba\x16\x4f\x2f": "a binary model of fastText: take the .vec file beside it",
    b"version https://git-lfs": "a pointer of Git LFS: fetch what it stands for with `git lfs pull`",
}

#: Bytes of a file's beginning that are looked at.
HEAD = 4096


def refuse_foreign(path: Path, head: bytes) -> None:
    """Refuse a file that is no text in UTF-8 by its beginning.

    Raises:
        ValueError: the file's name, what it is, and how to make it readable.
    """
    if kind := _kind(head):
        raise ValueError(f"{path} is {kind.replace('FILE', repr(path.name))}")


def _kind(head: bytes) -> str | None:
    if head.startswith(b"PK\x03\x04") and (b"xl/" in head or b"[Content_Types].xml" in head):
        return "an Excel workbook or another Office document: save it as CSV in UTF-8"
    for signature, kind in SIGNATURES.items():
        if head.startswith(signature):
            return kind
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it (`tar xf FILE`) and give the file that is inside"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page, as a server sends it in place of a file: fetch the file itself"
    # Latin letters in UTF-16 have a zero in every second byte.
    for start, order in ((1, "LE"), (0, "BE")):
        if len(head) > 8 and head[start::2].count(0) > len(head) / 4:
            return f"text in UTF-16: make it readable with `iconv -f UTF-16{order} -t UTF-8 FILE > NEW`"
    return None


def refuse_undecodable(path: Path, line: int, error: UnicodeDecodeError) -> NoReturn:
    """Say which line is not UTF-8, and what the file probably is."""
    byte = error.object[error.start]
    raise ValueError(
        f"{path}, line {line} is not UTF-8 (byte 0x{byte:02x}): if the file is in Latin-1 or Windows-1252, make it "
        f"readable with `iconv -f WINDOWS-1252 -t UTF-8 {path.name!r} > NEW`, otherwise it is damaged"
    ) from error


def read_utf8(path: Path) -> str:
    """A whole text file; its line ends stay, a byte order mark at its start is no part of it.

    Raises:
        ValueError: it is something else, or not UTF-8, with the line.
    """
    content = path.read_bytes()
    refuse_foreign(path, content[:HEAD])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # `error.start` counts from behind the mark.
        read = error.object[: error.start].count(b"\n")
        refuse_undecodable(path, read + 1, error)
