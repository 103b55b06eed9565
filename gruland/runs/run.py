"""A run's folder: weights, numbers, data and model, and the lock of who works on it."""

from __future__ import annotations

import csv
import logging
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from gruland import trust
from gruland.errors import one_line
from gruland.files import content_hash, read_json, remove_abandoned, write_json
from gruland.runs.identity import name
from gruland.runs.objects import build_data, build_model, build_vocabulary
from gruland.runs.results import RETRAIN, check_results, named
from gruland.runs.seals import check_config, checksums, damaged
from gruland.weights import load_weights

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from gruland.classifier import Classifier
    from gruland.data import Encoded, TextDataModule
    from gruland.embedding import Vocabulary
    from gruland.task import Task

log = logging.getLogger("gruland")

#: The entries of results.json that tell of files, and of which. The folders in landscape/ but surface.zarr are others'.
_FILES = {"landscape": "landscape/*.*", "attacks": "attack/*"}
#: The commands besides gruland.train that make files of a folder.
_MAKERS = {"landscape": "gruland.landscape", "attack": "gruland.attack"}
#: The end of a run's name; a folder that was given another name does not have it.
_DIGEST = re.compile(r"-s\d+-([0-9a-f]{8})$")

#: The runs that this process is working on, by their folders.
_locked: dict[Path, Run] = {}


class Run:
    """A run's folder. ``config``, ``data`` and ``model`` are built when they are first asked for.

    Args:
        path: the folder.
        allow: classes that its configuration may name besides this package's, see :mod:`gruland.trust`.
    """

    def __init__(self, path: str | Path, allow: Iterable[str] = ()) -> None:
        self.path, self.allow = Path(path), tuple(allow)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.results.get('status', 'new')})"

    @property
    def results(self) -> dict[str, Any]:
        """results.json, empty where nothing was measured yet.

        Raises:
            ValueError: it is no JSON object.
        """
        path = self.path / "results.json"
        results: Any = read_json(path) if path.exists() else {}
        if not isinstance(results, dict):
            raise ValueError(f"{path} holds a {type(results).__name__}, expected an object: {RETRAIN}")
        return results

    def update_results(self, *, wrote: str | None = None, **values: Any) -> None:
        """Set top-level entries of results.json, atomically.

        An entry that tells of files seals them, in place of what lay there before (:meth:`verified`).

        Args:
            wrote: of the files that the entry tells of, what is new, e.g. ``attack/hotflip``: the others keep their
                checksums. None: all of them.
        """
        results = {**self.results, **values}
        for pattern in (_FILES[key] for key in values if key in _FILES):
            new, folder = checksums(self.path, wrote or pattern), pattern.partition("/")[0]
            known = results.get("files", {})
            kept = {name: known[name] for name in known if wrote or not name.startswith(f"{folder}/")}
            results["files"] = {**kept, **new}
        write_json(self.path / "results.json", results)

    def seal_training(self) -> None:
        """Record what the training came to, and the checksums of what it left: readers hold it against them.

        Scores of other weights, trained again on another machine, say, are forgotten.
        """
        results = self.results
        known = results.get("files", {})
        scored = [f"checkpoints/{which}.safetensors" for which in ("best", "last")]
        new = checksums(self.path, "checkpoints/*.safetensors", "metrics.csv")
        if any(known.get(name) not in (None, new[name]) for name in scored):
            results.pop("metrics", None)
        with open(self.path / "metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        training = {
            "epochs": len(rows),
            "best_epoch": int(min(rows, key=lambda row: float(row["validation_loss"]))["epoch"]),
            "seconds": round(sum(float(row["seconds"]) for row in rows), 3),
        }
        results = {**results, "training": training, "files": {**known, **new}}
        write_json(self.path / "results.json", results)

    @property
    def is_trained(self) -> bool:
        """Whether the training came to its end and all that it left is there; :meth:`discard_damaged` looks closer."""
        left = [
            name for name in self.results.get("files", {}) if name.startswith(("checkpoints/", "metrics.csv"))
        ]
        return "training" in self.results and bool(left) and all((self.path / name).exists() for name in left)

    @property
    def is_scored(self) -> bool:
        """Whether its scores are there: then it stays finished, whatever becomes of a new surface."""
        return "metrics" in self.results

    @contextmanager
    def recording_failure(self, cfg: DictConfig) -> Iterator[None]:
        """Write what goes wrong to results.json, and its traceback to the log."""
        try:
            yield
        except Exception as error:
            log.debug("%s failed", self.path, exc_info=True)
            known = {} if self.is_scored else named(cfg)
            status = "finished" if self.is_scored else "failed"
            self.update_results(**known, status=status, error=one_line(error))
            raise

    def damaged(self) -> list[str]:
        """The sealed files that are missing, or not what was written."""
        known = self.results.get("files", {})
        # A comparison writes on in its folder, which an earlier version sealed.
        return damaged(self.path, {one: known[one] for one in known if one != "landscape/comparison"})

    def discard_unreadable(self) -> None:
        """Remove a results.json that is not what was written, with a line: all in it is measured again."""
        try:
            _ = self.results
        except ValueError as error:
            log.warning("%s; it is made again", one_line(error))
            (self.path / "results.json").unlink()

    def discard_damaged(self) -> list[str]:
        """Remove the sealed files that are not what was written, with a line for each; the run is to be finished again.

        Of surfaces and attacks the seals go with them, and an attack's results with its texts: this training may not be
        asked for them.
        """
        found = self.damaged()
        if not found:
            return found
        if any(name.startswith("checkpoints/epoch-") for name in found):
            self.resumption.unlink(missing_ok=True)  # a training that goes on from its end passes no epoch
        results = self.results
        results.pop("requested", None)
        for one in found:
            path, (folder, _, attack) = self.path / one, one.partition("/")
            log.warning("%s is missing or not what the run wrote: %s", path, _remedy(one))
            if folder in _MAKERS:
                del results["files"][one]
            if folder == "attack":
                results["attacks"].pop(attack, None)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        write_json(self.path / "results.json", results)
        return found

    def verified(self, name: str) -> Path:
        """The path of a file of the run, which is what was written.

        Raises:
            FileNotFoundError, ValueError: it is missing, or it was changed since.
        """
        path, digest = self.path / name, self.results.get("files", {}).get(name)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: {_remedy(name)}")
        if digest is not None and content_hash(path) != digest:
            raise ValueError(f"{path} is not what the run wrote (its checksum differs): {_remedy(name)}")
        return path

    @property
    def metrics(self) -> pd.DataFrame:
        """metrics.csv: a row an epoch."""
        import pandas as pd

        return pd.read_csv(self.verified("metrics.csv"))

    def checkpoint(self, which: str = "best") -> Path:
        """The path of the weights of ``best``, ``last`` or, where they are kept, ``epoch-N``."""
        return self.path / "checkpoints" / f"{which}.safetensors"

    def weights(self, which: str, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of ``best``, ``last`` or ``epoch-N`` by name, for a model that has ``expected``.

        Raises:
            FileNotFoundError, ValueError: they are missing, damaged or of another model.
        """
        return load_weights(self.verified(f"checkpoints/{which}.safetensors"), expected)

    @property
    def resumption(self) -> Path:
        """What an interrupted training goes on from."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def epochs(self) -> list[int]:
        """The epochs whose weights are kept, rising; 0 = before training."""
        names = [path.stem.removeprefix("epoch-") for path in self.checkpoint().parent.glob("epoch-*")]
        return sorted(int(name) for name in names if name.isdigit())

    @cached_property
    def config(self) -> DictConfig:
        """The resolved configuration.

        Raises:
            ValueError: it cannot be read, or names a class that is not allowed.
        """
        config = trust.read_config(self.path / "config.yaml")
        check_config(self.path / "config.yaml", config)
        try:
            trust.check(config, self.allow)
        except ValueError as error:
            raise ValueError(f"{self.path / 'config.yaml'}: {error}") from error
        for group in ("data", "embedding"):
            values = config.get(group)
            cache = values.get("cache_dir") if isinstance(values, dict) else None
            if cache and not Path(str(cache)).expanduser().is_dir():  # another machine's
                config[group]["cache_dir"] = None
        return DictConfig(config)

    def check(self) -> None:
        """Hold the configuration and the results against the name that the run was given when it was trained.

        Raises:
            ValueError: one of them was changed since, or is not what this version can read.
        """
        results = self.results
        check_results(results, self.path / "results.json")
        try:
            now = name(self.config)
        except (KeyError, AttributeError, TypeError, OmegaConfBaseException) as error:
            raise ValueError(f"{self.path / 'config.yaml'} lacks {one_line(error)}: {RETRAIN}") from error
        known = {"results.json": results.get("name", now)}
        if digest := _DIGEST.search(self.path.resolve().name):
            known["folder's name"] = f"{now[:-8]}{digest[1]}"
        for where, before in known.items():
            if before != now:
                raise ValueError(
                    f"{self.path / 'config.yaml'} is not the run's own: it describes {now}, the {where} says {before}; "
                    "take config.yaml from a copy of the run, or move the run away"
                )

    @cached_property
    def data(self) -> TextDataModule:
        """The data that the run was trained on.

        Raises:
            ValueError: what the configuration names today is other data than the run saw.
        """
        data = build_data(self.config, self.vocabulary)
        self.check_data(data)
        return data

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The words that have a vector.

        Raises:
            ValueError: they are not those that the run was trained with.
        """
        vocabulary = build_vocabulary(self.config)
        before = (self.results.get("data") or {}).get("vocabulary", {}).get("hash")
        if before is not None and before != vocabulary.hash:
            raise ValueError(
                f"{self.path} was trained with other vectors ({vocabulary.name} has the hash {vocabulary.hash[:8]}, "
                f"expected {before[:8]}): give embedding.path as it was"
            )
        return vocabulary

    @property
    def task(self) -> Task:
        """What the data ask of the model."""
        from gruland.task import Task

        kept = self.results.get("task")
        return self.data.task if kept is None else Task.from_dict(kept)

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Texts as the model sees them. The data that it was trained on need not be on this machine."""
        from gruland.data import encode_texts

        data = self.config.data
        if data.get("_target_") != "gruland.data.TextDataModule":  # only it knows how it reads
            return self.data.encode(texts)
        return encode_texts(texts, self.vocabulary, data.get("clean", "none"), data.get("max_length"))

    def check_data(self, data: TextDataModule) -> None:
        """Refuse data other than those that the run was started with."""
        before = self.results.get("data", {}).get("fingerprint")
        if before is not None and before != data.report["fingerprint"]:
            raise ValueError(
                f"{self.path} was trained on other data or vectors (fingerprint {before}, now "
                f"{data.report['fingerprint']}): give data.path and embedding.path as they were, or another output_dir"
            )

    def check_inputs(self, inputs: Mapping[str, str]) -> None:
        """Refuse other files besides the data than those that the run was started with.

        Args:
            inputs: from the keys that name them to their checksums.
        """
        known = self.results.get("inputs", {})
        for key, digest in inputs.items():
            if known.get(key, digest) != digest:
                raise ValueError(
                    f"{self.path} was trained with another file behind {key}: give it as it was, or another output_dir"
                )

    @cached_property
    def model(self) -> Classifier:
        """The model with the best checkpoint's weights, in evaluation mode."""
        return self.load_model("best")

    def load_model(self, which: str) -> Classifier:
        """The model with the weights of ``best``, ``last`` or ``epoch-N``, in evaluation mode.

        Raises:
            FileNotFoundError, ValueError: they are missing, damaged or of another model.
        """
        model = build_model(self.config, self)
        model.load_state_dict(self.weights(which, model.state_dict()))
        return model.eval()

    @contextmanager
    def locked(self, seconds: float = 0) -> Iterator[None]:
        """Keep a second process out of the folder; one that is in it already is waited for so long.

        What killed processes left half-written in it is removed.

        Raises:
            ValueError: it is still there.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=seconds)
        except Timeout:
            raise ValueError(
                f"{self.path} is being worked on by another process: wait for it to end"
            ) from None
        place = self.path.resolve()
        _locked[place] = self
        try:
            remove_abandoned(self.path)
            yield
        finally:
            _locked.pop(place, None)
            lock.release()


def _remedy(name: str) -> str:
    """How a file of a run is made again."""
    maker = _MAKERS.get(name.partition("/")[0])
    return f"the same gruland.train{f' or {maker}' if maker else ''} command makes again what is missing"


def at(path: str | Path) -> Run:
    """The run in a folder: the one that this process keeps locked, with what it has loaded, or a new one."""
    return _locked.get(Path(path).resolve()) or Run(path)
