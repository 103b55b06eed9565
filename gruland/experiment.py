"""The objects that a configuration describes, built before anything is read: what is wrong shows at once."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch import nn

from gruland import attack, config, loggers, runs
from gruland.arguments import check_whole
from gruland.processes import Processes
from gruland.task import Task

#: Callbacks without which a folder is no run, by their name in conf/callbacks/default.yaml.
_NEEDED = ("metrics_file", "best", "last", "scores")
#: Bytes that training keeps for a weight: itself, its gradient and Adam's two moments, float32.
_BYTES = 16


def build_callbacks(cfg: DictConfig) -> dict[str, pl.Callback]:
    """The callbacks by name.

    Raises:
        ValueError: one that every run needs is missing, or a wrong setting.
    """
    for needed in _NEEDED:
        if needed not in cfg.callbacks:
            raise ValueError(
                f"callbacks.{needed} is missing, and every run needs it: give callbacks=[default,...]"
            )
    return config.instantiate_all(cfg.callbacks)


def build_trainer(
    cfg: DictConfig, callbacks: dict[str, pl.Callback], attached: list[Logger], folder: Path
) -> pl.Trainer:
    """Lightning's trainer, whose callbacks write below ``folder``.

    Raises:
        ValueError: an argument that it refuses, or an accelerator that this machine lacks.
    """
    node = cfg.trainer
    clip, epochs, strategy = (node.get(key) for key in ("gradient_clip_val", "max_epochs", "strategy"))
    if isinstance(clip, int | float) and not clip > 0:  # Lightning would leave the gradients as they are
        raise ValueError(f"trainer.gradient_clip_val={clip}: expected a number above 0, or null")
    check_whole("trainer.max_epochs", epochs, 1)

    every, batches = node.get("check_val_every_n_epoch", 1), node.get("limit_val_batches")
    if every != 1:
        raise ValueError(f"trainer.check_val_every_n_epoch={every}: expected 1, every epoch is validated")
    if batches is not None and not batches:
        raise ValueError(
            f"trainer.limit_val_batches={batches}: expected a number above 0, every epoch is validated"
        )

    def build(node: DictConfig, **more: Any) -> pl.Trainer:
        if "plugins" not in node:
            # A run starts its processes itself. Left to guess, Lightning warns wherever Slurm is installed, and in a
            # Slurm job it takes signals for its own: it would queue the job again beside submitit.
            more["plugins"] = [LightningEnvironment()]
        return config.instantiate(
            node,
            **more,
            callbacks=list(callbacks.values()),
            logger=attached or False,
            default_root_dir=str(folder),
            use_distributed_sampler=False,  # the data module gives each process its share
        )

    trainer = build(node)
    if trainer.world_size == 1:
        return trainer
    if strategy not in (None, "auto", "ddp_spawn"):
        raise ValueError(f"trainer.strategy={strategy}: expected ddp_spawn or auto with several devices")
    if trainer.num_nodes > 1:
        raise ValueError(f"trainer.num_nodes={trainer.num_nodes}: a run trains on the devices of one machine")
    if cfg.data.get("batch_size", math.inf) < trainer.num_devices:
        raise ValueError(
            f"data.batch_size={cfg.data.batch_size}: expected at least a review for each of the "
            f"{trainer.num_devices} devices that share a batch"
        )
    if (cfg.get("defence") or {}).get("unlabelled"):
        raise ValueError(
            f"trainer.devices={node.devices}: defence.unlabelled is drawn for a whole batch, give one device"
        )
    if any(isinstance(logger, loggers.WeightsAndBiases) for logger in attached):
        raise ValueError(
            f"trainer.devices={node.devices}: logger=wandb follows one process alone, give logger=tensorboard or csv"
        )
    return build(_without(node, "strategy"), strategy=Processes(threads(cfg, trainer.num_devices)))


def build_tester(
    trainer: pl.Trainer,
    cfg: DictConfig,
    callbacks: dict[str, pl.Callback],
    attached: list[Logger],
    folder: Path,
) -> pl.Trainer:
    """What tests the model that ``trainer`` has trained: itself, or after several processes one for this process."""
    if trainer.world_size == 1:
        return trainer
    alone = cfg.copy()
    alone.trainer = _without(cfg.trainer, "strategy")
    alone.trainer.devices = 1
    return build_trainer(alone, callbacks, attached, folder)


def _without(node: DictConfig, key: str) -> DictConfig:
    return OmegaConf.masked_copy(node, [str(name) for name in node if name != key])


def threads(cfg: DictConfig, processes: int = 1) -> int:
    """Of each process of a run; unasked, the cores divided among them and the jobs of a sweep."""
    return int(cfg.threads or max(1, threads_per_job() // processes))


def threads_per_job() -> int:
    """The cores of a run, divided among the jobs that the launcher runs side by side on this machine."""
    cores = config.cores()
    if not HydraConfig.initialized() or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return cores
    launcher = HydraConfig.get().launcher
    if "n_jobs" in launcher:  # joblib: a negative number counts back from all cores
        jobs = launcher.n_jobs if launcher.n_jobs > 0 else cores + 1 + launcher.n_jobs
        return max(1, cores // max(1, jobs))
    if "cpus_per_task" in launcher:  # submitit: a Slurm job has what it asks for, local ones run all at once
        local = str(launcher.get("_target_")).endswith(".LocalLauncher")
        jobs = int(os.environ.get(config.SWEEP_JOBS, "1")) if local else 1
        return min(cores, launcher.cpus_per_task or max(1, cores // jobs))
    if "ray" in launcher:
        remote = launcher.ray.get("remote") or {}
        return max(1, int(remote.get("num_cpus") or 1))
    return cores


def check(cfg: DictConfig) -> None:
    """Refuse a configuration that cannot work, before anything is read or written.

    Raises:
        ValueError, OSError, ImportError: with the key, its value and what was expected.
    """
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        raise ValueError(f"{missing[0]} is missing: give {missing[0]}=...")
    config.check_keys(cfg)
    check_whole("seed", cfg.seed, 0)
    if cfg.threads is not None:
        check_whole("threads", cfg.threads, 1)
    experiment = str(cfg.experiment_name)
    # Hidden folders hold no runs.
    if not experiment.strip() or "/" in experiment or experiment.startswith("."):
        raise ValueError(
            f"experiment_name={experiment}: expected the name of one folder, which does not begin with a dot"
        )
    _writable(Path(cfg.output_dir))
    check_objects(cfg)


def validate(*overrides: str) -> None:
    """Say whether a command would start: ``validate("regularizer=zoneout", "seed=1,2")``. Nothing is read or written.

    Raises:
        ValueError, OSError, ImportError: as the command would end.
    """
    parsed = config.parse(config.typed(overrides))
    choices = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
        if o.is_sweep_override() and o.is_discrete_sweep()
        else [str(o.input_line)]
        for o in parsed
    ]
    for words in product(*choices):
        check(config.compose(*words))


def _writable(folder: Path) -> None:
    for mark in ("::", ":/"):  # Lightning's file systems take them for a chain and for an address
        if mark in str(folder.absolute()):
            raise ValueError(
                f"output_dir={folder}: expected a folder of this machine, without {mark} in its path"
            )
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise NotADirectoryError(f"output_dir={folder}: {existing} is a file, expected a folder")
    if not os.access(existing, os.W_OK):
        raise PermissionError(f"output_dir={folder}: {existing} is not writable")


def check_objects(cfg: DictConfig) -> None:
    """Build everything that a configuration describes; nothing is read, and nothing is written.

    Raises:
        ValueError, OSError, ImportError: what an object says of its settings.
    """
    with _quiet():
        config.instantiate(cfg.regularizer)
        config.instantiate(cfg.data, vocabulary=None, seed=cfg.seed)
        for key, expected in (("data", "reviews"), ("embedding", "word vectors")):
            if (path := cfg[key].get("path")) and not Path(path).expanduser().exists():
                raise FileNotFoundError(f"{key}.path={path} does not exist: expected {expected}")
        _check_model(cfg)
        attack.build(cfg.attack)
        config.instantiate(cfg.landscape)
        callbacks = build_callbacks(cfg)
        folder = runs.folder(cfg)
        build_trainer(cfg, callbacks, loggers.build(cfg, folder), folder)
    _check_plane(cfg)


def _check_model(cfg: DictConfig) -> None:
    """The model without memory for its weights, and whether this machine has as much; the optimizer of a weight."""
    try:
        with torch.device("meta"):
            vectors = torch.empty(2, cfg.embedding.get("dimension") or 50)
            model = runs.instantiate_model(cfg, Task("binary", ("negative", "positive")), vectors)
    except RuntimeError as error:  # sizes beyond what a tensor can have
        raise ValueError(f"model: {' '.join(str(error).split())}") from error
    needed = _BYTES * sum(math.prod(weight.shape) for weight in model.trainable().values())
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise ValueError(
            f"model.hidden_size={cfg.model.hidden_size}: training needs {needed / 2**30:,.0f} GiB for the weights "
            f"alone, this machine has {there / 2**30:,.0f}"
        )
    try:
        config.instantiate(cfg.optimizer)([nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"optimizer: {' '.join(str(error).split())}") from error


def _check_plane(cfg: DictConfig) -> None:
    """A plane through the epochs needs their weights."""
    plane: Any = cfg.landscape.get("plane")
    words = [plane] if isinstance(plane, str) else plane or []
    if (
        cfg.landscape.enabled
        and {"initial", "trajectory"} & set(words)
        and "epoch_weights" not in cfg.callbacks
    ):
        raise ValueError(
            f"landscape.plane={plane} needs the weights of each epoch: give callbacks=[default,epoch_weights]"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning says which accelerators there are whenever a trainer is built: once, for the run, is enough."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
