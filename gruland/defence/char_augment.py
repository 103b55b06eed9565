"""Augmentation by typing errors: training reads other errors in every epoch (Pruthi et al. 2019, "Combating adversarial
misspellings with robust word recognition", section 5.1, "data augmentation")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from gruland.defence.base import Defence
from gruland.perturbation import swaps
from gruland.perturbation.perturb import check, perturb, strip
from gruland.regularizers import Draw, mix
from gruland.regularizers.base import check_rate

if TYPE_CHECKING:
    from gruland.data import TextDataModule


class CharAugment(Defence):
    """Deleted letters and neighbouring keys in a part of the training reviews, fresh in every epoch.

    The errors are those of the attack ``typing_errors`` (:func:`gruland.perturbation.perturb.perturb`), in linear time,
    made in a process beside the training. A review's errors follow from the seed, the epoch and the review alone.

    Args:
        rate: swaps of a pass, as a share of a review's words, in [0, 1].
        mode: ``sequence`` or ``composite``.
        clean: the share of the reviews that an epoch reads as they are, in [0, 1).
        stripped: whether the others keep their letters alone, as in the attack.

    Raises:
        ValueError: a value that cannot work.
    """

    name, title = "char_augment", "Typing errors"

    def __init__(
        self, rate: float = 0.3, mode: str = "sequence", clean: float = 0.5, stripped: bool = True
    ) -> None:
        check(rate, mode)
        if not isinstance(stripped, bool):
            raise ValueError(f"stripped={stripped}: expected true or false")
        self.rate, self.mode, self.clean, self.stripped = rate, mode, check_rate(clean, "clean"), stripped

    def prepare(self, data: TextDataModule) -> None:
        """Import TextAttack once, here: the processes that are forked later have it."""
        swaps.load()

    def texts(self, texts: Sequence[str], draw: Draw) -> list[str]:
        """The reviews with an epoch's errors."""
        batch = draw.of_batch(len(texts), torch.device("cpu"))
        clean = batch.each_sequence(self.clean, 1)[:, 0].tolist()
        return [
            text if as_it_is else self._perturbed(text, mix(draw.seed, key))
            for text, as_it_is, key in zip(texts, clean, torch.as_tensor(batch.keys).tolist(), strict=True)
        ]

    def _perturbed(self, text: str, seed: int) -> str:
        letters = strip(text) if self.stripped else text
        return perturb(letters, rate=self.rate, mode=self.mode, seed=(seed,)).text
