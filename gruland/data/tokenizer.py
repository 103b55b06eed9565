"""The words of a review, cut the way the corpora behind GloVe were.

GloVe's 6B vectors were trained on lower-cased text cut by Stanford's tokenizer: Penn Treebank rules, hyphens
and brackets kept (https://nlp.stanford.edu/software/tokenizer.shtml). The regular expression here holds those
of the rules that matter to reviews, in the forms that have a vector.
"""

from __future__ import annotations

import re

#: Part of the cache's key: raise it with any change below that moves a token.
VERSION = 1

# Typographic forms, and Windows-1252 bytes that IMDB has thousands of, as the forms that have a good vector.
_CHARACTERS = str.maketrans(
    dict.fromkeys("’‘´`\x91\x92", "'")
    | dict.fromkeys("“”„\x84\x93\x94", '"')
    | dict.fromkeys("–—\x96\x97", "--")
    | dict.fromkeys("…\x85", "...")
)

_L = r"[^\W\d_]"  # a letter of any alphabet
_TOKEN = re.compile(
    rf"""
      {_L}++(?![-'.])                                        # first, because most words are plain
    | (?:mr|mrs|ms|dr|st|vs|etc|jr|sr|prof)\.                # mr.
    | (?:{_L}\.){{2,}}                                       # u.s.  e.g.
    | {_L}+?(?=n't\b) | n't\b                                # did n't  ca n't
    | [od]'{_L}{{2,}}                                        # o'brien  d'angelo
    | {_L}+(?:-{_L}+)*                                       # well-known
    | '(?:s|m|d|ll|re|ve|em|til|cause|\d\ds)\b               # it 's  we 'll  'em  '80s
    | [1-9]\d*/[1-9]\d*\b                                    # 8/10
    | \d+(?:[.,:]\d+)*(?:st|nd|rd|th|s)?\b | \d+             # 7.5  1,000  1980s
    | \.\.\. | -{{2,}} | ''
    | [:;=][()] | :-\)
    | \S
    """,
    re.VERBOSE,
)


def tokenize(text: str) -> list[str]:
    """Cut a text into lower-case words, numbers and punctuation marks.

    >>> tokenize("It's great, isn't it?")
    ['it', "'s", 'great', ',', 'is', "n't", 'it', '?']
    """
    return _TOKEN.findall(text.lower().translate(_CHARACTERS))
