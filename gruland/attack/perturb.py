"""Typing errors in reviews, as TextAttack's ``Augmenter`` makes them, in linear time.

``Augmenter(swap, pct_words_to_swap=rate).augment(text)``, with its defaults (no constraints, one text),
repeats ``max(int(rate * words), 1)`` times: build every text that differs from the current one by one swap
of one word, and choose one of them uniformly. A swap offers at most one replacement of a word, drawn at
random, and sometimes none (a word of one letter; a digit where a key was to be hit). So the choice is
uniform over the (swap, word) pairs that happen to offer one, and such a pair is also the first to be found
when all pairs are gone through in a uniformly random order, each asked when its turn comes: a few calls of
TextAttack's swaps in place of a call and a copy of the text for every word. A word may be hit again; then
fewer than ``rate`` of the words change.
"""

from __future__ import annotations

import html
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from gruland.attack import swaps

#: The swaps of each pass over a text, by name. The paper's printed example (section 4.4) changes 15 of 37
#: words, five of them twice, one of these by two neighbouring keys ("even" -> "rvfn"): two passes that hit
#: words again.
MODES = {"sequence": (("delete",), ("qwerty",)), "composite": (("delete", "qwerty"),)}

_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_EDGES = "'-_*@"  # parts of a word for TextAttack, but for its first and last character
_APOSTROPHE = re.compile("['’‘`´\x91\x92]")


class Perturbed(NamedTuple):
    """A perturbed text."""

    text: str
    words: int  # in the text
    changed: int  # words that differ from the original
    hit_again: int  # words that were swapped more than once


def strip(text: str) -> str:
    """Keep a text's letters: "removing all the special characters, HTML tags and numbers" (section 5).

    Tags become a space, HTML entities their character, apostrophes vanish (the paper prints "didnt" and
    "Maltins"); every other character that is no letter in Unicode's sense separates words, so that
    "good...but" does not become a new word, and the words are joined by single spaces. The dots that end
    the paper's example stand for the rest of the review: its other full stops are gone.
    """
    text = _APOSTROPHE.sub("", html.unescape(_TAG.sub(" ", text)))
    return " ".join("".join(c if c.isalpha() else " " for c in text).split())


def perturb(text: str, *, rate: float = 0.3, mode: str = "sequence", seed: Sequence[int] = (0,)) -> Perturbed:
    """Delete letters and hit neighbouring keys in some words of a text.

    Args:
        text: cut into words as TextAttack does it; everything between the words stays as it is.
        rate: swaps of a pass, as a share of the words, rounded down; at least one, as in ``Augmenter``.
        mode: ``sequence`` (a pass of ``WordSwapRandomCharacterDeletion``, then one of ``WordSwapQWERTY``) or
            ``composite`` (one pass in which each swap is of either kind).
        seed: whole numbers >= 0. The result is a pure function of the text and these arguments; the global
            random states, from which TextAttack draws, are left as they were.

    Raises:
        ImportError: TextAttack is not installed.
        ValueError: an unknown mode, or a rate outside [0, 1].
    """
    check(rate, mode)
    textattack = swaps.load()
    gaps, words = _cut(text, textattack.words)
    original, hits = list(words), [0] * len(words)
    with _seeded(seed):
        for names in MODES[mode]:
            pairs = [(getattr(textattack, name), i) for name in names for i in range(len(words))]
            for _ in range(max(int(rate * len(words)), 1)):
                found = _first_offer(pairs, words)
                if found is None:
                    break
                index, replacement = found
                hits[index] += 1
                _replace(gaps, words, index, replacement)
    changed = sum(a != b for a, b in zip(original, words, strict=True))
    return Perturbed(_join(gaps, words), len(words), changed, sum(n > 1 for n in hits))


def check(rate: float, mode: str) -> None:
    """Refuse what :func:`perturb` cannot do."""
    if mode not in MODES:
        raise ValueError(f"mode={mode}: expected {' or '.join(MODES)}")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
        raise ValueError(f"rate={rate}: expected a number in [0, 1]")


def _first_offer(pairs: list[tuple[Any, int]], words: list[str]) -> tuple[int, str] | None:
    """Go through the (swap, word) pairs in random order, up to the first that offers another word."""
    for k in range(len(pairs)):
        j = random.randrange(k, len(pairs))
        pairs[k], pairs[j] = pairs[j], pairs[k]
        swap, index = pairs[k]
        for replacement in swap._get_replacement_words(words[index]):
            if replacement != words[index]:
                return index, replacement
    return None


def _cut(text: str, words_from_text: Callable[[str], list[str]]) -> tuple[list[str], list[str]]:
    """What stands before each word and after the last one, [words + 1], and the words."""
    gaps, words, end = [], words_from_text(text), 0
    for word in words:
        start = text.index(word, end)
        gaps.append(text[end:start])
        end = start + len(word)
    return [*gaps, text[end:]], words


def _replace(gaps: list[str], words: list[str], index: int, replacement: str) -> None:
    """Put a replacement into the text; a hyphen that it now begins with is no longer the word's."""
    word = replacement.strip(_EDGES)
    before, _, after = replacement.partition(word)
    gaps[index] += before
    words[index] = word
    gaps[index + 1] = after + gaps[index + 1]


def _join(gaps: list[str], words: list[str]) -> str:
    return "".join(gap + word for gap, word in zip(gaps, [*words, ""], strict=True))


@contextmanager
def _seeded(seed: Sequence[int]) -> Iterator[None]:
    """Seed the global states from which TextAttack draws, and put them back."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002 - TextAttack knows no generators
    entropy = np.random.SeedSequence(list(seed)).generate_state(8)
    random.seed(entropy[:4].tobytes())
    np.random.seed(entropy[4:])  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
