"""Texts that an attack made against other models, read to this one: which weak spots do models share?

Szegedy et al. 2014, "Intriguing properties of neural networks". The report makes a matrix of what models make of each
other's texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from gruland.attack.base import Outcome, Texts, Victim
from gruland.attack.threat import Threat
from gruland.sampling import plain, ratio
from gruland.task import Task

if TYPE_CHECKING:
    import pandas as pd

    from gruland.runs import Run


@dataclass(frozen=True)
class Transfer(Threat):
    """The texts of an attack on other runs, replayed.

    The results are those of the worst text for each review, of all other models', and by source what its own texts do.

    Args:
        reviews: of the texts that are replayed, a stratified part; all where there are fewer.
        sources: folders of runs, or folders that contain some, whose texts are replayed; the one that is attacked may
            be among them, and is no part of the worst.
        of: the attack whose texts these are, by its name in the sources.
    """

    sources: Sequence[str] = ()
    of: str = "hotflip"
    knowledge: ClassVar[str] = "transfer"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.sources, str) or not all(isinstance(path, str) for path in self.sources):
            raise ValueError(f"sources={self.sources}: expected a list of folders, e.g. [outputs/reviews]")
        if not isinstance(self.of, str) or not self.of:
            raise ValueError(f"of={self.of}: expected the name of an attack, e.g. hotflip")

    def inputs(self) -> dict[str, str]:
        """The checksums of what is replayed, by run."""
        return {run.path.name: run.results["attacks"][self.of]["texts"] for run in self._runs()}

    def __call__(self, victim: Victim, texts: Texts) -> Outcome:
        """Scores on reviews as they are (``raw``) and on the worst of the others' texts for each (``attacked``).

        Returns:
            Besides, in ``sources``: for each source its texts' ``measures``, and ``transfer``, of those that turned the
            source the share that turns this model, too, of reviews that it gets right.

        Raises:
            FileNotFoundError, ValueError: no source with such texts; texts that are changed, or of other reviews.
        """
        tables = {run.path: self._table(run, texts) for run in self._runs()}
        common = set.intersection(*(set(table.index) for table in tables.values()))
        rows = [row for row, key in enumerate(texts.ids.tolist()) if key in common]
        if not rows:
            raise ValueError(f"the sources of {self.of} have no review in common: attack the same ones")
        sample = self.sample(Texts(texts.ids[rows], [texts.texts[row] for row in rows], texts.labels[rows]))
        if len(tables) == 1 and next(iter(tables)).resolve() == getattr(victim, "folder", None):
            raise ValueError(
                f"sources: the only texts of {self.of} there are this run's own: attack another run with it first"
            )
        own, by_source, worst = getattr(victim, "folder", None), {}, _Worst(victim, sample)
        for path, table in tables.items():
            table = table.loc[sample.ids]
            attacked = [str(text) for text in table["attacked"]]
            outcome = self.judge(victim, sample, {"raw": sample.texts, "attacked": attacked})
            clean, right = (
                _wholly(np.array(outcome.columns[f"right_{form}"]), victim.task)
                for form in ("raw", "attacked")
            )
            before, after = (
                _wholly(table[f"right_{place}"].to_numpy(), victim.task) for place in ("first", "last")
            )
            # Of the texts that turned the source, those whose review this model gets right.
            turned = ((before >= 0.5) & (after < 0.5)).astype(float)
            shared = turned * clean
            by_source[path.name] = {
                "measures": outcome.results["measures"],
                "transfer": plain(ratio(shared * (1 - right), shared), reviews=int((shared > 0).sum())),
                "own": path.resolve() == own,
            }
            if path.resolve() != own:
                worst.add(attacked, self.ask(victim, attacked, sample.ids))
        outcome = self.judge(victim, sample, {"raw": sample.texts, "attacked": worst.texts})
        return Outcome({**outcome.results, "sources": by_source}, outcome.columns)

    def _runs(self) -> list[Run]:
        from gruland.runs import Run, folders

        if not self.sources:
            raise ValueError(
                "sources=[]: expected folders of runs whose texts are replayed, sources=[outputs/reviews]"
            )
        if missing := [path for path in self.sources if not Path(path).is_dir()]:
            raise FileNotFoundError(f"sources: {missing[0]} does not exist: expected folders of runs")
        found = [Run(path) for source in self.sources for path in folders(Path(source), "results.json")]
        runs = {run.path.resolve(): run for run in found if self.of in run.results.get("attacks", {})}
        by_name = {run.path.name: run for run in runs.values()}
        if others := [run for run in runs.values() if by_name[run.path.name] is not run]:
            same = others[0].path
            raise ValueError(
                f"sources: {same} and {by_name[same.name].path} are one configuration trained twice: give one of them"
            )
        if not runs:
            raise ValueError(
                f"no run below {', '.join(self.sources)} has texts of {self.of}: attack them with it first"
            )
        return list(runs.values())

    def _table(self, run: Run, texts: Texts) -> pd.DataFrame:
        """A source's texts by review id: ``attacked``, and how often the source was right before and after.

        Raises:
            FileNotFoundError, ValueError: they are not what was written, or not of this model's test reviews.
        """
        import pandas as pd

        path = run.verified(f"attack/{self.of}") / "texts.csv"
        table = pd.read_csv(path, keep_default_na=False, encoding="utf-8").set_index("id")
        rights = [name for name in table.columns if name.startswith("right_")]
        form = rights[-1].removeprefix("right_") if rights else ""
        if form not in table.columns or "raw" not in table.columns:
            raise ValueError(f"{path} has no attacked texts: {self.of} cannot be replayed")
        known = dict(zip(texts.ids.tolist(), texts.texts, strict=True))
        if strangers := [key for key, text in table["raw"].items() if known.get(key) != text]:
            raise ValueError(
                f"{len(strangers)} of the {len(table)} reviews in {path} are none of this model's test reviews: it may "
                "have been trained on them; replay texts of runs with the same data"
            )
        first, last = (table[name].astype(float) for name in (rights[0], rights[-1]))
        return pd.DataFrame({"attacked": table[form], "right_first": first, "right_last": last})


def _wholly(rights: np.ndarray, task: Task) -> np.ndarray:
    """How often [N] a model is right; of several labels a text counts where all are right, under every draw."""
    return (rights == 1).astype(float) if task.kind == "multilabel" else rights


class _Worst:
    """For each review the text to which the model gives the right label's probability least."""

    def __init__(self, victim: Victim, sample: Texts) -> None:
        self.task, self.labels = victim.task, torch.as_tensor(sample.labels)
        self.texts = list(sample.texts)
        self.losses = np.full(len(self.texts), -np.inf)

    def add(self, texts: Sequence[str], probabilities: Any) -> None:
        """Take what is worse."""
        losses = self.task.loss_of_probabilities(probabilities, self.labels, "none").numpy()
        for place in np.flatnonzero(losses > self.losses).tolist():
            self.texts[place], self.losses[place] = texts[place], losses[place]
