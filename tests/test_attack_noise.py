"""Noise at rising rates: the errors of one pass, and what the models make of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from gruland.attack import Noise, Texts
from gruland.perturbation import swaps
from gruland.perturbation.perturb import perturb, perturb_more
from gruland.task import Task

TEXT = "I didn't even want to watch this movie after reading Maltin's review, one and a half star rating."


@pytest.fixture(autouse=True, scope="module")
def textattack() -> swaps.Swaps:
    """TextAttack, imported before any test does it in TextAttack's own way."""
    return swaps.load()


def test_a_rate_has_the_errors_of_one_pass_at_that_rate() -> None:
    rates = [0.0, 0.2, 0.5, 1.0]
    for seed in range(5):
        path = perturb_more(TEXT, rates, ("delete", "qwerty"), seed=(seed,))
        assert path[0].text == TEXT
        for rate, errors in zip(rates[1:], path[1:], strict=True):
            assert errors == perturb(TEXT, rate=rate, mode="composite", seed=(seed,))


@pytest.mark.parametrize("name", swaps.SWAPS)
def test_every_swap_changes_words_and_only_these(name: str) -> None:
    none, some = perturb_more(TEXT, [0.0, 0.3], (name,), seed=(1,))
    assert none.changed == 0
    assert some.text != TEXT
    # 18 words: five errors, or fewer words that can have one.
    assert 1 <= some.changed <= 5
    gone = [word for word in TEXT.split() if word not in some.text.split()]
    assert len(gone) == some.changed


def test_a_text_without_words_stays_as_it_is() -> None:
    assert [p.text for p in perturb_more("...", [0.0, 0.5], tuple(swaps.SWAPS), seed=(0,))] == ["...", "..."]
    dropped = perturb_more("so bad", [1.0], ("drop", "delete", "homoglyph"), seed=(3,))[0]
    assert dropped.words == 2


class Counting:
    """Takes a review for positive that has at least four words "good"."""

    task = Task("binary", ("negative", "positive"))

    def logits(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.tensor([[text.split().count("good") - 3.5] for text in texts])


def test_curves_say_what_becomes_of_the_accuracy() -> None:
    texts = ["good " * 8 + "b " * 4, "(good) " * 10, "bad, bad!" * 3]
    sample = Texts(np.arange(3) + 7, texts, np.array([1, 1, 0]))
    noise = Noise(swaps=["delete", "drop"], rates=[0.0, 0.3, 1.0])
    results, columns = noise(Counting(), sample)
    curves = results["curves"]
    assert set(curves) == {"rate", "rate_delete", "rate_drop"}
    for name in ("rate", "rate_delete", "rate_drop"):
        assert curves[name]["at"] == [0.0, 0.3, 1.0]
        assert curves[name]["accuracy"][0] == 1.0
        assert curves[name]["accuracy"] == sorted(curves[name]["accuracy"], reverse=True)
    # Without words no review is positive any more.
    assert curves["rate_drop"]["accuracy"][2] == pytest.approx(1 / 3)
    row = columns["id"].index(8)
    assert columns["raw"][row] == texts[1]
    assert columns["stripped"][row] == "good " * 9 + "good"
    assert results["achieved_rate"] == pytest.approx(sum(columns["changed"]) / sum(columns["words"]))
    assert results["measures"]["accuracy_under_attack"]["estimate"] == curves["rate"]["accuracy"][-1]
    assert noise(Counting(), sample) == (results, columns)
    raw, again = Noise(swaps=["drop"], rates=[0.0], letters=False)(Counting(), sample)
    assert set(raw["curves"]) == {"rate"}
    assert again["noisy"] == again["raw"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"swaps": ["delete", "nosuch"]}, "swaps=['delete', 'nosuch']: expected some of delete, qwerty"),
        ({"swaps": []}, "swaps=[]: expected some of"),
        ({"rates": [0.3, 0.1]}, "rates=[0.3, 0.1]: expected rising numbers"),
        ({"rates": [0.3, 1.1]}, "rates=[0.3, 1.1]: expected numbers in [0, 1]"),
        ({"rates": ["much"]}, "rates=['much']: expected numbers in [0, 1]"),
        ({"letters": 1}, "letters=1: expected true or false"),
        ({"reviews": 0}, "reviews=0: expected a whole number of at least 1"),
    ],
)
def test_refuses_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Noise(**settings)
