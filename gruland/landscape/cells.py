"""The cells of a surface on its way: a folder through which any number of processes share the work.

No process talks to another, no lock is held and no clock is compared, so that the folder may lie on a network file
system and its workers on several machines:

- a worker appends what it evaluates to a file of its own and reads everybody's. Every record has a checksum that
  starts from the surface's identity: one that is torn, or of another surface, is never read as data;
- before it evaluates a cell, a worker that is not alone claims it by creating a file that must not exist (O_EXCL,
  which network file systems keep, too). A claim saves double work, no more: values depend on the cell alone, so that
  a cell evaluated twice is lost time and not an error. Who has waited for a claimed cell too long evaluates it after
  all (see ``Store.share``), and so a dead worker's claims need nobody to revoke them;
- a worker that joins others lets them notice it before it begins, since one that is alone makes no claims.
"""

from __future__ import annotations

import os
import struct
import uuid
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

#: The number of the record that holds the origin's measures, whether or not the grid has such a cell.
ORIGIN = -1
_AT_WORK, _LEFT = ".cells", ".left"  # suffixes of a worker's file; one that was killed seems to be at work
_BODY, _CHECK = struct.Struct("<i5d"), struct.Struct("<I")
_SIZE = _BODY.size + _CHECK.size


class Record(NamedTuple):
    """The measures of one cell, as a file of cells holds them.

    Attributes:
        number: row * columns + column, or ``ORIGIN``.
        seconds: what its evaluation took.
    """

    number: int
    loss: float
    accuracy: float
    loss_se: float
    difference_se: float
    seconds: float


class Cells:
    """The records and claims in ``folder``; nothing is created before :meth:`begin`.

    Args:
        identity: of the surface, where the checksums start from.

    Attributes:
        shared: whether other workers were seen at work.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder, self._seed = folder, zlib.crc32(identity.encode())
        self._own, self._claims = folder / f"{uuid.uuid4().hex}{_AT_WORK}", folder / "claims"
        self.shared = False
        self._known: list[Record] = []
        self._unwritten: list[Record] = []
        self._offsets: dict[str, int] = {}
        self._claimed: set[int] = set()

    def begin(self) -> None:
        """Make the folder; where it was taken away, all that is known goes into the new one."""
        self._claims.mkdir(parents=True, exist_ok=True)
        self._own.touch()
        self._offsets.clear()
        self._unwritten = list(self._known)

    def add(self, record: Record) -> None:
        """Take up a record of this worker's; :meth:`write` writes it."""
        self._known.append(record)
        self._unwritten.append(record)
        self._claimed.discard(record.number)

    def write(self) -> None:
        """Append what is not written yet.

        Raises:
            FileNotFoundError: the folder is gone.
        """
        if self._unwritten:
            # Opened and closed each time: that is when a network file system shows it to the others.
            file = os.open(self._own, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            with os.fdopen(file, "wb") as stream:
                stream.write(b"".join(map(self._packed, self._unwritten)))
            self._unwritten.clear()

    def read(self) -> list[Record]:
        """The others' records since the last time; first come those of the file whose name comes first.

        Raises:
            FileNotFoundError: the folder is gone.
        """
        found = []
        for name in sorted(os.listdir(self._folder)):
            if name.endswith((_AT_WORK, _LEFT)) and name != self._own.name:
                self.shared |= name.endswith(_AT_WORK)
                found += self._tail(name)
        self._known += found
        return found

    def _packed(self, record: Record) -> bytes:
        body = _BODY.pack(*record)
        return body + _CHECK.pack(zlib.crc32(body, self._seed))

    def _tail(self, name: str) -> list[Record]:
        """What follows the last whole record read so far."""
        worker = name.split(".")[0]
        start, found, position = self._offsets.get(worker, 0), [], 0
        with open(self._folder / name, "rb") as file:
            file.seek(start)
            data = file.read()
        while position + _SIZE <= len(data):
            body, check = data[position : position + _BODY.size], position + _BODY.size
            if _CHECK.unpack_from(data, check)[0] == zlib.crc32(body, self._seed):
                found.append(Record(*_BODY.unpack(body)))
                position += _SIZE
                self._offsets[worker] = start + position
            else:
                position += 1  # after a torn record the next one begins anywhere
        return found

    def claim(self, number: int) -> bool:
        """Whether the cell is this worker's to evaluate, for all that the others say.

        Raises:
            FileNotFoundError: the folder is gone.
        """
        if not self.shared:
            return True
        try:
            os.close(os.open(self._claims / str(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            return False
        self._claimed.add(number)
        return True

    def leave(self) -> None:
        """Give back the claims on cells that were not evaluated, and work no more."""
        for number in self._claimed:
            (self._claims / str(number)).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            self._own.rename(self._own.with_suffix(_LEFT))
