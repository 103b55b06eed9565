"""The models that the paper's tables show side by side."""

from __future__ import annotations

from dataclasses import dataclass

from gruland.report import paper
from gruland.report.collect import Study
from gruland.report.models import Model, Place, method
from gruland.runs import Run


@dataclass(frozen=True)
class Column:
    """A model that the tables show: one of the paper's, trained or not, or a best one.

    Attributes:
        model: None where it was not trained.
    """

    place: Place
    model: Model | None
    best: bool

    @property
    def label(self) -> str:
        """On two lines: the regularizer; the hidden units, other settings and why it is shown."""
        defended = self.model is not None and self.model.defence != "none"
        papers = f"the paper’s with {self.model.defence}" if self.model and defended else "the paper’s"
        why = [papers] * (self.place in paper.MODELS) + ["our best"] * self.best
        setting = self.model.setting if self.model else f"H={self.place[2]}"
        named = self.model.method if self.model else method(*self.place[:2])
        return f"{named}\n{', '.join([setting, *why])}"

    @property
    def runs(self) -> list[Run]:
        return list(self.model.runs.values()) if self.model else []


def columns(study: Study) -> list[Column]:
    """The paper's three models, then each regularizer's best one where it is another."""
    best = study.best_models
    papers = [(place, study.at(place)) for place in paper.MODELS]
    shown = [Column(place, model, model in best) for place, model in papers]
    return shown + [
        Column(model.place, model, True) for model in best if model not in [column.model for column in shown]
    ]
