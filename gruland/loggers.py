"""Where a run's numbers go besides its own folder: Weights & Biases and TensorBoard, Lightning's own loggers.

Each takes ``save_dir``, the run's folder, from the program, and publishes at the end what the run measured.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from gruland import config, runs
from gruland.runs import Run, flat, name

log = logging.getLogger("gruland")

#: Rows of a run's table of adversarial examples in the dashboard.
EXAMPLES = 50


class TensorBoard(TensorBoardLogger):
    """Lightning's, in the folder ``tensorboard`` of the run: curves, settings, pictures and texts.

    Raises:
        ImportError: tensorboard is not installed. Lightning would quietly fall back to another writer.
    """

    def __init__(self, save_dir: str | Path) -> None:
        _need("tensorboard")
        super().__init__(save_dir, name="tensorboard", version="", default_hp_metric=False)

    def describe(self, cfg: DictConfig) -> None:
        """Nothing yet: the settings are logged together with the scores."""

    def publish(self, run: Run) -> None:
        """Settings beside the scores of the best epoch; pictures; adversarial examples as a table."""
        from matplotlib.image import imread

        best = run.results["metrics"]["best"]
        scores = {f"best/{split}/{key}": best[split][key] for split in best for key in ("loss", "accuracy")}
        plain: Any = OmegaConf.to_container(run.config, resolve=True)
        settings = {key: _scalar(value) for key, value in flat(_settings(plain)).items()}
        self.log_hyperparams(settings, scores)
        for picture in _pictures(run):
            self.experiment.add_image(
                f"landscape/{picture.stem}", imread(picture)[..., :3], dataformats="HWC"
            )
        for attack, rows in _examples(run).items():
            self.experiment.add_text(f"attack/{attack}", _markdown(rows))
        self.experiment.flush()

    def end(self, exit_code: int) -> None:
        """Close the files."""
        self.finalize("success" if exit_code == 0 else "failed")


class WeightsAndBiases(WandbLogger):
    """Lightning's, with a mode that neither prompts nor hangs, and a run for each cell of each experiment.

    Args:
        save_dir: the run's folder.
        project, entity, group, job_type: as W&B has them; without a group it is ``<experiment>-<regularizer>``.
        mode: ``auto`` is online where there is a key and the server answers, else offline; or W&B's own.

    Raises:
        ImportError: wandb is not installed.
        ValueError: an unknown mode.
    """

    def __init__(
        self,
        save_dir: str | Path,
        project: str = "gruland",
        entity: str | None = None,
        mode: str = "auto",
        group: str | None = None,
        job_type: str = "train",
    ) -> None:
        _need("wandb")
        if mode not in ("auto", "online", "offline", "disabled"):
            raise ValueError(f"mode={mode}: expected auto, online, offline or disabled")
        super().__init__(project=project, save_dir=save_dir, experiment=None)
        self._folder = Path(save_dir)
        self._options: dict[str, Any] = {"project": project, "entity": entity, "job_type": job_type}
        self._mode, self._group = mode, group

    def describe(self, cfg: DictConfig) -> None:
        """Begin the dashboard's run."""
        import wandb

        mode, regularizer = wandb_mode(self._mode), config.instantiate(cfg.regularizer)
        settings: Any = OmegaConf.to_container(cfg, resolve=True)
        begun: Any = wandb.init(
            **self._options,
            dir=self._folder,
            mode=mode,
            id=dashboard_id(self._folder),
            name=name(cfg),
            resume="allow" if mode == "online" else None,
            group=self._group or f"{cfg.experiment_name}-{regularizer.name}",
            tags=[
                f"data:{runs.at(self._folder).data.report['source']}"[:64],  # the longest tag that W&B takes
                f"regularizer:{regularizer.name}",
                f"rate:{regularizer.rate:g}",
                f"hidden:{cfg.model.hidden_size}",
                f"seed:{cfg.seed}",
                *([f"defence:{defence.name}"] if (defence := runs.build_defence(cfg)).hooks else []),
            ],
            config=settings,
            settings=wandb.Settings(silent=True, console="off"),
        )
        begun.define_metric("epoch")
        for stage in ("train", "val", "test"):
            begun.define_metric(f"{stage}/loss", step_metric="epoch", summary="min")
            for metric in ("accuracy", "f1"):
                begun.define_metric(f"{stage}/{metric}", step_metric="epoch", summary="max")
        self._experiment = begun

    def publish(self, run: Run) -> None:
        """Scores into the summary; pictures, surface and adversarial examples as media."""
        import wandb

        results, experiment = run.results, self.experiment
        for which, splits in results["metrics"].items():
            for split, scores in splits.items():
                for metric, value in scores.items():
                    experiment.summary[f"{which}/{split}/{metric}"] = value
        media: dict[str, Any] = {}
        for picture in _pictures(run):
            media[f"landscape/{picture.stem}"] = wandb.Image(str(picture))
        for page in sorted((run.path / "landscape").glob("*.html")):
            media[f"landscape/{page.stem}_interactive"] = wandb.Html(str(page))
        for attack, rows in _examples(run).items():
            media[f"attack/{attack}/examples"] = wandb.Table(columns=[*rows[0]], data=rows[1:])
        for attack, entry in results.get("attacks", {}).items():
            for form, scores in entry["scores"].items():
                experiment.summary[f"attack/{attack}/{form}/loss"] = scores["plain"]["loss"]
                experiment.summary[f"attack/{attack}/{form}/accuracy"] = scores["plain"]["accuracy"]
        if media:
            experiment.log(media)

    def end(self, exit_code: int) -> None:
        """End the dashboard's run with the job's true exit code."""
        self.experiment.finish(exit_code=exit_code)


def build(cfg: DictConfig, folder: Path) -> list[Logger]:
    """The loggers that the configuration asks for; metrics.csv is written in any case.

    Raises:
        ImportError, ValueError: a package that is not installed, with the extra that brings it; a wrong setting.
    """
    return list(config.instantiate_all(cfg.logger, save_dir=str(folder)).values())


@contextmanager
def attached(loggers: Sequence[Logger], cfg: DictConfig, run: Run) -> Iterator[None]:
    """Tell the loggers what the run is, and at the end what it measured, or that it failed.

    A logger of somebody else's gets the settings and nothing more.
    """
    own = [logger for logger in loggers if isinstance(logger, TensorBoard | WeightsAndBiases)]
    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    for logger in loggers:
        if isinstance(logger, TensorBoard | WeightsAndBiases):
            logger.describe(cfg)
        else:
            logger.log_hyperparams(settings)
    code = 1
    try:
        yield
        for logger in own:
            logger.publish(run)
        code = 0
    finally:
        for logger in own:
            logger.end(code)


def dashboard_id(folder: Path) -> str:
    """The same for a run that is resumed, another for the same cell in another experiment or folder."""
    return f"{folder.name}-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]}"


def wandb_mode(asked: str) -> Any:
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


def _need(package: str) -> None:
    try:
        found = find_spec(package)
    except ValueError:  # what import itself says of a module that was blocked
        found = None
    if found is None:
        raise ImportError(f"logger={package} needs {package}: pip install 'gruland[{package}]'")


def _pictures(run: Run) -> list[Path]:
    return sorted((run.path / "landscape").glob("*.png"))


def _examples(run: Run) -> dict[str, list[list[str]]]:
    """The header and the first rows of each attack's texts, by the attack's name."""
    import pandas as pd  # whose reader takes a review of any length

    found = {}
    for path in sorted((run.path / "attack").rglob("texts.csv")):
        table = pd.read_csv(path, nrows=EXAMPLES, dtype=str, keep_default_na=False, encoding="utf-8")
        found[path.parent.name] = [list(table.columns), *table.values.tolist()]
    return found


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    header, *body = [[" ".join(cell.replace("|", "\\|").split()) for cell in row] for row in rows]
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _settings(plain: Mapping[str, Any]) -> dict[str, Any]:
    """What the dashboard can compare runs by: callbacks and loggers are none of it."""
    return {key: value for key, value in plain.items() if key not in ("callbacks", "logger")}


def _scalar(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)
