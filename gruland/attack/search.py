"""TextAttack's searches, written so that many reviews are searched side by side.

A search of one review is a generator: it yields the candidates of a step and is sent the model's class probabilities
of each. Whoever runs it (:func:`side_by_side`) asks for the candidates of many reviews at once. What a search finds
depends on its own answers alone, not on its neighbours.

The order of the questions, what counts as a query and when a search ends are those of TextAttack 0.3.11's
``GreedyWordSwapWIR`` and ``GreedySearch`` with the goal ``UntargetedClassification``. Two things are better defined
here: probabilities are float64, so that a confident model's scores are told apart, and a tie goes to the first word of
the text, or to the first candidate in alphabetical order.

N candidates, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from gruland.attack.edits import Candidate, EditedText
from gruland.perturbation.streams import Stream
from gruland.task import Task

#: Candidates are yielded, their class probabilities [N, C] are sent.
Search = Generator[list[Candidate], np.ndarray, "Found"]


class Constraint(Protocol):
    """What a candidate has to meet."""

    def __call__(self, candidates: list[Candidate], original: EditedText) -> list[Candidate]:
        """The candidates that meet it, in their order."""
        ...


@dataclass(frozen=True)
class Recipe:
    """What a query attack is made of.

    Args:
        cut: how a text is cut into words.
        swaps: TextAttack's word swaps, in the order in which they are asked.
        ranking: how the words are put into the order in which they are replaced: ``unk`` (by the score of the text with
            ``[UNK]`` in the word's place), ``delete`` (without the word) or ``weighted-saliency`` (PWWS: the softmax of
            ``unk`` times the score of the word's best replacement); None: at each step the best of all words is taken.
        stopwords: words that are left alone.
        least_letters: of a word that is replaced.
        constraints: in the order in which they are asked.
        stand_ins: what stands in the place of what TextAttack would download, by its name.
    """

    cut: Callable[[str], list[str]]
    swaps: Sequence[Any]
    ranking: str | None
    stopwords: frozenset[str]
    least_letters: int = 0
    constraints: Sequence[Constraint] = ()
    stand_ins: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def draws(self) -> bool:
        """Whether any swap may be random: TextAttack calls one deterministic that inserts random letters."""
        return any(getattr(swap, "draws", True) for swap in self.swaps)

    def allows(self, text: EditedText, index: int) -> bool:
        """Whether the word may be replaced."""
        if index >= len(text.words) or index in text.modified:
            return False
        word = text.words[index]
        return word not in self.stopwords and len(word) >= self.least_letters

    def candidates(
        self, text: EditedText, original: EditedText, indices: Iterable[int], stream: Stream
    ) -> list[Candidate]:
        """What the swaps make of these words, in the order of the texts."""
        open_, offered = [index for index in indices if self.allows(text, index)], []
        with stream if self.draws else nullcontext():
            for swap in self.swaps:
                for index in open_:
                    word = text.words[index]
                    offered += [
                        (index, other) for other in swap._get_replacement_words(word) if other != word
                    ]
        found = [text.replace(index, other) for index, other in offered]
        # TextAttack takes what several swaps offer once, what one offers as often as it does.
        if len(self.swaps) > 1:
            once: dict[str, Candidate] = {}
            for candidate in found:
                once.setdefault(candidate.text, candidate)
            found = list(once.values())
        found = [candidate for candidate in found if candidate.text != text.text]
        for constraint in self.constraints:
            found = constraint(found, original) if found else found
        return sorted(found, key=lambda candidate: candidate.text)


class Found(NamedTuple):
    """What a search came to.

    Attributes:
        text: the text that it ended with.
        queries: texts that the model was asked about, a text twice where it was asked twice.
        replaced: words of the original that were replaced.
        succeeded: whether the model no longer predicts the label. False where it did not before either.
        enough: the queries with which the search would have succeeded; None where it did not.
    """

    text: str
    queries: int
    replaced: int
    succeeded: bool
    enough: int | None = None


@dataclass
class _Questions:
    """The questions of one search, up to its budget."""

    task: Task
    label: int
    budget: int
    used: int = 0

    @property
    def over(self) -> bool:
        return self.used >= self.budget

    def ask(
        self, candidates: Sequence[Candidate]
    ) -> Generator[list[Candidate], np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """The scores [N], 1 - p of the label, and which candidates succeed [N], of those that the budget allows."""
        asked = list(candidates[: self.budget - self.used])
        self.used += len(asked)
        if not asked:
            return np.empty(0), np.empty(0, bool)
        p_NC = yield asked
        predicted_N = self.task.predictions(torch.from_numpy(p_NC)).numpy()
        return 1 - p_NC[:, self.label], predicted_N != self.label


def search(recipe: Recipe, text: str, label: int, *, task: Task, budget: int, stream: Stream) -> Search:
    """Search a text that the model takes for another class than ``label``.

    Args:
        task: its classes are what the model predicts.
        budget: queries at most, the first of the unchanged text included.
        stream: what random swaps draw from.
    """
    original, questions = EditedText(text, recipe.cut), _Questions(task, label, budget)
    scores, wrong = yield from questions.ask([original.itself()])
    if wrong[0]:
        return Found(text, questions.used, 0, False)
    if recipe.ranking is None:
        return (yield from _best_of_all(recipe, original, questions, stream))
    order = yield from _ranked(recipe, original, questions, stream)
    return (yield from _word_by_word(recipe, original, float(scores[0]), order, questions, stream))


def _ranked(
    recipe: Recipe, original: EditedText, questions: _Questions, stream: Stream
) -> Generator[list[Candidate], np.ndarray, list[int]]:
    """The words by falling importance; none where the budget is used up."""
    indices = [index for index in range(len(original.words)) if recipe.allows(original, index)]
    gap = "" if recipe.ranking == "delete" else "[UNK]"
    importance, _ = yield from questions.ask([original.replace(index, gap) for index in indices])
    if questions.over or not indices:
        return []
    if recipe.ranking == "weighted-saliency":
        offers = [recipe.candidates(original, original, [index], stream) for index in indices]
        scores, _ = yield from questions.ask([candidate for offer in offers for candidate in offer])
        if questions.over:
            return []
        ends = np.cumsum([len(offer) for offer in offers])
        best = [part.max(initial=0.0) for part in np.split(scores, ends[:-1])]
        saliency = np.exp(importance - importance.max())
        importance = saliency / saliency.sum() * best
    return [indices[place] for place in np.argsort(-importance, kind="stable")]


def _word_by_word(
    recipe: Recipe,
    original: EditedText,
    score: float,
    order: list[int],
    questions: _Questions,
    stream: Stream,
) -> Search:
    """Replace one word after the other, each by what raises the score most, until the model errs."""
    current = original
    for index in order:
        if questions.over:
            break
        candidates = recipe.candidates(current, original, [index], stream)
        if not candidates:
            continue
        before = questions.used
        scores, wrong = yield from questions.ask(candidates)
        best = int(scores.argmax())
        if scores[best] <= score:
            continue
        if wrong[best]:
            chosen = _most_similar(candidates, scores, wrong)
            enough = before + _enough(scores, wrong, score)
            return Found(candidates[chosen].text, questions.used, current.replaced + 1, True, enough)
        score, current = float(scores[best]), candidates[best].taken()
    return Found(current.text, questions.used, current.replaced, False)


def _enough(scores: np.ndarray, wrong: np.ndarray, least: float = -np.inf) -> int:
    """How many candidates a step has to ask about until the best of them, with a score above ``least``, succeeds."""
    best_before = np.maximum.accumulate(np.concatenate([[least], scores[:-1]]))
    return int((wrong & (scores > best_before)).argmax()) + 1


def _most_similar(candidates: Sequence[Candidate], scores: np.ndarray, wrong: np.ndarray) -> int:
    """Of the best candidates that succeed the most similar one; without a measure of similarity the best."""
    chosen, most = int(scores.argmax()), -np.inf
    for place in np.argsort(-scores, kind="stable").tolist():
        similarity = candidates[place].similarity
        if not wrong[place] or similarity is None:
            break
        if similarity > most:
            chosen, most = place, similarity
    return chosen


def _best_of_all(recipe: Recipe, original: EditedText, questions: _Questions, stream: Stream) -> Search:
    """Replace at each step the word, of all, whose replacement gives the highest score."""
    current = original
    while not questions.over:
        candidates = recipe.candidates(current, original, range(len(current.words)), stream)
        if not candidates:
            return Found(current.text, questions.used, current.replaced, False)
        before = questions.used
        scores, wrong = yield from questions.ask(candidates)
        best = int(scores.argmax())
        if wrong[best]:
            enough = before + _enough(scores, wrong)
            return Found(candidates[best].text, questions.used, current.replaced + 1, True, enough)
        current = candidates[best].taken()
    return Found(current.text, questions.used, current.replaced, False)


#: From the candidates of several reviews, and the reviews' places, to the class probabilities of each list.
Answer = Callable[[Sequence[Sequence[Candidate]], Sequence[int]], Sequence[np.ndarray]]


def side_by_side(searches: Iterable[Search], answer: Answer, width: int) -> Iterator[tuple[int, Found]]:
    """Run searches, ``width`` at a time; give each one's place and result as it ends."""
    waiting = enumerate(searches)
    running: dict[int, tuple[Search, list[Candidate]]] = {}

    def go_on(place: int, run: Search, answers: np.ndarray | None) -> Found | None:
        try:
            asked = next(run) if answers is None else run.send(answers)
        except StopIteration as end:
            running.pop(place, None)
            return end.value
        running[place] = run, asked
        return None

    while True:
        while len(running) < width and (new := next(waiting, None)):
            if (found := go_on(*new, None)) is not None:
                yield new[0], found
        if not running:
            return
        places = list(running)
        answers = answer([running[place][1] for place in places], places)
        for place, given in zip(places, answers, strict=True):
            if (found := go_on(place, running[place][0], given)) is not None:
                yield place, found
