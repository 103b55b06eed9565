"""The Hessian and the sharpness of one run's best checkpoint, as plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gruland.landscape.comparison.measurements import Bench

#: Eigenvalues; products for the trace; Lanczos steps and draws of the spectral density; draws of random perturbations.
EIGENVALUES, PROBES, STEPS, DRAWS, PERTURBATIONS = 5, 10, 40, 2, 10
#: Relative size of the perturbations of both adaptive sharpnesses: of each weight, and of the whole vector.
DEVIATION, RADIUS = 0.2, 0.5


def curvature(bench: Bench, reviews: int) -> dict[str, Any]:
    """Eigenvalues, trace and spectral density of the Hessian of the evaluation loss, and four sharpnesses.

    Args:
        bench: the run.
        reviews: how many of the split's reviews, a stratified subset; its seed is that of all random vectors, too. The
            mean adaptive sharpness alone is that of the bench's own objective.

    Returns:
        ``eigenvalues``, ``smallest`` (the least eigenvalue), ``trace`` (estimate, low, high), ``density``
        (``eigenvalues``, ``density``), ``mean_sharpness`` (estimate, low, high), ``worst_sharpness`` (nats) and
        ``epsilon_sharpness`` (percent).
    """
    from gruland.landscape.composed import ComposedLoss
    from gruland.landscape.measures.curvature import (
        extreme_eigenvalues,
        hessian,
        spectral_density,
        top_eigenvalues,
        trace,
    )
    from gruland.landscape.measures.sharpness import (
        adaptive_sharpness,
        epsilon_sharpness,
        mean_adaptive_sharpness,
    )
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

    def mean_loss(weights: Any) -> Any:
        return bench.evaluate(weights)[0].mean()

    mean = mean_adaptive_sharpness(mean_loss, parameters, deviation=DEVIATION, draws=PERTURBATIONS, seed=seed)
    relative = adaptive_sharpness(
        loss, parameters, loss.gradient, radius=RADIUS, label=f"{bench.name}: sharpness"
    )
    return {
        "eigenvalues": values.tolist(),
        "smallest": ends.low,
        "trace": [total.estimate, total.low, total.high],
        "density": {"eigenvalues": density.grid.tolist(), "density": density.density.tolist()},
        "mean_sharpness": [mean.estimate, mean.low, mean.high],
        "worst_sharpness": relative.value,
        "epsilon_sharpness": epsilon_sharpness(loss, parameters, loss.gradient).value,
    }
