"""Typing errors: the noise that sections 4.4 and 7.3 of the paper put into 200 test reviews.

Nobody queries the model: the same errors meet every model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gruland.arguments import check_whole
from gruland.attack.base import Outcome, Texts, Victim, score_forms
from gruland.attack.victims import ClassifierVictim
from gruland.cache import cache_folder, cached, digest_of
from gruland.files import read_json, write_json
from gruland.perturbation import swaps
from gruland.perturbation.perturb import Perturbed, check, perturb, strip
from gruland.progress import Progress

#: What texts.csv has of each perturbed review, see :class:`gruland.perturbation.perturb.Perturbed`.
COUNTS = ("words", "changed", "hit_again")


@dataclass(frozen=True)
class TypingErrors:
    """Deleted letters and neighbouring keys, by TextAttack's swaps, in reviews that keep their letters alone.

    Args:
        reviews: test reviews, a stratified part; all where there are fewer.
        rate: swaps of a pass, as a share of a review's words, in [0, 1].
        mode: ``sequence`` or ``composite``, see :func:`gruland.perturbation.perturb.perturb`.
        seed: of the choice of reviews and of their errors. A review's errors follow from it and the review's id.
        draws: of the masks for dropout at test time, at least 1.
        dropout_seed: of the masks; two seeds have no draw in common.

    Raises:
        ValueError: a value that cannot work.
    """

    reviews: int = 200
    rate: float = 0.3
    mode: str = "sequence"
    seed: int = 0
    draws: int = 5
    dropout_seed: int = 0

    def __post_init__(self) -> None:
        check(self.rate, self.mode)
        for key, low in (("reviews", 1), ("seed", 0), ("draws", 1), ("dropout_seed", 0)):
            check_whole(key, getattr(self, key), low)

    def __call__(self, victim: Victim, texts: Texts) -> Outcome:
        """Scores on reviews as they are (``raw``), without all but letters (``stripped``), and ``perturbed``.

        Returns:
            Besides the scores: ``achieved_rate``, the share of the words that changed, and ``hit_again_rate``, of
            those that were swapped more than once; for each review its ``words``, ``changed`` and ``hit_again`` ones.

        Raises:
            ImportError: TextAttack is not installed.
        """
        sample = texts.sample(self.reviews, self.seed)
        stripped = [strip(text) for text in sample.texts]
        with Progress(1 + 3 * (1 + self.draws), "typing errors") as progress:
            perturbed = self._perturb(stripped, sample.ids, _cache(victim))
            progress.advance()
            scored = score_forms(
                victim,
                sample,
                {"raw": sample.texts, "stripped": stripped, "perturbed": [p.text for p in perturbed]},
                draws=self.draws,
                dropout_seed=self.dropout_seed,
                columns={name: [getattr(p, name) for p in perturbed] for name in COUNTS},
                progress=progress,
            )
        return Outcome(_rates(perturbed) | scored.results, scored.columns)

    def _perturb(self, texts: Sequence[str], ids: np.ndarray, cache: Path) -> list[Perturbed]:
        """Errors in every text. All runs of a sweep meet the same: the first makes them for the others."""
        options = {"rate": float(self.rate), "mode": self.mode, "seed": self.seed}
        name = digest_of("1", swaps.version(), json.dumps(options), json.dumps(ids.tolist()), *texts)

        def write(folder: Path) -> None:
            result = [
                perturb(text, rate=self.rate, mode=self.mode, seed=(self.seed, int(key)))
                for text, key in zip(texts, ids, strict=True)
            ]
            write_json(folder / "perturbed.json", result)

        def read(folder: Path) -> list[Perturbed]:
            return [Perturbed(*fields) for fields in read_json(folder / "perturbed.json")]

        return cached(cache / "attack" / name[:32], read, write)


def _cache(victim: Victim) -> Path:
    """The cache of the run's data, so that a run writes into one cache."""
    return cache_folder(victim.data.cache_dir if isinstance(victim, ClassifierVictim) else None)


def _rates(perturbed: Sequence[Perturbed]) -> dict[str, Any]:
    words = sum(p.words for p in perturbed)
    return {
        "achieved_rate": sum(p.changed for p in perturbed) / max(words, 1),
        "hit_again_rate": sum(p.hit_again for p in perturbed) / max(words, 1),
    }
