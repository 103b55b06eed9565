"""What a run leaves behind: its folder's name, what lies in it, and the only way to read it again.

::

    outputs/<experiment>/<regularizer>-<rate>-h<units>-s<seed>-<hash>/
        config.yaml             the resolved configuration
        checkpoints/best.safetensors   weights of least validation loss;  last.safetensors: after the last epoch
        checkpoints/epoch-N.safetensors   after epoch N, 0 = before training (callbacks=[default,epoch_weights])
        checkpoints/last.ckpt   what an interrupted training goes on from
        metrics.csv             a row an epoch
        results.json            everything measured, see docs/results.md
        landscape/  attack/     surface and pictures; perturbed reviews
        log.txt                 what the run had to say
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import gruland
from gruland import trust
from gruland.config import instantiate, resolved
from gruland.errors import USER_ERRORS, one_line
from gruland.files import atomic_path, content_hash, read_json, remove_abandoned, write_json
from gruland.weights import load_weights

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import Tensor

    from gruland.classifier import Classifier
    from gruland.data import Encoded, TextDataModule
    from gruland.defence import Defence
    from gruland.embedding import Vocabulary
    from gruland.task import Task

#: Version of results.json; it rises when a reader of an older one would go wrong.
SCHEMA = 1

log = logging.getLogger("gruland")

_RETRAIN = "run gruland.train again, or move the run away"
_MEND = "the same gruland.train command makes again what is missing"
#: The entries of results.json that tell of files in a folder.
_FOLDERS = {"landscape": "landscape", "attacks": "attack"}
#: The end of a run's name; a folder that was given another name does not have it.
_DIGEST = re.compile(r"-s\d+-([0-9a-f]{8})$")

#: What determines a trained model. Paths, devices, workers, loggers and what is measured afterwards do not.
_IDENTITY = ("seed", "data", "embedding", "model", "regularizer", "optimizer")
_NOT_IDENTITY = {"path", "cache_dir", "num_workers", "eval_batch_size", "backend"}
#: The defence that a run without the key has, too: both have the same name.
_UNDEFENDED = "gruland.defence.NoDefence"
#: Arguments of Lightning's trainer that change no weight; all others may.
_NOT_TRAINING = {
    "_target_",
    "accelerator",
    "enable_model_summary",
    "enable_progress_bar",
    "log_every_n_steps",
    "num_sanity_val_steps",
    "profiler",
}
#: The keys that name files: what these hold counts, not where they lie.
_FILES = ("data.path", "data.exclude", "embedding.path")


def identity(cfg: DictConfig) -> dict[str, Any]:
    """The part of a configuration that determines the trained model, as plain data."""
    whole: Any = OmegaConf.to_container(cfg, resolve=True)
    result = {
        key: {k: v for k, v in whole[key].items() if k not in _NOT_IDENTITY}
        if isinstance(whole[key], dict)
        else whole[key]
        for key in _IDENTITY
    }
    # A file counts by its name here, and by its content in the data that the run has seen; without one nothing is said.
    if isinstance(result["data"], dict) and (exclude := result["data"].pop("exclude", None)):
        result["data"]["exclude"] = Path(exclude).name
    # A run without the key is a float32 run: both have the same name.
    if result["model"].get("precision") == "float32":
        del result["model"]["precision"]
    if (defence := whole.get("defence")) and defence["_target_"] != _UNDEFENDED:
        result["defence"] = defence
    result["trainer"] = {
        key: value
        for key, value in whole["trainer"].items()
        if value is not None and key not in _NOT_TRAINING and (key, value) != ("devices", 1)
    }
    # A callback of somebody else's, such as EarlyStopping, may change what is trained; this package's do not.
    others = {
        key: node
        for key, node in (whole.get("callbacks") or {}).items()
        if node and not str(node["_target_"]).startswith("gruland.callbacks.")
    }
    return {**result, "callbacks": others} if others else result


def requested(cfg: DictConfig) -> dict[str, Any]:
    """What is to be measured of the trained model, as a finished run's results.json has it."""
    return {key: OmegaConf.to_container(cfg[key], resolve=True) for key in ("landscape", "attack")}


def name(cfg: DictConfig) -> str:
    """A readable name and a short hash of :func:`identity`, e.g. ``zoneout-0.1-h128-s0-1a2b3c4d``.

    A defence stands behind the regularizer: ``zoneout-0.1-fgm-h128-s0-1a2b3c4d``.
    """
    known = identity(cfg)
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:8]
    regularizer = instantiate(cfg.regularizer)
    rate = f"-{regularizer.rate:g}" if regularizer.rate else ""
    defence = f"-{build_defence(cfg).name}" if "defence" in known else ""
    return f"{regularizer.name}{rate}{defence}-h{cfg.model.hidden_size}-s{cfg.seed}-{digest}"


def folder(cfg: DictConfig) -> Path:
    """The run's folder; it need not exist."""
    return Path(cfg.output_dir) / str(cfg.experiment_name) / name(cfg)


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
            raise ValueError(f"{path} holds a {type(results).__name__}, expected an object: {_RETRAIN}")
        return results

    def update_results(self, **values: Any) -> None:
        """Set top-level entries of results.json, atomically.

        An entry that tells of files seals them, in place of what lay there before (:meth:`verified`).
        """
        results = {**self.results, **values}
        for folder in (_FOLDERS[key] for key in values if key in _FOLDERS):
            known = results.get("files", {})
            kept = {name: digest for name, digest in known.items() if not name.startswith(f"{folder}/")}
            results["files"] = {**kept, **self._checksums(f"{folder}/*")}
        write_json(self.path / "results.json", results)

    def _checksums(self, *patterns: str) -> dict[str, str]:
        """SHA-256 of the files and folders of the run that match, by their names in it."""
        found = [path for pattern in patterns for path in sorted(self.path.glob(pattern))]
        return {
            path.relative_to(self.path).as_posix(): content_hash(path)
            for path in found
            if not path.name.startswith(".")
        }

    def seal_training(self) -> None:
        """Record the checksums of what the training left: readers hold it against them.

        Scores of other weights, trained again on another machine, say, are forgotten.
        """
        results = self.results
        known, best = results.get("files", {}), "checkpoints/best.safetensors"
        new = self._checksums("checkpoints/*.safetensors", "metrics.csv")
        if known.get(best) not in (None, new[best]):
            results.pop("metrics", None)
        write_json(self.path / "results.json", {**results, "files": {**known, **new}})

    def damaged(self) -> list[str]:
        """The sealed files that are missing, or not what was written."""
        recorded = self.results.get("files", {})
        return [
            name
            for name, digest in recorded.items()
            if not (self.path / name).exists() or content_hash(self.path / name) != digest
        ]

    def discard_damaged(self) -> list[str]:
        """Remove the sealed files that are not what was written, with a line for each: they are made again."""
        damaged = self.damaged()
        for path in (self.path / name for name in damaged):
            log.warning("%s is missing or not what the run wrote: it is made again", path)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        return damaged

    def verified(self, name: str) -> Path:
        """The path of a file of the run, which is what was written.

        Raises:
            FileNotFoundError, ValueError: it is missing, or it was changed since.
        """
        path, digest = self.path / name, self.results.get("files", {}).get(name)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: {_MEND}")
        if digest is not None and content_hash(path) != digest:
            raise ValueError(f"{path} is not what the run wrote (its checksum differs): {_MEND}")
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
        try:
            trust.check(config, self.allow)
        except ValueError as error:
            raise ValueError(f"{self.path / 'config.yaml'}: {error}") from error
        for group in ("data", "embedding"):
            cache = (config.get(group) or {}).get("cache_dir")
            if cache and not Path(cache).expanduser().is_dir():  # another machine's
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
            raise ValueError(f"{self.path / 'config.yaml'} lacks {one_line(error)}: {_RETRAIN}") from error
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


def at(path: str | Path) -> Run:
    """The run in a folder: the one that this process keeps locked, with what it has loaded, or a new one."""
    return _locked.get(Path(path).resolve()) or Run(path)


def build_vocabulary(cfg: DictConfig) -> Vocabulary:
    """The word vectors that a configuration names."""
    return instantiate(cfg.embedding)


def build_defence(cfg: DictConfig) -> Defence:
    """The defence that a configuration names; older ones name none."""
    from gruland.defence import NoDefence

    return instantiate(cfg.defence) if cfg.get("defence") else NoDefence()


def build_data(cfg: DictConfig, vocabulary: Vocabulary | None = None) -> TextDataModule:
    """The data module that a configuration describes, set up."""
    data = instantiate(cfg.data, vocabulary=vocabulary or build_vocabulary(cfg), seed=cfg.seed)
    data.prepare_data()
    data.setup()
    return data


def build_model(cfg: DictConfig, data: TextDataModule | Run) -> Classifier:
    """An untrained classifier for the task and the vocabulary of ``data``, its weights drawn from the seed."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.seed)
        vectors = torch.from_numpy(data.vocabulary.vectors)
        return instantiate_model(cfg, data.task, vectors, freeze=data.vocabulary.freeze)


def instantiate_model(
    cfg: DictConfig, task: Task, vectors: torch.Tensor, *, freeze: bool = True
) -> Classifier:
    """The classifier for a task and word vectors [V, D]."""
    return instantiate(
        cfg.model,
        task=task,
        vectors=vectors,
        regularizer=instantiate(cfg.regularizer),
        defence=build_defence(cfg),
        freeze=freeze,
        optimizer=instantiate(cfg.optimizer),
        seed=cfg.seed,
    )


def prepare(cfg: DictConfig) -> Run:
    """The run of this configuration: its folder is made, or an earlier run's is taken up.

    Raises:
        ValueError: the folder holds a run of another configuration.
    """
    run = Run(folder(cfg), allow=trust.targets(cfg))  # whoever composes a configuration trusts it
    run.path.mkdir(parents=True, exist_ok=True)
    if (run.path / "config.yaml").exists():
        _refuse_other(Run(run.path, run.allow), cfg)
    run.config = _with_absolute_paths(cfg)
    return run


def write_config(run: Run, cfg: DictConfig) -> None:
    """Write config.yaml into the folder of :func:`prepare`, which the caller has locked.

    Where it names other files than an earlier one did, they must hold the data that the run has seen: files are no
    part of a run's identity, so that they may be moved.

    Raises:
        ValueError: they hold other data.
    """
    file, new = run.path / "config.yaml", _with_absolute_paths(cfg)
    if file.exists():
        before = Run(run.path, run.allow).config
        if any(OmegaConf.select(before, key) != OmegaConf.select(new, key) for key in _FILES):
            run.check_data(build_data(new))
    with atomic_path(file) as temporary:
        temporary.write_text(OmegaConf.to_yaml(new, resolve=True))


def _with_absolute_paths(cfg: DictConfig) -> DictConfig:
    """A copy that can be loaded from another folder."""
    copy = resolved(cfg)
    for key in _FILES:
        if OmegaConf.select(copy, key):
            OmegaConf.update(copy, key, str(Path(OmegaConf.select(copy, key)).expanduser().absolute()))
    return copy


def _refuse_other(run: Run, cfg: DictConfig) -> None:
    before, now = flat(identity(run.config)), flat(identity(cfg))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise ValueError(
                f"{run.path} holds a run of another configuration ({key}={before.get(key)}, now {now.get(key)}): "
                "move it away or give another output_dir"
            )


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted keys, as on the command line."""
    result: dict[str, Any] = {}
    for key, item in value.items():
        result |= flat(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return result


def load(path: str | Path, allow: Iterable[str] = ()) -> Run:
    """Open a finished run: the only loader there is.

    Args:
        path: its folder.
        allow: modules, classes or functions that its configuration may name besides this package's, as dotted
            names; only what you trust. See :mod:`gruland.trust`.

    Raises:
        FileNotFoundError: no run lies there.
        ValueError: the run is not finished, or its files are not what they were when it was.
    """
    run = Run(path, allow)
    if not (run.path / "config.yaml").is_file():
        raise FileNotFoundError(
            f"{path} is no run folder (no config.yaml in it): give a folder that gruland.train made"
        )
    if run.results.get("status") != "finished":
        raise ValueError(
            f"{path} is not finished (status {run.results.get('status')}): run gruland.train again"
        )
    run.check()
    return run


def readable(*paths: str | Path, allow: Iterable[str] = ()) -> tuple[list[Run], dict[Path, str]]:
    """The finished runs at or below the paths, and why each of the others is left out, in a line.

    Raises:
        FileNotFoundError: a path does not exist, or holds no run.
    """
    found, refused = [], {}
    for path in find(*paths):
        try:
            found.append(load(path, allow))
        except USER_ERRORS as error:
            refused[path] = one_line(error)
    return found, refused


def check_results(results: Mapping[str, Any], path: Path) -> None:
    """Refuse a finished run's results.json where it lacks what every reader needs, or holds it in another form.

    Raises:
        ValueError: the first such key.
    """
    if results.get("schema", SCHEMA) != SCHEMA:
        raise ValueError(f"{path} has schema {results['schema']!r}, this version reads {SCHEMA}: {_RETRAIN}")
    for key, value in flat({"metrics": results.get("metrics") or {}}).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{path}: {key} is {value!r}, expected a number: {_RETRAIN}")


def find(*paths: str | Path) -> list[Path]:
    """Run folders at or below the paths, in order. What lies in a run or in a hidden folder (``.trash``) is none.

    Raises:
        FileNotFoundError: a path does not exist, or holds no run.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: expected a run folder or a folder of runs")
        here = sorted(folders(path, "config.yaml"))
        if not here:
            raise FileNotFoundError(f"{path} holds no run (no config.yaml at or below it)")
        found += [run for run in here if run not in found]
    return found


def folders(path: Path, *names: str) -> Iterator[Path]:
    """Folders at or below ``path`` that hold one of the files; none that is hidden or inside such a folder."""
    for folder, inside, files in os.walk(path):
        if not set(names).isdisjoint(files):
            inside.clear()  # what loggers keep in a run's folder has such files, too
            yield Path(folder)
        inside[:] = sorted(name for name in inside if not name.startswith("."))


def named(cfg: DictConfig) -> dict[str, Any]:
    """The entries of results.json that say which run it is."""
    return {
        "schema": SCHEMA,
        "gruland": gruland.__version__,
        "name": name(cfg),
        "experiment": str(cfg.experiment_name),
        "seed": cfg.seed,
    }


def describe(cfg: DictConfig, model: Classifier, threads: int, device: torch.device) -> dict[str, Any]:
    """The entries of results.json that are known before training, which runs on ``device``."""
    import pytorch_lightning
    import torch

    precision = model.gru.precision
    backend = model.gru.kernel(device, training=True)
    return {
        **named(cfg),
        "model": {
            "regularizer": model.regularizer.name,
            "title": model.regularizer.title,
            "rate": model.regularizer.rate,
            **({"defence": model.defence.name} if "defence" in identity(cfg) else {}),
            "hidden_size": cfg.model.hidden_size,
            "num_layers": cfg.model.num_layers,
            "parameters": sum(p.numel() for p in model.trainable().values()),
            "backend": backend.__name__.rpartition(".")[2],
            "precision": precision,
        },
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "pytorch_lightning": pytorch_lightning.__version__,
            "platform": platform.platform(),
            "device": str(device),
            "threads": threads,
        },
    }
