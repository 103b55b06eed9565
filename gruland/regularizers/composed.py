"""Several regularizers at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gruland.regularizers.base import SIZES, Regularizer


class Composed(Regularizer):
    """Several regularizers, one after the other.

    Args:
        parts: by name, for instance ``{"zoneout": Zoneout(0.1), "dropconnect": DropConnect(0.05)}``; in the
            configuration their settings are ``regularizer.parts.zoneout.rate`` and so on.

    Raises:
        ValueError: no part.
    """

    def __init__(self, parts: Mapping[str, Regularizer]) -> None:
        if not parts:
            raise ValueError("parts={}: expected at least one regularizer")
        self.parts = dict(parts)
        self.name = "_".join(part.name for part in self.parts.values())  # type: ignore[misc]
        self.title = " + ".join(part.title for part in self.parts.values())  # type: ignore[misc]
        self.zoneout = sum(part.zoneout for part in self.parts.values())
        self.dropconnect = sum(part.dropconnect for part in self.parts.values())

    @property
    def grid(self) -> Mapping[str, Sequence[Any]]:  # type: ignore[override]
        """The parts' grids; what is ``regularizer.rate`` of a part is ``regularizer.parts.<name>.rate`` here."""
        own = {
            key.replace("regularizer.", f"regularizer.parts.{name}.", 1): values
            for name, part in self.parts.items()
            for key, values in part.grid.items()
        }
        return {**SIZES, **own}
