"""Logits over a plane by way of the words' input projections, which are linear in the weights.

With fixed word vectors x the first layer's input projection W x + b at w + alpha * delta + beta * eta is that of w
plus alpha times that of delta plus beta times that of eta. Each distinct word of the reviews is projected once for the
weights and once for each direction, instead of every word of every review at every cell; what is left of a cell is the
sum of three tables, and the recurrence in the fused kernel.

N reviews, K outputs, V distinct words, H hidden units.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gruland.classifier import Classifier
from gruland.data import Encoded
from gruland.kernels import PRECISIONS, Layer, cpu, triton
from gruland.landscape.directions import displace

#: Bytes that the tables of a plane may take; beyond, the words are projected anew at each cell.
MEMORY = 2 * 2**30

_WEIGHT, _BIAS = "gru.weight_ih_l0", "gru.bias_ih_l0"


def kernel_of(model: Classifier) -> ModuleType:
    """The backend that runs whole stacks on the model's device: ``triton`` on a GPU, else ``cpu``."""
    return triton if model.device.type == "cuda" else cpu


def unavailable(model: Classifier, precision: str = "float32") -> str | None:
    """None if the reviews can be projected for this model, else one line that says why not."""
    gru, kernel = model.gru, kernel_of(model)
    if model.vectors.requires_grad:
        return "the word vectors are trained"
    if "gates" in gru.regularizer.hooks:
        return f"{gru.regularizer.title} has a cell of its own"
    if gru.backend not in ("auto", kernel.__name__.rpartition(".")[2]):
        return f"the model's backend is {gru.backend}"
    return kernel.unavailable(model.device, model.head.weight.dtype, False, precision)


def precisions(model: Classifier) -> tuple[str, ...]:
    """What the kernel can multiply in for this model, the fastest last; empty where there is none."""
    if kernel_of(model) is cpu:
        return cpu.precisions() if unavailable(model) is None else ()
    return tuple(name for name in PRECISIONS if unavailable(model, name) is None)


class ProjectedReviews:
    """Reviews as rows of a table of distinct words.

    Args:
        model: where the word vectors and everything that is no parameter come from.
        encoded: the reviews, N of them.
        precision: of the kernel's products, as the kernel's ``final_states`` takes it.
    """

    def __init__(self, model: Classifier, encoded: Encoded, precision: str) -> None:
        self._model, self._offsets, self._precision = model, encoded.offsets, precision
        words, rows = np.unique(encoded.tokens, return_inverse=True)
        self._vectors = model.vectors[torch.from_numpy(words).to(model.device)]
        # On the device once, not with each cell.
        self._rows = torch.from_numpy(rows.astype(np.int32)).to(model.device)

    @torch.no_grad()
    def logits(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Logits [N, K] in the reviews' order; a parameter that is not given is the model's own."""
        own = dict(self._model.named_parameters())
        return self._run(self._table({**own, **parameters}), {**own, **parameters})

    @torch.no_grad()
    def plane(
        self, parameters: Mapping[str, Tensor], directions: Sequence[Mapping[str, Tensor]]
    ) -> Callable[[Sequence[float]], Tensor]:
        """From steps along the directions to logits [N, K]; at the origin those of ``parameters``, bit for bit."""
        rows, columns = len(self._vectors), 3 * self._model.gru.hidden_size
        needed = (len(directions) + 2) * rows * columns * self._vectors.element_size()
        if needed > MEMORY:
            logging.getLogger(__name__).warning(
                "tables of %d words would take %.1f GiB: the words are projected anew at each cell",
                rows, needed / 2**30,
            )  # fmt: skip
            return lambda steps: self.logits(displace(parameters, directions, steps))
        base = {**dict(self._model.named_parameters()), **parameters}
        origin, *slopes = [self._table(weights) for weights in (base, *directions)]
        moved = torch.empty_like(origin)

        @torch.no_grad()
        def at(steps: Sequence[float]) -> Tensor:
            weights = {**base, **displace(parameters, directions, steps)}
            return self._run(_combined(origin, slopes, steps, moved), weights)

        return at

    def _table(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The words' input projections [V, 3H]; of a direction that leaves the first layer alone, zeros."""
        matrix, bias = weights.get(_WEIGHT), weights.get(_BIAS)
        if matrix is None:
            matrix = self._vectors.new_zeros(3 * self._model.gru.hidden_size, self._vectors.shape[1])
        return F.linear(self._vectors, matrix, bias)

    def _run(self, table_V3H: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        gru = self._model.gru
        layers = [
            Layer(*(weights[f"gru.{name}_l{index}"] for name in Layer._fields))
            for index in range(gru.num_layers)
        ]
        h_NH = kernel_of(self._model).final_states(
            table_V3H,
            self._rows,
            self._offsets,
            layers,
            between=gru.between,
            zoneout=gru.regularizer.kept,
            precision=self._precision,
        )
        return F.linear(h_NH, weights["head.weight"], weights["head.bias"]).cpu()


def _combined(origin: Tensor, slopes: Sequence[Tensor], steps: Sequence[float], out: Tensor) -> Tensor:
    """origin + sum of step * slope, in ``out``; at the origin ``origin`` itself."""
    if not any(steps):
        return origin
    out.copy_(origin)
    for slope, step in zip(slopes, steps, strict=True):
        if step:
            out.add_(slope, alpha=step)
    return out
