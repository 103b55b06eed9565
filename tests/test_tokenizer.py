import os
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gruland.data import tokenizer
from gruland.data.tokenizer import tokenize

CASES = {
    "I didn't, you can't, we won't": "i did n't , you ca n't , we wo n't",
    "It's hers; they'll say I'm sure we've": "it 's hers ; they 'll say i 'm sure we 've",
    "the Joneses' house, John's": "the joneses ' house , john 's",
    "a well-known, so-called U.S. film by Mr. Smith.": "a well-known , so-called u.s. film by mr. smith .",
    "It ends. Really": "it ends . really",
    "8/10, 7.5/10, the 1980s": "8/10 , 7.5 / 10 , the 1980s",
    "1,000 people, 3.5 hours, 2nd": "1,000 people , 3.5 hours , 2nd",
    "0/10 in the '80s": "0 / 10 in the '80s",
    "wait... what -- no!!! yes?!": "wait ... what -- no ! ! ! yes ? !",
    'He said "hi" (twice) [sic]': 'he said " hi " ( twice ) [ sic ]',
    "good :) bad :( fine :-)": "good :) bad :( fine :-)",
    "O'Brien and D'Angelo's": "o'brien and d'angelo 's",
    "isn’t it “great” – yes… \x96 no": 'is n\'t it " great " -- yes ... -- no',
    "A<br /><br />B": "a < br / > < br / > b",
    "Amélie's café": "amélie 's café",
    "_Titanic_ and & more": "_ titanic _ and & more",
    "1234abc 2rd": "1234 abc 2rd",
    "": "",
    " \n\t ": "",
    # Marks, joiners and non-joiners belong to their letter, whatever the script.
    "यह फिल्म बहुत अच्छी है।": "यह फिल्म बहुत अच्छी है ।",
    "می\u200cخواهم، क्\u200dष": "می\u200cخواهم ، क्\u200dष",
    "cafe\u0301 and cafe\u0301s": "café and cafés",
    "x\u0302-y\u0302 didn't": "x\u0302-ŷ did n't",
    "I \u2764\ufe0f it": "i \u2764\ufe0f it",
    "👨\u200d👩\u200d👧 films": "👨\u200d👩\u200d👧 films",
    # What has no width of its own belongs to nothing.
    "wonder\u00adful fi\u200blm \ufeffgood": "wonderful film good",
}


@pytest.mark.parametrize(("text", "words"), CASES.items())
def test_forms(text, words):
    assert tokenize(text) == words.split()


def test_the_two_sets_of_rules_agree_where_there_is_no_mark():
    random = np.random.default_rng(1)
    letters = list("aAbBnNtTsSdDoO'.,-/:;=()!?0123456789éß漢_ \n\t<>\"")
    for _ in range(500):
        text = "".join(random.choice(letters, size=random.integers(0, 60))).lower()
        assert tokenizer._PLAIN.findall(text) == tokenizer._MARKED.findall(text)


def test_composed_and_decomposed_texts_have_the_same_words():
    text = "Amélie's naïve café, Ångström - über 8/10"
    assert tokenize(unicodedata.normalize("NFD", text)) == tokenize(text)


def test_a_long_text_is_cut_into_its_first_words_alone():
    text = "It's a good film. " * 80_000
    assert tokenize(text, 7) == tokenize(text)[:7] == tokenize("It's a good film. It's a")[:7]


def test_nothing_is_lost_or_invented():
    """The words, put together, are the lower-cased text without its spaces."""
    random = np.random.default_rng(0)
    letters = list("aAbBnNtTsSdDoO'.,-/:;=()!?0123456789éß漢_ \n\t<>\"")
    for _ in range(500):
        text = "".join(random.choice(letters, size=random.integers(0, 60)))
        words = tokenize(text)
        assert "".join(words) == "".join(text.lower().split())
        assert not any(word == "" or word != word.strip() for word in words)


def test_agrees_with_the_penn_treebank_rules():
    nltk = pytest.importorskip("nltk", reason="NLTK (extra `attack`) is the oracle")
    oracle = nltk.tokenize.TreebankWordTokenizer()
    for text in (
        "They didn't see that it's over, and she'd gone home.",
        "I can't believe we're here (again); you'll love it!",
        "What a well-made, low-budget film: isn't that something?",
        "Nobody's perfect, but the actors' work wasn't bad & the rest [of it] is fine.",
        "We've paid $ 10 for 1,000 minutes, 3.5 of them good...",
    ):
        assert tokenize(text) == oracle.tokenize(text.lower())


@pytest.mark.skipif("GRULAND_DATA" not in os.environ, reason="GRULAND_DATA names no folder with imdb.parquet")
def test_covers_the_full_imdb():
    import pyarrow.parquet as pq

    data = Path(os.environ["GRULAND_DATA"])
    with (data / "glove.6B.100d.txt").open(encoding="utf-8", newline="\n") as file:
        known = {line.split(" ", 1)[0] for line in file}
    counts: Counter[str] = Counter()
    for text in pq.read_table(data / "imdb.parquet", columns=["text"])["text"].to_pylist()[::10]:
        counts.update(tokenize(text))
    covered = sum(count for word, count in counts.items() if word in known)
    assert covered / counts.total() > 0.985
