"""Colours that survive grey print and colour blindness.

Losses: viridis, whose lightness rises with the loss. Models: the palette of Okabe and Ito ("Color Universal
Design", 2008) without its yellow, which is lost on white paper, ordered so that neighbours and the first three
differ in lightness. A colour never stands alone: each model also has a line style and a marker of its own.
"""

from __future__ import annotations

from typing import Any

#: Of losses.
COLORS = "viridis"

#: Of models: blue, orange, black, bluish green, reddish purple, vermilion, sky blue.
CATEGORIES = ("#0072B2", "#E69F00", "#000000", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
LINE_STYLES: tuple[Any, ...] = (
    "-", "--", "-.", ":", (0, (7, 1.5)), (0, (5, 1, 1, 1, 1, 1)), (0, (1.5, 3)),
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

#: Cells without a loss, and panels without a model.
ABSENT = "#d9d9d9"


def category(index: int) -> dict[str, Any]:
    """Colour, line style and marker of the model with this index, as matplotlib's ``plot`` takes them.

    The first 49 are all different; from the eighth on colours come back with another line style and marker.
    """
    turn, place = divmod(index, len(CATEGORIES))
    shifted = (place + turn) % len(CATEGORIES)
    return {"color": CATEGORIES[place], "linestyle": LINE_STYLES[shifted], "marker": MARKERS[shifted]}
