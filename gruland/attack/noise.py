"""Noise: errors at random places, more and more of them. Nobody asks the model: the same errors meet every model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from gruland.attack.base import Outcome, RandomVictim, Texts, Victim
from gruland.attack.threat import Effort, Threat
from gruland.attack.verdict import curve
from gruland.perturbation import swaps
from gruland.perturbation.perturb import Perturbed, perturb_more, strip
from gruland.progress import Progress


@dataclass(frozen=True)
class Noise(Threat):
    """TextAttack's swaps of characters and words at rising rates: a curve of the accuracy for each and for all mixed.

    A review's errors at a rate are the first ones of those at a higher rate, so that a curve's points differ by the
    errors that were added and by nothing else.

    Args:
        swaps: names of :data:`gruland.perturbation.swaps.SWAPS`. The paper's are ``delete`` and ``qwerty``.
        rates: swaps as a share of a review's words, rising, in [0, 1].
        letters: whether reviews keep their letters alone before, as in the paper (section 5).
        draws: above 0, the model is judged with its dropout on, by ``fresh`` draws; the noise itself looks at none.

    Raises:
        ValueError: a value that cannot work.
    """

    swaps: Sequence[str] = field(
        default_factory=lambda: ["delete", "qwerty", "insert", "substitute", "exchange", "homoglyph"]
    )
    rates: Sequence[float] = field(default_factory=lambda: [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    letters: bool = True

    knowledge: ClassVar[str] = "none"
    revision: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [name for name in self.swaps if name not in swaps.SWAPS]
        if unknown or not self.swaps or len(set(self.swaps)) < len(self.swaps):
            expected = f"some of {', '.join(swaps.SWAPS)}, each once"
            raise ValueError(f"swaps={list(self.swaps)}: expected {expected}")
        numbers = [
            rate for rate in self.rates if isinstance(rate, int | float) and not isinstance(rate, bool)
        ]
        if len(numbers) < len(self.rates) or not numbers or not 0 <= min(numbers) <= max(numbers) <= 1:
            raise ValueError(f"rates={list(self.rates)}: expected numbers in [0, 1]")
        if sorted(set(numbers)) != list(numbers):
            raise ValueError(f"rates={list(self.rates)}: expected rising numbers")
        if not isinstance(self.letters, bool):
            raise ValueError(f"letters={self.letters}: expected true or false")

    def __call__(self, victim: Victim, texts: Texts) -> Outcome:
        """Scores on reviews as they are (``raw``), before the noise (``stripped``), and ``noisy`` at the highest rate.

        Returns:
            Besides what every attack reports: the curves ``rate`` (all swaps mixed) and ``rate_<swap>``, and
            ``achieved_rate``, the share of the words that differ at the highest rate.

        Raises:
            ImportError: TextAttack is not installed.
        """
        sample = self.sample(texts)
        before = [strip(text) for text in sample.texts] if self.letters else list(sample.texts)
        mixtures = {"rate": tuple(self.swaps)}
        mixtures |= {f"rate_{name}": (name,) for name in self.swaps if len(self.swaps) > 1}
        curves: dict[str, Any] = {}
        noisy: list[Perturbed] = []
        untouched: np.ndarray | None = None
        with Progress(len(mixtures) * len(self.rates), "noise") as progress:
            for number, (name, mixture) in enumerate(mixtures.items()):
                paths = [
                    perturb_more(text, self.rates, mixture, seed=(self.seed, number, int(key)))
                    for text, key in zip(before, sample.ids, strict=True)
                ]
                rights = []
                for place, rate in enumerate(self.rates):
                    if rate == 0 and untouched is not None:
                        rights.append(untouched)
                    else:
                        rights.append(self._rights(victim, sample, [path[place].text for path in paths]))
                    untouched = rights[-1] if rate == 0 else untouched
                    progress.advance()
                curves[name] = curve(list(self.rates), rights)
                noisy = noisy or [path[-1] for path in paths]
        effort = Effort(changed=[p.changed for p in noisy], words=[p.words for p in noisy])
        forms = {"raw": sample.texts, "stripped": before, "noisy": [p.text for p in noisy]}
        if not self.letters:
            del forms["stripped"]
        judged = self.judge(victim, sample, forms, effort, curves=curves)
        achieved = sum(p.changed for p in noisy) / max(1, sum(p.words for p in noisy))
        return Outcome({"achieved_rate": achieved} | judged.results, judged.columns)

    def _rights(self, victim: Victim, sample: Texts, texts: Sequence[str]) -> np.ndarray:
        """[N] right or wrong, or the share of the fresh draws that are right."""
        task, labels = victim.task, torch.as_tensor(sample.labels)
        if self.draws > 0 and isinstance(victim, RandomVictim):
            outputs = victim.draws(texts, sample.ids, count=self.fresh, seed=self.dropout_seed)
        else:
            outputs = victim.logits(texts).unsqueeze(0)
        drawn = [task.correct(task.probabilities(output.double()), labels) for output in outputs]
        return np.asarray(torch.stack(drawn).mean(0).numpy())
