"""The Hessian and the sharpnesses of a model, as plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gruland.classifier import Classifier
    from gruland.objective.evaluation import EvaluationLoss
    from gruland.objective.mean_loss import MeanLoss

#: Rises when the same weights and reviews give other numbers: what an earlier version kept is then computed anew.
VERSION = 2
#: Eigenvalues; products for the trace; Lanczos steps and draws of the spectral density; draws of random perturbations.
EIGENVALUES, PROBES, STEPS, DRAWS, PERTURBATIONS = 5, 10, 40, 2, 10
#: Relative size of the perturbations of both adaptive sharpnesses: of each weight, and of the whole vector.
DEVIATION, RADIUS = 0.2, 0.5


def curvature(loss: MeanLoss, seed: int, name: str) -> dict[str, Any]:
    """Eigenvalues, trace and spectral density of the Hessian of the evaluation loss, and the worst sharpnesses.

    Args:
        loss: of some reviews, at its model's weights.
        seed: of all random vectors.
        name: what progress lines call it.

    Returns:
        ``eigenvalues``, ``smallest`` (the least eigenvalue), ``trace`` (estimate, low, high), ``density``
        (``eigenvalues``, ``density``), ``worst_sharpness`` (nats) and ``epsilon_sharpness`` (percent).
    """
    from gruland.landscape.measures.curvature import (
        extreme_eigenvalues,
        hessian,
        spectral_density,
        top_eigenvalues,
        trace,
    )
    from gruland.landscape.measures.sharpness import adaptive_sharpness, epsilon_sharpness

    parameters = dict(loss.model.trainable())
    operator = hessian(loss, parameters)
    values, vectors = top_eigenvalues(operator, EIGENVALUES, seed, label=f"{name}: eigenvalues")
    ends = extreme_eigenvalues(operator, seed, label=f"{name}: smallest eigenvalue")
    total = trace(operator, PROBES, seed, deflate=(values, vectors), label=f"{name}: trace")
    density = spectral_density(
        operator,
        STEPS,
        DRAWS,
        seed,
        boundaries=(ends.low, ends.high),
        label=f"{name}: spectral density",
    )
    relative = adaptive_sharpness(loss, parameters, loss.gradient, radius=RADIUS, label=f"{name}: sharpness")
    return {
        "eigenvalues": values.tolist(),
        "smallest": ends.low,
        "trace": [total.estimate, total.low, total.high],
        "density": {"eigenvalues": density.grid.tolist(), "density": density.density.tolist()},
        "worst_sharpness": relative.value,
        "epsilon_sharpness": epsilon_sharpness(loss, parameters, loss.gradient).value,
    }


def mean_sharpness(evaluate: EvaluationLoss, model: Classifier, seed: int) -> dict[str, Any]:
    """The mean adaptive sharpness of an objective at the model's weights: ``mean_sharpness`` (estimate, low, high)."""
    from gruland.landscape.measures.sharpness import mean_adaptive_sharpness

    def loss(weights: Any) -> Any:
        return evaluate(weights)[0].mean()

    parameters = dict(model.trainable())
    found = mean_adaptive_sharpness(loss, parameters, deviation=DEVIATION, draws=PERTURBATIONS, seed=seed)
    return {"mean_sharpness": [found.estimate, found.low, found.high]}
