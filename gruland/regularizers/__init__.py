"""Regularizers: one class each, all of the interface in :mod:`gruland.regularizers.base`."""

from gruland.regularizers.ar_tar import ArTar
from gruland.regularizers.awd import AWD
from gruland.regularizers.base import RATES, SIZES, Regularizer, Steps, check_rate
from gruland.regularizers.composed import Composed
from gruland.regularizers.draws import Bernoulli, Draw, draws_of, factors, mix
from gruland.regularizers.dropconnect import DropConnect
from gruland.regularizers.embedding import Embedding
from gruland.regularizers.fraternal import Fraternal
from gruland.regularizers.label_smoothing import LabelSmoothing
from gruland.regularizers.layer_norm import LayerNorm
from gruland.regularizers.locked import Locked
from gruland.regularizers.none import NoDropout
from gruland.regularizers.r_drop import RDrop
from gruland.regularizers.recurrent import Recurrent
from gruland.regularizers.weight_decay import WeightDecay
from gruland.regularizers.word_dropout import WordDropout
from gruland.regularizers.zoneout import Zoneout

__all__ = [
    "AWD",
    "RATES",
    "SIZES",
    "ArTar",
    "Bernoulli",
    "Composed",
    "Draw",
    "DropConnect",
    "Embedding",
    "Fraternal",
    "LabelSmoothing",
    "LayerNorm",
    "Locked",
    "NoDropout",
    "RDrop",
    "Recurrent",
    "Regularizer",
    "Steps",
    "WeightDecay",
    "WordDropout",
    "Zoneout",
    "by_rates",
    "check_rate",
    "draws_of",
    "factors",
    "mix",
]


def by_rates(*, zoneout: float = 0.0, dropconnect: float = 0.0) -> Regularizer:
    """The regularizer of these rates, e.g. ``by_rates(zoneout=0.1)``; a rate of 0 leaves its part out.

    Raises:
        ValueError: a rate outside [0, 1).
    """
    rates = {Zoneout: check_rate(zoneout, "zoneout"), DropConnect: check_rate(dropconnect, "dropconnect")}
    parts = {kind.name: kind(rate) for kind, rate in rates.items() if rate}
    return Composed(parts) if len(parts) > 1 else next(iter(parts.values()), NoDropout())
