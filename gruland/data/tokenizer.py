"""The words of a review, cut as in the corpora that GloVe was trained on."""

from __future__ import annotations

import re

#: Part of the cache's key: raise it whenever a change below moves a single token.
VERSION = 1

#: Typographic forms and stray Windows-1252 bytes (IMDB has thousands), as the vectors know them.
_CHARACTERS = str.maketrans(
    {
        "’": "'",
        "‘": "'",
        "´": "'",
        "`": "'",
        "\x91": "'",
        "\x92": "'",
        "“": '"',
        "”": '"',
        "\x93": '"',
        "\x94": '"',
    }
    | {"…": "...", "\x85": "...", "–": "--", "—": "--", "\x96": "--", "\x97": "--"}
)

_LETTER = r"[^\W\d_]"
_WORD = rf"{_LETTER}+(?:-{_LETTER}+)*"
_TOKENS = re.compile(
    rf"""
    \.\.\. | -{{2,}}                                       # ellipsis, dashes
    | [:;=]-?[()]                                          # emoticons
    | (?:mr|mrs|ms|dr|st|vs|etc|jr|sr|prof)\.              # abbreviations
    | (?:{_LETTER}\.){{2,}}                                # u.s., e.g.
    | \d+(?:[.,:/]\d+)*(?:st|nd|rd|th|s)?\b                # 10/10, 1,000, 1980s
    | {_LETTER}+?(?=n't\b) | n't\b                         # did n't, ca n't
    | '(?:s|m|d|ll|re|ve|em|til|cause)\b                   # it 's, they 'll
    | [od]'{_LETTER}{{2,}}                                 # o'brien, d'angelo
    | {_WORD}
    | \S
    """,
    re.VERBOSE,
)


def tokenize(text: str) -> list[str]:
    """Cut a text into lower-case words."""
    return _TOKENS.findall(text.lower().translate(_CHARACTERS))
