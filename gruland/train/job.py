"""What Hydra runs: one training, or a job of a sweep."""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from gruland import config, runs, sweep
from gruland.errors import one_line
from gruland.exits import one_line_errors
from gruland.progress import Terminal
from gruland.train import PATIENCE, train

log = logging.getLogger("gruland")


def task(cfg: DictConfig) -> float:
    """Hydra's task: one run, and its validation loss for a sweeper that searches for the least."""
    cfg = config.resolved(cfg)
    logging.captureWarnings(True)  # into the run's log
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        return _validation_loss(_in_sweep(cfg))
    with one_line_errors():
        if cfg.trainer.get("fast_dev_run"):
            rehearse(cfg)
            return math.nan
        try:
            run = train(cfg)
        except Exception:
            runs.withdraw(runs.folder(cfg))
            raise
        sweep.print_table([run.path])
    return _validation_loss(run)


def rehearse(cfg: DictConfig) -> None:
    """Lightning's ``fast_dev_run``: a batch or a few of each split go through; nothing is kept or measured.

    Raises:
        ValueError: a value that cannot work.
    """
    from gruland import experiment
    from gruland.processes import fit

    experiment.check(cfg)
    data = runs.build_data(cfg)
    model = runs.build_model(cfg, data)
    trainer = experiment.build_trainer(cfg, {}, [], runs.folder(cfg))
    fit(trainer, model, data)
    tester = experiment.build_tester(trainer, cfg, {}, [], runs.folder(cfg))
    tester.test(model, data, verbose=False)
    loss = float(tester.callback_metrics["test/loss"])
    log.info(
        "fast_dev_run: training, validation and test went through (test loss %.3f); nothing is kept", loss
    )


def _in_sweep(cfg: DictConfig) -> runs.Run:
    """A run of a sweep: the terminal is the sweep's, and what it raises can travel between processes."""
    sweep.end_with_sweep()
    for handler in log.handlers:
        if isinstance(handler, Terminal):
            handler.setLevel(logging.WARNING)
    # A sweeper that searches may try the same twice, and side by side.
    patience = PATIENCE if sweep.is_grid(HydraConfig.get().sweeper) else math.inf
    try:
        return train(cfg, patience)
    except Exception as failure:
        raise ValueError(f"{runs.name(cfg)}: {one_line(failure)}") from None


def _validation_loss(run: runs.Run) -> float:
    return float(run.results["metrics"]["best"]["validation"]["loss"])


#: The last part of a run's folder, which Hydra asks for before the run begins.
OmegaConf.register_new_resolver(
    "run_name", lambda *, _root_: runs.name(config.resolved(_root_)), replace=True
)

_main = hydra.main(version_base="1.3", config_path=str(config.CONF), config_name="train")(task)


def main() -> None:
    """The command ``gruland train``; exits with 1 where the run, or a job of the sweep, failed."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises what it would print in several lines
    with one_line_errors():
        sys.argv[1:] = _checked(sys.argv[1:])
        try:
            _main()
        finally:
            sweep.Table.tell()


def _checked(words: list[str]) -> list[str]:
    """The words as Hydra reads them; a run that cannot work is refused before Hydra makes its folder."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--config-dir", "-cd")
    options, rest = parser.parse_known_args(words)
    if any(word.startswith("-") for word in rest):  # --help, --cfg, --info, --shell-completion
        return words
    overrides = config.parse(config.typed(rest))
    if not options.multirun and not any(o.is_sweep_override() or o.is_hydra_override() for o in overrides):
        from gruland import experiment

        experiment.check(config.compose(*config.searching(options.config_dir), *rest))
    swept = tuple(
        f"{o.key_or_group}." for o in overrides if o.is_sweep_override() and o.key_or_group in sweep.KINDS
    )
    if swept:
        # Hydra composes the first of them with all settings, although only some of the others have them.
        words = [f"++{word}" if word.startswith(swept) else word for word in words]
    # Hydra takes no overrides after its flags.
    return config.typed(sorted(words, key=lambda word: word in ("-m", "--multirun")))
