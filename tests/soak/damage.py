"""Damaged files of every kind that is kept: each is noticed, named, made again where it can be, never read as data."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gruland import runs, study
from gruland.callbacks.checkpoints import resumable
from gruland.errors import LONGEST, USER_ERRORS, one_line
from gruland.files import read_json
from gruland.landscape import load_directions, load_surface
from gruland.landscape.directions import fingerprint
from gruland.report.landscapes.chapter import read_chapter

from .work import Room


def truncated(content: bytes, other: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content))]


def emptied(content: bytes, other: bytes, draw: random.Random) -> bytes:
    return b""


def zeroed(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """A block of zeros, as a file system leaves one after a crash."""
    start = draw.randrange(len(content))
    size = min(draw.choice((1, 16, 512, 4096)), len(content) - start)
    return content[:start] + bytes(size) + content[start + size :]


def flipped(content: bytes, other: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]


def swapped(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Another file of the same kind in its place."""
    return other


DAMAGES = (truncated, emptied, zeroed, flipped, flipped, swapped)


class Kept:
    """The files that all kinds of work leave, and how each is read."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.run = runs.Run(next((room.path / "smoke").glob("zoneout*")))
        self.model = self.run.model
        self.state = {name: part.clone() for name, part in self.model.state_dict().items()}
        files = [path for path in sorted(room.path.rglob("*")) if path.is_file() and path.stat().st_size]
        self.files = [path for path in files if self.reader(path) is not None]
        self.whole: dict[Path, bytes] = {}
        self.values = {path: self.read(path) for path in self.files}
        self.whole = {path: path.read_bytes() for path in self.files}

    def read(self, path: Path) -> Any:
        """What a reader makes of a file, as a text."""
        reader = self.reader(path)
        assert reader is not None
        return reader(path)

    def reader(self, path: Path) -> Callable[[Path], str] | None:
        """How a file is read; None for what is only written."""
        room = self.room.path
        parts = path.relative_to(room).parts
        store = next((parent for parent in path.parents if parent.suffix == ".zarr"), None)
        if parts[0] == "cache":
            return self._vectors if parts[1].startswith("vectors") else self._reviews
        if store is not None:
            return lambda _: self._surface(store)
        if ".hydra" in parts or path.name in ("log.txt", ".lock") or path.name.endswith(".lock"):
            return None
        known: dict[str, Callable[[Path], str]] = {
            "config.yaml": self._config,
            "results.json": lambda path: repr(runs.load(path.parent).results),
            "study.json": lambda path: repr(
                study.parse([f"output_dir={room}", "experiment_name=smoke"]).chosen()
            ),
            "metrics.csv": lambda _: self.run.metrics.to_csv(),
            "last.ckpt": self._resumed,
            "directions.npz": lambda path: repr([fingerprint(one) for one in load_directions(path)[0]]),
            "comparison.json": lambda path: repr(read_chapter(path, "")),
            "texts.csv": lambda path: (
                self.run.verified("attack/typing_errors").joinpath("texts.csv").read_text()
            ),
            ".safetensors": lambda path: fingerprint(self.run.weights(path.stem, self.state)),
            ".json": self._measured,
        }
        reader = known.get(path.name) or known.get(path.suffix)
        if reader is None and self.run.path in path.parents:
            return self._sealed  # pictures: nobody reads them, the same command draws them anew
        return reader

    def _measured(self, path: Path) -> str:
        """What a comparison keeps of a run, with what it was measured of, by which it is known."""
        found = read_json(path)
        if self.whole and found.get("identity") != json.loads(self.whole[path])["identity"]:
            raise ValueError(f"{path} is of something else: it is measured again")
        return json.dumps(found)

    def _sealed(self, path: Path) -> str:
        name = path.relative_to(self.run.path).as_posix()
        return hashlib.sha256(self.run.verified(name).read_bytes()).hexdigest()

    def _config(self, path: Path) -> str:
        run = runs.Run(path.parent)
        config = run.config
        run.check()
        places = ("data.path", "embedding.path", "output_dir")  # where things lie may change
        return repr({key: value for key, value in runs.flat(dict(config)).items() if key not in places})

    def _resumed(self, path: Path) -> str:
        if resumable(path, self.model) is None:
            raise ValueError(f"{path} is damaged, and the training starts anew")
        state = torch.load(path, weights_only=True)
        return fingerprint(state["state_dict"]) + repr(state["optimizer_states"])

    @staticmethod
    def _surface(store: Path) -> str:
        surface = load_surface(store)
        values = {
            str(name): (array.attrs, array.values.tolist()) for name, array in surface.variables.items()
        }
        return repr((sorted(values.items()), surface.attrs))

    def _vectors(self, path: Path) -> str:
        """From the cache, which makes again what is damaged."""
        found = runs.build_vocabulary(self.run.config)
        return repr((found.words, np.asarray(found.vectors).tolist(), found.hash))

    def _reviews(self, path: Path) -> str:
        return repr(runs.build_data(self.run.config).report)

    def damage(self, draw: random.Random) -> tuple[str, str | None]:
        """Damage a file, read it, put it back; the case in words, and what is wrong if anything is."""
        path, how = draw.choice(self.files), draw.choice(DAMAGES)
        same = [other for other in self.files if other.suffix == path.suffix and other != path]
        content = how(self.whole[path], self.whole[draw.choice(same)] if same else b"", draw)
        name = f"{path.relative_to(self.room.path)} {how.__name__}"
        try:
            path.write_bytes(content)
            return name, self._judge(path)
        finally:
            path.write_bytes(self.whole[path])

    def _judge(self, path: Path) -> str | None:
        try:
            found = self.read(path)
        except USER_ERRORS as error:
            return wrong_message(error, self.room.path)
        except BaseException as error:
            return f"it ended with {type(error).__name__}: {error}"
        return None if found == self.values[path] else "it was read as data"


def wrong_message(error: BaseException, folder: Path) -> str | None:
    """What is wrong with an error's message: it is a line that names a file."""
    line = one_line(error)
    if len(line) > LONGEST + len(type(error).__name__):
        return f"the message is too long: {line}"
    return None if str(folder) in line else f"the message names no file: {line}"
