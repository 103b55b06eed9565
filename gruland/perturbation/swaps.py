"""TextAttack's two word swaps, imported late, quietly and on any machine.

``import textattack`` takes six to eight seconds, most of them flair's, on which its texts are built. Left
to itself it also downloads NLTK packages first (without a network: tries to), wants a writable
``~/.cache/textattack``, fails where NLTK's stopwords are absent, silences other loggers and moves other
libraries' caches. :func:`load` keeps all of that away; no part of TextAttack or of its needs is replaced.
"""

from __future__ import annotations

import importlib.metadata
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest.mock import patch

logger = logging.getLogger(__name__)

_CHINESE = re.compile("[\u4e00-\u9fff]")
#: English function words in NLTK's corpus layout, for machines without NLTK's own list.
NLTK_DATA = Path(__file__).with_name("nltk_data")


#: Errors in one word by their names: a class of TextAttack's and its arguments.
SWAPS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "delete": ("WordSwapRandomCharacterDeletion", {}),
    "qwerty": ("WordSwapQWERTY", {}),
    "insert": ("WordSwapRandomCharacterInsertion", {}),
    "substitute": ("WordSwapRandomCharacterSubstitution", {}),
    "exchange": ("WordSwapNeighboringCharacterSwap", {}),
    "homoglyph": ("WordSwapHomoglyphSwap", {"random_one": True}),
    "invisible": ("WordSwapInvisibleCharacters", {"random_one": True}),
    "backspace": ("WordSwapDeletions", {"random_one": True}),
    "reorder": ("WordSwapReorderings", {"random_one": True}),
    "drop": ("WordDeletion", {}),
    "extend": ("WordSwapExtend", {}),
}


class Swaps(NamedTuple):
    """What the attack takes from TextAttack."""

    delete: Any  # WordSwapRandomCharacterDeletion: draws from numpy's global state
    qwerty: Any  # WordSwapQWERTY: draws from the global state of `random`
    words: Callable[[str], list[str]]  # how TextAttack cuts a text into words


@cache
def load() -> Swaps:
    """Import TextAttack: no network, no writable home, no NLTK data needed.

    Raises:
        ImportError: TextAttack or one of its needs is not installed, with the extra that brings it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside flair, jieba and others
            _provide_stopwords()
            with _private_cache():
                from textattack.shared.utils import words_from_text
                from textattack.transformations import WordSwapQWERTY, WordSwapRandomCharacterDeletion
    except ImportError as error:
        raise _missing(error) from error
    return Swaps(WordSwapRandomCharacterDeletion(), WordSwapQWERTY(), _by_chunks(words_from_text))


def _by_chunks(cut: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """The same words from what was cut before: TextAttack cuts each chunk between white space by itself.

    A text in Chinese, in which jieba looks for words across chunks, is cut whole.
    """
    of_chunk = lru_cache(2**16)(lambda chunk: tuple(cut(chunk)))

    def words(text: str) -> list[str]:
        if _CHINESE.search(text):
            return cut(text)
        return [word for chunk in text.split() for word in of_chunk(chunk)]

    return words


@cache
def swap(name: str) -> Any:
    """The swap of a name in :data:`SWAPS`: its ``_get_replacement_words(word)`` offers other words."""
    load()
    from textattack import transformations
    from textattack.shared.data import EXTENSION_MAP

    if name == "drop":
        return _OneWord(lambda word: [""])
    if name == "extend":
        return _OneWord(lambda word: [EXTENSION_MAP[word]] if word in EXTENSION_MAP else [])
    kind, options = SWAPS[name]
    if name == "homoglyph":
        return homoglyphs(**options)
    return getattr(transformations, kind)(**options)


def homoglyphs(random_one: bool = False) -> Any:
    """``WordSwapHomoglyphSwap`` for single words. Needs :func:`load` before.

    Its constructor reads a file of more look-alikes, for whole texts, that TextAttack's wheel does not have (0.3.11).
    """
    from textattack.transformations.word_swaps import word_swap_homoglyph_swap as module

    with patch.object(module, "open", lambda *_, **__: io.StringIO(), create=True):
        return module.WordSwapHomoglyphSwap(random_one=random_one)


class _OneWord:
    """A transformation of one word that TextAttack has for whole texts alone."""

    def __init__(self, offer: Callable[[str], list[str]]) -> None:
        self._get_replacement_words = offer


@cache
def stopwords() -> tuple[frozenset[str], str]:
    """English words without a meaning of their own, and whose list it is. Needs :func:`load` before.

    TextAttack's own constraint takes NLTK's list; where that is not installed the package's own takes its place.
    """
    import nltk

    words = frozenset(nltk.corpus.stopwords.words("english"))
    own = str(nltk.corpus.stopwords.root).startswith(str(NLTK_DATA))
    name = "gruland's own list, for NLTK's is not installed" if own else "NLTK's list"
    return words, f"{name}: {len(words)} words"


@cache
def wordnet() -> Any:
    """TextAttack's ``WordSwapWordNet`` on NLTK's WordNet, without asking the network for more languages.

    Raises:
        ImportError: WordNet is not installed, with the command that brings it.
    """
    load()
    import nltk
    from textattack.transformations import WordSwapWordNet

    download, nltk.download = nltk.download, lambda *_, **__: True
    try:
        swap = WordSwapWordNet()
        swap._get_replacement_words("good")
        return swap
    except LookupError:
        raise ImportError(
            "this attack needs WordNet: python -m nltk.downloader wordnet, or a folder that has corpora/wordnet in "
            "NLTK_DATA"
        ) from None
    finally:
        nltk.download = download


@cache
def stopwords_of_textfooler() -> frozenset[str]:
    """The list that ``TextFoolerJin2019.build`` holds, taken from there without its downloads. Needs :func:`load`."""
    from textattack.attack_recipes import textfooler_jin_2019 as module
    from textattack.constraints.pre_transformation import StopwordModification

    nothing: dict[str, Any] = dict.fromkeys(
        (
            "WordSwapEmbedding",
            "WordEmbeddingDistance",
            "UniversalSentenceEncoder",
            "UntargetedClassification",
        ),
        lambda *_, **__: None,
    )
    with patch.multiple(module, Attack=lambda goal, constraints, *_: constraints, **nothing):
        constraints = module.TextFoolerJin2019.build(None)
    return frozenset(next(c for c in constraints if isinstance(c, StopwordModification)).stopwords)


def check_tagger() -> None:
    """Raises ImportError where NLTK's tagger is not installed, with the command that brings it."""
    import nltk

    try:
        nltk.pos_tag(["good"], tagset="universal")
    except LookupError:
        raise ImportError(
            "this attack needs NLTK's tagger: python -m nltk.downloader averaged_perceptron_tagger_eng "
            "universal_tagset, or a folder that has them in NLTK_DATA"
        ) from None


def version() -> str:
    """TextAttack's version, without importing it.

    Raises:
        ImportError: as :func:`load`.
    """
    try:
        return importlib.metadata.version("textattack")
    except importlib.metadata.PackageNotFoundError as error:
        raise _missing(error) from error


def _missing(error: ImportError) -> ImportError:
    return ImportError(
        f"the adversarial evaluation needs TextAttack ({error}): "
        "pip install 'gruland[attack]', or leave it out with attack=none"
    )


def _provide_stopwords() -> None:
    """Point NLTK at the project's list where it has none: TextAttack wants one on import, the swaps never."""
    import nltk

    try:
        nltk.corpus.stopwords.words("english")
    except LookupError:
        nltk.data.path.append(str(NLTK_DATA))
        count = len(nltk.corpus.stopwords.words("english"))
        logger.info(
            "NLTK's stopwords are not installed: using gruland's own list of %d words, which the character "
            "swaps do not consult (python -m nltk.downloader stopwords installs NLTK's)",
            count,
        )


@contextmanager
def _private_cache() -> Iterator[None]:
    """Give TextAttack's import a cache folder that says its downloads are done; undo what else it does."""
    if "textattack" in sys.modules:
        yield
        return
    # With TA_CACHE_DIR set TextAttack redirects HF_HOME and XDG_CACHE_HOME, which these two read on import.
    import datasets  # noqa: F401  # for what it does on import
    import flair  # noqa: F401  # the same

    environment = dict(os.environ)
    loggers = [item for item in logging.root.manager.loggerDict.values() if isinstance(item, logging.Logger)]
    disabled = [item.disabled for item in loggers]
    with TemporaryDirectory() as folder:
        Path(folder, "post_install_check_3").touch()
        os.environ["TA_CACHE_DIR"] = folder
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(environment)
            for item, state in zip(loggers, disabled, strict=True):
                item.disabled = state  # TextAttack's logging.config call disables whatever exists
    install: Any = sys.modules["textattack.shared.utils.install"]
    install.TEXTATTACK_CACHE_DIR = environment.get("TA_CACHE_DIR", os.path.expanduser("~/.cache/textattack"))
