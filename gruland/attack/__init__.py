"""How a classifier stands what is done to the texts that it reads: attacks, a file each.

An attack is a dataclass that follows :class:`Attack`; conf/attack has a file for each.
"""

from __future__ import annotations

from gruland.lazy import getter

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
__getattr__ = getter(__name__, _EXPORTS)
