"""Several processes that train one model: Lightning's data-parallel strategy, started from the run's own process."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning.strategies import DDPStrategy

from gruland.orphans import end_with

if TYPE_CHECKING:
    import pytorch_lightning as pl


class Processes(DDPStrategy):
    """``ddp_spawn`` whose processes have the run's number of threads and write to its log.

    The process that holds the run's lock starts them for the training and waits; it alone measures what they trained.

    Args:
        threads: of each process.
    """

    def __init__(self, threads: int) -> None:
        super().__init__(start_method="spawn")
        files = [h.baseFilename for h in logging.root.handlers if isinstance(h, logging.FileHandler)]
        self._threads, self._log = threads, files[0] if files else None

    def setup_environment(self) -> None:
        end_with(os.getppid())
        torch.set_num_threads(self._threads)
        if self._log:  # as conf/hydra/job_logging/run.yaml has it in the first process
            logging.basicConfig(
                filename=self._log, format="%(asctime)s %(name)s %(levelname)s %(message)s", force=True
            )
            logging.captureWarnings(True)
            for name in ("pytorch_lightning", "lightning_fabric"):
                logger = logging.getLogger(name)
                logger.handlers, logger.propagate = [], True
        super().setup_environment()


def fit(trainer: pl.Trainer, model: pl.LightningModule, data: Any, checkpoint: Path | None = None) -> None:
    """Lightning's ``fit``, which ends with what stopped it: an interrupt, or the error of a process.

    Lightning turns Ctrl-C into exit status 1 and ignores further ones; what a process raised it tells as a text.

    Raises:
        KeyboardInterrupt: it was interrupted.
        ValueError: what one of several processes raised, in a line, or how it ended.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(model, data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None
    except torch.multiprocessing.ProcessRaisedException as error:
        kind, _, message = str(error).strip().splitlines()[-1].partition(": ")
        raise ValueError(message if kind == "ValueError" else f"{kind}: {message}") from error
    except torch.multiprocessing.ProcessExitedException as error:
        raise ValueError(f"a process of the training ended: {error}") from error
