"""Virtual adversarial training (Miyato et al. 2017, "Adversarial training methods for semi-supervised text
classification", equations 7 and 8; Miyato et al. 2018, section 3.3, has the power iteration)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gruland.arguments import check_whole
from gruland.cache import cache_folder, content_hash
from gruland.data.corpus import Source
from gruland.defence.base import SHIFT, Defended
from gruland.defence.vectors import VectorDefence, real_words, unit
from gruland.errors import one_line
from gruland.regularizers import Draw
from gruland.regularizers.base import check_strength

if TYPE_CHECKING:
    from gruland.data import Encoded, TextDataModule


class VAT(VectorDefence):
    """L(s) + w * KL(p(s) || p(s + r)), r the shift of norm epsilon that changes the prediction most, to second order.

    r asks for no label: the same is done to as many reviews of ``unlabelled`` in each batch. The prediction p(s) and r
    count as constants. Both predictions meet the same masks, so that the divergence has its least value, 0, at r = 0.

    Args:
        epsilon: L2 norm of r in normalised word vectors, at least 0; the paper's search for IMDB ended at 5.
        weight: w, at least 0; 1 in the paper.
        iterations: of the power method, at least 1; 1 in the paper.
        xi: how far from s the gradients of the power method are taken, above 0; 0.1 in the authors' code.
        unlabelled: a :class:`gruland.data.Source`, whose labels are not looked at; where it has a method ``texts()``,
            as :class:`gruland.data.sources.File` has, it needs none. None: the training reviews alone.

    Raises:
        ValueError: a value that cannot work.
    """

    name, title = "vat", "VAT"

    def __init__(
        self,
        epsilon: float = 5.0,
        weight: float = 1.0,
        iterations: int = 1,
        xi: float = 0.1,
        unlabelled: Source | None = None,
    ) -> None:
        super().__init__(epsilon)
        self.weight = check_strength(weight, "weight")
        check_whole("iterations", iterations, 1)
        self.iterations, self.xi = iterations, check_strength(xi, "xi")
        if self.xi == 0:
            raise ValueError("xi=0: expected a number above 0")
        if unlabelled is not None and not all(hasattr(unlabelled, part) for part in ("files", "read")):
            raise ValueError(
                f"unlabelled={unlabelled}: expected a data source, with its class under _target_"
            )
        self.unlabelled = unlabelled
        self._reviews: Encoded | None = None

    def inputs(self, data: TextDataModule) -> dict[str, str]:
        """The checksum of the unlabelled reviews."""
        if self.unlabelled is None:
            return {}
        cache = cache_folder(data.cache_dir)
        with _named():
            return {"defence.unlabelled": content_hash(self.unlabelled.files(cache), cache)}

    def prepare(self, data: TextDataModule) -> None:
        """Measure the word vectors and read the unlabelled reviews."""
        super().prepare(data)
        if self.unlabelled is not None:
            self._reviews = data.encode(_texts(self.unlabelled, cache_folder(data.cache_dir)))

    def losses(
        self, model: Defended, tokens_BT: Tensor, lengths_B: Tensor, labels: Tensor, draw: Draw
    ) -> tuple[Tensor, Tensor]:
        """The loss, and how far the worst shift moves the predictions."""
        losses, logits = model.losses(tokens_BT, lengths_B, labels, draw)
        target = logits.detach()
        if "agreement" in model.regularizer.hooks:  # these are of a pass with masks of its own
            with torch.no_grad():
                target = model(tokens_BT, lengths_B, draw)
        found = self._divergence(model, tokens_BT, lengths_B, draw, target)
        if self._reviews is not None:
            random = np.random.default_rng(draw.seed % 2**64)
            rows = random.integers(self._reviews.size, size=len(labels))
            tokens, lengths = (part.to(tokens_BT.device) for part in self._reviews.take(rows).padded())
            others = draw.at(SHIFT)
            with torch.no_grad():
                target = model(tokens, lengths, others)
            more = self._divergence(model, tokens, lengths, others, target)
            found = (found + more.mean()) / 2
        return losses + self.weight * found, logits

    def _divergence(
        self, model: Defended, tokens_BT: Tensor, lengths_B: Tensor, draw: Draw, target: Tensor
    ) -> Tensor:
        """KL [B] between the predictions ``target`` and those at the worst shift."""

        def moved(shift_BTD: Tensor) -> Tensor:
            shift = self.in_units(shift_BTD)
            return model.task.divergence(
                target, model.logits_and_states(tokens_BT, lengths_B, draw, shift)[0]
            )

        sequences, steps = tokens_BT.shape
        here = draw.of_batch(sequences, tokens_BT.device).at(SHIFT)
        uniform = here.uniform(steps, model.vectors.shape[1]).to(model.vectors)
        normal = torch.special.ndtri(uniform) * real_words(lengths_B, steps)
        worst = power_iteration(moved, normal, self.iterations, self.xi)
        return moved(self.epsilon * worst)


def _texts(source: Source, cache: Path) -> list[str]:
    """The texts of a source.

    Raises:
        ValueError: they cannot be read, or there is none.
    """
    with _named():
        texts: list[str] = (
            source.texts() if hasattr(source, "texts") else source.read(source.files(cache)).texts
        )
        if not texts:
            raise ValueError(f"{source.name} holds no texts")
    return texts


@contextmanager
def _named() -> Iterator[None]:
    """Errors of a source speak of the key; a file knows itself as ``data.path``, and here has arguments of its own."""
    try:
        yield
    except (ValueError, OSError) as error:
        said = re.sub(r"\bdata\.(?=(path|text)\b)", "", one_line(error))
        raise ValueError(f"defence.unlabelled: {said}") from error


def power_iteration(
    function: Callable[[Tensor], Tensor], start_BTD: Tensor, iterations: int, xi: float
) -> Tensor:
    """The direction in which each review's function rises most around 0, where it is least: norm 1.

    It is the eigenvector of the largest eigenvalue of its second derivative there, to first order in ``xi``: the
    gradient at ``xi`` times a direction is the second derivative times that.

    Args:
        function: from shifts [B, T, D] to values [B].
        start_BTD: directions to begin with.
    """
    found = unit(start_BTD)
    for _ in range(iterations):
        at = (xi * found).requires_grad_()
        (gradient,) = torch.autograd.grad(function(at).sum(), at)
        found = unit(gradient)
    return found
