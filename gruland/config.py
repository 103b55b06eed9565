"""The configuration: where it lies, how it is composed, what is checked before any work starts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

_PACKAGE = Path(__file__).parent

#: In a wheel the configuration lies inside the package, in a checkout beside it.
CONF = next(p for p in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if p.is_dir())

#: What a key was called before, and how the same is said now.
RENAMED = {
    "attack.enabled": "attack=none, or attack=typing_errors",
    "attack.reviews": "attack.typing_errors.reviews",
    "attack.rate": "attack.typing_errors.rate",
    "attack.mode": "attack.typing_errors.mode",
    "attack.seed": "attack.typing_errors.seed",
    "attack.draws": "attack.typing_errors.draws",
    "attack.dropout_seed": "attack.typing_errors.dropout_seed",
}


def refuse_renamed(overrides: Iterable[str]) -> None:
    """Refuse a key by an earlier name.

    Raises:
        ValueError: with the new one.
    """
    for override in overrides:
        key = override.lstrip("+").partition("=")[0]
        if key in RENAMED:
            raise ValueError(f"{override}: {key} is no longer a key, give {RENAMED[key]}")


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


OmegaConf.register_new_resolver("cores", cores, replace=True)


def compose(*overrides: str) -> DictConfig:
    """Compose a configuration as the command line does: ``compose("regularizer=zoneout", "seed=1")``.

    Raises:
        ValueError: an override that names an unknown group option or key.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    refuse_renamed(overrides)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return resolved(hydra_compose("train", list(overrides)))
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"cannot compose {list(overrides)}: {error}") from error


def resolved(cfg: DictConfig) -> DictConfig:
    """A copy without interpolations and without Hydra's own part."""
    whole: Any = OmegaConf.to_container(cfg, resolve=False)
    whole.pop("hydra", None)
    return DictConfig(OmegaConf.to_container(DictConfig(whole), resolve=True))


def instantiate(node: DictConfig, **more: Any) -> Any:
    """The object that a group's settings describe, e.g. ``instantiate(cfg.regularizer)``.

    Raises:
        ValueError, OSError, ImportError: what the class says of a value, with the key.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate as hydra_instantiate

    try:
        return hydra_instantiate(node, **more)
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, ValueError) and re.match(r"[a-z_]+=", str(cause)):
            raise ValueError(f"{node._get_full_key(None)}.{cause}") from error
        if isinstance(cause, TypeError):  # an argument that the class does not have
            raise ValueError(f"{node._get_full_key(None)}: {cause}") from error
        raise cause from None


def check(cfg: DictConfig) -> None:
    """Refuse values that cannot work, before anything is read or written.

    Raises:
        ValueError: with the key, its value and what was expected.
    """
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        raise ValueError(f"{missing[0]} is missing: give {missing[0]}=...")
    instantiate(cfg.regularizer)
    _optimizable(cfg)
    for key in ("model.hidden_size", "model.num_layers", "trainer.max_epochs", "data.batch_size"):
        _integer(cfg, key, 1)
    _integer(cfg, "seed", 0)
    size = cfg.landscape.size
    axes = [f"[{axis}]" for axis in range(len(size))] if OmegaConf.is_list(size) else [""]
    for axis in axes:
        _integer(cfg, f"landscape.size{axis}", 1)
    _kept_epochs(cfg)
    _attacks(cfg.attack)
    _writable(Path(cfg.output_dir))


def _value(cfg: DictConfig, key: str, kind: Any, expected: str) -> Any:
    value = OmegaConf.select(cfg, key, throw_on_missing=True)
    if isinstance(value, bool) or not isinstance(value, kind):
        raise ValueError(f"{key}={value}: expected {expected}")
    return value


def _between(cfg: DictConfig, key: str, low: float, high: float) -> None:
    expected = f"a number in [{low}, {high}]"
    value = _value(cfg, key, (int, float), expected)
    if not low <= value <= high:
        raise ValueError(f"{key}={value}: expected {expected}")


def _integer(cfg: DictConfig, key: str, low: int) -> None:
    expected = f"a whole number of at least {low}"
    if _value(cfg, key, int, expected) < low:
        raise ValueError(f"{key}={OmegaConf.select(cfg, key)}: expected {expected}")


def _optimizable(cfg: DictConfig) -> None:
    rate = OmegaConf.select(cfg, "optimizer.lr")
    if "lr" in cfg.optimizer and (
        isinstance(rate, bool) or not isinstance(rate, int | float) or not rate > 0
    ):
        raise ValueError(f"optimizer.lr={rate}: expected a number above 0")
    if cfg.trainer.get("threads") is not None:
        _integer(cfg, "trainer.threads", 1)


def _kept_epochs(cfg: DictConfig) -> None:
    plane = cfg.landscape.get("plane")
    words = [plane] if isinstance(plane, str) else plane or []
    for word in ("initial", "trajectory"):
        if cfg.landscape.enabled and word in words and not cfg.trainer.get("keep_epochs"):
            raise ValueError(
                f"landscape.plane={plane} needs the weights of each epoch: give trainer.keep_epochs=true"
            )


def _attacks(attack: DictConfig) -> None:
    from gruland.attack import build

    build(attack)


def _writable(folder: Path) -> None:
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise NotADirectoryError(f"output_dir={folder}: {existing} is a file, expected a folder")
    if not os.access(existing, os.W_OK):
        raise PermissionError(f"output_dir={folder}: {existing} is not writable")
