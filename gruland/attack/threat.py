"""What attacks have in common that question a model, or open it: the reviews, the draws of the masks, and the verdict.

N reviews, K outputs, C classes, S draws of the masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeGuard

import numpy as np
import torch
from torch import Tensor

from gruland.arguments import check_whole
from gruland.attack import flags as suspicions
from gruland.attack import verdict
from gruland.attack.base import Outcome, Outputs, RandomVictim, Texts, Victim, question, score_outputs
from gruland.attack.verdict import Answers, Effort
from gruland.regularizers import mix

__all__ = ["Effort", "Threat"]


@dataclass(frozen=True)
class Threat:
    """The settings of every attack that asks a model, and how it is judged.

    A subclass has ``__call__(victim, texts)``: take :meth:`sample`, search with :meth:`ask`, and hand what was found to
    :meth:`judge`.

    Args:
        reviews: test reviews, a stratified part; all where there are fewer. 200 leave a share uncertain by 6.9 points.
        seed: of the choice of reviews.
        draws: K of the masks, over whose mean the attack searches (expectation over transformation, EOT: Athalye et al.
            2018): it attacks the model with dropout at test time. 0 = it attacks the model without, as a model that has
            none is attacked in any case.
        fresh: S of the masks, none of which the attack saw, on which the dropout at test time is judged.
        dropout_seed: of the masks; two seeds have no draw in common, nor have the attack's and the fresh ones.

    Raises:
        ValueError: a value that cannot work.
    """

    reviews: int = 1000
    seed: int = 0
    draws: int = 0
    fresh: int = 20
    dropout_seed: int = 0

    #: What the attack knows of the model: nothing (``none``), its answers (``queries``), its ``gradients``, another
    #: model's weak spots (``transfer``), or what people know (``human``).
    knowledge: ClassVar[str] = "queries"
    #: A member that comes to give other results by the same settings raises its own: kept results are made again.
    revision: ClassVar[int]

    def __post_init__(self) -> None:
        for key, least in (("reviews", 1), ("seed", 0), ("draws", 0), ("fresh", 1), ("dropout_seed", 0)):
            check_whole(key, getattr(self, key), least)

    def sample(self, texts: Texts) -> Texts:
        """The reviews that are attacked."""
        return texts.sample(self.reviews, self.seed)

    def random(self, victim: Victim) -> TypeGuard[RandomVictim]:
        """Whether the model is attacked with its dropout on."""
        return self.draws > 0 and isinstance(victim, RandomVictim)

    @property
    def attack_seed(self) -> int:
        """Of the masks that the attack sees; the fresh ones have ``dropout_seed`` itself."""
        return mix(self.dropout_seed, 1)

    def ask(self, victim: Victim, texts: Sequence[str], keys: np.ndarray) -> Tensor:
        """Class probabilities [N, C] in float64, their mean over the attack's draws where dropout is on.

        Args:
            keys: [N] of each text the id of its review: what was made of one review meets the same masks.
        """
        if self.random(victim):
            outputs = victim.draws(texts, keys, count=self.draws, seed=self.attack_seed)
            return torch.stack([victim.task.probabilities(output.double()) for output in outputs]).mean(0)
        return victim.task.probabilities(victim.logits(texts).double())

    def judge(
        self,
        victim: Victim,
        sample: Texts,
        forms: Mapping[str, Sequence[str]],
        effort: Effort | None = None,
        *,
        similarity: bool = True,
        **more: Any,
    ) -> Outcome:
        """What every attack reports of the texts that it found.

        Args:
            forms: of N texts each, the original first, the attacked last.
            effort: what was spent on each review.
            similarity: whether to measure that of the attacked texts and of what they were made from, the form before.
            more: ``columns``, ``curves`` and ``flags`` of the attack's own, see :meth:`judge_outputs`.
        """
        first, last = next(iter(forms)), list(forms)[-1]
        outputs = {
            form: question(victim, texts, sample.ids, draws=self.fresh, seed=self.dropout_seed)
            for form, texts in forms.items()
        }
        own = None
        if self.random(victim):
            own = self.ask(victim, forms[first], sample.ids), self.ask(victim, forms[last], sample.ids)
        flags = suspicions.outputs_vary(victim, sample, self.draws) | more.pop("flags", {})
        *_, before, attacked = forms.values()
        similar = verdict.similarities(before, attacked) if similarity else None
        return self.judge_outputs(
            victim, sample, outputs, own, effort, forms=forms, similarities=similar, flags=flags, **more
        )

    def judge_outputs(
        self,
        victim: Victim,
        sample: Texts,
        outputs: Mapping[str, Outputs],
        own: tuple[Tensor, Tensor] | None,
        effort: Effort | None = None,
        *,
        forms: Mapping[str, Sequence[str]] | None = None,
        similarities: np.ndarray | None = None,
        columns: Mapping[str, Sequence[Any]] | None = None,
        curves: Mapping[str, Mapping[str, Any]] | None = None,
        flags: Mapping[str, str] | None = None,
        labels: Mapping[str, np.ndarray] | None = None,
    ) -> Outcome:
        """The same of outputs, which need not come from texts.

        Args:
            outputs: of each form, the original first, the attacked last; those under draws are of fresh ones.
            own: probabilities [N, C] of original and attacked reviews on the attack's draws; None: without dropout.
            forms: the texts of those forms that have some.
            similarities: [N] of original and attacked texts.
            columns: what else texts.csv is to hold of each review.
            curves: those by name of an attack that spends the same on every review, as
                :func:`gruland.attack.verdict.curve` gives them; None: accuracy against what was spent.
            flags: what the attack itself found suspect.
            labels: of the forms that have others than the sample's.
        """
        task, effort = victim.task, effort or Effort()
        first, *_, last = outputs
        clean, attacked = (
            self._answers(victim, outputs[form], torch.as_tensor((labels or {}).get(form, sample.labels)))
            for form in (first, last)
        )
        # What the attack itself could see: which reviews it had to work on, and where it reached its goal.
        tried, still = clean.rights_of_mean == 1, attacked.rights_of_mean == 1
        if own:
            tried, still = (task.correct(seen, clean.labels).numpy() == 1 for seen in own)
        searches = self.knowledge in ("queries", "gradients")
        turned = tried & ~still if searches else np.ones(len(sample.ids), dtype=bool)
        found: dict[str, Any] = (
            verdict.curves(effort, clean.rights, attacked.rights, tried) if curves is None else dict(curves)
        )
        raised = {**(flags or {}), **(suspicions.budget_of_no_use(found) if searches else {})}
        results: dict[str, Any] = {
            "knowledge": self.knowledge,
            "draws": self.draws if self.random(victim) else 0,
            "measures": verdict.measures(
                clean, attacked, effort, tried=tried, turned=turned, similarities=similarities
            ),
            "verdict": {
                "draws": len(clean.losses_SN) if self.random(victim) else 0,
                "clean": verdict.verdict(clean),
                "attacked": verdict.verdict(attacked),
            },
        }
        if own:
            before, after = clean.rights_of_mean == 1, attacked.rights_of_mean == 1
            # A review that is wrong on fresh draws as it is cannot be turned there.
            both = tried & before
            reached, held = (~still[both]).astype(float), (~after[both]).astype(float)
            raised |= suspicions.overfits_its_draws(reached, held, self.draws)
            results["own_draws"] = {
                name: verdict.plain(verdict.sampling.mean(values)) if both.any() else None
                for name, values in (("success", reached), ("success_fresh", held))
            }
        results |= {"curves": found, "flags": raised}
        scored = score_outputs(
            task, sample, outputs, forms or {}, {**(columns or {}), **_counted(effort)}, labels
        )
        rights = {f"right_{first}": clean.rights.tolist(), f"right_{last}": attacked.rights.tolist()}
        return Outcome(scored.results | results, scored.columns | rights)

    def _answers(self, victim: Victim, outputs: Outputs, labels: Tensor) -> Answers:
        drawn = outputs.dropout if self.random(victim) else None
        return Answers.of(victim.task, outputs.plain.unsqueeze(0) if drawn is None else drawn, labels)


def _counted(effort: Effort) -> dict[str, Sequence[int]]:
    return {name: values for name, values in effort._asdict().items() if values is not None}


def check_number(key: str, value: Any, low: float, high: float) -> None:
    """Refuse all but numbers in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{key}={value}: expected a number in [{low:g}, {high:g}]")
