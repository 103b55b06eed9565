"""Curvature: the Hessian of a loss by its products with vectors.

For any module with a loss that can be differentiated twice::

    def loss(parameters):
        return F.cross_entropy(torch.func.functional_call(module, parameters, inputs), labels)

    operator = hessian(loss, parameters)
    values, vectors = top_eigenvalues(operator, 5)
    trace(operator, 20, deflate=(values, vectors))
    grid, density, _ = spectral_density(operator, steps=40, draws=2)

A spectrum is that of the mean loss over the examples at hand: few examples give other, larger outliers
than many. Eigenvalues are in nats per squared unit of the weights.

P numbers in all parameters together, in the order of the mapping.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gruland.arguments import check_whole
from gruland.landscape.measures.sharpness import mean_interval
from gruland.progress import Progress
from gruland.stats import Interval

if TYPE_CHECKING:
    from gruland.landscape.planes import Plane

Parameters = Mapping[str, Tensor]
Loss = Callable[[dict[str, Tensor]], Tensor]
Product = Callable[[Parameters], Parameters]


class SpectralDensity(NamedTuple):
    """The share of the eigenvalues per unit; it integrates to 1.

    Attributes:
        grid: eigenvalues [points].
        density: the mean over the draws [points].
        draws: each draw's density [draws, points]: their spread is the estimate's.
    """

    grid: np.ndarray
    density: np.ndarray
    draws: np.ndarray


class Extremes(NamedTuple):
    """The ends of a spectrum; ``error`` bounds the distance of each to an eigenvalue."""

    low: float
    high: float
    error: float

    @property
    def ratio(self) -> float:
        """|low / high|."""
        return abs(self.low / self.high) if self.high else math.nan


def hessian(loss: Loss, parameters: Parameters) -> HessianOperator:
    """The Hessian of ``loss`` at ``parameters``.

    Args:
        loss: from parameters by name to a scalar. Its second derivatives are taken by a double backward pass, over one
            function at a time where it has ``batches``, functions that it is the sum of. Where it has a method
            ``hessian_product(parameters)`` that gives the product with a vector (or None), that is used, as of
            :class:`gruland.objective.MeanLoss`.
        parameters: where; what is not among them is constant.

    Raises:
        ValueError: no parameters.
    """
    if not parameters:
        raise ValueError("there are no parameters: expected at least one tensor by name")
    point = {name: p.detach() for name, p in parameters.items()}
    own = getattr(loss, "hessian_product", None)
    return HessianOperator((own(point) if own else None) or _double_backward(loss, point), point)


def _double_backward(loss: Loss, point: Parameters) -> Product:
    def product(vector: Parameters) -> dict[str, Tensor]:
        total = {name: torch.zeros_like(p) for name, p in point.items()}
        for part in getattr(loss, "batches", [loss]):
            for name, moved in _product(part, point, vector).items():
                total[name] += moved
        return total

    return product


def _product(loss: Loss, point: Parameters, vector: Parameters) -> dict[str, Tensor]:
    """The Hessian times ``vector`` by differentiating the gradient's inner product with it."""
    leaves = {name: p.clone().requires_grad_() for name, p in point.items()}
    options: dict[str, Any] = {"allow_unused": True, "materialize_grads": True}
    with torch.enable_grad():
        slopes = torch.autograd.grad(loss(leaves), list(leaves.values()), create_graph=True, **options)
        along = torch.stack(
            [(g * vector[name].to(g)).sum() for g, name in zip(slopes, leaves, strict=True)]
        ).sum()
        if not along.requires_grad:  # a linear loss
            return {name: torch.zeros_like(p) for name, p in point.items()}
        moved = torch.autograd.grad(along, list(leaves.values()), **options)
    return dict(zip(leaves, moved, strict=True))


class HessianOperator:
    """The Hessian at some parameters, symmetric [P, P], by its products in float64 on the CPU.

    ``operator @ X`` takes a tensor [P] or [P, K]; curvlinops' algorithms by Lanczos take the operator, too, scipy's
    take :meth:`to_scipy`.

    Attributes:
        parameters: where, by name.
        products: how many were computed.
        progress: a line that each product advances, or None.
    """

    device, dtype = torch.device("cpu"), torch.float64

    def __init__(self, product: Product, parameters: Parameters) -> None:
        self.parameters, self._product = parameters, product
        self.products = 0
        self.progress: Progress | None = None
        size = sum(p.numel() for p in parameters.values())
        self.shape = (size, size)

    def __matmul__(self, x: Tensor) -> Tensor:
        columns = x.reshape(len(x), -1)
        return torch.stack([self._column(column) for column in columns.T], 1).reshape(x.shape)

    def _column(self, vector: Tensor) -> Tensor:
        result = self._product(self.unflatten(vector.numpy(force=True)))
        self.products += 1
        if self.progress:
            self.progress.advance(detail=f"{self.products} products")
        return torch.cat(
            [result[name].detach().reshape(-1).to("cpu", torch.float64) for name in self.parameters]
        )

    def unflatten(self, vector: np.ndarray) -> dict[str, Tensor]:
        """A vector [P] by name, in the parameters' shapes, dtypes and devices."""
        parts = torch.from_numpy(np.array(vector)).split([p.numel() for p in self.parameters.values()])
        named = zip(self.parameters.items(), parts, strict=True)
        return {name: part.reshape(p.shape).to(p) for (name, p), part in named}

    def to_scipy(self) -> Any:
        """The same for scipy; each product is checked to be finite.

        Raises:
            NotFinite: by a product that is not.
        """
        from scipy.sparse.linalg import LinearOperator

        def product(vector: np.ndarray) -> np.ndarray:
            result = (self @ torch.from_numpy(np.array(vector.reshape(-1), dtype=np.float64))).numpy()
            if not np.isfinite(result).all():
                raise NotFinite(
                    "the Hessian times a vector is not finite: expected weights with a finite loss"
                )
            return result

        return LinearOperator(self.shape, matvec=product, dtype=np.float64)


def top_eigenvalues(
    operator: HessianOperator, k: int = 5, seed: int = 0, *, tolerance: float = 1e-3, label: str | None = None
) -> tuple[np.ndarray, list[dict[str, Tensor]]]:
    """The k largest eigenvalues (not by magnitude), falling, and their eigenvectors of length 1.

    By scipy's implicitly restarted Lanczos method (ARPACK).

    Args:
        operator: a Hessian, as :func:`hessian` gives it.
        k: how many.
        seed: of the start vector.
        tolerance: relative accuracy of the eigenvalues.
        label: what the progress line says; None for none.

    Returns:
        The eigenvalues [k], and for each its eigenvector by the parameters' names. The sign of a vector is such that
        its largest entry is positive.

    Raises:
        ValueError: k is not between 1 and P - 1, or the loss is not finite there.
    """
    from scipy.sparse.linalg import eigsh

    size = operator.shape[0]
    if isinstance(k, bool) or not isinstance(k, int) or not 0 < k < size:
        raise ValueError(
            f"k={k}: expected a whole number between 1 and {size - 1}, one less than the weights"
        )
    start = np.random.default_rng(seed).standard_normal(size)
    # Lanczos vectors: scipy's own rule.
    with _counted(operator, label, max(2 * k + 1, 20)):
        values, vectors = eigsh(operator.to_scipy(), k, which="LA", v0=start, tol=tolerance)
    order = np.argsort(-values)
    return values[order], [operator.unflatten(_signed(vectors[:, i])) for i in order]


def _signed(vector: np.ndarray) -> np.ndarray:
    return vector * np.sign(vector[np.abs(vector).argmax()])


def extreme_eigenvalues(
    operator: HessianOperator,
    seed: int = 0,
    *,
    tolerance: float = 0.01,
    most: int = 100,
    label: str | None = None,
) -> Extremes:
    """The smallest and the largest eigenvalue by one Lanczos run, with full reorthogonalization.

    ARPACK asks for an accuracy relative to each eigenvalue, which a smallest one near zero among thousands of others
    does not reach; what counts for their ratio is the error relative to the larger one. It stops when the residuals
    of both Ritz pairs (Paige 1980; Parlett, "The symmetric eigenvalue problem", section 13.2) are within that.

    Args:
        operator: a Hessian, as :func:`hessian` gives it.
        seed: of the start vector.
        tolerance: error of both as a share of the larger magnitude.
        most: products at most; ``error`` of the result says how close it is.
        label: what the progress line says; None for none.
    """
    from scipy.linalg import eigh_tridiagonal

    size = operator.shape[0]
    vector = np.random.default_rng(seed).standard_normal(size)
    basis = [vector / np.linalg.norm(vector)]
    diagonal: list[float] = []
    off: list[float] = []
    matrix, most = operator.to_scipy(), min(most, size)
    least = _steps_needed(size, tolerance)
    with _counted(operator, label, most):
        while True:
            following = matrix @ basis[-1]
            diagonal.append(float(following @ basis[-1]))
            for _ in range(2):  # once more for what rounding left
                following -= sum((following @ q) * q for q in basis)
            rest = float(np.linalg.norm(following))
            values, vectors = eigh_tridiagonal(diagonal, off)
            error, largest = rest * float(np.abs(vectors[-1, [0, -1]]).max()), float(np.abs(values).max())
            found = error <= tolerance * largest and len(basis) >= least
            if found or len(basis) == most or rest <= size * np.finfo(float).eps * largest:
                return Extremes(float(values[0]), float(values[-1]), error)
            off.append(rest)
            basis.append(following / rest)


def _steps_needed(size: int, tolerance: float) -> int:
    """Lanczos steps from a random vector after which an extreme eigenvalue is found to a share of the spectrum's width.

    The expected error after k steps is at most 0.103 (ln(n (k - 1)) / (k - 1))^2, whatever the n eigenvalues (Kuczynski
    & Wozniakowski 1992, "Estimating the largest eigenvalue by the power and Lanczos algorithms with a random start",
    SIAM Journal on Matrix Analysis and Applications 13(4), theorem 3.2).
    """
    steps = 4
    while steps < size and 0.103 * (math.log(size * (steps - 1)) / (steps - 1)) ** 2 > tolerance:
        steps += 1
    return min(steps, size)


def trace(
    operator: HessianOperator,
    samples: int = 20,
    seed: int = 0,
    *,
    deflate: tuple[Sequence[float] | np.ndarray, Sequence[Parameters]] | None = None,
    label: str | None = None,
) -> Interval:
    """The sum of the eigenvalues, by the Girard-Hutchinson estimator: the mean of x' H x over random signs x.

    Its variance is twice the sum of the squares of H off the diagonal (Hutchinson 1990), most of it by the outliers of
    the spectrum: ``deflate`` takes them out and adds their eigenvalues. (curvlinops' estimators give no interval.)

    Args:
        operator: a Hessian, as :func:`hessian` gives it.
        samples: probe vectors; each costs a product.
        seed: of the probes.
        deflate: eigenvalues and eigenvectors that are known, as :func:`top_eigenvalues` gives them.
        label: what the progress line says; None for none.

    Returns:
        The mean over the probes with the 95% interval of Student's t; infinite for one sample.

    Raises:
        ValueError: no sample, or a product that is not finite.
    """
    check_whole("samples", samples, 1)
    values, vectors = deflate or ((), ())
    flat = [torch.cat([v.reshape(-1).double() for v in vector.values()]).numpy() for vector in vectors]
    known = np.linalg.qr(np.array(flat).T)[0] if flat else np.zeros((operator.shape[0], 0))
    random, matrix, found = np.random.default_rng(seed), operator.to_scipy(), []
    with _counted(operator, label, samples):
        for _ in range(samples):
            probe = random.integers(0, 2, operator.shape[0]) * 2.0 - 1
            probe -= known @ (known.T @ probe)
            found.append(float(probe @ (matrix @ probe)))
    offset = float(np.sum(values))
    return mean_interval([offset + value for value in found])


def spectral_density(
    operator: HessianOperator,
    steps: int = 40,
    draws: int = 2,
    seed: int = 0,
    *,
    boundaries: tuple[float, float] | None = None,
    points: int = 1024,
    label: str | None = None,
) -> SpectralDensity:
    """The density of the eigenvalues by stochastic Lanczos quadrature (Papyan 2020, algorithm 2; Ghorbani et al. 2019).

    curvlinops' ``lanczos_approximate_spectrum``: each eigenvalue is smeared to a Gaussian of about 2 / (3 steps) of the
    half width of the spectrum, so that a single outlier is a bump with area 1 / P.

    Args:
        operator: a Hessian, as :func:`hessian` gives it.
        steps: Lanczos steps of a draw; each costs a product.
        draws: random start vectors.
        seed: of the draws; torch's own generator is left as it was.
        boundaries: smallest and largest eigenvalue; None = :func:`extreme_eigenvalues` finds them.
        points: of the grid.
        label: what the progress line says; None for none.

    Raises:
        ModuleNotFoundError: curvlinops is not installed.
        ValueError: fewer than two steps, no draw, or a loss that is not finite.
    """
    try:
        from curvlinops import lanczos_approximate_spectrum
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the spectral density needs curvlinops ({error}): install it with make setup, or pip install "
            "'gruland[hessian]'"
        ) from None
    for name, value, least in (("steps", steps, 2), ("draws", draws, 1), ("points", points, 2)):
        check_whole(name, value, least)
    if boundaries is None:
        boundaries = extreme_eigenvalues(operator, seed, label=label)[:2]
    found = []
    with torch.random.fork_rng(devices=[]), _counted(operator, label, steps * draws):
        for draw in range(draws):
            torch.manual_seed(int(np.random.SeedSequence((seed, draw)).generate_state(1)[0]))
            grid, density = lanczos_approximate_spectrum(operator, steps, points, boundaries=boundaries)
            found.append(density.numpy())
    return SpectralDensity(grid.numpy(), np.mean(found, 0), np.array(found))


def hessian_plane(
    loss: Loss, parameters: Parameters, *, seed: int = 0, tolerance: float = 1e-3, label: str | None = None
) -> Plane:
    """The plane of the two sharpest directions: the Hessian's top eigenvectors.

    Both are scaled to the length of all weights, ||w||: a step of 1 is as long as the weights, as along a random
    direction that is normalized to them, and equal steps on both axes are equal distances. Near the origin the loss
    rises by lambda ||w||^2 a^2 / 2 along an axis: ``attributes["rise"]`` holds lambda ||w||^2 / 2 (nats) of both, from
    which an extent follows: sqrt(rise wanted / attributes["rise"][0]).

    Args:
        loss, parameters: as :func:`hessian` takes them.
        seed, tolerance, label: as :func:`top_eigenvalues` takes them.
    """
    from gruland.landscape.planes import Plane

    values, vectors = top_eigenvalues(hessian(loss, parameters), 2, seed, tolerance=tolerance, label=label)
    length = math.sqrt(sum(float(w.detach().double().square().sum()) for w in parameters.values()))
    directions = [{name: v * length for name, v in vector.items()} for vector in vectors]
    about = {
        "eigenvalues": values.tolist(),
        "rise": (values * length**2 / 2).tolist(),
        "norm": length,
        "seed": seed,
        "units": "norm of the weights",
    }
    origin = {name: w.detach() for name, w in parameters.items()}
    return Plane(origin, directions, "hessian", {}, about)


class NotFinite(ValueError):
    """A Hessian that has entries which are not finite."""


@contextmanager
def _counted(operator: HessianOperator, label: str | None, total: int) -> Iterator[None]:
    """A progress line over the operator's products."""
    with Progress(total, label) if label else nullcontext() as operator.progress:
        try:
            yield
        finally:
            operator.progress = None
