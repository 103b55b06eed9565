"""How a classifier stands what is done to the texts that it reads: attacks, a file each.

An attack is a dataclass that follows :class:`Attack`; conf/attack has a file for each.
"""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "Attack": "base",
    "Certificate": "certificate",
    "Contrast": "contrast",
    "DeepWordBug": "deepwordbug",
    "Effort": "verdict",
    "EmbeddingPGD": "embedding_pgd",
    "HotFlip": "hotflip",
    "Noise": "noise",
    "OpenVictim": "base",
    "Outcome": "base",
    "PWWS": "pwws",
    "Pruthi": "pruthi",
    "RandomVictim": "base",
    "TextBugger": "textbugger",
    "TextFooler": "textfooler",
    "Texts": "base",
    "Threat": "threat",
    "Transfer": "transfer",
    "TypingErrors": "typing_errors",
    "Victim": "base",
    "build": "run",
    "evaluate_run": "run",
    "score_forms": "base",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"gruland.attack.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
