"""Curvature: the Hessian of a loss by its products with vectors.

For any module with a loss that can be differentiated twice::

    def loss(parameters):
        return F.cross_entropy(torch.func.functional_call(module, parameters, inputs), labels)

    operator = hessian(loss, parameters)
    values, vectors = top_eigenvalues(operator, 5)
    trace(operator, 20, deflate=(values, vectors))
    grid, density, _ = spectral_density(operator, steps=40, draws=2)

The operator is curvlinops' ``PyTorchLinearOperator``, so that all of its algorithms take it (``operator.to_scipy()``:
all of scipy's). A spectrum is that of the mean loss over the examples at hand: few examples give other, larger outliers
than many. Eigenvalues are in nats per squared unit of the weights.

P numbers in all parameters together, in the order of the mapping.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gruland.landscape.directions import displace
from gruland.landscape.measures.sharpness import mean_interval
from gruland.progress import Progress
from gruland.stats import Interval

if TYPE_CHECKING:
    import xarray

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


def hessian(loss: Loss, parameters: Parameters) -> Any:
    """The Hessian of ``loss`` at ``parameters``, a symmetric curvlinops operator [P, P] in float64.

    Args:
        loss: from parameters by name to a scalar. Its second derivatives are taken by a double backward pass, over one
            function at a time where it has ``batches``, functions that it is the sum of. Where it has a method
            ``hessian_product(parameters)`` that gives the product with a vector (or None), that is used, as of
            :class:`gruland.objective.MeanLoss`.
        parameters: where; what is not among them is constant.

    Raises:
        ModuleNotFoundError: curvlinops is not installed.
        ValueError: no parameters.
    """
    if not parameters:
        raise ValueError("there are no parameters: expected at least one tensor by name")
    point = {name: p.detach() for name, p in parameters.items()}
    own = getattr(loss, "hessian_product", None)
    return _operator_class()((own(point) if own else None) or _double_backward(loss, point), point)


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


@cache
def _operator_class() -> type:
    try:
        from curvlinops._torch_base import PyTorchLinearOperator
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the Hessian needs curvlinops ({error}): install it with make setup, or pip install 'gruland[hessian]'"
        ) from None

    class HessianOperator(PyTorchLinearOperator):
        """See :func:`hessian`. ``products`` counts; ``parameters`` says where."""

        SELF_ADJOINT = True
        device, dtype = torch.device("cpu"), torch.float64

        def __init__(self, product: Product, parameters: Parameters) -> None:
            shapes = [tuple(p.shape) for p in parameters.values()]
            super().__init__(shapes, shapes)
            self.parameters, self._product = parameters, product
            self.products, self.progress = 0, None

        def _matmat(self, X: list[Tensor]) -> list[Tensor]:
            columns = [self._column([x[..., k] for x in X]) for k in range(X[0].shape[-1])]
            return [torch.stack(parts, -1) for parts in zip(*columns, strict=True)]

        def _column(self, parts: list[Tensor]) -> list[Tensor]:
            given = zip(self.parameters.items(), parts, strict=True)
            vector = {name: part.to(p.device, p.dtype) for (name, p), part in given}
            result = self._product(vector)
            self.products += 1
            if self.progress:
                self.progress.advance(detail=f"{self.products} products")
            return [result[name].detach().to("cpu", torch.float64) for name in self.parameters]

        def unflatten(self, vector: np.ndarray) -> dict[str, Tensor]:
            """A vector [P] by name, in the parameters' shapes and dtypes."""
            parts = torch.from_numpy(np.array(vector)).split([p.numel() for p in self.parameters.values()])
            named = zip(self.parameters.items(), parts, strict=True)
            return {name: part.reshape(p.shape).to(p) for (name, p), part in named}

    return HessianOperator


def top_eigenvalues(
    operator: Any, k: int = 5, seed: int = 0, *, tolerance: float = 1e-3, label: str | None = None
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
        values, vectors = eigsh(_checked(operator), k, which="LA", v0=start, tol=tolerance)
    order = np.argsort(-values)
    return values[order], [operator.unflatten(_signed(vectors[:, i])) for i in order]


def _signed(vector: np.ndarray) -> np.ndarray:
    return vector * np.sign(vector[np.abs(vector).argmax()])


def extreme_eigenvalues(
    operator: Any, seed: int = 0, *, tolerance: float = 0.01, most: int = 100, label: str | None = None
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
    matrix, most = _checked(operator), min(most, size)
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
    operator: Any,
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
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise ValueError(f"samples={samples}: expected a whole number of at least 1")
    values, vectors = deflate or ((), ())
    flat = [torch.cat([v.reshape(-1).double() for v in vector.values()]).numpy() for vector in vectors]
    known = np.linalg.qr(np.array(flat).T)[0] if flat else np.zeros((operator.shape[0], 0))
    random, matrix, found = np.random.default_rng(seed), _checked(operator), []
    with _counted(operator, label, samples):
        for _ in range(samples):
            probe = random.integers(0, 2, operator.shape[0]) * 2.0 - 1
            probe -= known @ (known.T @ probe)
            found.append(float(probe @ (matrix @ probe)))
    offset = float(np.sum(values))
    return mean_interval([offset + value for value in found])


def spectral_density(
    operator: Any,
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
        ValueError: fewer than two steps, no draw, or a loss that is not finite.
    """
    from curvlinops import lanczos_approximate_spectrum

    for name, value, least in (("steps", steps, 2), ("draws", draws, 1), ("points", points, 2)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name}={value}: expected a whole number of at least {least}")
    if boundaries is None:
        boundaries = extreme_eigenvalues(operator, seed, label=label)[:2]
    found = []
    with torch.random.fork_rng(devices=[]), _counted(operator, label, steps * draws):
        for draw in range(draws):
            torch.manual_seed(int(np.random.SeedSequence((seed, draw)).generate_state(1)[0]))
            grid, density = lanczos_approximate_spectrum(operator, steps, points, boundaries=boundaries)
            found.append(density.numpy())
    return SpectralDensity(grid.numpy(), np.mean(found, 0), np.array(found))


def curvature_ratio_map(
    loss: Loss,
    parameters: Parameters,
    directions: Sequence[Parameters],
    *,
    size: int | Sequence[int] = 5,
    extent: float | Sequence[Any] = 1.0,
    tolerance: float = 0.01,
    seed: int = 0,
    path: str | Path | None = None,
    label: str | None = None,
) -> xarray.Dataset:
    """|lambda_min / lambda_max| of the full Hessian at each cell of a plane (Li et al. 2018, section 6 and figure 7).

    Near 0 the loss is as good as convex there; it shows whether a plane that looks convex hides directions in which
    the loss falls. A cell costs some 20 to 60 Hessian-vector products: a small grid and few examples.

    Args:
        loss: as :func:`hessian` takes it.
        parameters, directions: the plane, as :func:`gruland.landscape.compute_surface` takes it.
        size, extent: of the grid, as :func:`gruland.landscape.compute_surface` takes them.
        tolerance: error of an eigenvalue as a share of the cell's larger magnitude: of the ratio about as much.
        seed: of the start vector, the same at all cells.
        path: the zarr folder that the result is written to; None for memory alone.
        label: what the progress line says; None for none.

    Returns:
        ``lambda_min``, ``lambda_max`` (nats), ``error`` of both and ``ratio`` over (beta, alpha); NaN where the loss is
        not finite.
    """
    from gruland.landscape.surface import grid

    alpha, beta = grid(size, extent)
    cells = np.full((3, len(beta), len(alpha)), np.nan)
    with Progress(cells[0].size, label) if label else nullcontext() as progress:
        for row, column in np.ndindex(len(beta), len(alpha)):
            weights = displace(parameters, directions, (float(alpha[column]), float(beta[row])))
            with suppress(NotFinite):
                cells[:, row, column] = extreme_eigenvalues(hessian(loss, weights), seed, tolerance=tolerance)
            if progress:
                progress.advance()
    result = _map(alpha, beta, cells)
    if path is not None:
        _write(result, Path(path))
    return result


def _map(alpha: np.ndarray, beta: np.ndarray, cells: np.ndarray) -> xarray.Dataset:
    import xarray

    dimensions = ("beta", "alpha")
    names = {
        "lambda_min": "smallest eigenvalue of the Hessian",
        "lambda_max": "largest eigenvalue of the Hessian",
        "error": "bound on the error of both",
    }
    found: dict[str, Any] = {
        name: (dimensions, values, {"long_name": text, "units": "nats"})
        for (name, text), values in zip(names.items(), cells, strict=True)
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(cells[0] / cells[1])
    found["ratio"] = (dimensions, ratio, {"long_name": "|lambda_min / lambda_max|", "units": "1"})
    return xarray.Dataset(found, {"alpha": alpha, "beta": beta})


def _write(result: xarray.Dataset, path: Path) -> None:
    from gruland.files import atomic_path

    with atomic_path(path) as temporary:
        result.to_zarr(temporary, mode="w", consolidated=False)


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


def _checked(operator: Any) -> Any:
    """The operator for scipy, of which each product is checked."""
    from scipy.sparse.linalg import LinearOperator

    inner = operator.to_scipy()

    def product(vector: np.ndarray) -> np.ndarray:
        result = inner @ vector.reshape(-1)
        if not np.isfinite(result).all():
            raise NotFinite("the Hessian times a vector is not finite: expected weights with a finite loss")
        return result

    return LinearOperator(inner.shape, matvec=product, dtype=np.float64)


@contextmanager
def _counted(operator: Any, label: str | None, total: int) -> Iterator[None]:
    """A progress line over the operator's products."""
    with Progress(total, label) if label else nullcontext() as operator.progress:
        try:
            yield
        finally:
            operator.progress = None
