"""Random directions in weight space, scaled so that networks of different weights can be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

NORMALIZATIONS = ("filter", "tensor")


def random_directions(
    parameters: Mapping[str, Tensor], seed: int, normalization: str = "filter"
) -> list[dict[str, Tensor]]:
    """Two independent Gaussian directions delta and eta through ``parameters`` (section 4.3 of the paper).

    Args:
        parameters: the trained parameters by name; what is not among them does not move.
        seed: of the draw; the same seed and parameters give the same directions on every device.
        normalization: ``"filter"`` gives each row of a weight matrix (its first axis; a unit's weights of one
            gate) the norm of the same row of the weights (Li et al. 2018, section 4); ``"tensor"`` reads the
            paper's d <- d / ||d|| * ||w|| literally, with the Frobenius norm of the whole matrix.

    Returns:
        Two mappings from name to a tensor of the parameter's shape, dtype and device. Parameters with fewer
        than two axes (biases) get zeros, as in Li et al.; so do rows of zeros.

    Raises:
        ValueError: an unknown normalization, or a seed that is no whole number of at least 0.
    """
    check_draw(seed, normalization)
    return [_direction(parameters, (seed, index), normalization) for index in range(2)]


def check_draw(seed: int, normalization: str) -> None:
    """Raise ValueError for a seed or a normalization that :func:`random_directions` cannot take."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"landscape.seed={seed}: expected a whole number of at least 0")
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"landscape.normalization={normalization!r}: expected {' or '.join(NORMALIZATIONS)}")


def _direction(
    weights: Mapping[str, Tensor], entropy: Sequence[int], normalization: str
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
    return {name: _scaled_noise(w.detach(), generator, normalization) for name, w in weights.items()}


def _scaled_noise(weights: Tensor, generator: torch.Generator, normalization: str) -> Tensor:
    if weights.dim() < 2:
        return torch.zeros_like(weights)
    # Drawn in float64 on the CPU, so that neither device nor dtype changes the direction.
    noise = torch.randn(weights.shape, generator=generator, dtype=torch.float64)
    rows = weights.shape[0] if normalization == "filter" else 1
    noise, target = noise.reshape(rows, -1), weights.cpu().double().reshape(rows, -1)
    scaled = noise * (target.norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True))
    return scaled.reshape(weights.shape).to(weights)


def displace(
    parameters: Mapping[str, Tensor], directions: Sequence[Mapping[str, Tensor]], steps: Sequence[float]
) -> dict[str, Tensor]:
    """New tensors w + sum of step * direction; at the origin the very tensors of ``parameters``."""
    if not any(steps):
        return dict(parameters)
    moved = {name: weights.detach().clone() for name, weights in parameters.items()}
    for step, direction in zip(steps, directions, strict=True):
        for name, weights in moved.items():
            weights.add_(direction[name], alpha=step)
    return moved


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names, shapes, dtypes and every bit of the values, whatever their order or device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
