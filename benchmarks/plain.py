"""The paper's classifier on ``torch.nn.GRU``: the strongest simple loop, and what the peers are given.

B sequences, T time steps, D numbers in a word vector, H hidden units.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from gruland.classifier import Classifier
from gruland.data import Encoded
from gruland.data.batches import by_length
from gruland.landscape import displace

BATCH = 256  # reviews side by side: what does best for torch.nn.GRU


class Plain(nn.Module):
    """A classifier's twin: the same weights, layers of ``torch.nn.GRU`` with tanh between.

    Args:
        model: of which the weights are copied.
        packed: run over packed sequences, without padding; else over padded ones.
    """

    def __init__(self, model: Classifier, packed: bool = False) -> None:
        super().__init__()
        gru, self.packed = model.gru, packed
        sizes = [gru.input_size, *[gru.hidden_size] * gru.num_layers]
        self.vectors: Tensor
        self.register_buffer("vectors", model.vectors, persistent=False)
        self.layers = nn.ModuleList(nn.GRU(a, b) for a, b in pairwise(sizes))
        self.head = nn.Linear(gru.hidden_size, model.task.num_outputs)
        self.take(model.trainable())

    @torch.no_grad()
    def take(self, parameters: Mapping[str, Tensor]) -> None:
        """Copy the weights of a :class:`Classifier`, by its names."""
        own = dict(self.named_parameters())
        for name, value in parameters.items():
            own[twin(name)].copy_(value)

    def forward(self, tokens_BT: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Logits [B, K]; the longest sequence comes first. Without ``lengths_B`` a 0 ends a sequence."""
        lengths_B = (tokens_BT != 0).sum(1) if lengths_B is None else lengths_B
        return self.head(
            self._packed(tokens_BT, lengths_B) if self.packed else self._padded(tokens_BT, lengths_B)
        )

    def _padded(self, tokens_BT: Tensor, lengths_B: Tensor) -> Tensor:
        x_TBD = F.embedding(tokens_BT.t(), self.vectors)
        for index, layer in enumerate(self.layers):
            x_TBD, _ = layer(x_TBD.tanh() if index else x_TBD)
        last_B = lengths_B.to(x_TBD.device) - 1
        return x_TBD[last_B, torch.arange(len(last_B), device=x_TBD.device)]

    def _packed(self, tokens_BT: Tensor, lengths_B: Tensor) -> Tensor:
        words = pack_padded_sequence(tokens_BT.t(), lengths_B.cpu())
        data = F.embedding(words.data, self.vectors)
        for index, layer in enumerate(self.layers):
            output, last = layer(PackedSequence(data.tanh() if index else data, words.batch_sizes))
            data = output.data
        return last[-1]


def twin(name: str) -> str:
    """A parameter of :class:`Classifier` by its name in :class:`Plain`: gru.weight_ih_l1 -> layers.1.weight_ih_l0."""
    if not name.startswith("gru."):
        return name
    weight, _, index = name.removeprefix("gru.").rpartition("_l")
    return f"layers.{index}.{weight}_l0"


class PlainSurface:
    """The mean loss of reviews at grid points, by a loop over batches of :data:`BATCH` sorted by length.

    With ``usual`` the batches are what a loader without further ado gives: 32 reviews in any order.
    """

    def __init__(
        self,
        model: Classifier,
        encoded: Encoded,
        labels: np.ndarray,
        packed: bool,
        dtype: torch.dtype = torch.float32,
        usual: bool = False,
    ) -> None:
        self.module = Plain(model, packed).to(dtype).eval()
        self._model = model
        self.batches: list[tuple[Tensor, Tensor, Tensor]] = []
        everyone = np.arange(encoded.size)
        batches = [everyone[i : i + 32] for i in range(0, encoded.size, 32)]
        for rows in batches if usual else by_length(everyone, encoded.lengths, BATCH):
            tokens, lengths = encoded.take(rows).padded()
            self.batches.append((tokens, lengths, torch.from_numpy(labels[rows])))

    @torch.inference_mode()
    def loss(self) -> float:
        """At the module's present weights."""
        losses = [
            self._model.task.loss(self.module(tokens, lengths), labels, "none").double()
            for tokens, lengths, labels in self.batches
        ]
        return float(torch.cat(losses).mean())

    def at(self, directions: list[dict[str, Tensor]], steps: tuple[float, float]) -> float:
        """At a grid point; the weights are displaced in the parameters' own dtype."""
        self.module.take(displace(self._model.trainable(), directions, steps))
        return self.loss()
