"""What an argument must be: a value that is something else is refused in one line."""

from __future__ import annotations

from typing import Any


def check_whole(key: str, value: Any, least: int, null: str | None = None) -> None:
    """Refuse all but whole numbers of at least ``least``, and None where ``null`` says what that means.

    Raises:
        ValueError: such as ``seed=-1: expected a whole number of at least 0``.
    """
    if value is None and null:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        alternative = f", or null for {null}" if null else ""
        raise ValueError(f"{key}={value}: expected a whole number of at least {least}{alternative}")
