"""The training loss as a surface, against a textbook loop with the same masks, and what common masks must give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_gru import masks_of
from test_landscape import LABELS, REVIEWS, classifier, encoded

from gruland.evaluation import evaluate_with_dropout, logits
from gruland.kernels import cpu
from gruland.landscape import compute_surface, random_directions
from gruland.landscape.directions import displace, fingerprint
from gruland.objective import EvaluationLoss, MaskedLoss, TrainingLoss
from gruland.regularizers import draws_of

MODELS = {
    "zoneout": {"zoneout": 0.3},
    "dropconnect": {"dropconnect": 0.4},
    "both": {"zoneout": 0.2, "dropconnect": 0.3},
}
needs_kernel = pytest.mark.skipif(
    cpu.unavailable(torch.device("cpu"), torch.float32, training=False) is not None, reason="no fused kernel"
)


@pytest.fixture(params=MODELS.values(), ids=MODELS)
def options(request):
    return request.param


def moved(model, seed=3, step=0.7):
    parameters = model.trainable()
    directions = random_directions(parameters, seed)
    return displace(parameters, directions, (step, -step / 2))


def textbook_loss(weights, vectors, review, label, keeps, factors):
    """The loss of one review under given masks, one step after the other in numpy's float64."""

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    inputs = vectors[review]
    for layer, (keep_TH, factor) in enumerate(zip(keeps, factors, strict=True)):
        w_ih, w_hh, b_ih, b_hh = (
            weights[f"gru.{kind}_l{layer}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h, outputs = np.zeros(w_hh.shape[1]), []
        for x, keep in zip(inputs if layer == 0 else np.tanh(inputs), keep_TH, strict=False):
            (i_r, i_z, i_n), (h_r, h_z, h_n) = (
                np.split(w_ih @ x + b_ih, 3),
                np.split((w_hh * factor) @ h + b_hh, 3),
            )
            r, z = sigmoid(i_r + h_r), sigmoid(i_z + h_z)
            h = np.where(keep > 0, h, (1 - z) * np.tanh(i_n + r * h_n) + z * h)
            outputs.append(h)
        inputs = np.array(outputs)
    logit = float(weights["head.weight"][0] @ inputs[-1] + weights["head.bias"][0])
    return np.logaddexp(0, -logit if label else logit), (logit >= 0) == label


def test_the_textbook_loop_under_the_same_masks(options):
    model = classifier(torch.float64, **options)
    draws, seed = 3, 5
    evaluate = TrainingLoss(model, REVIEWS, LABELS, draws=draws, seed=seed)
    parameters = moved(model)
    losses, correct = evaluate(parameters)
    weights = {name: p.detach().numpy() for name, p in parameters.items()}
    expected = np.zeros((draws, len(LABELS), 2))
    for d, draw in enumerate(draws_of(seed, draws)):
        masks = masks_of(model.gru, draw, int(REVIEWS.lengths.max()), 7)
        for n, label in enumerate(LABELS):
            length = len(REVIEWS.sequence(n))
            keeps = [np.zeros((length, 6)) if keep is None else keep[n].numpy() for keep, _ in masks]
            factors = [(w / model.gru.layer(k).weight_hh).detach().numpy() for k, (_, w) in enumerate(masks)]
            expected[d, n] = textbook_loss(
                weights, model.vectors.numpy(), REVIEWS.sequence(n), label, keeps, factors
            )
    np.testing.assert_allclose(losses, expected[..., 0].mean(0), rtol=1e-12)
    np.testing.assert_allclose(correct, expected[..., 1].mean(0))
    differ = np.ptp(expected[..., 0], axis=0) > 1e-4
    assert differ[REVIEWS.lengths > 1].all()  # DropConnect does nothing to a zero state


def test_the_centre_is_the_evaluation_with_these_masks(options):
    model = classifier(**options).train()
    before = fingerprint(model.state_dict())
    losses, _ = TrainingLoss(model, REVIEWS, LABELS, draws=2, seed=9, precision="float32")({})
    each = [
        model.task.loss(logits(model, REVIEWS, draw=draw), torch.as_tensor(LABELS), "none").double()
        for draw in draws_of(9, 2)
    ]
    assert torch.equal(losses, torch.stack(each).mean(0))
    one = evaluate_with_dropout(model, REVIEWS, LABELS, seed=9)
    first, _ = TrainingLoss(model, REVIEWS, LABELS, draws=1, seed=9, precision="float32")({})
    assert float(first.mean()) == pytest.approx(one["loss"], rel=1e-6)
    assert fingerprint(model.state_dict()) == before
    assert all(module.training for module in model.modules())


def test_neither_batches_nor_order_nor_the_other_reviews_matter(options):
    model = classifier(torch.float64, **options)
    losses, correct = TrainingLoss(model, REVIEWS, LABELS, draws=3)({})
    order = np.array([4, 2, 0, 6, 1])
    for tokens in (1, 9, 20, 1000):
        fewer = TrainingLoss(
            model, REVIEWS.take(order), LABELS[order], draws=3, keys=order, batch_tokens=tokens
        )
        shuffled, right = fewer({})
        torch.testing.assert_close(shuffled, losses[order], rtol=1e-12, atol=0)
        assert torch.equal(right, correct[order])
        assert torch.equal(fewer({})[0], shuffled)


def test_without_dropout_it_is_the_evaluation_loss():
    model = classifier()
    for step in (0.0, 0.7):
        parameters = moved(model, step=step)
        averaged = TrainingLoss(model, REVIEWS, LABELS, draws=5)(parameters)
        for one, other in zip(averaged, EvaluationLoss(model, REVIEWS, LABELS)(parameters), strict=True):
            assert torch.equal(one, other.double())


def test_seeds_have_no_draw_in_common():
    seeds = [draw.seed for number in range(50) for draw in draws_of(number, 20)]
    assert len(set(seeds)) == 1000
    assert draws_of(7, 3) == draws_of(7, 20)[:3]


@pytest.mark.parametrize("draws", [0, -1, 2.5, True, None])
def test_impossible_numbers_of_draws(draws):
    with pytest.raises(ValueError, match=rf"^draws={draws}: expected a whole number of at least 1"):
        TrainingLoss(classifier(), REVIEWS, LABELS, draws=draws)


def test_a_surface_has_the_same_masks_at_every_point(options):
    model = classifier(torch.float64, **options)
    evaluate = TrainingLoss(model, REVIEWS, LABELS, draws=2, seed=1)
    for seed in (0, 1):  # the same in every plane
        directions = random_directions(model.trainable(), seed)
        surface = compute_surface(evaluate, model.trainable(), directions, size=3)
        for i, j in ((1, 1), (0, 2), (2, 0)):
            steps = float(surface["alpha"][j]), float(surface["beta"][i])
            parameters = displace(model.trainable(), directions, steps)
            fresh = TrainingLoss(model, REVIEWS, LABELS, draws=2, seed=1)(parameters)[0].mean()
            assert float(surface["loss"][i, j]) == pytest.approx(float(fresh), rel=1e-12)


@needs_kernel
@pytest.mark.parametrize("backend", ["auto", "cpu"])
def test_projected_reviews_give_the_forward_pass_s_values(backend):
    model = classifier(dropconnect=0.4, backend=backend)
    directions = random_directions(model.trainable(), 0)
    projected = TrainingLoss(model, REVIEWS, LABELS, draws=3, precision="float32")
    assert projected.reason is None
    at = projected.on_plane(model.trainable(), directions)
    for step in ((0.0, 0.0), (0.5, -0.25)):
        double = classifier(torch.float64, dropconnect=0.4)
        double.load_state_dict({name: w.double() for name, w in model.state_dict().items()})
        parameters = displace(model.trainable(), directions, step)
        exact = TrainingLoss(double, REVIEWS, LABELS, draws=3)({k: w.double() for k, w in parameters.items()})
        torch.testing.assert_close(at(step)[0], exact[0], rtol=2e-5, atol=2e-6)
        assert torch.equal(at(step)[1], exact[1])
    assert torch.equal(at((0.0, 0.0))[0], projected({})[0])


@needs_kernel
def test_zoneout_runs_in_the_precision_that_is_asked_for():
    model = classifier(zoneout=0.3, backend="auto", hidden_size=16)
    values = {}
    for precision in cpu.precisions():
        evaluate = TrainingLoss(model, REVIEWS, LABELS, draws=2, precision=precision)
        assert evaluate.precision == evaluate.about["precision"] == precision
        values[precision] = evaluate({})[0]
        assert model.gru.precision == "float32"
    for precision, losses in values.items():
        torch.testing.assert_close(losses, values["float32"], rtol=2e-2, atol=1e-3)
        assert torch.equal(losses, values["float32"]) == (precision == "float32")


def test_common_masks_cancel_in_differences(options):
    """Var(L_m(a) - L_m(b)) over masks m, against independent masks: var L_m(a) + var L_m'(b)."""
    model = classifier(**options, hidden_size=12)
    with torch.no_grad():
        model.head.weight *= 5  # as far from the start as a trained model's
    reviews, labels = encoded([9] * 20, 20), np.arange(20) % 2
    near = moved(model, step=0.05)
    at, beside = np.array(
        [
            [
                float(TrainingLoss(model, reviews, labels, draws=1, seed=seed)(p)[0].mean())
                for seed in range(30)
            ]
            for p in (dict(model.trainable()), near)
        ]
    )
    independent = at.var(ddof=1) + beside.var(ddof=1)
    assert (at - beside).var(ddof=1) < independent / 20


def test_zoneout_s_draws_average_to_their_expectation():
    """One step from a zero state and a linear read-out: E h_1 = (1 - p) c, so that the logits' mean is known."""
    model = classifier(torch.float64, zoneout=0.3, num_layers=1)
    reviews = encoded([1] * 5, 20)
    draws = 500
    outputs = TrainingLoss(model, reviews, LABELS[:5], draws=draws)._reviews.logits({})[..., 0]
    expected = logits(model, reviews)[:, 0].double()
    error = outputs.std(0) / draws**0.5
    assert float(error.min()) > 0
    assert float(((outputs.mean(0) - expected) / error).abs().max()) < 4


def test_dropconnect_s_masks_are_one_a_draw_and_scaled():
    """H' = H * m / (1 - p) with m ~ Bernoulli(1 - p), the same for all reviews of a draw (Wan et al. 2013)."""
    model = classifier(torch.float64, dropconnect=0.4, backend="eager")
    twice = encoded([6, 6], 20)
    twice.tokens[6:] = twice.tokens[:6]
    outputs = TrainingLoss(model, twice, LABELS[:2], draws=4)._reviews.logits({})[..., 0]
    torch.testing.assert_close(outputs[:, 0], outputs[:, 1], rtol=1e-12, atol=0)
    assert len(set(outputs[:, 0].tolist())) == 4


# -- some of the reviews


@pytest.mark.parametrize("kind", [EvaluationLoss, TrainingLoss])
def test_some_reviews_have_the_losses_that_they_have_among_all(kind, options):
    model = classifier(**options)
    evaluate, rows = kind(model, REVIEWS, LABELS), np.array([5, 0, 3])
    some = evaluate.take(rows)
    for whole, part in zip(evaluate(moved(model)), some(moved(model)), strict=True):
        torch.testing.assert_close(part, whole[torch.from_numpy(rows)], rtol=1e-6, atol=1e-7)
    assert some.strata.tolist() == evaluate.strata[rows].tolist()


def test_reviews_under_masks_are_the_training_loss_one_by_one(options):
    model = classifier(**options)
    averaged, masked = (kind(model, REVIEWS, LABELS, draws=3, seed=4) for kind in (TrainingLoss, MaskedLoss))
    parameters, directions = model.trainable(), random_directions(model.trainable(), 1)
    losses, correct = masked.on_plane(parameters, directions)((0.3, -0.2))
    of_reviews, correct_of = averaged.on_plane(parameters, directions)((0.3, -0.2))
    torch.testing.assert_close(losses.reshape(3, -1).mean(0), of_reviews, rtol=1e-12, atol=0)
    assert masked.groups.tolist() == 3 * list(range(len(LABELS)))
    assert masked.strata.tolist() == 3 * averaged.strata.tolist()
    torch.testing.assert_close(correct.reshape(3, -1).mean(0), correct_of)
    # Some of them, in any order and of several draws, are what they are among all.
    rows = np.array([2 * len(LABELS) + 1, 0, len(LABELS) + 3, 2])
    few = masked.take(rows)
    assert few.strata.tolist() == masked.strata[rows].tolist()
    for found in (
        few.on_plane(parameters, directions)((0.3, -0.2)),
        few(displace(parameters, directions, (0.3, -0.2))),
    ):
        torch.testing.assert_close(found[0], losses[rows], rtol=1e-5, atol=1e-6)
        assert found[1].tolist() == correct[rows].tolist()


def test_a_loss_without_masks_has_no_draws_to_sample():
    with pytest.raises(ValueError, match=r"expected masks whose draws have losses of their own"):
        MaskedLoss(classifier(), REVIEWS, LABELS, draws=2)
