"""Scores against a plain loop, and what they must not depend on."""

import numpy as np
import pytest
import torch

from gruland import evaluation
from gruland.classifier import Classifier
from gruland.data import Encoded
from gruland.regularizers import Draw, by_rates, draws_of
from gruland.task import Task


def model(**rates):
    torch.manual_seed(0)
    vectors = torch.randn(30, 5)
    task = Task("binary", ("negative", "positive"))
    return Classifier(task, vectors, hidden_size=6, regularizer=by_rates(**rates)).eval()


def reviews(count=23):
    random = np.random.default_rng(0)
    lengths = random.integers(1, 12, count)
    tokens = random.integers(1, 30, lengths.sum()).astype(np.int32)
    return Encoded(tokens, np.concatenate([[0], np.cumsum(lengths)])), random.integers(0, 2, count)


def test_logits_are_those_of_each_review_alone():
    net, (encoded, _) = model(), reviews()
    alone = [net(torch.tensor(encoded.sequence(i)[None].astype(np.int64)), torch.tensor([len(encoded.sequence(i))]))
             for i in range(encoded.size)]  # fmt: skip
    torch.testing.assert_close(evaluation.logits(net, encoded), torch.cat(alone).detach())


@pytest.mark.parametrize("options", [{"zoneout": 0.3}, {"dropconnect": 0.3}])
def test_masks_at_test_time_do_not_depend_on_batches_or_order(options):
    net, (encoded, _) = model(**options), reviews()
    whole = evaluation.logits(net, encoded, draw=Draw(1))
    torch.testing.assert_close(evaluation.logits(net, encoded, draw=Draw(1), batch_tokens=13), whole)
    order = np.random.default_rng(1).permutation(encoded.size)
    shuffled = evaluation.logits(net, encoded.take(order), draw=Draw(1, order))
    torch.testing.assert_close(shuffled, whole[order])
    assert not torch.allclose(evaluation.logits(net, encoded, draw=Draw(2)), whole)
    assert not torch.allclose(evaluation.logits(net, encoded), whole)


def test_scores_by_hand():
    net, (encoded, labels) = model(), reviews()
    scores = evaluation.evaluate(net, encoded, labels)
    z, y = evaluation.logits(net, encoded)[:, 0].double(), torch.as_tensor(labels).double()
    losses = torch.log1p(torch.exp(-(2 * y - 1) * z))
    assert scores.loss == pytest.approx(float(losses.mean()), rel=1e-6)
    assert scores.loss_se == pytest.approx(float(losses.std()) / 23**0.5, rel=1e-6)
    assert scores.accuracy == pytest.approx(float(((z >= 0) == y.bool()).double().mean()))
    assert scores.count == 23


def test_dropout_scores_are_means_over_draws():
    net, (encoded, labels) = model(zoneout=0.4), reviews()
    found = evaluation.evaluate_with_dropout(net, encoded, labels, draws=3, seed=5)
    each = [evaluation.evaluate(net, encoded, labels, draw=draw) for draw in draws_of(5, 3)]
    assert found["loss"] == pytest.approx(np.mean([s.loss for s in each]), rel=1e-6)
    assert found["accuracy"] == pytest.approx(np.mean([s.accuracy for s in each]))
    # Jensen: the loss is convex in the probability.
    assert found["loss_of_mean_probability"] <= found["loss"]


def test_one_draw_of_a_model_without_masks_is_the_plain_evaluation():
    net, (encoded, labels) = model(), reviews()
    found = evaluation.evaluate_with_dropout(net, encoded, labels)
    plain = evaluation.evaluate(net, encoded, labels)
    assert found["loss"] == pytest.approx(plain.loss, rel=1e-6)
    assert found["loss_of_mean_probability"] == pytest.approx(plain.loss, rel=1e-6)


def test_the_models_mode_is_kept():
    net, (encoded, _) = model(zoneout=0.3).train(), reviews()
    evaluation.logits(net, encoded)
    assert net.training


def test_no_draws_are_refused():
    net, (encoded, labels) = model(), reviews()
    with pytest.raises(ValueError, match="draws=0"):
        evaluation.evaluate_with_dropout(net, encoded, labels, draws=0)
