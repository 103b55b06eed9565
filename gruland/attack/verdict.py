"""What outputs on clean and attacked reviews say of a model: measures with intervals over the reviews.

A model with dropout at test time is judged by draws of the masks that the attack did not see, the same ones for a
review and for what became of it (common random numbers). One without is judged by its one output, S = 1.

S draws, N reviews, K outputs, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gruland import sampling
from gruland.sampling import plain
from gruland.stats import Interval
from gruland.task import Task

#: How the similarity of two texts is measured.
SIMILARITY = "1 - Levenshtein distance of the characters / length of the longer text"


class Effort(NamedTuple):
    """What an attack spent on each of N reviews; None where it does not count that.

    Attributes:
        queries: texts that the model was asked; several draws of the masks for a text are one query.
        changed: words that differ from the original's.
        words: words of the original.
    """

    queries: Sequence[int] | None = None
    changed: Sequence[int] | None = None
    words: Sequence[int] | None = None


class Answers(NamedTuple):
    """A model's answers to N reviews under S draws, held against their labels."""

    task: Task
    labels: Tensor
    losses_SN: Tensor
    rights_SN: np.ndarray  # 1 where the prediction is right; multilabel: the share of right labels
    probabilities_SNC: Tensor

    @classmethod
    def of(cls, task: Task, outputs_SNK: Tensor, labels: Tensor) -> Answers:
        """From logits."""
        outputs = outputs_SNK.double()
        probabilities = torch.stack([task.probabilities(output) for output in outputs])
        losses = torch.stack([task.loss(output, labels, "none") for output in outputs])
        rights = torch.stack([task.correct(drawn, labels) for drawn in probabilities])
        return cls(task, labels, losses, rights.numpy(), probabilities)

    @property
    def rights(self) -> np.ndarray:
        """[N] the share of the draws whose prediction is right."""
        return self.rights_SN.mean(0)

    @property
    def rights_of_mean(self) -> np.ndarray:
        """[N] 1 where the prediction by the probability averaged over the draws is right."""
        return self.task.correct(self.probabilities_SNC.mean(0), self.labels).numpy()

    def majority(self) -> np.ndarray:
        """[N] 1 where the label that most draws predict is the right one; a binary tie counts as positive."""
        predicted = torch.stack([self.task.predictions(drawn) for drawn in self.probabilities_SNC])
        if self.task.kind != "multilabel":
            predicted = F.one_hot(predicted, len(self.task.classes)).double()
        return self.task.correct(predicted.double().mean(0), self.labels).numpy()

    def calibration(self) -> dict[str, Any] | None:
        """The calibration error of the probability averaged over the draws."""
        mean_NC = self.probabilities_SNC.mean(0)
        predicted = self.task.predictions(mean_NC)
        if self.task.kind == "multilabel":
            confidence, right = torch.where(predicted > 0, mean_NC, 1 - mean_NC), predicted == self.labels
        else:
            confidence = mean_NC.gather(1, predicted.unsqueeze(1)).squeeze(1)
            right = predicted == self.labels
        return plain(
            sampling.calibration_error(confidence.numpy(), right.double().numpy()), bins=sampling.BINS
        )


def verdict(answers: Answers) -> dict[str, Any]:
    """Mean loss, expected accuracy, accuracy of the majority vote, and of being right in all draws."""
    return {
        "loss": plain(sampling.mean(answers.losses_SN.mean(0).numpy())),
        "accuracy": plain(sampling.mean(answers.rights)),
        "majority": plain(sampling.mean(answers.majority())),
        "worst": plain(sampling.mean(answers.rights_SN.min(0))),
    }


def success(clean_SN: np.ndarray, attacked_SN: np.ndarray) -> dict[str, Any] | None:
    """Of the answers that are right on clean reviews, the share that is wrong on the attacked ones, draw by draw.

    An answer of several labels is right where all of them are.
    """
    right_SN, wrong_SN = clean_SN == 1, attacked_SN < 1
    turned, right = (right_SN & wrong_SN).mean(0), right_SN.mean(0)
    return plain(sampling.ratio(turned, right), reviews=int((right > 0).sum()))


def measures(
    clean: Answers,
    attacked: Answers,
    effort: Effort,
    *,
    tried: np.ndarray,
    turned: np.ndarray,
    similarities: np.ndarray | None = None,
) -> dict[str, Any]:
    """What every attack reports.

    Args:
        tried: [N] of bool, the reviews that the attack had to work on: queries are counted over these.
        turned: those on which it reached its goal: changes are counted over these.
        similarities: [N] of original and attacked texts; None: there is no attacked text.

    Returns:
        By name; None stands for a measure that the attack takes and could not take here, such as the queries where no
        review had to be worked on.
    """
    found: dict[str, Any] = {
        "clean_accuracy": plain(sampling.mean(clean.rights)),
        "accuracy_under_attack": plain(sampling.mean(attacked.rights)),
        "success": success(clean.rights_SN, attacked.rights_SN),
        "calibration_clean": clean.calibration(),
        "calibration_attacked": attacked.calibration(),
    }
    if effort.queries is not None:
        queries = np.asarray(effort.queries)[tried]
        found["queries_mean"] = _over(queries, sampling.mean)
        found["queries_median"] = _over(queries, sampling.median)
    if (rates := change_rates(effort)) is not None:
        found["words_changed"] = _over(rates[turned], sampling.mean)
    if similarities is not None:
        found["similarity"] = _over(similarities[turned], sampling.mean, how=SIMILARITY)
    return found


def _over(
    values: np.ndarray, statistic: Callable[[np.ndarray], Interval], **more: str
) -> dict[str, Any] | None:
    """A statistic over reviews, and how many these are; None where there is none."""
    return plain(statistic(values), reviews=len(values), **more) if len(values) else None


def change_rates(effort: Effort) -> np.ndarray | None:
    """[N] the share of each review's words that changed."""
    if effort.changed is None or effort.words is None:
        return None
    return np.asarray(effort.changed) / np.maximum(1, np.asarray(effort.words))


def similarities(originals: Sequence[str], attacked: Sequence[str]) -> np.ndarray:
    """[N] in [0, 1], see :data:`SIMILARITY`."""
    from rapidfuzz.distance import Levenshtein

    return np.array(
        [Levenshtein.normalized_similarity(a, b) for a, b in zip(originals, attacked, strict=True)]
    )


def curve(at: Sequence[float], rights: Sequence[np.ndarray]) -> dict[str, list[Any]]:
    """The accuracy at each budget, with its interval, from right or wrong [N] there."""
    intervals = [sampling.mean(values) for values in rights]
    return {
        "at": list(at),
        "accuracy": [interval.estimate for interval in intervals],
        "low": [interval.low for interval in intervals],
        "high": [interval.high for interval in intervals],
    }


def curves(effort: Effort, clean: np.ndarray, attacked: np.ndarray, tried: np.ndarray) -> dict[str, Any]:
    """Accuracy against how many queries, or what share of changed words, the attack may spend on a review.

    A review counts as attacked where what was spent on it lies within the budget, else as clean.

    Args:
        clean, attacked: [N] right or wrong (or the share of draws that are right).
        tried: [N] of bool, the reviews that the attack had to work on.
    """
    if not tried.any():
        return {}
    spent: dict[str, tuple[np.ndarray, list[float]]] = {}
    if effort.queries is not None:
        queries = np.asarray(effort.queries)
        most = int(queries[tried].max())
        spent["queries"] = queries, [float(2**k) for k in range(most.bit_length() + 1) if 2**k < 2 * most]
    if (rates := change_rates(effort)) is not None:
        most = int(np.ceil(rates[tried].max() * 20))
        spent["words_changed"] = rates, [step / 20 for step in range(most + 1)]
    return {
        name: curve(at, [np.where(values <= budget, attacked, clean) for budget in at])
        for name, (values, at) in spent.items()
    }
