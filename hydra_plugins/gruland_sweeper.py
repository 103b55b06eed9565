"""Hydra's sweeper for a grid that belongs to the regularizer; Hydra finds it in this namespace package by itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf


class GridSweeper(Sweeper):
    """The product of all sweeps, as Hydra's basic sweeper has it, over the regularizer's grid.

    The grid is that of the regularizer's class (``grid``), ``hydra.sweeper.params`` and a sweep on the command line
    replace axes of it, and a sweep over another key multiplies it. ``regularizer=a,b`` runs the grid of each, without
    the settings that one of them does not have; ``defence=a,b`` does the same without a grid.
    """

    hydra_context: HydraContext
    config: DictConfig
    launcher: Launcher

    def __init__(self, params: dict[str, str]) -> None:
        self.params = params
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from gruland import sweep

        jobs = self.jobs(arguments)
        configs = [self.compose(job) for job in jobs]
        sweep.check(configs)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        return sweep.launch(self.launcher, jobs, configs)

    def jobs(self, arguments: list[str]) -> list[list[str]]:
        """The overrides of each job, the longest jobs first: they keep every worker busy to the end."""
        from gruland.config import has
        from gruland.sweep import KINDS, cost

        arguments = [re.sub(rf"^\+\+(?=({'|'.join(KINDS)})\.)", "", line) for line in arguments]
        overrides = self._parse(arguments)
        swept = [o for o in overrides if o.get_key_element() in KINDS and o.is_sweep_override()]
        if not swept:
            return self._grid(self.config, arguments)
        rest = [line for line, o in zip(arguments, overrides, strict=True) if o not in swept]
        fixed = [line for line in rest if line.startswith(tuple(f"{kind}=" for kind in KINDS))]
        own = tuple(f"{o.get_key_element()}." for o in swept)
        settings = [line for line in rest if line.startswith(own)]
        jobs, used = [], set()
        for choice in _split(swept):
            cfg = self._chosen([*fixed, *choice])
            absent = [line for line in settings if not has(cfg, line.partition("=")[0])]
            known = [line for line in rest if line not in absent]
            used |= set(known)
            jobs += self._grid(self._chosen([*choice, *known]), [*choice, *known])
        if unused := [line for line in settings if line not in used]:
            raise ValueError(
                f"{unused[0]}: none of {', '.join(str(o.input_line) for o in swept)} has the key"
            )
        return sorted(jobs, key=lambda job: -cost(self.compose(job)))

    def compose(self, job: Sequence[str]) -> DictConfig:
        """A job's configuration, which takes a quarter of a second the first time."""
        from gruland.config import resolved

        if (words := tuple(job)) not in self._composed:
            loader = self.hydra_context.config_loader
            self._composed[words] = resolved(loader.load_sweep_config(self.config, list(words)))
        return self._composed[words]

    def _grid(self, cfg: DictConfig, arguments: list[str]) -> list[list[str]]:
        from gruland.config import instantiate

        grid = {key: ",".join(map(str, values)) for key, values in instantiate(cfg.regularizer).grid.items()}
        axes = [f"{key}={values}" for key, values in {**grid, **self.params}.items()]
        return _split(self._parse([*axes, *arguments]))

    def _parse(self, overrides: list[str]) -> list[Override]:
        return OverridesParser.create(self.hydra_context.config_loader).parse_overrides(overrides)

    def _chosen(self, overrides: list[str]) -> DictConfig:
        """The configuration that the fixed overrides select."""
        fixed = [
            line
            for line, o in zip(overrides, self._parse(overrides), strict=True)
            if not o.is_sweep_override()
        ]
        return self.hydra_context.config_loader.load_configuration(
            self.config.hydra.job.config_name, fixed, run_mode=RunMode.MULTIRUN
        )


def _split(overrides: list[Override]) -> list[list[str]]:
    """The product of all sweeps; of two overrides of a key the later counts.

    Raises:
        ValueError: a sweep over a range without steps.
    """
    values: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            values[key] = [f"{key}={override.get_value_element_as_str()}"]
        elif override.is_discrete_sweep():
            values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise ValueError(
                f"{override.input_line}: a grid has values, expected a list (0.1,0.2) or range(0.1,0.3,step=0.1); "
                "an interval needs a sweeper that searches, such as hydra/sweeper=optuna"
            )
    return [list(job) for job in product(*values.values())]
