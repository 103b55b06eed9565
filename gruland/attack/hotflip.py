"""HotFlip: words flipped by the gradient of the embedded text (Ebrahimi et al. 2018, "HotFlip: White-box adversarial
examples for text classification").

Replacing the vector of one word by another's changes the margin, to first order, by the gradient there times the
difference of the vectors (their equations 3 and 7): one pass forward and back ranks every flip of every word. A beam
keeps the best texts of each step (their section 3.2).

B texts, T words, D numbers in a vector, M candidates of a word, U different words, V words of the vocabulary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gruland.arguments import check_whole
from gruland.attack import flags
from gruland.attack.base import OpenVictim, Outcome, Texts, Victim
from gruland.attack.gradients import BATCH_TOKENS, opened, slope
from gruland.attack.threat import Effort, Threat, check_number
from gruland.data.encoded import Encoded, encode
from gruland.embedding import UNKNOWN
from gruland.evaluation import length_sorted_batches
from gruland.perturbation.swaps import NLTK_DATA
from gruland.progress import Progress
from gruland.regularizers import draws_of

#: English function words, which a flip of words leaves alone.
STOPWORDS = NLTK_DATA / "corpora" / "stopwords" / "english"
UNITS = ("words", "characters")


@dataclass(frozen=True)
class HotFlip(Threat):
    """Words replaced by others of the vocabulary, chosen by gradients, until the model errs.

    In expectation over the draws of the masks, where the model is attacked with its dropout on.

    Args:
        units: ``words``: a word becomes one whose vector is near; ``characters``: one that differs in a single
            character, and is a word of the vocabulary, too.
        rate: the share of a review's words that may be flipped, at least one of them.
        budget: the most texts of a review that are asked for, each with its gradient; a step asks for ``beam`` of them.
        beam: texts of a review that are kept at each step.
        similarity: the least cosine of a word's vector and its replacement's (``words`` alone; 0.8 in the paper, which
            asks for the same part of speech besides). Function words stay, and none is put in.
        neighbours: the most candidates of a word, the nearest first.
        vocabulary: the most frequent words of the vocabulary that may be put in; its file lists these first.
    """

    units: str = "words"
    rate: float = 0.2
    budget: int = 100
    beam: int = 3
    similarity: float = 0.8
    neighbours: int = 20
    vocabulary: int = 30_000
    knowledge: ClassVar[str] = "gradients"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.units not in UNITS:
            raise ValueError(f"units={self.units}: expected {' or '.join(UNITS)}")
        check_number("rate", self.rate, 0, 1)
        check_number("similarity", self.similarity, -1, 1)
        for key in ("budget", "beam", "neighbours", "vocabulary"):
            check_whole(key, getattr(self, key), 1)

    def __call__(self, victim: Victim, texts: Texts) -> Outcome:
        """Scores on reviews as they are (``raw``), as the model reads them (``read``), and ``attacked``.

        Raises:
            ValueError: the model does not show its vectors.
        """
        model, sample = opened(victim, "hotflip"), self.sample(texts)
        words = model.words(sample.texts)
        reviews = [
            Review(place, int(key), rows, max(1, int(self.rate * len(rows))))
            for place, (key, rows) in enumerate(zip(sample.ids, _rows(words, model), strict=True))
        ]
        flips = self._flips(model, {word for review in words for word in review})
        with Progress(len(reviews), "hotflip") as progress:
            searching = reviews
            while searching:
                self._step(model, searching, flips, torch.as_tensor(sample.labels))
                before, searching = len(searching), [review for review in searching if review.beam]
                progress.advance(before - len(searching))
        read = [" ".join(review) for review in words]
        attacked = [_written(review, model, kept) for review, kept in zip(reviews, words, strict=True)]
        return self.judge(
            victim,
            sample,
            {"raw": sample.texts, "read": read, "attacked": attacked},
            Effort(
                queries=[review.queries for review in reviews],
                changed=[len(review.best.flipped) for review in reviews],
                words=[len(review) for review in words],
            ),
            flags=flags.gradients_vanish(np.array([review.norm for review in reviews])),
        )

    def _step(self, victim: OpenVictim, searching: Sequence[Review], flips: Flips, labels: Tensor) -> None:
        """Ask for all texts of all reviews' beams, and flip one more word of those that stand."""
        asked = [(review, member) for review in searching for member in review.beam]
        lengths = [len(member.rows) for _, member in asked]
        encoded = Encoded(np.concatenate([member.rows for _, member in asked]), np.cumsum([0, *lengths]))
        offers: dict[int, list[Member]] = defaultdict(list)
        for rows in length_sorted_batches(encoded.lengths, BATCH_TOKENS):
            tokens_BT, lengths_B = encoded.take(rows).padded()
            tokens_BT = tokens_BT.to(victim.vectors.device)
            here = [asked[row] for row in rows]
            target = labels[[review.place for review, _ in here]]
            keys = np.array([review.key for review, _ in here])
            draws = draws_of(self.attack_seed, self.draws, keys) if self.random(victim) else [None]
            embedded_BTD = F.embedding(tokens_BT, victim.vectors)
            found = slope(victim, embedded_BTD, tokens_BT, lengths_B, target.to(tokens_BT.device), draws)
            right = (victim.task.correct(found.probabilities_BC.cpu(), target) == 1).tolist()
            norms = found.gradient_BTD.flatten(1).norm(dim=1).tolist()
            margins = found.margins_B.tolist()
            gains, places, into = flips.best(
                found.gradient_BTD, tokens_BT, victim.vectors, self._open(here, tokens_BT), self.beam
            )
            for number, (review, member) in enumerate(here):
                review.asked(member, not right[number], margins[number], norms[number])
                offers[review.place] += [
                    member.flip(int(place), int(row), margins[number] + float(gain))
                    for gain, place, row in zip(gains[number], places[number], into[number], strict=True)
                    if np.isfinite(gain)
                ]
        for review in searching:
            done = review.wrong or len(review.beam[0].flipped) >= review.most
            different = {member.rows.tobytes(): member for member in offers[review.place]}
            ranked = sorted(different.values(), key=lambda member: -member.expected)
            review.beam = [] if done else ranked[: min(self.beam, self.budget - review.queries)]

    def _open(self, here: Sequence[tuple[Review, Member]], tokens_BT: Tensor) -> Tensor:
        """[B, T] of bool, the places that are not flipped yet."""
        open_BT = torch.ones(tokens_BT.shape, dtype=torch.bool, device=tokens_BT.device)
        for number, (_, member) in enumerate(here):
            open_BT[number, list(member.flipped)] = False
        return open_BT

    def _flips(self, victim: OpenVictim, words: set[str]) -> Flips:
        """What each of the words may become."""
        offered = victim.vocabulary.words[: self.vocabulary]
        stop = set(STOPWORDS.read_text(encoding="utf-8").split()) if self.units == "words" else set[str]()
        # Only plain words are put in: one that the model would read as two, or as another, has no place in a text.
        whole = [read == [word] for word, read in zip(offered, victim.words(offered), strict=True)]
        fit = [
            kept and word.isalpha() and word not in stop for kept, word in zip(whole, offered, strict=True)
        ]
        rows_M = np.flatnonzero(fit) + UNKNOWN + 1
        known = sorted(word for word in words if word not in stop and any(map(str.isalpha, word)))
        ids = victim.vocabulary.ids(known)
        by_row = {int(row): word for row, word in zip(ids, known, strict=True) if row > UNKNOWN}
        if self.units == "characters":
            into = {offered[row - UNKNOWN - 1]: int(row) for row in rows_M}
            near = _one_character(by_row, into, self.neighbours)
        else:
            near = _nearest(list(by_row), rows_M, victim.vectors, self.similarity, self.neighbours)
        return Flips.of(near, len(victim.vectors), victim.vectors.device)


class Member(NamedTuple):
    """A text of a beam."""

    rows: np.ndarray  # of the words' vectors [T]
    flipped: tuple[int, ...]  # places, in the order in which they were flipped
    expected: float  # the margin to first order

    def flip(self, place: int, row: int, expected: float) -> Member:
        """The text with one more word flipped."""
        rows = self.rows.copy()
        rows[place] = row
        return Member(rows, (*self.flipped, place), expected)


class Review:
    """The search for one review. An empty beam: it has ended.

    Attributes:
        best: of the texts that were asked for one that is wrong, and of these the one of the highest margin.
        queries: texts that were asked for.
        norm: of the gradient at the review itself.
    """

    def __init__(self, place: int, key: int, rows: np.ndarray, most: int) -> None:
        self.place, self.key, self.most = place, key, most
        self.best = Member(rows, (), -np.inf)
        self.beam = [self.best]
        self.wrong, self.margin = False, -np.inf
        self.queries, self.norm = 0, 0.0

    def asked(self, member: Member, wrong: bool, margin: float, norm: float) -> None:
        """Take note of an answer."""
        self.queries += 1
        if not member.flipped:
            self.norm = norm
        if (wrong, margin) > (self.wrong, self.margin):
            self.best, self.wrong, self.margin = member, wrong, margin


class Flips(NamedTuple):
    """What each word may become.

    Attributes:
        place_V: int64 [V], from a word's row to its place in ``rows_UM``; 0 = it stays.
        rows_UM: int64 [U, M] rows of the candidates, -1 where there are fewer; the first row has none.
    """

    place_V: Tensor
    rows_UM: Tensor

    @classmethod
    def of(cls, near: dict[int, list[int]], size: int, device: torch.device) -> Flips:
        """From a word's row to those of its candidates."""
        width = max([len(rows) for rows in near.values()], default=0)
        place_V = torch.zeros(size, dtype=torch.int64)
        place_V[list(near)] = torch.arange(1, len(near) + 1)
        padded = [[-1] * width, *([*rows, *[-1] * (width - len(rows))] for rows in near.values())]
        return cls(place_V.to(device), torch.tensor(padded, dtype=torch.int64).to(device))

    def best(
        self, gradient_BTD: Tensor, tokens_BT: Tensor, vectors: Tensor, open_BT: Tensor, count: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The flips that raise the margin most to first order: gains, places and rows, [B, count] each.

        A gain of minus infinity stands for a flip that there is not.
        """
        B, T = tokens_BT.shape
        rows_BTM = self.rows_UM[self.place_V[tokens_BT]]
        M = rows_BTM.shape[2]
        own_BT = (gradient_BTD * F.embedding(tokens_BT, vectors)).sum(2)
        gains_BTM = gradient_BTD.new_full((B, T, M), -torch.inf)
        for number in range(M):  # one candidate of every word at a time: all at once take M times the memory
            rows_BT = rows_BTM[..., number]
            gain_BT = (gradient_BTD * F.embedding(rows_BT.clamp_min(0), vectors)).sum(2) - own_BT
            gains_BTM[..., number] = gain_BT.masked_fill((rows_BT < 0) | ~open_BT, -torch.inf)
        gains, index = gains_BTM.flatten(1).topk(min(count, T * M), dim=1)
        rows = rows_BTM.flatten(1).gather(1, index)
        return gains.cpu().numpy(), (index // max(1, M)).cpu().numpy(), rows.cpu().numpy()


def _one_character(by_row: dict[int, str], offered: dict[str, int], most: int) -> dict[int, list[int]]:
    """For each word the rows of those that differ in one character, the most frequent first."""
    holes = defaultdict(list)  # "c_t" -> cat, cut, ...
    for word, row in offered.items():
        for place in range(len(word)):
            holes[word[:place], word[place + 1 :]].append(row)
    near = {}
    for row, word in by_row.items():
        found = {
            other
            for place in range(len(word))
            for other in holes.get((word[:place], word[place + 1 :]), ())
            if other != row
        }
        if found:
            near[row] = sorted(found)[:most]
    return near


def _nearest(
    rows: Sequence[int], offered_M: np.ndarray, vectors: Tensor, least: float, most: int
) -> dict[int, list[int]]:
    """For each row the offered ones whose vectors have a cosine of at least ``least`` to its own, the nearest first."""
    candidates_MD = F.normalize(vectors[torch.as_tensor(offered_M).to(vectors.device)], dim=1)
    near = {}
    for part in np.array_split(np.array(rows, dtype=np.int64), max(1, len(rows) // 512)):
        own_UD = F.normalize(vectors[torch.as_tensor(part).to(vectors.device)], dim=1)
        cosines, index = (own_UD @ candidates_MD.T).topk(min(most + 1, len(offered_M)), dim=1)
        for row, values, places in zip(part.tolist(), cosines.tolist(), index.tolist(), strict=True):
            found = [int(offered_M[p]) for value, p in zip(values, places, strict=True) if value >= least]
            if others := [other for other in found if other != row][:most]:
                near[row] = others
    return near


def _rows(words: Iterable[Sequence[str]], victim: OpenVictim) -> list[np.ndarray]:
    encoded = encode(words, victim.vocabulary)
    return [encoded.sequence(place) for place in range(encoded.size)]


def _written(review: Review, victim: OpenVictim, words: Sequence[str]) -> str:
    """The text with its flips."""
    flipped = list(words)
    for place in review.best.flipped:
        flipped[place] = victim.vocabulary.words[review.best.rows[place] - UNKNOWN - 1]
    return " ".join(flipped)
