"""Losses against torch's own, metrics against scikit-learn-like counts by hand."""

import math

import pytest
import torch
from torch import nn

from gruland.task import Task

BINARY = Task("binary", ("negative", "positive"))
TOPICS = Task("multiclass", ("a", "b", "c"))
TAGS = Task("multilabel", ("x", "y"))


def sample(task: Task, count: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(count, task.num_outputs, generator=generator, dtype=torch.float64)
    if task.kind == "multilabel":
        return logits, torch.randint(0, 2, (count, len(task.classes)), generator=generator).float()
    return logits, torch.randint(0, len(task.classes), (count,), generator=generator)


@pytest.mark.parametrize(
    ("task", "outputs", "criterion"),
    [
        (BINARY, 1, lambda z, y: nn.BCEWithLogitsLoss()(z[:, 0], y.double())),
        (TOPICS, 3, lambda z, y: nn.CrossEntropyLoss()(z, y)),
        (TAGS, 2, lambda z, y: nn.BCEWithLogitsLoss()(z, y.double())),
    ],
)
def test_loss_is_torchs(task, outputs, criterion):
    logits, labels = sample(task)
    assert task.num_outputs == outputs
    torch.testing.assert_close(task.loss(logits, labels), criterion(logits, labels))
    torch.testing.assert_close(task.loss(logits, labels, "none").mean(), criterion(logits, labels))


@pytest.mark.parametrize("task", [BINARY, TOPICS, TAGS])
def test_loss_of_the_models_own_probabilities_is_its_loss(task):
    logits, labels = sample(task)
    of_probabilities = task.loss_of_probabilities(task.probabilities(logits), labels, "none")
    torch.testing.assert_close(of_probabilities, task.loss(logits, labels, "none"))


def test_certain_and_wrong_is_a_large_loss_but_finite():
    assert math.isfinite(BINARY.loss_of_probabilities(torch.tensor([[1.0, 0.0]]), torch.tensor([1])))


def test_binary_metrics_by_hand():
    # predictions 1 1 0 0 1 (a logit of 0 is a probability of 0.5 and rounds up), labels 1 0 0 1 1
    probabilities = BINARY.probabilities(torch.tensor([[2.0], [0.1], [-1.0], [-0.2], [0.0]]))
    labels = torch.tensor([1, 0, 0, 1, 1])
    assert BINARY.correct(probabilities, labels).tolist() == [1, 0, 1, 0, 1]
    assert BINARY.f1(probabilities, labels) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))


def test_multiclass_f1_is_the_mean_over_classes():
    probabilities = torch.eye(3)[torch.tensor([0, 1, 2, 0])]
    labels = torch.tensor([0, 1, 2, 1])
    assert TOPICS.f1(probabilities, labels) == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)


def test_multilabel_counts_the_share_of_right_labels():
    probabilities = torch.tensor([[0.9, 0.2], [0.5, 0.6]])
    assert TAGS.correct(probabilities, torch.tensor([[1.0, 1.0], [1.0, 1.0]])).tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("kind", "classes", "message"),
    [
        ("regression", ("a", "b"), "unknown"),
        ("binary", ("a", "b", "c"), "exactly 2"),
        ("multiclass", ("a",), "at least 2"),
    ],
)
def test_impossible_tasks_are_refused(kind, classes, message):
    with pytest.raises(ValueError, match=message):
        Task(kind, classes)


def test_plain_data_round_trip():
    assert Task.from_dict(TOPICS.to_dict()) == TOPICS
