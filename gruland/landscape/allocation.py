"""How many examples each of some cells needs, where each is predicted from those that have more.

With S for the covariance of the cells' losses over the examples, S = L D L' (L with a unit diagonal after
permutation) says what is left of each cell once those before it are known: D's entry d_j, which comes into cell c with
L_cj. If cell j is evaluated on the first n_j of N examples and n falls along the order, the error of cell c has the
variance

    sum over j of L_cj^2 d_j (1 / n_j - 1 / N).

The order takes the largest remaining variance first (a Cholesky factorization with pivots). The least sum of n_j that
keeps every variance below a bound has n_j proportional to the root of sum over c of w_c L_cj^2 d_j for multipliers w
(Neyman 1934; for levels Giles 2008, section 3); w is found by multiplicative weights, which give more to the cells
whose bound is hit. Where the examples are of several parts, each a population of its own, the variances of the parts'
means add up and the parts share the bound as costs least.

C cells, k of them in the order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_ROUNDS = 200


def factorized(covariance: np.ndarray, sample: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The order [k] of the cells, L [C, k] and d [k].

    Args:
        covariance: [C, C], estimated from a sample.
        sample: of how many examples: a variance that is left after j regressors was fitted, so that it is corrected for
            their number.
    """
    cells, diagonal = len(covariance), covariance.diagonal().copy()
    order: list[int] = []
    lower, left = np.zeros((cells, cells)), np.zeros(cells)
    least = 1e-12 * diagonal.max(initial=0.0)
    for step in range(min(cells, sample - 2)):
        rest = diagonal.copy()
        rest[order] = -1.0
        pivot = int(rest.argmax())
        if rest[pivot] <= least:
            break
        column = covariance[:, pivot] - lower[:, :step] @ (left[:step] * lower[pivot, :step])
        column /= rest[pivot]
        column[order] = 0.0
        lower[:, step], left[step] = column, rest[pivot]
        order.append(pivot)
        diagonal -= column**2 * rest[pivot]
    steps = len(order)
    correction = sample / np.maximum(sample - 1 - np.arange(steps), 1)
    return np.array(order, dtype=np.int64), lower[:, :steps], left[:steps] * correction


def sizes(
    shares: Sequence[np.ndarray], totals: Sequence[int], variance: float, least: int
) -> list[np.ndarray]:
    """The n [k] of each part of the examples, falling from its total to ``least``, of least sum.

    With these no cell's variance exceeds the bound.

    Args:
        shares: of each part [C, k], in the order of :func:`factorized`: what comes into a cell's variance from the
            cells of the order, times their examples, ``(N_part / N)**2 * lower**2 * left``.
        totals: the parts' N.
        variance: the bound.
        least: no cell gets fewer of a part.
    """
    parts = np.concatenate(shares, axis=1)
    total = np.repeat(np.asarray(totals, dtype=np.float64), [part.shape[1] for part in shares])
    ends = np.cumsum([part.shape[1] for part in shares])[:-1]
    bound = variance + (parts / total).sum(1)
    weights, best = np.full(len(parts), 1 / max(len(parts), 1)), total
    for number in range(_ROUNDS):
        root = np.sqrt((weights / bound) @ parts) + np.finfo(float).tiny
        root *= ((parts / root).sum(1) / bound).max(initial=0.0)
        found = np.clip(root, least, total)
        found = np.concatenate([np.maximum.accumulate(n[::-1])[::-1] for n in np.split(found, ends)])
        load = (parts / found).sum(1) / bound
        if load.max(initial=0.0) > 1:  # what was cut off at the totals has to come from the others
            found = np.clip(found * load.max(), least, total)
        if found.sum() < best.sum() and ((parts / found).sum(1) <= bound * (1 + 1e-9)).all():
            best = found
        weights *= np.exp(4.0 * (load / load.max(initial=1e-300) - 1.0) / np.sqrt(1.0 + number / 10.0))
        weights /= weights.sum()
    return np.split(best, ends)
