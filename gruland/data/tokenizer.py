"""The words of a review, cut the way the corpora behind GloVe were.

GloVe's 6B vectors were trained on lower-cased text cut by Stanford's tokenizer: Penn Treebank rules, hyphens
and brackets kept (https://nlp.stanford.edu/software/tokenizer.shtml). The regular expression here holds those
of the rules that matter to reviews, in the forms that have a vector.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from itertools import islice

#: Part of the cache's key: raise it with any change below that moves a token.
VERSION = 2

# Typographic forms, and Windows-1252 bytes that IMDB has thousands of, as the forms that have a good vector. Soft
# hyphens, zero-width spaces, word joiners and byte order marks are no part of any word.
_CHARACTERS = str.maketrans(
    dict.fromkeys("’‘´`\x91\x92", "'")
    | dict.fromkeys("“”„\x84\x93\x94", '"')
    | dict.fromkeys("–—\x96\x97", "--")
    | dict.fromkeys("…\x85", "...")
    | dict.fromkeys("\xad\u200b\u2060\ufeff", "")
)


def _ranges(characters: list[int]) -> str:
    """Code points, rising, as the inside of a character class."""
    starts = [c for c, before in zip(characters, [-2, *characters], strict=False) if c != before + 1]
    ends = [c for c, after in zip(characters, [*characters[1:], -2], strict=True) if c != after - 1]
    return "".join(f"\\U{start:08x}-\\U{end:08x}" for start, end in zip(starts, ends, strict=True))


# What belongs to the letter before it: combining marks (accents, vowel signs), zero-width joiner and non-joiner.
_MARKS = _ranges(
    [c for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c))[0] == "M" or c in (0x200C, 0x200D)]
)
_MARK = re.compile(f"[{_MARKS}]")


def _words(letter: str, anything: str) -> re.Pattern[str]:
    """The rules, given what is a letter and what is a character."""
    return re.compile(
        rf"""
          {letter}++(?![-'.])                                       # first, because most words are plain
        | (?:mr|mrs|ms|dr|st|vs|etc|jr|sr|prof)\.                   # mr.
        | (?:{letter}\.){{2,}}                                      # u.s.  e.g.
        | {letter}+?(?=n't\b) | n't\b                               # did n't  ca n't
        | [od]'{letter}{{2,}}                                       # o'brien  d'angelo
        | {letter}+(?:-{letter}+)*                                  # well-known
        | '(?:s|m|d|ll|re|ve|em|til|cause|\d\ds)\b                 # it 's  we 'll  'em  '80s
        | [1-9]\d*/[1-9]\d*\b                                      # 8/10
        | \d+(?:[.,:]\d+)*(?:st|nd|rd|th|s)?\b | \d+               # 7.5  1,000  1980s
        | \.\.\. | -{{2,}} | ''
        | [:;=][()] | :-\)
        | {anything}
        """,
        re.VERBOSE,
    )


_LETTER = r"[^\W\d_]"  # of any alphabet
_PLAIN = _words(_LETTER, r"\S")
# A letter with its marks; characters with theirs, joined ones (a family of emoji) together.
_MARKED = _words(rf"(?:{_LETTER}[{_MARKS}]*+)", rf"\S[{_MARKS}]*+(?:(?<=\u200d)[^\s\w][{_MARKS}]*+)*")


def tokenize(text: str, most: int | None = None) -> list[str]:
    """Cut a text into lower-case words, numbers and punctuation marks; with ``most`` into so many at most.

    Letters and their marks count as the characters that they make (Unicode's form NFC).

    >>> tokenize("It's great, isn't it?")
    ['it', "'s", 'great', ',', 'is', "n't", 'it', '?']
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    text = text.lower().translate(_CHARACTERS)
    # Few texts have marks, and the rules for them take longer.
    words = _PLAIN if text.isascii() or not _MARK.search(text) else _MARKED
    if most is None or len(text) < 1_000_000:
        return words.findall(text)
    return [match.group() for match in islice(words.finditer(text), most)]
