"""The figures that the paper prints, under its own table numbers.

Hattimare and Acharya, "Evaluating and Visualizing the properties of Dropout for GRU".
"""

from __future__ import annotations

from gruland.report.models import Place

CITATION = "Hattimare and Acharya, Evaluating and Visualizing the properties of Dropout for GRU"

NONE = Place("none", 0.0, 128)
ZONEOUT = Place("zoneout", 0.1, 128)
DROPCONNECT = Place("dropconnect", 0.05, 256)
MODELS = (NONE, ZONEOUT, DROPCONNECT)

#: Table 1: mean loss of each split, one value per repetition of the training.
TABLE_1: dict[Place, dict[str, tuple[float, ...]]] = {
    NONE: {
        "train": (0.004, 0.000, 0.036),
        "validation": (0.344, 0.234, 0.283),
        "test": (0.572, 0.603, 0.572),
    },
    ZONEOUT: {"train": (0.011, 0.010), "validation": (0.281, 0.262), "test": (0.582, 0.504)},
    DROPCONNECT: {
        "train": (0.002, 0.006, 0.005),
        "validation": (0.249, 0.284, 0.298),
        "test": (0.533, 0.464, 0.575),
    },
}

#: Table 2: mean loss on the 200 adversarial reviews.
TABLE_2: dict[Place, float] = {NONE: 1.208, ZONEOUT: 1.353, DROPCONNECT: 0.544}

#: Table 3: the same loss with and without dropout at test time.
TABLE_3: dict[Place, dict[str, float]] = {
    ZONEOUT: {"dropout": 1.365, "plain": 1.353},
    DROPCONNECT: {"dropout": 0.537, "plain": 0.544},
}
