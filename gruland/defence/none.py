"""The usual training."""

from __future__ import annotations

from gruland.defence.base import Defence


class NoDefence(Defence):
    """The reviews are read as they are."""

    name, title = "none", "No defence"
