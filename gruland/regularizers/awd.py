"""The combination of AWD-LSTM (Merity et al. 2017, "Regularizing and optimizing LSTM language models", sections 2 and
4) for a GRU, without its optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from gruland.regularizers.ar_tar import ArTar
from gruland.regularizers.base import SIZES
from gruland.regularizers.composed import Composed
from gruland.regularizers.dropconnect import DropConnect
from gruland.regularizers.embedding import Embedding
from gruland.regularizers.locked import Locked
from gruland.regularizers.weight_decay import WeightDecay


class AWD(Composed):
    """DropConnect on the hidden-to-hidden weights, embedding and locked dropout, AR and TAR, weight decay.

    The paper's optimizer, averaged SGD, is no part of it; ``callbacks=[default,weight_averaging]`` averages weights.

    Args:
        dropconnect, locked, embedding: rates, in [0, 1); the paper's are 0.5, 0.4 (between layers 0.25) and 0.1.
        alpha, beta: of AR and TAR, at least 0; the paper's.
        weight_decay: at least 0; the paper's.

    Raises:
        ValueError: a value that cannot work.
    """

    grid: ClassVar[Mapping[str, Sequence[Any]]] = {  # of the parts' grids some axes
        **SIZES,
        "regularizer.dropconnect": (0.1, 0.3, 0.5),
        "regularizer.locked": (0.1, 0.25, 0.4),
    }

    def __init__(
        self,
        dropconnect: float = 0.5,
        locked: float = 0.25,
        embedding: float = 0.1,
        alpha: float = 2.0,
        beta: float = 1.0,
        weight_decay: float = 1.2e-6,
    ) -> None:
        super().__init__(
            {
                "dropconnect": DropConnect(dropconnect),
                "embedding": Embedding(embedding),
                "locked": Locked(locked),
                "ar_tar": ArTar(alpha, beta),
                "weight_decay": WeightDecay(weight_decay),
            }
        )
        self.name, self.title = "awd", "AWD"  # type: ignore[misc]
