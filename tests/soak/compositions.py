"""Hydra's compositions, which take longer than the work: a child finds those made that an earlier one wrote down."""

from __future__ import annotations

import pickle
from collections import defaultdict
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig

#: What was composed -> the configurations. Each is handed out once, as whoever gets it may change it: a forked child
#: has all of them again.
_made: dict[Hashable, list[DictConfig]] = defaultdict(list)
_new: list[tuple[Hashable, DictConfig]] = []

_compose = ConfigLoaderImpl.load_configuration


def _remembered(
    loader: ConfigLoaderImpl, config_name: str | None, overrides: list[str], run_mode: Any, **options: Any
) -> DictConfig:
    key = (config_name, tuple(overrides), run_mode, *sorted(options.items()))
    if _made[key]:
        return _made[key].pop(0)
    composed = _compose(loader, config_name, overrides, run_mode, **options)
    _new.append((key, pickle.loads(pickle.dumps(composed))))
    return composed


def remember() -> None:
    """Let this process and its children look for what was composed before they compose it."""
    ConfigLoaderImpl.load_configuration = _remembered


def write(path: Path) -> None:
    """Write down what this process composed itself."""
    path.write_bytes(pickle.dumps(_new))


def read(path: Path) -> None:
    """Know what another process wrote down."""
    for key, composed in pickle.loads(path.read_bytes()):
        _made[key].append(composed)
