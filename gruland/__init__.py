"""Study what regularization does to a recurrent network.

``GRU`` is the regularized layer, ``compose`` and ``train`` do what the command does, ``runs.load`` reads a run
again. Everything heavy is imported when it is first touched.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "GRU": "gruland.gru",
    "Draw": "gruland.regularizers",
    "compose": "gruland.config",
    "load": "gruland.runs",
    "validate": "gruland.experiment",
}
__all__ = ["GRU", "Draw", "compose", "load", "validate"]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    if name in ("attack", "kernels", "landscape", "report", "runs", "train"):
        return importlib.import_module(f"gruland.{name}")
    raise AttributeError(f"module 'gruland' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
