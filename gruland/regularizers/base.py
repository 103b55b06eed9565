"""What a regularizer may do to a recurrent classifier, a hook each.

T time steps, B sequences, D numbers in a word vector, H hidden units, L layers, K outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from torch import Tensor

from gruland.kernels import Layer, philox
from gruland.regularizers.draws import Bernoulli, Draw

if TYPE_CHECKING:
    from gruland.task import Task

#: The paper's numbers of hidden units (section 5.1), the longest jobs first, and its rates.
SIZES: Mapping[str, Sequence[Any]] = {"model.hidden_size": (256, 128, 64)}
RATES: Mapping[str, Sequence[Any]] = {**SIZES, "regularizer.rate": (0.05, 0.1, 0.5)}

#: The hooks that are called with a draw, thus in training and in dropout at test time; those of the cell and the loss.
DRAWING = ("words", "weights", "step", "between")
HOOKS = (*DRAWING, "gates", "penalty", "decay", "loss", "agreement")


class Steps(NamedTuple):
    """The masks of a layer's steps, time-major; None leaves a step as it is.

    Attributes:
        keep: [T, B, H] of zeros and ones (or bool): 1 = the unit keeps its previous value at that step.
        candidate: [T, B, H] factors of the candidate n_t, which is tanh of its gate.
    """

    keep: Bernoulli | Tensor | None = None
    candidate: Tensor | None = None


class Regularizer:
    """What keeps a classifier from learning its training reviews by heart.

    An option of ``conf/regularizer`` names a subclass and holds the constructor's arguments; the constructor
    checks them. A subclass overrides the hooks that it needs; each of them does nothing here. The drawing hooks are
    called where masks are drawn (in training, and at test time with a draw), each with a draw of its own, so that no
    two of them share a random number; without a draw the model is the expectation, in which units keep ``kept`` of
    their previous value.

    Attributes:
        name: in results, in the names of runs and on the command line, for instance ``zoneout``.
        title: in tables and figures, for instance ``Zoneout``.
        grid: what a sweep tries, as keys of the configuration and their values.
        rate: how strong it is; 0 for one that has no rate.
        kept: the share of its previous value that a unit keeps at a step without a draw.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    grid: ClassVar[Mapping[str, Sequence[Any]]] = SIZES
    rate: float = 0.0
    kept: float = 0.0

    def words(self, embedded_BTD: Tensor, tokens_BT: Tensor, draw: Draw) -> Tensor:
        """The words' vectors [B, T, D] that the first layer gets."""
        return embedded_BTD

    def weights(self, layer: Layer, draw: Draw) -> Layer:
        """The weights that a layer runs with."""
        return layer

    def step(self, steps: int, units: int, draw: Draw) -> Steps:
        """The masks of a layer's steps."""
        return Steps()

    def between(self, h: Tensor, draw: Draw) -> Tensor:
        """What the next layer gets of a layer's states [T, B, H]; of the last layer the head gets the last [B, H]."""
        return h

    def gates(self, products_R3H: Tensor) -> Tensor:
        """What stands for the gates' products [R, 3H] with the input or with the previous state, before the biases.

        It acts wherever the layers run, with a draw or without. No fused kernel has such a cell.
        """
        return products_R3H

    def penalty(self, states_BTH: Tensor, lengths_B: Tensor) -> Tensor:
        """What is added to each sequence's loss [B]: of the last layer's states, zero beyond the lengths."""
        return states_BTH.new_zeros(len(states_BTH))

    def decay(self, matrices: Sequence[Tensor]) -> Tensor:
        """What is added to the loss for the weights themselves, a scalar: of the layers' and the head's matrices."""
        return matrices[0].new_zeros(())

    def agreement(self, task: Task, logits_BK: Tensor, others_BK: Tensor) -> Tensor:
        """What is added [B] for the difference of two passes over the same words, each with masks of its own.

        With this hook training makes two passes, and minimizes the mean of their losses.
        """
        return logits_BK.new_zeros(len(logits_BK))

    def loss(self, task: Task, logits_BK: Tensor, labels: Tensor) -> Tensor:
        """The loss [B] that training minimizes besides the penalty."""
        return task.loss(logits_BK, labels, "none")

    @property
    def hooks(self) -> frozenset[str]:
        """The names of the hooks that do something."""
        return frozenset(
            name for name in HOOKS if getattr(type(self), name) is not getattr(Regularizer, name)
        )

    @property
    def random(self) -> bool:
        """Whether it draws anything: dropout at test time differs from evaluation."""
        return not self.hooks.isdisjoint(DRAWING)

    def __repr__(self) -> str:
        values = ", ".join(f"{key}={value}" for key, value in vars(self).items() if not key.startswith("_"))
        return f"{type(self).__name__}({values})"


def check_rate(rate: Any, name: str = "rate") -> float:
    """The rate as a float.

    Raises:
        ValueError: it is no number in [0, 1), or one that is drawn as 1.
    """
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise ValueError(f"{name}={rate}: expected a number in [0, 1)")
    if philox.threshold(rate) == 2**16:
        raise ValueError(f"{name}={rate}: it is drawn to 2^-16, as 1: expected a number of at most 0.99999")
    return float(rate)


def check_strength(strength: Any, name: str) -> float:
    """The strength as a float. Raises ValueError where it is no finite number of at least 0."""
    if (
        isinstance(strength, bool)
        or not isinstance(strength, int | float)
        or not 0 <= strength < float("inf")
    ):
        raise ValueError(f"{name}={strength}: expected a finite number of at least 0")
    return float(strength)
