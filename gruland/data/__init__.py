"""Reviews in, batches of word ids out."""

from gruland.data.batches import Batch
from gruland.data.corpus import Corpus, Source
from gruland.data.encoded import Encoded, encode_texts, words_of
from gruland.data.module import Split, TextDataModule
from gruland.data.splits import subset

__all__ = [
    "Batch",
    "Corpus",
    "Encoded",
    "Source",
    "Split",
    "TextDataModule",
    "encode_texts",
    "subset",
    "words_of",
]
