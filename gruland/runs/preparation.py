"""The folder of a run that is about to begin: made, or taken up where it holds the same run."""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from gruland import trust
from gruland.config import resolved
from gruland.errors import one_line
from gruland.files import atomic_path
from gruland.runs.identity import folder, settings
from gruland.runs.run import Run
from gruland.runs.seals import FILES, seal_config

log = logging.getLogger("gruland")

#: What lies in a run's folder before its data are read; log.txt and .hydra are Hydra's, which makes them first.
_RECORD = {"config.yaml", "results.json", ".lock", ".hydra", "log.txt"}


def prepare(cfg: DictConfig) -> Run:
    """The run of this configuration: its folder is made, or an earlier run's is taken up.

    Raises:
        ValueError: the folder holds a run of another configuration.
    """
    run = Run(folder(cfg), allow=trust.targets(cfg))  # whoever composes a configuration trusts it
    run.path.mkdir(parents=True, exist_ok=True)
    if (before := _readable(run)) is not None:
        _refuse_other(run, before, cfg)
    run.config = _with_absolute_paths(cfg)
    return run


def write_config(run: Run, cfg: DictConfig) -> None:
    """Write config.yaml into the folder of :func:`prepare`, which the caller has locked.

    Where it names other files than an earlier one did, they must hold the data that the run has seen: files are no
    part of a run's identity, so that they may be moved.

    Raises:
        ValueError: they hold other data; or the epochs' weights are asked for, and it was trained without keeping them.
    """
    if "epoch_weights" in cfg.callbacks and run.is_scored and 0 not in run.epochs:
        raise ValueError(
            f"{run.path} is trained already, without callbacks=[default,epoch_weights]: move it away or give "
            "another output_dir"
        )
    new = _with_absolute_paths(cfg)
    before = _readable(run)
    if before and any(OmegaConf.select(before, key) != OmegaConf.select(new, key) for key in FILES):
        run.check_data(run.data)
    with atomic_path(run.path / "config.yaml") as temporary:
        temporary.write_text(seal_config(OmegaConf.to_yaml(new, resolve=True)))


def _readable(run: Run) -> DictConfig | None:
    """The configuration that an earlier run left; one that is damaged is written anew, with a line that says so."""
    if not (run.path / "config.yaml").exists():
        return None
    try:
        return Run(run.path, run.allow).config
    except ValueError as error:
        log.warning("%s; it is written anew", one_line(error))
        return None


def withdraw(path: Path) -> None:
    """Remove the folder of a run that was refused before it began: its data could not be read, say.

    A folder that another process is at work in stays, and so does one that holds anything else.
    """
    run = Run(path)
    if not path.is_dir():
        return
    with suppress(ValueError), run.locked():
        if "data" not in run.results and {file.name for file in path.iterdir()} <= _RECORD:
            shutil.rmtree(path)
            with suppress(OSError):  # the experiment has other runs
                path.parent.rmdir()


def _with_absolute_paths(cfg: DictConfig) -> DictConfig:
    """A copy that can be loaded from another folder."""
    copy = resolved(cfg)
    for key in FILES:
        if OmegaConf.select(copy, key):
            OmegaConf.update(copy, key, str(Path(OmegaConf.select(copy, key)).expanduser().absolute()))
    return copy


def _refuse_other(run: Run, earlier: DictConfig, cfg: DictConfig) -> None:
    before, now = settings(earlier), settings(cfg)
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise ValueError(
                f"{run.path} holds a run of another configuration ({key}={before.get(key)}, now {now.get(key)}): "
                "move it away or give another output_dir"
            )
