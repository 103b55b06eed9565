"""The Hessian and the sharpness of one run's best checkpoint, as plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gruland.landscape.comparison.measurements import Bench

#: Rises when the same weights and reviews give other numbers: what an earlier version kept is then computed anew.
VERSION = 2
#: Eigenvalues; products for the trace; Lanczos steps and draws of the spectral density; draws of random perturbations.
EIGENVALUES, PROBES, STEPS, DRAWS, PERTURBATIONS = 5, 10, 40, 2, 10
#: Relative size of the perturbations of both adaptive sharpnesses: of each weight, and of the whole vector.
DEVIATION, RADIUS = 0.2, 0.5


def curvature(bench: Bench, reviews: int) -> dict[str, Any]:
    """Eigenvalues, trace and spectral density of the Hessian of the evaluation loss, and the worst sharpnesses.

    Args:
        bench: the run.
        reviews: how many of the split's reviews, a stratified subset; its seed is that of all random vectors, too.

    Returns:
        ``eigenvalues``, ``smallest`` (the least eigenvalue), ``trace`` (estimate, low, high), ``density``
        (``eigenvalues``, ``density``), ``worst_sharpness`` (nats) and ``epsilon_sharpness`` (percent).
    """
    from gruland.landscape.composed import ComposedLoss
    from gruland.landscape.measures.curvature import (
        extreme_eigenvalues,
        hessian,
        spectral_density,
        top_eigenvalues,
        trace,
    )
    from gruland.landscape.measures.sharpness import adaptive_sharpness, epsilon_sharpness
    from gruland.landscape.run import reviews_of

    seed = bench.settings["reviews_seed"]
    encoded, labels, _ = reviews_of(bench.run.data, bench.settings, reviews)
    loss, parameters = ComposedLoss(bench.model, encoded, labels), dict(bench.model.trainable())
    operator = hessian(loss, parameters)
    values, vectors = top_eigenvalues(operator, EIGENVALUES, seed, label=f"{bench.name}: eigenvalues")
    ends = extreme_eigenvalues(operator, seed, label=f"{bench.name}: smallest eigenvalue")
    total = trace(operator, PROBES, seed, deflate=(values, vectors), label=f"{bench.name}: trace")
    density = spectral_density(
        operator,
        STEPS,
        DRAWS,
        seed,
        boundaries=(ends.low, ends.high),
        label=f"{bench.name}: spectral density",
    )
    relative = adaptive_sharpness(
        loss, parameters, loss.gradient, radius=RADIUS, label=f"{bench.name}: sharpness"
    )
    return {
        "eigenvalues": values.tolist(),
        "smallest": ends.low,
        "trace": [total.estimate, total.low, total.high],
        "density": {"eigenvalues": density.grid.tolist(), "density": density.density.tolist()},
        "worst_sharpness": relative.value,
        "epsilon_sharpness": epsilon_sharpness(loss, parameters, loss.gradient).value,
    }


def mean_sharpness(bench: Bench) -> dict[str, Any]:
    """The mean adaptive sharpness of the bench's own objective.

    Returns:
        ``mean_sharpness`` (estimate, low, high; nats).
    """
    from gruland.landscape.measures.sharpness import mean_adaptive_sharpness

    def loss(weights: Any) -> Any:
        return bench.evaluate(weights)[0].mean()

    parameters, seed = dict(bench.model.trainable()), bench.settings["reviews_seed"]
    found = mean_adaptive_sharpness(loss, parameters, deviation=DEVIATION, draws=PERTURBATIONS, seed=seed)
    return {"mean_sharpness": [found.estimate, found.low, found.high]}
