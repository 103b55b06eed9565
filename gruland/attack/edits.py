"""A text whose words are replaced one at a time, by the rules of TextAttack's ``AttackedText``.

``AttackedText`` rebuilds the whole text for every candidate. Here a candidate is a splice, and the words are cut anew
only when one is taken. The rules are TextAttack's 0.3.11, down to the space that a deleted word takes with it and to
indices that mean other words once a replacement was two words or none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Cut = Callable[[str], list[str]]


@dataclass(frozen=True, eq=False)
class EditedText:
    """A text under attack.

    Args:
        text: as the model reads it.
        cut: how a text is cut into words: TextAttack's ``words_from_text``.
        modified: indices of the words that were replaced.
        replaced: how many replacements led here.
        origin: the candidate that this text was, None for the original.
    """

    text: str
    cut: Cut
    modified: frozenset[int] = frozenset()
    replaced: int = 0
    origin: Candidate | None = None

    @cached_property
    def words(self) -> list[str]:
        """As TextAttack numbers them."""
        return self.cut(self.text)

    @cached_property
    def starts(self) -> list[int]:
        """Where each word begins in the text."""
        starts, end = [], 0
        for word in self.words:
            start = self.text.index(word, end)
            starts.append(start)
            end = start + len(word)
        return starts

    def itself(self) -> Candidate:
        """The text unchanged, as a candidate."""
        return Candidate(self, self.text, len(self.text), len(self.text), "", 0)

    def replace(self, index: int, replacement: str) -> Candidate:
        """The text with another word, or with several or none, in the place of one."""
        start = self.starts[index]
        end = start + len(self.words[index])
        # A word that goes leaves one space: the one before it, or after the first word.
        if end < len(self.text) and not self._has_words(replacement):
            if index == 0:
                end += self.text[end] == " "
            elif self.text[start - 1] == " ":
                start -= 1
        text = f"{self.text[:start]}{replacement}{self.text[end:]}"
        return Candidate(self, text, start, end, replacement, index)

    def _has_words(self, replacement: str) -> bool:
        return any(map(str.isalnum, replacement)) or bool(self.cut(replacement))


@dataclass(eq=False, slots=True)
class Candidate:
    """A text that differs from another one in one place: ``text[:start]`` and what follows ``end`` are the base's.

    Args:
        base: the text that it was made from.
        text: the whole of it.
        start, end: which characters of the base's text gave way.
        replacement: what stands there now.
        index: of the replaced word in the base.
        similarity: to the text that it is compared with, where a constraint measures one.
    """

    base: EditedText
    text: str
    start: int
    end: int
    replacement: str
    index: int
    similarity: float | None = None

    @property
    def pieces(self) -> int:
        """How many words the replacement is."""
        return len(self.base.cut(self.replacement))

    def taken(self) -> EditedText:
        """The text that the search goes on from."""
        base, index, pieces = self.base, self.index, self.pieces
        shift = pieces - 1
        modified: Iterable[int] = base.modified
        if shift:
            # A replaced word that has become several, or none, is no longer one of the modified words itself.
            modified = {i + shift * (i > index) for i in modified if i != index}
        changes = self.replacement != base.words[index]
        new = frozenset({*modified, *range(index, index + pieces * changes)})
        return EditedText(self.text, base.cut, new, base.replaced + changes, self)


def different_words(candidate: Candidate, original: EditedText) -> int:
    """How many words of a candidate differ from those of the original in the same place."""
    base = candidate.base
    if candidate.pieces == 1 and len(base.words) == len(original.words):
        # One word alone changes: the others differ or not as they did.
        words: list[Any] = [*base.words]
        words[candidate.index] = base.cut(candidate.replacement)[0]
    else:
        words = base.cut(candidate.text)
    return sum(a != b for a, b in zip(words, original.words, strict=False))
