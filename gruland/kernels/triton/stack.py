"""Last states of whole stacks in evaluation, for one weight set or many, by the kernel of ``stack_kernel.py``.

P points (weight sets), B sequences, V words, K tables, H hidden units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gruland.kernels import Layer
from gruland.kernels.triton import layer as one_layer
from gruland.kernels.triton.layer import launch, power_of_two, processor

#: Points that go through the same reviews side by side: their weights share the L2 cache, they the tables' rows.
GROUP = 8
#: Programs of a multiprocessor, as many as its registers hold.
_RESIDENT_PROGRAMS = {"float32": 2, "bfloat16": 1}


def final_states(
    table_V3H: Tensor,
    tokens: Any,
    offsets: Any,
    layers: Sequence[Layer],
    *,
    between: str | None = "tanh",
    zoneout: float = 0.0,
    precision: str = "float32",
) -> Tensor:
    """The last layer's state [B, H] after each sequence's last step, in evaluation, without gradients.

    Args:
        table_V3H: float32, the first layer's input projections of a vocabulary, W_ih x + b_ih, a row per word;
            on the device that computes.
        tokens: int32, the sequences' rows of the table, one after the other.
        offsets: int64 [B + 1]: sequence b is ``tokens[offsets[b]:offsets[b + 1]]``; each of one step at least.
        layers: the stack; ``layers[0].weight_ih`` and ``bias_ih`` are not used.
        between: the activation between two layers: None, ``"tanh"`` or ``"relu"``.
        zoneout: the rate of which the states are the expectation.
        precision: of the matrix products, ``"float32"`` or ``"bfloat16"``.
    """
    stacked = [Layer(*(tensor.unsqueeze(0) for tensor in layer)) for layer in layers]
    factors_PK, tables = table_V3H.new_ones(1, 1), table_V3H.unsqueeze(0)
    options: Any = {"between": between, "zoneout": zoneout, "precision": precision}
    return final_states_many(tables, factors_PK, tokens, offsets, stacked, **options)[0]


@torch.no_grad()
def final_states_many(
    tables_KV3H: Tensor,
    factors_PK: Tensor,
    tokens: Any,
    offsets: Any,
    layers: Sequence[Layer],
    *,
    between: str | None = "tanh",
    zoneout: float = 0.0,
    precision: str = "float32",
) -> Tensor:
    """:func:`final_states` of P weight sets in one launch: [P, B, H].

    Args:
        tables_KV3H: K tables of which each point has a combination; in a plane that of the weights and those of
            the two directions. float32, or bfloat16 to halve what is read (then the entries are rounded).
        factors_PK: float32, a point's factors; in a plane (1, alpha, beta).
        layers: of tensors with a leading axis of P.

    The result takes 4 P B H bytes: a surface would go through its points in chunks. Tokens and offsets that are on
    the tables' device already are not copied.

    The package's surfaces launch one point after the other so far, by :func:`final_states`, and wait for the longest
    review of each; ``benchmarks/gpu.py`` has both.

    Raises:
        ValueError: shapes that don't fit, or another activation.
    """
    from gruland.kernels.triton import stack_kernel as kernels

    if between not in kernels.ACTIVATIONS:
        names = ", ".join(map(repr, kernels.ACTIVATIONS))
        raise ValueError(f"between is {between!r}: expected one of {names}")
    device, hidden = tables_KV3H.device, tables_KV3H.shape[2] // 3
    _check(tables_KV3H, factors_PK, layers)
    tokens = torch.as_tensor(tokens, device=device)
    offsets = torch.as_tensor(offsets, dtype=torch.int64, device=device)
    points, sequences = len(factors_PK), len(offsets) - 1
    out_PBH = torch.empty(points, sequences, hidden, device=device)
    tiles = _tiles(hidden, sequences, precision)
    items = points * -(-sequences // tiles["SEQUENCES"])
    programs = min(items, processor(device)[0] * _RESIDENT_PROGRAMS[precision])
    products = torch.bfloat16 if precision == "bfloat16" else torch.float32
    matrices = [[layer.weight_ih for layer in layers[1:]], [layer.weight_hh for layer in layers]]
    biases = [[layer.bias_ih for layer in layers], [layer.bias_hh for layer in layers]]
    with launch(out_PBH):
        kernels.final_states[(programs,)](
            tables_KV3H.contiguous(),
            factors_PK.to(device, torch.float32).contiguous(),
            tokens,
            offsets,
            offsets.diff().argsort(descending=True, stable=True),
            *(torch.stack(matrix).to(products) if matrix else out_PBH for matrix in matrices),
            *(torch.stack(bias) for bias in biases),
            torch.empty(programs * len(layers) * 3 * tiles["ROWS"] * tiles["SEQUENCES"], device=device),
            out_PBH,
            points,
            sequences,
            tables_KV3H.shape[1],
            float(zoneout),
            LAYERS=len(layers),
            TABLES=len(tables_KV3H),
            GROUP=GROUP,
            BETWEEN=kernels.ACTIVATIONS[between],
            ZONES_OUT=zoneout > 0,
            **tiles,
        )
    return out_PBH


def _tiles(hidden: int, sequences: int, precision: str) -> dict[str, Any]:
    """The kernel's tiles. The weights are read once for SEQUENCES sequences: as many as registers hold."""
    units = min(max(16, power_of_two(hidden)), 64)
    most, depth, warps, stages = (64, units, 8, 2) if precision == "bfloat16" else (32, 16, 4, 3)
    return {
        "HIDDEN": hidden,
        "UNITS": units,
        "SEQUENCES": min(max(power_of_two(sequences), 8), most),
        "DEPTH": depth,
        "ROWS": -(-hidden // units) * units,
        "PRODUCTS": precision if precision == "bfloat16" else one_layer.FLOAT32_PRODUCTS,
        "num_warps": warps if units > 32 else 4,
        "num_stages": stages,
        "enable_fp_fusion": True,
    }


def _check(tables_KV3H: Tensor, factors_PK: Tensor, layers: Sequence[Layer]) -> None:
    """Raises ValueError for what would make the kernel read beyond its tensors."""
    (tables, _, gates), (points, factors) = tables_KV3H.shape, factors_PK.shape
    if factors != tables:
        raise ValueError(f"got {factors} factors a point for {tables} tables: expected one for each")
    shapes = [points, gates, gates // 3], [points, gates]
    for index, layer in enumerate(layers):
        used = {"weight_hh": shapes[0], "bias_hh": shapes[1]}
        if index:
            used.update(weight_ih=shapes[0], bias_ih=shapes[1])
        for name, shape in used.items():
            if list(getattr(layer, name).shape) != shape:
                found = list(getattr(layer, name).shape)
                raise ValueError(f"{name} of layer {index} has shape {found}: expected {shape}")
