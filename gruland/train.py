"""Train one model, or sweep a grid: compose, fit, test the best checkpoint, measure, write the results.

python -m gruland.train                        one model
python -m gruland.train regularizer=zoneout -m      the regularizer's grid
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from gruland import config, runs, sweep
from gruland.errors import one_line, one_line_errors
from gruland.progress import FILE_VARIABLE, part
from gruland.sweep import KINDS

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from gruland.classifier import Classifier

log = logging.getLogger("gruland")

#: Seconds to wait for another process in the run's folder: so long at most a killed sweep's worker may live on.
_PATIENCE = 3.0


def train(cfg: DictConfig, patience: float = _PATIENCE) -> runs.Run:
    """Do what a composed configuration says and return the finished run.

    A finished run is not repeated, an interrupted one goes on from its last checkpoint. A failure is recorded
    in the run's results.json before it is raised.

    Args:
        patience: seconds to wait for another process in the run's folder.

    Raises:
        ValueError: a value that cannot work, or a folder that holds another run.
    """
    config.check(cfg)
    if cfg.trainer.get("fast_dev_run"):
        raise ValueError("trainer.fast_dev_run leaves no run: give it to python -m gruland.train without -m")
    run = runs.prepare(cfg)
    with run.locked(patience):
        _refuse_untrained_epochs(run, cfg)
        runs.write_config(run, cfg)
        with _log_file(run.path / "log.txt"), _recorded(run, cfg):
            requested, damaged = runs.requested(cfg), run.discard_damaged()
            if run.results.get("requested") == requested and not damaged:
                log.info("%s is finished already", run.path)
            else:
                _fit_and_measure(cfg, run)
                run.update_results(status="finished", requested=requested)
    return runs.load(run.path, run.allow)


def rehearse(cfg: DictConfig) -> None:
    """Lightning's ``fast_dev_run``: a batch or a few of each split go through; nothing is kept or measured.

    Raises:
        ValueError: a value that cannot work.
    """
    from gruland.experiment import build_trainer

    config.check(cfg)
    data = runs.build_data(cfg)
    model = runs.build_model(cfg, data)
    trainer = build_trainer(cfg.trainer, [], [], runs.folder(cfg))
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    loss = float(trainer.callback_metrics["test/loss"])
    log.info(
        "fast_dev_run: training, validation and test went through (test loss %.3f); nothing is kept", loss
    )


def _fit_and_measure(cfg: DictConfig, run: runs.Run) -> None:
    import torch

    from gruland import loggers
    from gruland.experiment import build_callbacks, build_trainer
    from gruland.weights import save_weights

    callbacks, attached = build_callbacks(cfg), loggers.build(cfg, run.path)
    trainer = build_trainer(cfg.trainer, list(callbacks.values()), attached, run.path)
    threads = cfg.threads or sweep.threads_per_job()
    torch.set_num_threads(threads)
    with part(0.0, 0.05):
        data = run.data
    model = runs.build_model(cfg, data)
    resume = _resumption(run, model)
    with loggers.attached(attached, cfg, run):
        # What is measured later, perhaps elsewhere, does not change what is said of the training.
        device = trainer.strategy.root_device
        described = {} if "metrics" in run.results else runs.describe(cfg, model, threads, device)
        run.update_results(
            **described,
            task=data.task.to_dict(),
            data=data.report,
            status=_status(run, "running"),
            error=None,
        )
        with part(0.05, 0.75), _keyboard_interrupts(trainer):
            trainer.fit(model, data, ckpt_path=resume, weights_only=True)
        save_weights(model.state_dict(), run.checkpoint("last"))
        run.update_results(training=callbacks["metrics_file"].training)  # type: ignore[attr-defined]
        run.seal_training()
        model.load_state_dict(run.weights("best", model.state_dict()))
        trainer.test(model, data, verbose=False)


def _resumption(run: runs.Run, model: Classifier) -> Path | None:
    """The checkpoint that the training goes on from; one that is broken is put aside, with a line that says so."""
    import torch

    path = run.resumption
    if not path.exists():
        return None
    try:
        with ZipFile(path) as parts:  # torch does not look at the checksums that it writes
            if broken := parts.testzip():
                raise ValueError(f"{broken} is damaged")
        found = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        if {k: v.shape for k, v in found.items()} != {k: v.shape for k, v in model.state_dict().items()}:
            raise ValueError("it is of another model")
    except Exception as error:  # torch raises many types for a broken file, each naming its own internals
        log.warning("%s cannot be read (%s): the training starts anew", path, one_line(error)[:200])
        path.unlink()
        return None
    return path


def _refuse_untrained_epochs(run: runs.Run, cfg: DictConfig) -> None:
    if "epoch_weights" in cfg.callbacks and "metrics" in run.results and 0 not in run.epochs:
        raise ValueError(
            f"{run.path} is trained already, without callbacks=[default,epoch_weights]: move it away or give "
            "another output_dir"
        )


@contextmanager
def _keyboard_interrupts(trainer: pl.Trainer) -> Iterator[None]:
    """Lightning turns Ctrl-C into exit status 1 and ignores further ones: make it a KeyboardInterrupt again."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Send messages to the run's log, too; warnings and Lightning's chatter go there alone."""
    import pytorch_lightning  # noqa: F401  (it gives its logger a handler for the terminal when it is imported)

    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    quiet = [logging.getLogger(name) for name in ("py.warnings", "pytorch_lightning", "lightning_fabric")]
    before = [(logger, logger.handlers, logger.propagate) for logger in quiet]
    for logger in quiet:
        logger.handlers, logger.propagate = [handler], False
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Checkpoint directory .* exists and is not empty"
            )  # a resumed run's
            yield
    finally:
        logging.captureWarnings(False)
        log.removeHandler(handler)
        for logger, handlers, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
        handler.close()


@contextmanager
def _recorded(run: runs.Run, cfg: DictConfig) -> Iterator[None]:
    """Write a failure to results.json and its traceback to the log."""
    try:
        yield
    except Exception as error:
        with open(run.path / "log.txt", "a") as file:
            traceback.print_exc(file=file)
        known = {} if "metrics" in run.results else runs.named(cfg)
        run.update_results(**known, status=_status(run, "failed"), error=one_line(error))
        raise


def _status(run: runs.Run, otherwise: str) -> str:
    """A run whose scores are there stays finished, whatever becomes of a new surface."""
    return "finished" if "metrics" in run.results else otherwise


def task(cfg: DictConfig) -> float:
    """Hydra's task: one run, and its validation loss for a sweeper that searches for the least."""
    cfg = config.resolved(cfg)
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        return _validation_loss(_job(cfg))
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)  # of this package alone: matplotlib has much to say, too
    with one_line_errors():
        if cfg.trainer.get("fast_dev_run"):
            rehearse(cfg)
            return math.nan
        run = train(cfg)
        sweep.print_table([run.path])
    return _validation_loss(run)


def _validation_loss(run: runs.Run) -> float:
    return float(run.results["metrics"]["best"]["validation"]["loss"])


def _job(cfg: DictConfig) -> runs.Run:
    """A run of a sweep: its progress goes to a file, and what it raises can travel between processes."""
    sweep.end_with_sweep()
    file = sweep.progress_file(runs.folder(cfg))
    os.environ[FILE_VARIABLE] = str(file)
    # A sweeper that searches may try the same twice, and side by side.
    patience = _PATIENCE if sweep.is_grid(HydraConfig.get().sweeper) else math.inf
    try:
        return train(cfg, patience)
    except Exception as failure:
        raise ValueError(f"{runs.name(cfg)}: {one_line(failure)}") from None
    finally:
        os.environ.pop(FILE_VARIABLE, None)
        file.unlink(missing_ok=True)


#: The last part of a run's folder, which Hydra asks for before the run begins.
OmegaConf.register_new_resolver(
    "run_name", lambda *, _root_: runs.name(config.resolved(_root_)), replace=True
)

_main = hydra.main(version_base="1.3", config_path=str(config.CONF), config_name="train")(task)


def main() -> None:
    """The command; exits with 1 where the run, or a job of the sweep, failed."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises what it would print in several lines
    with one_line_errors():
        sys.argv[1:] = _checked(sys.argv[1:])
        _main()


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
        config.check(config.compose(*config.searching(options.config_dir), *rest))
    swept = tuple(
        f"{o.key_or_group}." for o in overrides if o.is_sweep_override() and o.key_or_group in KINDS
    )
    if swept:
        # Hydra composes the first of them with all settings, although only some of the others have them.
        words = [f"++{word}" if word.startswith(swept) else word for word in words]
    # Hydra takes no overrides after its flags.
    return config.typed(sorted(words, key=lambda word: word in ("-m", "--multirun")))


if __name__ == "__main__":
    from gruland import train as this  # the task must be importable by the sweep's worker processes

    this.main()
