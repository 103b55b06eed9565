"""Malformed inputs of every reader: each is read whole, or refused in a line that names it."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gruland import embedding, runs
from gruland.attack.contrast import Contrast
from gruland.attack.neighbours import FileNeighbours
from gruland.callbacks.checkpoints import resumable
from gruland.data.labels import SENTIMENT
from gruland.data.sources import File
from gruland.errors import USER_ERRORS
from gruland.landscape import load_directions, load_surface
from gruland.landscape.directions import save_directions
from gruland.weights import load_weights, save_weights

from .damage import wrong_message

#: What people's files hold that readers stumble over.
PIECES = (
    b"\0", b'"', b'""', b"'", b",", b";", b"\t", b"\r", b"\n", b"\r\n", b"\\", b"\\u0000", b"\\ud800", b"\xff\xfe",
    b"\xef\xbb\xbf", b"\xc3", b"\xed\xa0\x80", b"nan", b"-inf", b"1e999", b"9" * 5000, b"[" * 5000, b"{" * 500, b"}",
    b"&a [*a]", b"${oc.env:HOME}", b"!!python/object:os.system", b"<script>", b"a" * 200_000, b"\xf0\x9f\x98\x80",
    b"null", b"true", b"-1", b"0", b"99999999999999999999", b"text", b"label", b"split", b"_target_: os.system",
)  # fmt: skip

REVIEWS = [
    ("a good film", "positive"),
    ('a bad film, "dull"', "negative"),
    ("fine\nplot", "positive"),
    ("no", "negative"),
]


def mutated(content: bytes, draw: random.Random) -> bytes:
    """One to four changes: pieces put in or in place of others, parts left out, doubled, moved, bits flipped."""
    for _ in range(draw.randint(1, 4)):
        first, last = sorted(draw.randrange(len(content) + 1) for _ in range(2))
        last = min(last, first + draw.choice((0, 1, 4, 64, len(content))))
        part = content[first:last]
        middle = draw.choice(
            (
                b"",
                part + part,
                draw.choice(PIECES),
                draw.choice(PIECES) + part,
                bytes(b ^ 1 << draw.randrange(8) for b in part),
            )
        )
        content = content[:first] + middle + content[last:]
        if draw.random() < 0.1:
            content = content[: draw.randrange(len(content) + 1)]
    return content


@dataclass(frozen=True)
class Reader:
    """How inputs of a kind are made and read.

    Args:
        make: writes a valid one, a file or a folder.
        read: raises what a user is to see.
        suffix: of the path.
    """

    make: Callable[[Path], Any]
    read: Callable[[Path], Any]
    suffix: str = ""


def _reviews(path: Path) -> Any:
    source = File(path)
    return source.read(source.files(path.parent))


def _table() -> Any:
    import pyarrow as pa

    return pa.table({"text": [text for text, _ in REVIEWS], "label": [label for _, label in REVIEWS]})


def _parquet(path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(_table(), path)


def _saved(path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset(_table()).save_to_disk(str(path))


def _folders(path: Path) -> None:
    for number, (text, label) in enumerate(REVIEWS):
        (path / label).mkdir(parents=True, exist_ok=True)
        (path / label / f"{number}.txt").write_text(text)


def _config(path: Path) -> None:
    from gruland import compose
    from gruland.config import OmegaConf

    path.write_text(OmegaConf.to_yaml(compose("experiment=smoke", "regularizer=zoneout"), resolve=True))


def _configured(path: Path) -> None:
    path.mkdir()
    _config(path / "config.yaml")


def _results(path: Path) -> None:
    _configured(path)
    metrics = {"best": {"test": {"loss": 0.5, "accuracy": 0.75}}}
    (path / "results.json").write_text(
        json.dumps({"schema": 1, "status": "finished", "seed": 0, "metrics": metrics})
    )


def _surface(path: Path) -> None:
    from gruland.landscape import compute_surface

    unit = torch.eye(2)
    evaluate = lambda weights: (weights["w"].sum().expand(2), torch.ones(2))  # noqa: E731
    compute_surface(evaluate, {"w": torch.zeros(1, 2)}, [{"w": unit[:1]}, {"w": unit[1:]}], size=2, path=path)


def _weights() -> dict[str, torch.Tensor]:
    return {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}


class _Model(torch.nn.Linear):
    def __init__(self) -> None:
        super().__init__(3, 2)


def _vectors(path: Path) -> Any:
    return embedding.load(path, cache_dir=path.parent / "cache")


def _pairs() -> Any:
    import pandas as pd

    rows = [
        (pair, kind, label, f"{text} and {kind}")
        for pair, (text, label) in enumerate(
            [("a good film", 1), ('a bad film, "dull"', 0), ("fine\nplot", 1)]
        )
        for kind, label in (("orig", label), ("revised", 1 - label))
    ]
    return pd.DataFrame(rows, columns=["pair_id", "kind", "label", "text"])


def _contrast(path: Path) -> Any:
    return Contrast(path=str(path)).pairs(SENTIMENT.classes)


READERS: Mapping[str, Reader] = {
    "csv": Reader(
        lambda path: path.write_text(
            "text,label\n" + "".join(f'"{text.replace(chr(34), chr(34) * 2)}",{label}\n' for text, label in REVIEWS)
        ),
        _reviews, ".csv",
    ),
    "tsv": Reader(lambda path: path.write_text("text\tlabel\ngood\tpositive\nbad\tnegative\n"), _reviews, ".tsv"),
    "json lines": Reader(
        lambda path: path.write_text("".join(json.dumps({"text": t, "label": n}) + "\n" for t, n in REVIEWS)),
        _reviews, ".jsonl",
    ),
    "parquet": Reader(_parquet, _reviews, ".parquet"),
    "folders": Reader(_folders, _reviews),
    "saved data set": Reader(_saved, _reviews),
    "contrast set": Reader(lambda path: _pairs().to_csv(path, index=False), _contrast, ".csv"),
    "contrast set in tabs": Reader(lambda path: _pairs().to_csv(path, index=False, sep="\t"), _contrast, ".tsv"),
    "contrast set in parquet": Reader(lambda path: _pairs().to_parquet(path, index=False), _contrast, ".parquet"),
    "vectors": Reader(lambda path: path.write_text("3 2\ngood 0.5 1\nbad -0.25 2e-3\n. 0 0\n"), _vectors, ".txt"),
    "config": Reader(_configured, lambda path: runs.Run(path).config),
    "run": Reader(_results, lambda path: runs.load(path)),
    "neighbours": Reader(
        lambda path: path.write_text('{"good": ["fine", "nice"], "bad": ["dull"]}'),
        lambda path: FileNeighbours(path).near("good", 3), ".json",
    ),
    "weights": Reader(
        lambda path: save_weights(_weights(), path), lambda path: load_weights(path, _weights()), ".safetensors"
    ),
    "checkpoint": Reader(
        lambda path: torch.save({"state_dict": _Model().state_dict(), "epoch": 1}, path),
        lambda path: resumable(path, _Model()), ".ckpt",
    ),
    "directions": Reader(lambda path: save_directions(path, [_weights()] * 2, kind="random"), load_directions, ".npz"),
    "surface": Reader(_surface, load_surface, ".zarr"),
}  # fmt: skip


class Inputs:
    """Valid inputs of every reader, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, reader in READERS.items():
            place = folder / f"{name}{reader.suffix}"
            reader.make(place)
            reader.read(place)

    def mutate(self, draw: random.Random) -> tuple[str, str | None]:
        """Change a file of one, read it; the case in words, and what is wrong if anything is."""
        name, reader = draw.choice(list(READERS.items()))
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            source, place = self.folder / f"{name}{reader.suffix}", Path(scratch, f"input{reader.suffix}")
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, place)
            files = sorted(path for path in place.rglob("*") if path.is_file()) or [place]
            file = draw.choice(files)
            file.write_bytes(mutated(file.read_bytes(), draw))
            try:
                reader.read(place)
            except USER_ERRORS as error:
                return name, wrong_message(error, Path(scratch))
            except KeyError as error:
                return name, None if name == "neighbours" else repr(error)
            except BaseException as error:
                return name, f"it ended with {type(error).__name__}: {str(error)[:200]}"
        return name, None
