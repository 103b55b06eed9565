"""Every kind of work that writes, as the commands that one types, on data so small that each takes about a second."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

from matplotlib.figure import Figure
from omegaconf import DictConfig

from gruland.config import compose
from gruland.exits import one_line_errors
from gruland.landscape.store import Store
from gruland.perturbation import swaps

from . import children, compositions

Command = tuple[str, ...]

#: A moment long after the files' own time stamps.
NOON = 4_000_000_000.0
WORDS = ("good", "bad", "fine", "dull", "film", "movie", "plot", "scene", "story", "never", "always", "actor")


@dataclass(frozen=True)
class Work:
    """A kind of work.

    Args:
        commands: a module and its words each; ``{room}`` is the folder in which it works, ``{base}`` the one above.
        start: commands whose outcome it begins from.
        cold: begin with an empty cache, in the room.
        every_cell: write a surface on its way with each cell, instead of once a second.
    """

    commands: Sequence[Command]
    start: Sequence[Command] = ()
    cold: bool = False
    every_cell: bool = False


_DATA = ("data.path={base}/reviews.csv", "embedding.path={base}/vectors.txt", "embedding.dimension=null")
_TRAIN = (
    "gruland.train", *_DATA, "experiment=smoke", "data.limit=null", "model.hidden_size=3", "threads=1",
    "output_dir={room}", "trainer.enable_progress_bar=false",
)  # fmt: skip
_ALONE = ("landscape.enabled=false", "attack=none")
_RUN = (*_TRAIN, *_ALONE, "regularizer=zoneout", "callbacks=[default,epoch_weights]")
_MEASURE = (
    ("gruland.landscape", "{room}/smoke", "size=3", "reviews=16"),
    ("gruland.attack", "{room}/smoke", "attack=typing_errors"),
)
_COMPARE = (
    "gruland.landscape", "compare", "{room}/smoke", "size=5", "reviews=8", "directions=1", "curvature=0",
)  # fmt: skip
_STUDY = (
    "gruland.study", *_TRAIN[1:], "seeds=1", "paper_models=false", "hydra/launcher=basic", "landscape.size=3",
)  # fmt: skip
_SWEEP = (*_TRAIN, *_ALONE, "hydra/launcher=basic", "model.hidden_size=3", "seed=0,1", "-m")

#: By name.
KINDS: dict[str, Work] = {
    "training": Work([_RUN]),
    "sweep": Work([(*_SWEEP, "regularizer=none")]),
    "surface": Work([("gruland.landscape", "{room}/smoke", "size=2", "reviews=16")], [_RUN], every_cell=True),
    "estimate": Work(
        [("gruland.landscape", "{room}/smoke", "size=3", "reviews=all", "tolerance=0.2")], [_RUN]
    ),
    "comparison": Work([_COMPARE], [(*_SWEEP, "regularizer=none")]),
    "attack": Work([("gruland.attack", "{room}/smoke", "attack=[typing_errors,pruthi]")], [_RUN]),
    "report": Work([("gruland.report", "{room}/smoke")], [_RUN, *_MEASURE]),
    "cache": Work([(*_RUN[:-1], "trainer.max_epochs=1")], cold=True),
    "study": Work([(*_STUDY, "regularizers=[none]", "stages=[sweep,select,repeat,landscape,report]")]),
    # A file of every kind, to be damaged.
    "everything": Work(
        [], [_RUN, *_MEASURE, _COMPARE, (*_STUDY, "regularizers=[zoneout]", "stages=[select]")], cold=True
    ),
}


class Room:
    """A folder in which one piece of work after the other is done, each from its own beginning.

    It keeps its place: paths are part of what the work leaves.
    """

    def __init__(self, base: Path) -> None:
        self.base, self.path = base, base / "room"
        base.mkdir(parents=True, exist_ok=True)
        draw = random.Random(0)
        with open(base / "reviews.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["review", "sentiment"])
            for number in range(64):
                text = " ".join(draw.choices(WORDS, k=draw.randint(5, 12)))
                writer.writerow([text, ("negative", "positive")[number % 2]])
        lines = [
            f"{word} {' '.join(f'{draw.gauss(0, 1):.4f}' for _ in range(4))}\n" for word in (*WORDS, ".")
        ]
        (base / "vectors.txt").write_text("".join(lines))

    def prepare(self, name: str) -> None:
        """Make what a kind of work begins from, once."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir()
        work = KINDS[name]
        for command in (*work.start, *work.commands):
            module, *words = (word.format(base=self.base, room=self.path) for word in command)
            if module == "gruland.train" and "-m" not in words:
                self._composed(tuple(words))  # here, for all children
        done = children.call(lambda: self.do(name, work.start), seconds=600)
        if done.status:
            raise ValueError(f"{name} cannot be prepared: {done.said}")
        shutil.copytree(self.path, self.base / name, dirs_exist_ok=True)

    def reset(self, name: str) -> None:
        """Go back to the beginning."""
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.copytree(self.base / name, self.path)

    def do(self, name: str, commands: Sequence[Command] | None = None) -> int:
        """The work, in this process; the exit status.

        No clock runs, so that the same work leaves the same bytes, and no picture is drawn, which takes seconds.

        Args:
            commands: None: those of the kind itself.
        """
        cache = (self.path if KINDS[name].cold else self.base) / "cache"
        with mock.patch.dict(os.environ, GRULAND_CACHE=str(cache), COLUMNS="200", TQDM_DISABLE="1"):
            for clock in ("time", "monotonic", "perf_counter"):
                setattr(time, clock, lambda: NOON)
            Figure.savefig, Figure.draw_without_rendering = _sketch, lambda figure: None
            if KINDS[name].every_cell:
                Store.__init__.__kwdefaults__["every"] = 0.0  # type: ignore[index]
            for command in KINDS[name].commands if commands is None else commands:
                if status := self._do(*(word.format(base=self.base, room=self.path) for word in command)):
                    return status
        return 0

    def compose(self, name: str) -> int:
        """The work, and a note of what it composed, which later children find."""
        status = self.do(name)
        compositions.write(self.base / "composed")
        return status

    def _do(self, module: str, *words: str) -> int:
        if module != "gruland.train" or "-m" in words:
            return type_command(module, words)
        from gruland.train import train

        try:
            with one_line_errors():
                train(self._composed(words))  # to compose takes longer than to train
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    @functools.cache  # noqa: B019  # there is one room
    def _composed(self, words: Command) -> DictConfig:
        return compose(*words)


def type_command(module: str, words: Sequence[str]) -> int:
    """``python -m module words`` in this process."""
    from hydra.core.global_hydra import GlobalHydra

    from gruland import config, study

    GlobalHydra.instance().clear()
    study._call = _stage
    config.cores = lambda: 1
    package = import_module(module)
    main = (import_module(f"{module}.__main__") if hasattr(package, "__path__") else package).main
    sys.argv = [module, *words]
    try:
        with one_line_errors():  # as each module has it where it is typed
            return int(main() or 0)
    except SystemExit as ended:
        return int(ended.code or 0)


def _stage(command: Sequence[str]) -> int:
    """A study's command, in a child of the study's group."""
    done = children.call(lambda: type_command(command[2], command[3:]), group=False)
    print(done.said)
    return done.status


def _sketch(figure: Figure, place: Any, **options: Any) -> None:
    """Write a picture's size in its place."""
    text = f"<svg><title>{figure!r}</title></svg>"
    if isinstance(place, io.StringIO):
        place.write(text)
    elif isinstance(place, io.BytesIO):
        place.write(text.encode())
    else:
        with open(place, "wb") as file:
            file.write(text.encode())


def contents(folder: Path) -> dict[str, str]:
    """What lies below a folder, by name: equal texts for what is equal to a reader. Logs tell of each try."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "log.txt"]
    return {str(path.relative_to(folder)): _reading(path) for path in files}


def _reading(path: Path) -> str:
    kinds: dict[str, Callable[[Path], Any]] = {".json": _json, ".ckpt": _checkpoint}
    return str(kinds.get(path.suffix, _digest)(path))


def _json(path: Path) -> str:
    try:
        return json.dumps(json.loads(path.read_text()), sort_keys=True)
    except ValueError:  # half of one
        return _digest(path)


def _checkpoint(path: Path) -> str:
    """Weights and optimizer; how often it was begun is noted in it, too."""
    import torch

    state = torch.load(path, weights_only=True)
    return repr([state[key] for key in ("state_dict", "optimizer_states", "epoch", "global_step")])


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@functools.cache
def import_everything() -> None:
    """What the work imports and composes late, once for all children."""
    for module in (
        "matplotlib.backends.backend_pdf", "matplotlib.backends.backend_agg", "plotly.graph_objects", "xarray", "zarr",
        "zarr.codecs", "pandas", "torchmetrics", "scipy.stats", "datasets", "pyarrow.parquet", "contourpy",
        "gruland.train.job", "gruland.experiment", "gruland.callbacks", "gruland.surfaces", "gruland.study",
        "gruland.attack.__main__", "gruland.report.__main__", "gruland.report.landscapes.__main__",
        "gruland.report.landscapes.compare", "gruland.surfaces.__main__", "gruland.landscape.pictures",
    ):  # fmt: skip
        import_module(module)
    swaps.load()
    compositions.remember()
