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
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gruland.perturbation import swaps
from gruland.perturbation.streams import Stream

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
    swaps.load()
    errors = _Errors(text)
    with Stream(seed):
        for names in MODES[mode]:
            errors.begin(names)
            errors.up_to(max(int(rate * len(errors.words)), 1))
    return errors.perturbed()


def perturb_more(
    text: str, rates: Sequence[float], names: Sequence[str], *, seed: Sequence[int]
) -> list[Perturbed]:
    """A text with more and more errors: at each rate those of the rates before it and some more.

    One pass, in which each error is of any of the kinds. Its text at a rate is what ``Augmenter`` may make of it at
    that rate; at 0 it is the text itself.

    Args:
        rates: swaps as a share of the words, rising; above 0 at least one.
        names: of :data:`gruland.perturbation.swaps.SWAPS`.
        seed: as :func:`perturb` has it.
    """
    swaps.load()
    errors, path = _Errors(text), []
    with Stream(seed):
        errors.begin(names)
        for rate in rates:
            errors.up_to(max(int(rate * len(errors.words)), 1) if rate else 0)
            path.append(errors.perturbed())
    return path


class _Errors:
    """A text that gets one error after the other."""

    def __init__(self, text: str) -> None:
        self._gaps, self.words = _cut(text, swaps.load().words)
        self._original, self._hits = list(self.words), [0] * len(self.words)

    def begin(self, names: Sequence[str]) -> None:
        """A pass of errors of these kinds."""
        kinds = [swaps.swap(name) for name in names]
        self._pairs, self._made = [(kind, i) for kind in kinds for i in range(len(self.words))], 0

    def up_to(self, number: int) -> None:
        """Make errors until the pass has so many; fewer where no word is left that can have one."""
        while self._made < number and (found := _first_offer(self._pairs, self.words)) is not None:
            index, replacement = found
            self._hits[index] += 1
            self._made += 1
            _replace(self._gaps, self.words, index, replacement)

    def perturbed(self) -> Perturbed:
        """The text as it is now."""
        changed = sum(a != b for a, b in zip(self._original, self.words, strict=True))
        text = _join(self._gaps, self.words)
        return Perturbed(text, len(self.words), changed, sum(n > 1 for n in self._hits))


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
        if not words[index]:  # a word that was dropped is none any more
            continue
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
    before, _, after = replacement.partition(word) if word else (replacement, "", "")
    gaps[index] += before
    words[index] = word
    gaps[index + 1] = after + gaps[index + 1]


def _join(gaps: list[str], words: list[str]) -> str:
    return "".join(gap + word for gap, word in zip(gaps, [*words, ""], strict=True))
