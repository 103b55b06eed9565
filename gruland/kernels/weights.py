"""A layer's weights as torch and as haste lay them out.

I inputs, H hidden units. torch has the gates r, z, n and weights [3H, I]; haste has z, r, n and the transposes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gruland.kernels import Layer

#: haste's names for the four weights of a layer, in the order of :class:`gruland.kernels.Layer`.
HASTE_NAMES = ("kernel", "recurrent_kernel", "bias", "recurrent_bias")


def to_haste(layer: Layer) -> tuple[Tensor, ...]:
    """kernel [I, 3H], recurrent_kernel [H, 3H], bias and recurrent_bias [3H] of a layer."""
    return tuple(_swap_gates(weight).t() for weight in layer)


def from_haste(*weights: Tensor) -> Layer:
    """The inverse of :func:`to_haste`."""
    return Layer(*(_swap_gates(weight.t()) for weight in weights))


def from_haste_module(module: nn.Module | Mapping[str, Tensor]) -> Layer:
    """The layer of a ``haste_pytorch.GRU`` or of its state_dict. Raises ValueError for a missing weight."""
    state = module.state_dict() if isinstance(module, nn.Module) else module
    if missing := [name for name in HASTE_NAMES if name not in state]:
        expected = ", ".join(HASTE_NAMES)
        raise ValueError(f"the weights lack {', '.join(missing)}: expected {expected}")
    return from_haste(*(state[name] for name in HASTE_NAMES))


def to_haste_state(layer: Layer) -> dict[str, Tensor]:
    """A state_dict of ``haste_pytorch.GRU``, of copies."""
    return {name: w.detach().clone() for name, w in zip(HASTE_NAMES, to_haste(layer), strict=True)}


def from_torch(module: nn.GRU) -> list[Layer]:
    """The layers of a ``torch.nn.GRU``; without biases they are zero.

    Raises ValueError for a bidirectional module or one with projections.
    """
    if module.bidirectional or module.proj_size:
        raise ValueError(f"cannot take over {module}: expected one direction and no projections")
    weights = dict(module.named_parameters())
    no_bias = torch.zeros(3 * module.hidden_size)
    names = [[f"{name}_l{index}" for name in Layer._fields] for index in range(module.num_layers)]
    return [Layer(*(weights.get(name, no_bias) for name in layer)) for layer in names]


def to_torch(layers: Sequence[Layer], batch_first: bool) -> nn.GRU:
    """A ``torch.nn.GRU`` with copies of the layers' weights."""
    weight, inputs = layers[0].weight_hh, layers[0].weight_ih.shape[1]
    sizes = inputs, weight.shape[1], len(layers)
    # By way of the meta device, on which an initialization draws nothing from torch's generator.
    module = nn.GRU(*sizes, batch_first=batch_first, device="meta", dtype=weight.dtype)
    state = {f"{name}_l{k}": w for k, layer in enumerate(layers) for name, w in layer._asdict().items()}
    module.to_empty(device=weight.device).load_state_dict(state)
    return module


def _swap_gates(weight: Tensor) -> Tensor:
    """r, z, n to z, r, n along the first axis, and back."""
    first, second, candidate = weight.chunk(3)
    return torch.cat([second, first, candidate])
