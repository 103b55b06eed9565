"""Certificates are sound: no edit within the radius changes the vote, on every text of a small alphabet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from gruland.attack import Certificate, Texts
from gruland.attack.certificate import EDITS, left, lower_bound, radius
from gruland.embedding import UNKNOWN
from gruland.task import Task

BINARY = Task("binary", ("negative", "positive"))
Word = tuple[str, ...]


def smoothed(classify: Callable[[Word], int], text: Word, rate: float) -> float:
    """The exact probability of class 1 of what is left of a text, over all deletions."""
    return sum(
        np.prod([1 - rate if keep else rate for keep in kept])
        * classify(tuple(word for word, keep in zip(text, kept, strict=True) if keep))
        for kept in product([True, False], repeat=len(text))
    )


def edited(text: Word, alphabet: str, kinds: str) -> set[Word]:
    """All texts one edit away."""
    found: set[Word] = set()
    for i in range(len(text) + 1):
        if "i" in kinds:
            found |= {(*text[:i], new, *text[i:]) for new in alphabet}
        if i < len(text) and "d" in kinds:
            found.add((*text[:i], *text[i + 1 :]))
        if i < len(text) and "s" in kinds:
            found |= {(*text[:i], new, *text[i + 1 :]) for new in alphabet}
    return found


KINDS = {"edits": "ids", "deletions": "d", "insertions": "i"}


@pytest.mark.parametrize("kind", EDITS)
def test_no_edit_within_the_radius_changes_the_vote(kind: str) -> None:
    """By brute force, for classifiers of any shape: 0 and 1 at random, mostly 1."""
    random, rate, certified = np.random.default_rng(0), 0.7, 0
    texts = [word for n in range(4) for word in product("ab", repeat=n)]
    for _ in range(6):
        table: dict[Word, int] = {}

        def classify(text: Word, table: dict[Word, int] = table) -> int:
            return table.setdefault(text, int(random.random() < 0.93))

        votes: dict[Word, float] = {}

        def vote(text: Word, votes: dict[Word, float] = votes, classify: Any = classify) -> float:
            if text not in votes:
                votes[text] = smoothed(classify, text, rate)
            return votes[text]

        for text in texts:
            edits = radius(vote(text), rate, kind)
            if edits is None:
                continue
            reached = {text}
            for _ in range(min(edits, 2)):
                reached |= {new for old in reached for new in edited(old, "ab", KINDS[kind])}
                certified += 1
            assert all(vote(other) > 0.5 for other in reached)
    assert certified > 20


@pytest.mark.parametrize("rate", [0.5, 0.8, 0.9])
def test_the_radius_is_the_largest_for_the_worst_classifier(rate: float) -> None:
    """A classifier that says 0 wherever it sees "c": a text of n of them keeps the vote with probability p^n."""
    sure = radius(1.0, rate)
    assert sure is not None
    assert rate**sure > 0.5 >= rate ** (sure + 1)
    # One that says 1 for what has lost its first words alone: after n deletions of others nothing is left of q.
    for q in np.linspace(0.51, 0.999, 40):
        found = {kind: radius(float(q), rate, kind) for kind in EDITS}
        assert found["edits"] <= min(found["deletions"], found["insertions"])
        assert found["edits"] == int(np.log(1.5 - q) / np.log(rate))
        assert found["deletions"] == int(np.log(2 * (1 - q)) / np.log(rate))
        assert found["insertions"] == int(np.log(1 / (2 * q)) / np.log(rate))


def test_without_a_majority_there_is_no_certificate() -> None:
    assert radius(0.5, 0.9) is None
    assert radius(0.2, 0.9) is None
    assert radius(1.0, 0.0) == 0
    # An exact tie is no majority: (1/2)^1 = 3/2 - 1.
    assert radius(1.0, 0.5) == 0


@pytest.mark.parametrize(("found", "trials"), [(4000, 4000), (3900, 4000), (10, 30), (0, 30)])
def test_the_lower_bound_is_clopper_pearsons(found: int, trials: int) -> None:
    bound = lower_bound(found, trials, 0.001)
    if found:
        assert stats.binom.sf(found - 1, trials, bound) == pytest.approx(0.001)
    else:
        assert bound == 0


def test_what_is_left_of_a_review() -> None:
    tokens = np.array([5, 6, 7, 8], np.int32)
    kept = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]], bool)
    found = left(tokens, kept)
    assert [found.sequence(i).tolist() for i in range(4)] == [[5, 7, 8], [UNKNOWN], [6, 8], [UNKNOWN]]
    cut = left(tokens, kept, most=2)
    assert [cut.sequence(i).tolist() for i in range(4)] == [[5, 7], [UNKNOWN], [6, 8], [UNKNOWN]]


class Counting:
    """A victim that finds a review positive where it reads an odd number of words, and counts what it reads."""

    task = BINARY

    def __init__(self) -> None:
        self.read = 0

    def logits(self, texts: Sequence[str]) -> Tensor:
        self.read += len(texts)
        return torch.tensor([[1.0 if len(text.split()) % 2 else -1.0] for text in texts])


class Sure(Counting):
    """One that finds a review positive unless it reads "bad"."""

    def logits(self, texts: Sequence[str]) -> Tensor:
        self.read += len(texts)
        return torch.tensor([[-1.0 if "bad" in text.split() else 1.0] for text in texts])


def certify(victim: Any, texts: Sequence[str], labels: Sequence[int], **settings: Any) -> Any:
    given = Texts(np.arange(10, 10 + len(texts)), texts, np.array(labels))
    return Certificate(**{"samples": 600, "selection": 100, "rate": 0.8, **settings})(victim, given)


def test_bounds_hold_of_a_classifier_in_closed_form() -> None:
    """P(odd number of words left) = (1 - (1 - 2 (1 - p))^n) / 2."""
    texts = ["a " * n for n in (1, 2, 3, 9)]
    exact = [(1 - (1 - 2 * 0.2) ** n) / 2 for n in (1, 2, 3, 9)]
    outcome = certify(Counting(), texts, [0, 0, 0, 0], samples=2000, selection=500)
    for probability, share, bound in zip(
        exact, outcome.columns["share"], outcome.columns["lower_bound"], strict=True
    ):
        assert share == pytest.approx(1 - probability, abs=0.04)
        if bound is not None:
            assert bound < 1 - probability


def test_certified_numbers_of_edits_and_what_is_spent_on_them() -> None:
    victim = Sure()
    outcome = certify(victim, ["good " * 30, "bad " * 30, "bad film"], [1, 1, 1])
    assert outcome.columns["vote"] == ["positive", "negative", "positive"]
    assert outcome.columns["samples"] == [600, 100, 600]
    assert victim.read == 1300 + 3  # and the reviews themselves
    bound = 0.001 ** (1 / 500)
    assert outcome.columns["lower_bound"][0] == pytest.approx(bound)
    assert outcome.columns["certified_edits"] == [radius(bound, 0.8), None, 0]
    results = outcome.results
    assert results["certificate"] == {"wrong": pytest.approx(1 / 3), "defence": None}
    assert results["curves"]["edits"]["accuracy"] == pytest.approx([2 / 3, 1 / 3, 1 / 3])
    shares = {name: value["estimate"] for name, value in results["measures"].items()}
    assert shares == pytest.approx(
        {"certified_0": 2 / 3, "certified_1": 1 / 3, "certified_2": 1 / 3, "certified_4": 0}
    )
    assert outcome.results["scores"]["raw"]["plain"]["accuracy"] == pytest.approx(1 / 3)
    assert outcome.columns["label"] == ["positive"] * 3


def test_a_review_is_judged_alike_whatever_the_others() -> None:
    texts = ["a bad film", "a good film and a bad one", "bad"]
    whole = certify(Sure(), texts, [1, 1, 0]).columns
    for i, text in enumerate(texts):
        given = Texts(np.array([10 + i]), [text], np.array([[1, 1, 0][i]]))
        alone = Certificate(samples=600, selection=100, rate=0.8)(Sure(), given).columns
        assert {key: values[0] for key, values in alone.items()} == {k: v[i] for k, v in whole.items()}
    assert certify(Sure(), texts, [1, 1, 0], workers=2).columns == whole


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"selection": 600}, "selection=600: expected fewer than samples=600"),
        ({"alpha": 0.0}, r"alpha=0.0: expected a number in \(0, 1\)"),
        ({"rate": 1.0}, r"rate=1.0: expected a number in \[0, 1\)"),
        ({"reviews": 0}, "reviews=0: expected a whole number of at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        certify(Sure(), ["a"], [1], **settings)


def test_a_multilabel_task_has_no_vote() -> None:
    victim = SimpleNamespace(task=Task("multilabel", ("a", "b")), logits=None)
    with pytest.raises(ValueError, match="multilabel task has no majority vote"):
        Certificate()(victim, Texts(np.arange(1), ["a"], np.ones((1, 2))))
