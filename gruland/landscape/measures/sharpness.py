"""Sharpness: how much the loss rises within a box or a ball of scaled perturbations of the weights.

All measures take ``loss``, a function from parameters by name to a scalar (nats), or to the examples' losses [N] and
their correctness as :func:`gruland.landscape.compute_surface` takes it: so that
:class:`gruland.objective.EvaluationLoss` serves with its fused kernel. The worst case needs the gradient besides.

w are all weights as one vector, i its entries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gruland.arguments import check_whole
from gruland.progress import Progress
from gruland.stats import Interval, crossed_interval

Parameters = Mapping[str, Tensor]
#: A loss, or an Evaluate; and from parameters to the loss's gradient, by the same names.
Loss = Callable[[dict[str, Tensor]], Any]
Gradient = Callable[[dict[str, Tensor]], Parameters]


class Worst(NamedTuple):
    """The highest loss that was found.

    Attributes:
        value: the measure, in the unit that its function names.
        loss: the highest loss, nats.
        parameters: where it is.
    """

    value: float
    loss: float
    parameters: dict[str, Tensor]


def epsilon_sharpness(
    loss: Loss,
    parameters: Parameters,
    gradient: Gradient | None = None,
    *,
    epsilon: float = 1e-3,
    steps: int = 10,
    label: str | None = None,
) -> Worst:
    """The largest relative rise of the loss within a small box around the weights, in percent.

    Keskar et al. 2017, "On large-batch training for deep learning", definition 2.1 in the full space (A = I)::

        phi = 100 * (max_{y in C} f(w + y) - f(w)) / (1 + f(w)),   C = {y: |y_i| <= epsilon (|w_i| + 1)}

    They maximize by 10 iterations of L-BFGS-B and take epsilon = 1e-3 and 5e-4. Here the maximum is climbed to by
    projected sign ascent from the weights, the box's sides as the unit of each axis (exact for a linear loss after one
    step), with steps that shrink from the whole box to its ``1 / steps``; the best point met counts. It is a lower
    bound of the maximum, as theirs is.

    Args:
        loss: what rises.
        parameters: w, by name; what is not among them does not move.
        gradient: of the loss; None = by autograd through ``loss``.
        epsilon: the box's size, relative to |w_i| + 1.
        steps: of the ascent; each costs a gradient and a loss.
        label: what the progress line says; None for none.

    Raises:
        ValueError: an epsilon that is not positive, no step, or a loss at the weights that is not finite.
    """
    _check(epsilon=epsilon, steps=steps)
    box = {name: epsilon * (w.detach().abs() + 1) for name, w in parameters.items()}

    def climb(y: Parameters, slope: Parameters, step: float) -> dict[str, Tensor]:
        return {
            name: (y[name] + step * 2 * side * slope[name].sign()).clamp(-side, side)
            for name, side in box.items()
        }

    base, worst = _ascend(loss, parameters, gradient, climb, steps, label)
    return worst._replace(value=100 * (worst.loss - base) / (1 + base))


def adaptive_sharpness(
    loss: Loss,
    parameters: Parameters,
    gradient: Gradient | None = None,
    *,
    radius: float = 0.05,
    steps: int = 20,
    label: str | None = None,
) -> Worst:
    """The largest rise of the loss within a ball of perturbations relative to the weights, in nats.

    Kwon et al. 2021 ("ASAM"), definition 2 with T_w = diag(|w_i|), as Andriushchenko et al. 2023 ("A modern look at the
    relationship between sharpness and generalization", equation 1) evaluate it, elementwise::

        max {L(w + y) - L(w): || y / |w| ||_2 <= radius}

    It does not change when a layer's weights are scaled up and the next one's down. A weight of zero does not move.
    The radius is that of the whole vector y / |w|: the random perturbation of :func:`mean_adaptive_sharpness` with
    standard deviation s has about radius s sqrt(number of weights). The maximum is climbed to by projected ascent of
    normalized gradients from the weights, with steps that shrink; the best point met counts,
    so that it is a lower bound.

    Args:
        loss, parameters, gradient, label: as :func:`epsilon_sharpness` takes them.
        radius: of the ball, dimensionless.
        steps: of the ascent; each costs a gradient and a loss.

    Raises:
        ValueError: a radius that is not positive, no step, or a loss that is not finite.
    """
    _check(radius=radius, steps=steps)
    scale = {name: w.detach().abs() for name, w in parameters.items()}

    def climb(y: Parameters, slope: Parameters, step: float) -> dict[str, Tensor]:
        # In units of the weights: x = y / |w|, whose gradient is |w| times y's.
        x = {name: torch.where(s > 0, y[name] / s, 0) for name, s in scale.items()}
        ascent = {name: s * slope[name] for name, s in scale.items()}
        moved = _climb_l2(x, ascent, radius, step)
        return {name: s * moved[name] for name, s in scale.items()}

    base, worst = _ascend(loss, parameters, gradient, climb, steps, label)
    return worst._replace(value=worst.loss - base)


def mean_adaptive_sharpness(
    loss: Loss,
    parameters: Parameters,
    *,
    deviation: float = 0.05,
    draws: int = 20,
    seed: int = 0,
    label: str | None = None,
) -> Interval:
    """The mean rise of the loss under random perturbations relative to the weights, in nats.

    Andriushchenko et al. 2023, equation 1 (average-case, adaptive, elementwise)::

        E [L(w + y) - L(w)],   y_i ~ N(0, (deviation |w_i|)^2)

    The draws come in pairs y, -y: what is odd in y (the slope) cancels, and the pair's mean has the same expectation.

    Args:
        loss: what rises; it is not differentiated.
        parameters: w, by name; what is not among them does not move.
        deviation: standard deviation of a perturbation relative to its weight, dimensionless.
        draws: pairs; each costs two losses.
        seed: of the perturbations: the same for weights of the same names and shapes, so that models can be compared
            on the same draws.
        label: what the progress line says; None for none.

    Returns:
        The mean over the pairs, with the 95% interval of Student's t over them.

    Raises:
        ValueError: a deviation that is not positive, fewer than two draws, a seed below 0 or a loss that is not finite.
    """
    _check(deviation=deviation, draws=draws, least=2)
    base = _finite(loss, parameters)
    rises = []
    with _progress(draws, label) as progress:
        for draw in range(draws):
            noise = _noise(parameters, (seed, draw), deviation)
            pair = [_value(loss, _moved(parameters, noise, sign)) for sign in (1, -1)]
            rises.append(sum(pair) / 2 - base)
            if progress:
                progress.advance()
    return mean_interval(rises)


def mean_interval(samples: list[float]) -> Interval:
    """The mean of n independent samples and its 95% interval by Student's t; infinite for one sample."""
    return replace(crossed_interval([samples]), over=("replicates",))


def _ascend(
    loss: Loss,
    parameters: Parameters,
    gradient: Gradient | None,
    climb: Callable[[Parameters, Parameters, float], dict[str, Tensor]],
    steps: int,
    label: str | None,
) -> tuple[float, Worst]:
    """The loss at the weights, and the highest one met by ``steps`` steps of lengths 1, ..., 1 / steps."""
    gradient = gradient or _autograd(loss)
    base = _finite(loss, parameters)
    worst = Worst(0.0, base, dict(parameters))
    here, y = dict(parameters), {name: torch.zeros_like(w) for name, w in parameters.items()}
    with _progress(steps, label) as progress:
        for step in range(steps):
            y = climb(y, gradient(here), 1 - step / steps)
            here = _moved(parameters, y)
            value = _value(loss, here)
            if not math.isfinite(value):
                return base, Worst(0.0, math.inf, here)
            worst = max(worst, Worst(0.0, value, here), key=lambda found: found.loss)
            if progress:
                progress.advance(detail=f"loss {worst.loss:.4f}")
    return base, worst


def _climb_l2(x: Parameters, ascent: Parameters, radius: float, step: float) -> dict[str, Tensor]:
    length = _norm(ascent)
    moved = {name: x[name] + (step * radius / length if length else 0) * a for name, a in ascent.items()}
    shrink = min(1.0, radius / (_norm(moved) or radius))
    return {name: shrink * m for name, m in moved.items()}


def _norm(vector: Parameters) -> float:
    return math.sqrt(sum(float(v.double().square().sum()) for v in vector.values()))


def _moved(parameters: Parameters, y: Parameters, sign: float = 1.0) -> dict[str, Tensor]:
    return {name: torch.add(w.detach(), y[name], alpha=sign) for name, w in parameters.items()}


def _noise(parameters: Parameters, entropy: tuple[int, int], deviation: float) -> dict[str, Tensor]:
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    generator = torch.Generator().manual_seed(seed)
    # Drawn in float64 on the CPU, so that neither device nor dtype changes the draw.
    return {
        name: deviation
        * w.detach().abs()
        * torch.randn(w.shape, generator=generator, dtype=torch.float64).to(w)
        for name, w in parameters.items()
    }


def _autograd(loss: Loss) -> Gradient:
    def gradient(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        leaves = {name: w.detach().clone().requires_grad_() for name, w in parameters.items()}
        with torch.enable_grad():
            grads = torch.autograd.grad(_scalar(loss(leaves)), list(leaves.values()))
        return dict(zip(leaves, grads, strict=True))

    return gradient


def _scalar(result: Any) -> Tensor:
    """The loss, or the mean of the losses of an Evaluate."""
    return result[0].mean() if isinstance(result, tuple) else result


def _value(loss: Loss, parameters: Parameters) -> float:
    with torch.no_grad():
        return float(_scalar(loss(dict(parameters))))


def _finite(loss: Loss, parameters: Parameters) -> float:
    value = _value(loss, parameters)
    if not math.isfinite(value):
        raise ValueError(f"the loss at the weights is {value}: expected a finite one to measure rises from")
    return value


def _check(least: int = 1, **values: float) -> None:
    for name, value in values.items():
        if name in ("steps", "draws"):
            check_whole(name, value, least)
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise ValueError(f"{name}={value}: expected a positive number")


def _progress(total: int, label: str | None) -> Any:
    return Progress(total, label) if label else nullcontext()
