"""Noise at rising rates: the errors of one pass, and what the models make of them."""

from __future__ import annotations

import pytest

from gruland.attack import swaps
from gruland.attack.perturb import perturb, perturb_more

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
