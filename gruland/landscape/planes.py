"""Planes in weight space: random, through given weights, or along the path that a training took.

A plane is origin + alpha * delta + beta * eta, as :func:`gruland.landscape.compute_surface` evaluates it. Only the
parameters of the origin move; what is not among them (frozen parameters, buffers) stays the model's own.

n checkpoints, d numbers in the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gruland.landscape.directions import displace, random_directions
from gruland.landscape.objective import named_tensors

Weights = Mapping[str, Tensor]

#: Shares of a length below which nothing but rounding is left of it.
_EXACT, _SINGLE = 1e-9, 1e-6


@dataclass(frozen=True)
class Plane:
    """origin + alpha * delta + beta * eta.

    Attributes:
        origin: the weights at (0, 0), by name.
        directions: delta and eta, of the origin's names, shapes, dtypes and devices.
        kind: ``"random"``, ``"through"`` or ``"trajectory"``.
        points: (alpha, beta) of the named weights that the plane was made from; of those that lie off it (the
            checkpoints of a trajectory), their projection.
        attributes: what else determines the plane, plain data; ``units`` says what a step along alpha and beta is.
    """

    origin: dict[str, Tensor]
    directions: list[dict[str, Tensor]]
    kind: str
    points: dict[str, tuple[float, float]] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)

    def at(self, alpha: float, beta: float) -> dict[str, Tensor]:
        """The weights at a point; at (0, 0) the very tensors of the origin."""
        return displace(self.origin, self.directions, (alpha, beta))

    def coordinates(self, weights: Weights) -> tuple[float, float]:
        """(alpha, beta) of the point of the plane nearest to ``weights`` (Euclidean distance, float64).

        Raises:
            ValueError: weights of other names or shapes than the origin's, or that are not finite.
        """
        offset, axes = self._offset(weights), [_double(direction) for direction in self.directions]
        gram = [[inner(one, other) for other in axes] for one in axes]
        alpha, beta = np.linalg.lstsq(np.array(gram), np.array([inner(a, offset) for a in axes]))[0]
        return float(alpha), float(beta)

    def residual(self, weights: Weights) -> float:
        """The Euclidean distance of ``weights`` to the plane. Raises ValueError as :meth:`coordinates` does."""
        rest = self._offset(weights)
        for step, direction in zip(self.coordinates(weights), self.directions, strict=True):
            rest = combination((rest, _double(direction)), (1.0, -step))
        return norm(rest)

    def extent(self, margin: float = 0.25) -> tuple[tuple[float, float], tuple[float, float]]:
        """(low, high) of alpha and of beta that hold the origin and all points, and ``margin`` of their span around.

        Along an axis on which no point lies it is (-1, 1).
        """
        columns = np.array([(0.0, 0.0), *self.points.values()]).T
        return _widened(columns[0], margin), _widened(columns[1], margin)

    def _offset(self, weights: Weights) -> dict[str, Tensor]:
        check_weights("weights", weights, self.origin)
        return difference(weights, self.origin)


def random_plane(parameters: Weights, seed: int, **options: Any) -> Plane:
    """The plane of two random directions; the options are those of :func:`gruland.landscape.random_directions`.

    A step along an axis is the norm of the weights themselves, group by group.
    """
    parameters = named_tensors(parameters)
    directions = random_directions(parameters, seed, **options)
    named = {key: value for key, value in options.items() if key != "gates"}
    units = [f"{options.get('normalization', 'filter')}-normalized radius"] * 2
    return Plane(dict(parameters), directions, "random", {}, {"seed": seed, **named, "units": units})


def plane_through(parameters: Weights, others: Mapping[str, Weights], *, seed: int = 0) -> Plane:
    """The plane through ``parameters`` (the origin) and one or two other weights.

    The first of the others lies at (1, 0) exactly. The second axis is orthogonal to the first. With two others it is
    the rest of the second after Gram-Schmidt, as long as the first axis, so that distances in the picture are
    proportional to distances of the weights (Garipov et al. 2018, "Loss Surfaces, Mode Connectivity, and Fast
    Ensembling of DNNs", who plot three networks so). With one it is a random filter-normalized direction (Li et al.
    2018), drawn from ``seed``, made orthogonal to the first row by row and then rescaled: its rows keep the norms of
    the weights' rows, biases stay. The weights at a point's coordinates are those weights to the rounding of their
    dtype.

    Args:
        parameters: the trained parameters by name: the origin.
        others: one or two further weights by the name of their point; they have the parameters' names and shapes.

    Raises:
        ValueError: no or more than two others (a plane cannot hold them exactly: :func:`trajectory_plane` fits one to
            them); other names or shapes; weights that are not finite; weights that span no axis, because they are
            equal or lie on one line.
    """
    if not 1 <= len(others) <= 2:
        raise ValueError(f"a plane through {len(others)} other weights: expected one or two")
    for name, weights in others.items():
        check_weights(name, weights, parameters)
    (first, *rest), offsets = list(others), [difference(weights, parameters) for weights in others.values()]
    axis, length = offsets[0], norm(offsets[0])
    if length == 0:
        raise ValueError(f"{first} equals the origin: expected other weights, which span an axis")
    if rest:
        point, second = _second_point(axis, offsets[1], f"{rest[0]}, {first} and the origin")
        points, units = {first: (1.0, 0.0), rest[0]: point}, [f"distance from the origin to {first}"] * 2
    else:
        second = _orthogonal_rows(random_directions(parameters, seed)[0], axis, parameters)
        points, units = (
            {first: (1.0, 0.0)},
            [f"distance from the origin to {first}", "filter-normalized radius"],
        )
    directions = [_like(direction, parameters) for direction in (axis, second)]
    lengths = [length, norm(second)]
    return Plane(
        dict(parameters), directions, "through", points, {"seed": seed, "units": units, "lengths": lengths}
    )


def _second_point(
    axis: Weights, offset: Weights, names: str
) -> tuple[tuple[float, float], dict[str, Tensor]]:
    """Coordinates of ``offset``, and the axis of ``axis``'s length that is orthogonal to it (Gram-Schmidt)."""
    length, along = norm(axis), inner(axis, offset) / inner(axis, axis)
    rest = combination((offset, axis), (1.0, -along))
    height = norm(rest) / length
    if norm(rest) <= _SINGLE * norm(offset):
        raise ValueError(f"{names} lie on one line: expected weights that span a plane")
    return (along, height), combination((rest,), (1 / height,))


def _widened(values: np.ndarray, margin: float) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    border = margin * (high - low)
    return (low - border, high + border) if border else (-1.0, 1.0)


def _orthogonal_rows(direction: Weights, axis: Weights, parameters: Weights) -> dict[str, Tensor]:
    """``direction`` made orthogonal to ``axis`` row by row, each row as long as the parameters' row."""
    rows = {name: _orthogonal(direction[name], axis[name], weights) for name, weights in parameters.items()}
    if not any(part.any() for part in rows.values()):
        raise ValueError(
            "no parameter has rows of two or more numbers: there is no orthogonal direction in them"
        )
    return rows


def _orthogonal(direction: Tensor, axis: Tensor, weights: Tensor) -> Tensor:
    if weights.dim() < 2:
        return torch.zeros(weights.shape, dtype=torch.float64)
    noise, along, target = (_rows(part) for part in (direction, axis, weights))
    along = torch.nn.functional.normalize(along, dim=1)
    rest = noise - (noise * along).sum(1, keepdim=True) * along
    lengths = rest.norm(dim=1, keepdim=True)
    lengths[lengths <= _EXACT * noise.norm(dim=1, keepdim=True)] = math.inf  # one number, or a row of zeros
    return (rest / lengths * target.norm(dim=1, keepdim=True)).reshape(weights.shape)


def _rows(tensor: Tensor) -> Tensor:
    return _float64(tensor).reshape(len(tensor), -1)


def trajectory_plane(
    checkpoints: Sequence[Weights],
    names: Sequence[str] | None = None,
    *,
    origin: str | None = None,
) -> Plane:
    """The plane of the two principal components of a training's checkpoints.

    Li et al. 2018, section 7: PCA of the matrix M = [theta_0 - theta_n, ..., theta_n-1 - theta_n]; its columns are
    centred, as PCA does, so that neither the directions nor the explained variance depend on the origin, whose own
    row of zeros counts as one of the n checkpoints. The components come from the eigenvectors of the n x n Gram
    matrix; nothing of size d x d is made. The axes have length 1 and the coordinates are Euclidean distances. Their
    signs are fixed: the checkpoint farthest from the origin along the axis lies at negative alpha and positive beta,
    so that a usual path comes from the left.

    The plane passes through the origin, though, and not through the path's mean: the components of M itself would
    leave the smallest distances that a plane through the origin can have.

    **A trap for readers.** A high explained variance is no sign of a path of low dimension: n steps of a random walk
    in high dimension have it, too (Antognini and Sohl-Dickstein 2018, "PCA of high dimensional random walks with
    comparison to neural network training": shares 6 / (pi k)^2, 61% and 15%, for n -> infinity), and the projection
    of one is a smooth Lissajous curve. ``random_walk`` among the attributes holds its shares for these checkpoints,
    see :func:`random_walk_shares`: compare. And the loss at a projected checkpoint is not the checkpoint's:
    :func:`gruland.landscape.trajectory` gives both.

    Args:
        checkpoints: the weights of each, in the path's order; at least three that do not lie on one line.
        names: of their points; None = their numbers from 0.
        origin: the name of the checkpoint that lies at (0, 0); None = the last.

    Returns:
        A plane with the projections of all checkpoints as ``points``, and as attributes ``explained`` (the share of
        the path's variance along either axis), ``random_walk``, ``origin``, ``centred`` (true) and ``units``.

    Raises:
        ValueError: fewer than three checkpoints, another number of names, an unknown origin; other names or shapes
            than the first's; weights that are not finite; checkpoints on one line.
    """
    labels = [str(name) for name in (range(len(checkpoints)) if names is None else names)]
    index = _origin(labels, len(checkpoints), origin)
    base = checkpoints[index]
    for label, weights in zip(labels, checkpoints, strict=True):
        check_weights(label, weights, base)
    offsets = [difference(weights, base) for weights in checkpoints]
    components, explained = _principal(gram_matrix(offsets))
    axes = [_like(combination(offsets, column), base) for column in components.T]
    attributes = {
        "explained": explained.tolist(),
        "random_walk": random_walk_shares(len(checkpoints), index).tolist(),
        "origin": labels[index],
        "centred": True,
        "units": ["Euclidean distance"] * 2,
    }
    plane = Plane(dict(base), axes, "trajectory", {}, attributes)
    plane.points.update(
        {label: plane.coordinates(weights) for label, weights in zip(labels, checkpoints, strict=True)}
    )
    return plane


def _origin(labels: Sequence[str], checkpoints: int, origin: str | None) -> int:
    """The number of the checkpoint that lies at (0, 0)."""
    if checkpoints < 3:
        raise ValueError(f"a trajectory of {checkpoints} checkpoints: expected at least three")
    if len(set(labels)) != checkpoints or len(labels) != checkpoints:
        raise ValueError(f"{checkpoints} checkpoints are named {', '.join(labels)}: expected a name for each")
    if origin is not None and origin not in labels:
        raise ValueError(f"origin={origin!r}: expected one of {', '.join(labels)}")
    return checkpoints - 1 if origin is None else labels.index(origin)


def _principal(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two components as weights of the checkpoints' offsets [n, 2], and their shares of the variance [2].

    With Y [n, d] for the offsets and J = I - 1/n, the components of J Y are Y' J v / sqrt(lambda) for
    the eigenvectors v of J Y Y' J = J G J, and J v = v where lambda > 0.
    """
    n = len(gram)
    centring = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(centring @ gram @ centring)
    values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
    # A length below this share of the longest is the rounding of weights in float32.
    if values[1] <= _SINGLE**2 * values[0]:
        raise ValueError("the checkpoints lie on one line: expected weights that span a plane")
    components = vectors[:, :2] / np.sqrt(values[:2])
    coordinates = gram @ components
    farthest = coordinates[np.abs(coordinates).argmax(0), [0, 1]]
    return components * np.where(farthest < 0, -1, 1) * [-1, 1], values[:2] / values.sum()


def random_walk_shares(checkpoints: int, origin: int = -1) -> np.ndarray:
    """The shares of variance [2] along two components of n points of a random walk with d -> infinity.

    Its Gram matrix around the point o is (|i - o| + |j - o| - |i - j|) / 2. Centred, its eigenvectors are cosines and
    the eigenvalues 1 / (4 sin^2(pi k / 2n)) for k = 1, 2, ..., which add up to (n^2 - 1) / 6 (Antognini and
    Sohl-Dickstein 2018, section 3): 62% and 16% of nine points.
    """
    steps = np.arange(checkpoints) - range(checkpoints)[origin]
    gram = (np.abs(steps)[:, None] + np.abs(steps) - np.abs(steps[:, None] - steps)) / 2
    return _principal(gram)[1]


# -- vectors of named tensors, in float64 on the CPU


def check_weights(label: str, weights: Weights, expected: Weights) -> None:
    """Raise ValueError for weights of other names or shapes than ``expected``, or that are not finite."""
    named_tensors(weights)
    shapes = {name: list(tensor.shape) for name, tensor in expected.items()}
    found = {name: list(tensor.shape) for name, tensor in weights.items()}
    for name in (*shapes, *found):
        if shapes.get(name) != found.get(name):
            have, want = (side.get(name, "none") for side in (found, shapes))
            raise ValueError(f"{label} is of another model: {name} is {have}, expected {want}")
    if broken := next((name for name, tensor in weights.items() if not torch.isfinite(tensor).all()), None):
        raise ValueError(f"{label} has infinite or undefined numbers in {broken}: expected finite weights")


def difference(one: Weights, other: Weights) -> dict[str, Tensor]:
    """one - other, by the names of ``other``; zeros for tensors of integers, which do not move."""
    return {
        name: _float64(one[name]) - _float64(tensor) if tensor.is_floating_point() else 0 * _float64(tensor)
        for name, tensor in other.items()
    }


def combination(vectors: Sequence[Weights], factors: Iterable[float]) -> dict[str, Tensor]:
    """The sum of factor * vector."""
    pairs = [(float(factor), vector) for factor, vector in zip(factors, vectors, strict=True)]
    return {name: torch.stack([f * v[name] for f, v in pairs]).sum(0) for name in vectors[0]}


def inner(one: Weights, other: Weights) -> float:
    """The inner product over all tensors."""
    return float(gram_matrix([one], [other])[0, 0])


def norm(vector: Weights) -> float:
    """The Euclidean norm over all tensors."""
    return math.sqrt(inner(vector, vector))


def gram_matrix(vectors: Sequence[Weights], others: Sequence[Weights] | None = None) -> np.ndarray:
    """All inner products [n, m] of the vectors with the others (None = themselves), a tensor at a time."""
    total = np.zeros((len(vectors), len(vectors if others is None else others)))
    for name in vectors[0]:
        rows = torch.stack([vector[name].reshape(-1) for vector in vectors])
        columns = rows if others is None else torch.stack([other[name].reshape(-1) for other in others])
        total += (rows @ columns.T).numpy()
    return total


def _float64(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)


def _double(vector: Weights) -> dict[str, Tensor]:
    return {name: _float64(tensor) for name, tensor in vector.items()}


def _like(vector: Weights, parameters: Weights) -> dict[str, Tensor]:
    return {name: vector[name].to(weights) for name, weights in parameters.items()}
