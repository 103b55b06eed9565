"""Certified robustness to edits of words, by randomised deletion (Huang et al. 2023, "RS-Del: Edit distance robustness
certificates for sequence classifiers via randomized deletion"; Huang et al. 2024, "CERT-ED: Certifiably robust text
classification for edit distance", arXiv 2408.00728).

Every word of a text is deleted with probability p, and the class that the model gives most often to what is left is
the vote. Let q be the probability of the vote's class y on a text x. A text x' that comes of x by s substitutions, d
deletions and i insertions of words has a subsequence z in common with it: x without s + d of its words. With the
probability p^(s + d) all of those are deleted, and x is z then, so that q <= p^(s + d) q(z) + 1 - p^(s + d). In the
same way q(x') >= p^(s + i) q(z), and together

    q(x') >= p^(i - d) (q - 1 + p^(s + d)).

Of r edits, substitutions do the most harm: the vote stays y where p^r > 3/2 - q (CERT-ED's certificate). Insertions
alone leave it where p^r > 1 / (2 q), deletions alone where p^r > 2 (1 - q).

S samples, T words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gruland import sampling
from gruland.arguments import check_whole
from gruland.attack.answers import WholeTexts, unavailable
from gruland.attack.base import Outcome, Texts, Victim, score_forms
from gruland.attack.verdict import curve
from gruland.attack.victims import ClassifierVictim
from gruland.data import Encoded, encode_texts
from gruland.embedding import UNKNOWN
from gruland.evaluation import logits
from gruland.kernels import philox
from gruland.progress import Progress
from gruland.regularizers import Draw, check_rate
from gruland.workers import Workers, check_workers

#: What a certificate may be of -> whether q allows r edits of that kind at the rate p.
EDITS: dict[str, Callable[[float, float, int], bool]] = {
    "edits": lambda q, p, r: p**r > 1.5 - q,
    "deletions": lambda q, p, r: p**r > 2 * (1 - q),
    "insertions": lambda q, p, r: 2 * q * p**r > 1,
}
#: The numbers of edits that the measures speak of.
SHOWN = (0, 1, 2, 4)
#: No more edits are counted: q = 1, which no sample shows, would allow any number of deletions.
_MOST = 1_000_000
#: Reviews of a task: seconds of work.
CHUNK = 4
#: From which words of a text are kept [S, T] to the predicted classes [S].
Reader = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Certificate:
    """The share of the reviews whose vote is right and provably stays so under any r edits of words, for each r.

    What is certified is the vote, not the model's own prediction, for edits of the words that the model's tokenizer
    sees: a typing error is one substitution, or two edits where it parts or joins words. Each certificate is right
    with probability 1 - alpha over the samples. A vote that is wrong has none, so that no more samples are drawn for it
    than choose the class.

    Args:
        reviews: test reviews, a stratified part; all where there are fewer.
        rate: p, the share of the words that is deleted, in [0, 1): that of ``defence=word_deletion``.
        samples: of a review: the first ``selection`` choose the class, the others bound q from below.
        selection: at least 1, fewer than ``samples``.
        alpha: the probability that a certificate is wrong, in (0, 1).
        seed: of the choice of reviews and of the deletions; those of a review follow from it and the review's id.
        workers: tasks that are at work at a time; the results do not depend on it.
        engine: where they are: ``local``, processes of this machine, or ``ray``, a cluster.

    Raises:
        ValueError: a value that cannot work.
    """

    reviews: int = 1000
    rate: float = 0.9
    samples: int = 5000
    selection: int = 1000
    alpha: float = 0.001
    seed: int = 0
    workers: int = field(default=1, compare=False)
    engine: str = field(default="local", compare=False)

    def __post_init__(self) -> None:
        check_rate(self.rate)
        check_workers(self.workers, self.engine)
        for key, low in (("reviews", 1), ("samples", 2), ("selection", 1), ("seed", 0)):
            check_whole(key, getattr(self, key), low)
        if self.selection >= self.samples:
            raise ValueError(f"selection={self.selection}: expected fewer than samples={self.samples}")
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, float) or not 0 < self.alpha < 1:
            raise ValueError(f"alpha={self.alpha}: expected a number in (0, 1)")

    def __call__(self, victim: Victim, texts: Texts) -> Outcome:
        """Certify (a part of) the labelled texts.

        Returns:
            Besides the scores of the model itself: ``measures``, the shares of the reviews that are certified for 0
            (their vote is right, and a majority at confidence 1 - alpha), 1, 2, 4 edits; ``curves`` of these shares for
            any edits, deletions alone and insertions alone; ``certificate``, the share of ``wrong`` votes and the
            model's ``defence``. For each review the vote's class, its share of the samples, the lower bound of q, and
            the greatest certified numbers of edits, deletions alone and insertions alone.

        Raises:
            ValueError: a multilabel task, which has no one vote.
        """
        if victim.task.kind == "multilabel":
            raise ValueError("a multilabel task has no majority vote: expected a binary or multiclass task")
        sample = texts.sample(self.reviews, self.seed)
        places = range(len(sample.ids))
        tasks = [places[first : first + CHUNK] for first in places[::CHUNK]]
        found: dict[int, Vote] = {}
        with (
            Progress(len(sample.ids) + 1, "certificate") as progress,
            Workers(Votes(self, victim, sample), self.workers, self.engine, fork=True) as workers,
        ):
            for task, some, _ in workers.map(tasks):
                found.update(zip(task, some, strict=True))
                progress.advance(len(task))
            votes = [found[place] for place in places]
            scored = score_forms(victim, sample, {"raw": sample.texts}, columns=self._columns(victim, votes))
            progress.advance()
        return Outcome({**scored.results, **self._summary(victim, votes)}, scored.columns)

    @property
    def deleted(self) -> float:
        """p as it is drawn, to a multiple of 2^-16."""
        return philox.threshold(self.rate) / 2**16

    def vote(self, victim: Victim, read: tuple[int, Reader], key: int, label: int) -> Vote:
        """The vote on one review and the bound of its class's probability."""
        words, reader = read
        classes = len(victim.task.classes)

        def count(phase: int, samples: int) -> np.ndarray:
            draw = Draw(self.seed, [int(key)]).of_batch(1, torch.device("cpu")).at(phase)
            dropped_ST = draw.each_step(self.rate, samples, words).tensor()[:, 0]
            return np.bincount(reader(~dropped_ST).numpy(), minlength=classes)

        first = count(0, self.selection)
        chosen = int(first.argmax())
        share = float(first[chosen] / self.selection)
        more = self.samples - self.selection
        if chosen != int(label):
            return Vote(chosen, share, self.selection, None)
        found = int(count(1, more)[chosen])
        share = (found + int(first[chosen])) / self.samples
        return Vote(chosen, share, self.samples, lower_bound(found, more, self.alpha))

    def _columns(self, victim: Victim, votes: Sequence[Vote]) -> dict[str, list[Any]]:
        radii = {f"certified_{kind}": [self._radius(vote, kind) for vote in votes] for kind in EDITS}
        return {
            "vote": [victim.task.name_of(vote.chosen) for vote in votes],
            "share": [round(vote.share, 6) for vote in votes],
            "samples": [vote.samples for vote in votes],
            "lower_bound": [vote.lower for vote in votes],
            **radii,
        }

    def _radius(self, vote: Vote, kind: str) -> int | None:
        return None if vote.lower is None else radius(vote.lower, self.deleted, kind)

    def _radii(self, votes: Sequence[Vote], kind: str) -> np.ndarray:
        """The certified numbers of edits [N]; -1 for none."""
        found = [self._radius(vote, kind) for vote in votes]
        return np.array([-1 if edits is None else edits for edits in found])

    def _summary(self, victim: Victim, votes: Sequence[Vote]) -> dict[str, Any]:
        curves = {}
        for kind in EDITS:
            certified = self._radii(votes, kind)
            at = range(max(0, int(certified.max())) + 1)
            curves[kind] = curve(at, [certified >= r for r in at])
        edits = self._radii(votes, "edits")
        model = victim.model if isinstance(victim, ClassifierVictim) else None
        return {
            "certificate": {
                "wrong": sum(vote.lower is None for vote in votes) / len(votes),
                "defence": None if model is None else str(model.defence),
            },
            "measures": {f"certified_{r}": sampling.plain(sampling.mean(edits >= r)) for r in SHOWN},
            "curves": curves,
        }


class Votes:
    """The votes on the reviews at some places of a sample, wherever they are asked for."""

    def __init__(self, attack: Certificate, victim: Victim, sample: Texts) -> None:
        self._attack, self._victim, self._sample = attack, victim, sample

    def __call__(self, places: Sequence[int]) -> list[Vote]:
        sample = self._sample
        return [
            self._attack.vote(
                self._victim, self._readers[place], int(sample.ids[place]), int(sample.labels[place])
            )
            for place in places
        ]

    @cached_property
    def _readers(self) -> list[tuple[int, Reader]]:
        return _readers(self._victim, self._sample.texts)


class Vote(NamedTuple):
    """The vote on a review."""

    chosen: int  # class
    share: float  # of the samples
    samples: int
    lower: float | None  # bound of its class's probability; None: the vote is wrong


def lower_bound(successes: int, trials: int, alpha: float) -> float:
    """The least probability of a success at confidence 1 - alpha (Clopper & Pearson 1934, one-sided)."""
    from scipy.stats import binomtest

    return float(binomtest(successes, trials, alternative="greater").proportion_ci(1 - alpha).low)


def radius(q: float, rate: float, kind: str = "edits") -> int | None:
    """The greatest number of edits under which the vote stays as it is; None where it has no majority.

    Args:
        q: the probability of the vote's class, or a lower bound of it.
        rate: p, the probability with which a word is deleted, in [0, 1).
        kind: one of :data:`EDITS`.
    """
    if not q > 0.5:
        return None
    found = 0
    while EDITS[kind](q, rate, found + 1) and found < _MOST:
        found += 1
    return found


def _readers(victim: Victim, texts: Sequence[str]) -> list[tuple[int, Reader]]:
    """For each text its number of words and how the victim reads what is left of it.

    A classifier's limit of words (``data.max_length``) comes after the deletion: an insertion at the start of a long
    review would else push another word over its end.
    """
    if not isinstance(victim, ClassifierVictim):
        return [(len(text.split()), _reader_of_text(victim, text.split())) for text in texts]
    settings = victim.data.settings
    reason = unavailable(victim, draws=False)
    outputs = WholeTexts(victim.model) if reason is None else partial(logits, victim.model)
    whole = encode_texts(texts, victim.data.vocabulary, settings.clean)
    found = []
    for index in range(whole.size):
        tokens = whole.sequence(index)
        found.append((len(tokens), _reader_of_ids(victim, outputs, tokens, settings.max_length)))
    return found


def _reader_of_text(victim: Victim, words: Sequence[str]) -> Reader:
    def read(kept_ST: Tensor) -> Tensor:
        texts = [" ".join(word for word, keep in zip(words, kept, strict=True) if keep) for kept in kept_ST]
        return _classes(victim, victim.logits(texts))

    return read


def _reader_of_ids(
    victim: ClassifierVictim, outputs: Callable[[Encoded], Tensor], tokens: np.ndarray, most: int | None
) -> Reader:
    def read(kept_ST: Tensor) -> Tensor:
        return _classes(victim, outputs(left(tokens, kept_ST.numpy(), most)))

    return read


def left(tokens: np.ndarray, kept_ST: np.ndarray, most: int | None = None) -> Encoded:
    """The words of a review that each sample keeps, the first ``most`` of them; the unknown one where it keeps none."""
    if most is not None:
        kept_ST = kept_ST & (kept_ST.cumsum(1) <= most)
    counts = kept_ST.sum(1)
    samples, places = kept_ST.nonzero()
    offsets = np.concatenate([[0], np.cumsum(np.maximum(counts, 1))])
    words = np.full(offsets[-1], UNKNOWN, dtype=np.int32)
    empty_before = np.concatenate([[0], np.cumsum(counts == 0)])[samples]
    words[np.arange(len(samples)) + empty_before] = tokens[places]
    return Encoded(words, offsets)


def _classes(victim: Victim, output: Tensor) -> Tensor:
    return victim.task.predictions(victim.task.probabilities(output.float()))
