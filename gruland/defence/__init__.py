"""Defences: one class each, all of the interface in :mod:`gruland.defence.base`."""

from gruland.defence.base import Defence
from gruland.defence.char_augment import CharAugment
from gruland.defence.fgm import FGM
from gruland.defence.free_lb import FreeLB
from gruland.defence.none import NoDefence
from gruland.defence.vat import VAT
from gruland.defence.vectors import VectorDefence
from gruland.defence.word_deletion import WordDeletion

__all__ = [
    "FGM",
    "VAT",
    "CharAugment",
    "Defence",
    "FreeLB",
    "NoDefence",
    "VectorDefence",
    "WordDeletion",
]
