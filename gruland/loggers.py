"""Where a run's numbers go besides its own folder: Weights & Biases or TensorBoard."""

from __future__ import annotations

import csv
import hashlib
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlparse

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from gruland.config import instantiate
from gruland.runs import Run, name

log = logging.getLogger("gruland")

#: Rows of a run's table of adversarial examples in the dashboard.
EXAMPLES = 50


def build(cfg: DictConfig, run: Run) -> list[Logger]:
    """The loggers that the configuration asks for; metrics.csv is written in any case.

    Raises:
        ImportError: the logger's package is not installed, with the extra that brings it.
        ValueError: an unknown logger.
    """
    builders = {"csv": lambda *_: [], "wandb": _wandb, "tensorboard": _tensorboard}
    if cfg.logger.name not in builders:
        raise ValueError(f"logger.name={cfg.logger.name}: expected one of {', '.join(builders)}")
    return builders[cfg.logger.name](cfg, run)


def _tensorboard(cfg: DictConfig, run: Run) -> list[Logger]:
    try:
        import tensorboard  # noqa: F401  (Lightning would quietly fall back to another writer)
    except ImportError as error:
        raise ImportError(
            "logger=tensorboard needs tensorboard: pip install 'gruland[tensorboard]'"
        ) from error
    from pytorch_lightning.loggers import TensorBoardLogger

    return [TensorBoardLogger(run.path, name="tensorboard", version="")]


def _wandb(cfg: DictConfig, run: Run) -> list[Logger]:
    try:
        import wandb
    except ImportError as error:
        raise ImportError("logger=wandb needs wandb: pip install 'gruland[wandb]'") from error
    from pytorch_lightning.loggers import WandbLogger

    mode, regularizer = _wandb_mode(cfg.logger.mode), instantiate(cfg.regularizer)
    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    begun = wandb.init(
        project=cfg.logger.project,
        entity=cfg.logger.entity,
        dir=run.path,
        mode=mode,
        id=_dashboard_id(run),
        name=name(cfg),
        resume="allow" if mode == "online" else None,
        group=cfg.logger.group or f"{cfg.experiment_name}-{regularizer.name}",
        job_type=cfg.logger.job_type,
        tags=[
            f"data:{run.data.report['source']}"[:64],  # the longest tag that W&B takes
            f"regularizer:{regularizer.name}",
            f"rate:{regularizer.rate:g}",
            f"hidden:{cfg.model.hidden_size}",
            f"seed:{cfg.seed}",
        ],
        config=resolved,
        settings=wandb.Settings(silent=True, console="off"),
    )
    begun.define_metric("epoch")
    for stage in ("train", "val", "test"):
        begun.define_metric(f"{stage}/loss", step_metric="epoch", summary="min")
        for metric in ("accuracy", "f1"):
            begun.define_metric(f"{stage}/{metric}", step_metric="epoch", summary="max")
    return [WandbLogger(experiment=begun)]


def _dashboard_id(run: Run) -> str:
    """The same for a run that is resumed, another for the same cell in another experiment or folder."""
    return f"{run.path.name}-{hashlib.sha256(str(run.path.resolve()).encode()).hexdigest()[:8]}"


def _wandb_mode(asked: str) -> Any:
    """``auto`` is online where there is a key and the server answers, else offline: never a prompt or a hang."""
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    if asked != "auto":
        return asked
    import wandb

    if not wandb.login(prompt=False, verify=False):
        log.info("wandb: no key (wandb login), so this run is kept offline")
        return "offline"
    server = urlparse(wandb.setup().settings.base_url)
    host, port = server.hostname or "", server.port or (80 if server.scheme == "http" else 443)
    try:
        socket.create_connection((host, port), timeout=3).close()
    except OSError:
        log.info("wandb: no connection to %s, so this run is kept offline", host)
        return "offline"
    return "online"


@contextmanager
def finished(attached: Sequence[Logger], run: Run) -> Iterator[None]:
    """Publish what the run measured, then end its W&B run with the job's true exit code."""
    dashboards: list[Any] = [logger for logger in attached if type(logger).__name__ == "WandbLogger"]
    code = 1
    try:
        yield
        for logger in dashboards:
            _publish(logger.experiment, run)
        code = 0
    finally:
        for logger in dashboards:
            logger.experiment.finish(exit_code=code)


def _publish(experiment: Any, run: Run) -> None:
    """Scores into the summary; pictures, surface and adversarial examples as media."""
    import wandb

    results = run.results
    for which, splits in results["metrics"].items():
        for split, scores in splits.items():
            for metric, value in scores.items():
                experiment.summary[f"{which}/{split}/{metric}"] = value
    media: dict[str, Any] = {}
    for picture in sorted((run.path / "landscape").glob("*.png")):
        media[f"landscape/{picture.stem}"] = wandb.Image(str(picture))
    for page in sorted((run.path / "landscape").glob("*.html")):
        media[f"landscape/{page.stem}_interactive"] = wandb.Html(str(page))
    for attack, entry in results.get("attacks", {}).items():
        with open(run.path / "attack" / attack / "texts.csv", newline="") as file:
            rows: list[list[Any]] = list(csv.reader(file))
        media[f"attack/{attack}/examples"] = wandb.Table(columns=rows[0], data=rows[1 : 1 + EXAMPLES])
        for form, scores in entry["scores"].items():
            experiment.summary[f"attack/{attack}/{form}/loss"] = scores["plain"]["loss"]
            experiment.summary[f"attack/{attack}/{form}/accuracy"] = scores["plain"]["accuracy"]
    if media:
        experiment.log(media)
