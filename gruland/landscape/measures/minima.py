"""The minima of a surface and how deep each is: the merge tree of its sublevel sets.

While a level rises from below, each minimum begins a component of the cells under it; where two components meet, the
one with the higher minimum ends (the elder rule), and the rise from its minimum to there is its persistence
(Edelsbrunner & Harer 2010, "Computational Topology", section VII.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gruland.landscape.measures.heights import heights

if TYPE_CHECKING:
    import xarray


class Minimum(NamedTuple):
    """A cell that no path leaves downhill.

    Attributes:
        alpha, beta: where it is; of a plain the cell that is nearest to the centre.
        loss: nats.
        persistence: nats by which every way from it to a lower minimum rises; infinite for the lowest one, and for the
            lowest of a region that cells of infinite loss wall off.
        rim: whether it lies on the edge of the grid, where the loss may go on falling beyond.
    """

    alpha: float
    beta: float
    loss: float
    persistence: float
    rim: bool


def minima(surface: xarray.Dataset) -> list[Minimum]:
    """All minima, the most persistent first and the lower one first among equals.

    Neighbours of a cell are the eight around it. A plain is one minimum; cells whose loss is NaN or infinite are none.

    Raises:
        ValueError: the surface is not complete.
    """
    f = heights(surface)
    beta, alpha = (surface[name].values.astype(np.float64) for name in ("beta", "alpha"))
    distance = np.hypot(beta[:, None], alpha)
    order = np.lexsort((distance.ravel(), f.ravel()))
    found = []
    for cell, persistence in _merge(f, order[np.isfinite(f.flat[order])]).items():
        row, column = divmod(cell, f.shape[1])
        rim = column in (0, f.shape[1] - 1) or (len(beta) > 1 and row in (0, len(beta) - 1))
        found.append(Minimum(float(alpha[column]), float(beta[row]), float(f[row, column]), persistence, rim))
    return sorted(found, key=lambda minimum: -minimum.persistence)  # stable: they come in rising order


def count_minima(surface: xarray.Dataset, persistence: float = 0.01, *, rim: bool = False) -> int:
    """The number of minima at least so persistent; unit 1.

    Args:
        surface: as :func:`gruland.landscape.compute_surface` gives it.
        persistence: nats, positive; what is shallower counts as noise.
        rim: count those on the edge of the grid, too. Where the loss falls towards the edge, one there is an artefact
            of where the grid ends.

    Raises:
        ValueError: a persistence that is not positive, or an incomplete surface.
    """
    if not persistence > 0:
        raise ValueError(f"persistence={persistence}: expected a positive number of nats")
    return sum(found.persistence >= persistence and (rim or not found.rim) for found in minima(surface))


def _merge(f: np.ndarray, order: np.ndarray) -> dict[int, float]:
    """The persistence of each cell that begins a component, given the cells in rising order of ``f`` [R, C]."""
    height, rank = f.ravel().tolist(), {cell: place for place, cell in enumerate(order.tolist())}
    parent: dict[int, int] = {}
    persistence: dict[int, float] = {}
    for cell in rank:
        roots = {_root(parent, near) for near in _neighbours(cell, f.shape) if near in parent}
        eldest, *younger = sorted(roots, key=rank.__getitem__) or [cell]
        if eldest == cell:
            persistence[cell] = np.inf
        parent[cell] = eldest
        for root in younger:
            parent[root], persistence[root] = eldest, height[cell] - height[root]
    return {cell: depth for cell, depth in persistence.items() if depth > 0}  # 0: a part of a plain


def _root(parent: dict[int, int], cell: int) -> int:
    while parent[cell] != cell:
        parent[cell] = parent[parent[cell]]
        cell = parent[cell]
    return cell


def _neighbours(cell: int, shape: tuple[int, ...]) -> list[int]:
    row, column = divmod(cell, shape[1])
    return [
        r * shape[1] + c
        for r in range(max(row - 1, 0), min(row + 2, shape[0]))
        for c in range(max(column - 1, 0), min(column + 2, shape[1]))
    ]
