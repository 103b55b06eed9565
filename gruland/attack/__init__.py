"""How a classifier stands typing errors in the reviews that it reads."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["Outcome", "Settings", "attack", "evaluate_run"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("gruland.attack.evaluate"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
