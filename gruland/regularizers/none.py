"""The baseline."""

from __future__ import annotations

from gruland.regularizers.base import Regularizer


class NoDropout(Regularizer):
    """Nothing is regularized."""

    name, title = "none", "No dropout"
