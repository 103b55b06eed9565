"""TextAttack's two word swaps, imported late, quietly and on any machine.

``import textattack`` takes six to eight seconds, most of them flair's, on which its texts are built. Left
to itself it also downloads NLTK packages first (without a network: tries to), wants a writable
``~/.cache/textattack``, fails where NLTK's stopwords are absent, silences other loggers and moves other
libraries' caches. :func:`load` keeps all of that away; no part of TextAttack or of its needs is replaced.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

logger = logging.getLogger(__name__)

#: English function words in NLTK's corpus layout, for machines without NLTK's own list.
NLTK_DATA = Path(__file__).with_name("nltk_data")


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
    return Swaps(WordSwapRandomCharacterDeletion(), WordSwapQWERTY(), words_from_text)


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
    import datasets  # noqa: F401
    import flair  # noqa: F401

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
