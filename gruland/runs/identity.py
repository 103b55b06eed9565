"""Which run a configuration describes: what determines it, and the name and folder that follow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gruland.config import instantiate
from gruland.files import json_hash
from gruland.runs.objects import build_defence

#: What determines a trained model. Paths, devices, workers, loggers and what is measured afterwards do not.
_IDENTITY = ("seed", "data", "embedding", "model", "regularizer", "optimizer")
_NOT_IDENTITY = {"path", "cache_dir", "num_workers", "eval_batch_size", "backend"}
#: The defence that a run without the key has, too: both have the same name.
_UNDEFENDED = "gruland.defence.NoDefence"
#: Arguments of Lightning's trainer that change no weight; all others may.
_NOT_TRAINING = {
    "_target_",
    "accelerator",
    "devices",
    "enable_model_summary",
    "enable_progress_bar",
    "log_every_n_steps",
    "num_sanity_val_steps",
    "profiler",
    "strategy",
}


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
        result["defence"] = _named_files(defence)
    result["trainer"] = {
        key: value
        for key, value in whole["trainer"].items()
        if value is not None and key not in _NOT_TRAINING
    }
    # A callback of somebody else's, such as EarlyStopping, may change what is trained; this package's do not.
    others = {
        key: node
        for key, node in (whole.get("callbacks") or {}).items()
        if node and not str(node["_target_"]).startswith("gruland.callbacks.")
    }
    return {**result, "callbacks": others} if others else result


def _named_files(defence: dict[str, Any]) -> dict[str, Any]:
    """A defence whose file of unlabelled reviews counts by its name, as ``data.exclude`` does."""
    source = defence.get("unlabelled")
    if not isinstance(source, dict) or not source.get("path"):
        return defence
    return {**defence, "unlabelled": {**source, "path": Path(source["path"]).name}}


def requested(cfg: DictConfig) -> dict[str, Any]:
    """What is to be measured of the trained model, as a finished run's results.json has it."""
    wanted: dict[str, Any] = {
        key: OmegaConf.to_container(cfg[key], resolve=True) for key in ("landscape", "attack")
    }
    for part in (wanted["landscape"], *wanted["attack"].values()):
        for key in ("workers", "engine"):  # they say where, not what
            part.pop(key, None)
    return wanted


def name(cfg: DictConfig) -> str:
    """A readable name and a short hash of :func:`identity`, e.g. ``zoneout-0.1-h128-s0-1a2b3c4d``.

    A defence stands behind the regularizer: ``zoneout-0.1-fgm-h128-s0-1a2b3c4d``.
    """
    known = identity(cfg)
    digest = json_hash(known)[:8]
    regularizer = instantiate(cfg.regularizer)
    rate = f"-{regularizer.rate:g}" if regularizer.rate else ""
    defence = f"-{build_defence(cfg).name}" if "defence" in known else ""
    return f"{regularizer.name}{rate}{defence}-h{cfg.model.hidden_size}-s{cfg.seed}-{digest}"


def folder(cfg: DictConfig) -> Path:
    """The run's folder; it need not exist."""
    return Path(cfg.output_dir) / str(cfg.experiment_name) / name(cfg)


def settings(cfg: DictConfig) -> dict[str, Any]:
    """:func:`identity` under dotted keys."""
    return flat(identity(cfg))


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted keys, as on the command line."""
    result: dict[str, Any] = {}
    for key, item in value.items():
        result |= flat(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return result
