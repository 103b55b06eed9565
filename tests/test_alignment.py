"""Permutations of hidden units against the unpermuted networks, barriers against closed forms."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from gruland import GRU
from gruland.classifier import Classifier
from gruland.data import Encoded
from gruland.landscape.alignment import (
    Arrangement,
    align,
    barrier,
    hidden_units,
    identity,
    match_weights,
    over_chord,
    permute_units,
)
from gruland.landscape.directions import fingerprint
from gruland.objective import EvaluationLoss
from gruland.regularizers import LayerNorm, by_rates
from gruland.task import Task


def classifier(seed=0, dtype=torch.float64, zoneout=0.0, **options):
    torch.manual_seed(seed)
    vectors = torch.randn(30, 5, generator=torch.Generator().manual_seed(7))
    options = {"hidden_size": 8, "regularizer": by_rates(zoneout=zoneout), **options}
    model = Classifier(Task("binary", ("negative", "positive")), vectors, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)  # biases, too
    return model.to(dtype).eval()


def reviews(count=40, seed=0):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 12, count))]).astype(np.int64)
    return Encoded(rng.integers(1, 30, offsets[-1]).astype(np.int32), offsets), rng.integers(0, 2, count)


def weights_of(module):
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def random_arrangement(size, seed, signs):
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(size, generator=generator)
    flips = 2 * torch.randint(2, (size,), generator=generator) - 1
    return Arrangement(order, flips if signs else torch.ones_like(flips))


def units_of(model):
    return hidden_units(model, readers=("head.weight",))


def drawn(units, seed=0, signs=False):
    return [
        random_arrangement(layer.size, seed + index, signs=signs and layer.can_flip)
        for index, layer in enumerate(units)
    ]


# -- permutations


@pytest.mark.parametrize("signs", [False, True])
@pytest.mark.parametrize("zoneout", [0.0, 0.3])
@pytest.mark.parametrize("between", ["tanh", "relu", None])
def test_a_permuted_classifier_computes_the_same(between, zoneout, signs):
    model = classifier(between=between, zoneout=zoneout, num_layers=3)
    units, parameters = units_of(model), model.trainable()
    assert [layer.can_flip for layer in units] == [between != "relu"] * 2 + [True]
    permuted = permute_units(parameters, units, drawn(units, signs=signs))
    tokens, lengths = reviews()[0].padded()
    with torch.no_grad():
        outputs = [functional_call(model, p, (tokens, lengths)) for p in (parameters, permuted)]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)
    assert float(outputs[0].std()) > 0.01
    for name, tensor in parameters.items():
        assert torch.equal(permuted[name], tensor) == (name == "head.bias")


def test_matched_units_of_a_normalized_layer_keep_their_signs():
    """The mean over a layer's candidates is another one where the sign of one changes."""
    model, other = (classifier(seed, between="tanh", regularizer=LayerNorm()) for seed in (0, 1))
    aligned = align(other.trainable(), model.trainable(), units_of(model), signs=True)
    assert any((order != order.sort().values).any() for order, _ in aligned.arrangements)
    inputs = reviews()[0].padded()
    with torch.no_grad():
        outputs = [functional_call(other, p, inputs) for p in (other.trainable(), aligned.parameters)]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("zoneout", [0.0, 0.1])
def test_the_fused_kernel_s_losses_are_the_same_to_rounding(zoneout):
    model = classifier(dtype=torch.float32, hidden_size=32, zoneout=zoneout)
    units, evaluate = units_of(model), EvaluationLoss(model, *reviews(), precision="float32")
    assert evaluate.reason is None
    losses = [
        evaluate(p)[0]
        for p in (model.trainable(), permute_units(model.trainable(), units, drawn(units, signs=True)))
    ]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [GRU, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("signs", [False, True])
def test_a_bare_stack_keeps_its_outputs_order(kind, signs):
    torch.manual_seed(0)
    module = kind(4, 6, 3, batch_first=True).double()
    units = hidden_units(module)
    assert len(units) == 2  # the last layer's units are the outputs
    x = torch.randn(5, 7, 4, dtype=torch.float64)
    permuted = permute_units(weights_of(module), units, drawn(units, signs=signs))
    with torch.no_grad():
        one, other = module(x)[0], functional_call(module, permuted, (x,))[0]
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert not torch.equal(permuted["weight_hh_l0"], module.weight_hh_l0)


class Tagger(nn.Module):
    """An outsider's network with two heads."""

    def __init__(self, bias=True):
        super().__init__()
        self.rnn, self.one, self.two = nn.LSTM(4, 6, 2, bias=bias), nn.Linear(6, 3), nn.Linear(6, 1)

    def forward(self, x):
        h, _ = self.rnn(x)
        return torch.cat([self.one(h), self.two(h)], -1)


@pytest.mark.parametrize("bias", [False, True])
def test_an_outsider_s_lstm_with_two_heads(bias):
    torch.manual_seed(0)
    module, x = Tagger(bias).double(), torch.randn(5, 7, 4, dtype=torch.float64)
    units = hidden_units(module, readers=("one.weight", "two.weight"))
    parameters = weights_of(module)
    permuted = permute_units(parameters, units, drawn(units, signs=True))
    with torch.no_grad():
        outputs = [functional_call(module, p, (x,)) for p in (parameters, permuted)]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)
    found = align(permuted, parameters, units, signs=True)
    assert found.score == pytest.approx(1, abs=1e-12)


def test_two_permutations_are_one_after_the_other():
    model = classifier()
    units, parameters = units_of(model), model.trainable()
    first, second = drawn(units, 1, signs=True), drawn(units, 5, signs=True)
    both = [
        Arrangement(a.order[b.order], a.signs[b.order] * b.signs) for a, b in zip(first, second, strict=True)
    ]
    twice = permute_units(permute_units(parameters, units, first), units, second)
    assert fingerprint(twice) == fingerprint(permute_units(parameters, units, both))
    still = [identity(layer.size) for layer in units]
    assert fingerprint(permute_units(parameters, units, still)) == fingerprint(parameters)


ONE = identity(8)


@pytest.mark.parametrize(
    ("arrangements", "message"),
    [
        ([ONE], "got 1 arrangements: expected one for each of 2 layers"),
        (
            [ONE, Arrangement(torch.zeros(8, dtype=torch.int64), ONE.signs)],
            "layer 1: expected each of its 8 units once",
        ),
        ([identity(7), ONE], "layer 0: expected each of its 8 units once"),
        ([Arrangement(ONE.order, 2 * ONE.signs), ONE], "layer 0: expected a sign of 1 or -1"),
        ([Arrangement(ONE.order, -ONE.signs), ONE], "layer 0: its units cannot change sign"),
    ],
)
def test_arrangements_that_cannot_be(arrangements, message):
    model = classifier(between="relu")
    with pytest.raises(ValueError, match=message):
        permute_units(model.trainable(), units_of(model), arrangements)


def test_what_has_no_hidden_units_to_permute():
    with pytest.raises(ValueError, match="Linear has 0 GRUs or LSTMs in it: expected one"):
        hidden_units(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="expected one direction and no projections"):
        hidden_units(nn.GRU(2, 3, bidirectional=True))
    with pytest.raises(ValueError, match="expected one direction and no projections"):
        hidden_units(nn.LSTM(2, 3, proj_size=2))
    with pytest.raises(ValueError, match=r"readers=head: its shape is None, expected \(any, 3\)"):
        hidden_units(nn.GRU(2, 3), readers=("head",))
    model = classifier()
    model.head.requires_grad_(False)
    with pytest.raises(ValueError, match=r"parameters lack head.weight, in which the units of layer 1 stand"):
        permute_units(model.trainable(), units_of(model), [ONE, ONE])


# -- matching


def inverse_of(arrangement):
    order = arrangement.order.argsort()
    return Arrangement(order, arrangement.signs[order])


@pytest.mark.parametrize("signs", [False, True])
@pytest.mark.parametrize("hidden", [8, 32])
def test_a_random_arrangement_is_found_again(signs, hidden):
    model = classifier(hidden_size=hidden, num_layers=3)
    units, reference = units_of(model), model.trainable()
    hidden_from = drawn(units, signs=signs)
    permuted = permute_units(reference, units, hidden_from)
    found = align(permuted, reference, units, signs=signs, seed=3)
    for arrangement, original in zip(found.arrangements, hidden_from, strict=True):
        assert torch.equal(arrangement.order, inverse_of(original).order)
        assert torch.equal(arrangement.signs, inverse_of(original).signs)
    assert fingerprint(found.parameters) == fingerprint(reference)
    assert found.score == pytest.approx(1, abs=1e-9)
    assert found.before < 0.9


@pytest.mark.parametrize("signs", [False, True])
def test_aligned_networks_agree_better_and_compute_the_same(signs):
    for seed in range(6):
        reference, model = classifier(seed), classifier(seed + 100)
        units, encoded = units_of(model), reviews()[0]
        options = {"signs": signs, "seed": seed}
        before = fingerprint(model.trainable())
        found = align(model.trainable(), reference.trainable(), units, **options)
        assert found.score > found.before
        assert fingerprint(model.trainable()) == before
        tokens, lengths = encoded.padded()
        with torch.no_grad():
            outputs = model(tokens, lengths), functional_call(model, found.parameters, (tokens, lengths))
        torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)
        again = align(model.trainable(), reference.trainable(), units, **options)
        assert fingerprint(again.parameters) == fingerprint(found.parameters)
        # The very network has nothing to gain.
        own = align(model.trainable(), model.trainable(), units, **options)
        assert own.score == own.before == pytest.approx(1)


def test_weights_are_never_matched_worse_than_they_were():
    """Where a recurrent matrix outweighs all else, a linear assignment can lower the objective."""
    gained = 0
    for seed in range(30):
        one, other = classifier(seed), classifier(seed + 50)
        with torch.no_grad():
            for model in (one, other):
                for name, parameter in model.named_parameters():
                    parameter *= 1.0 if "weight_hh" in name else 0.01
        found = align(other.trainable(), one.trainable(), units_of(one))
        assert found.score >= found.before
        gained += found.score > found.before
    assert gained > 20


@pytest.mark.parametrize("signs", [False, True])
def test_a_layer_that_enters_once_is_matched_optimally(signs):
    """Without recurrent weights the assignment is linear: all orders and signs of four units are tried."""
    torch.manual_seed(0)
    modules = [nn.GRU(3, 4, 2).double() for _ in range(2)]
    units = hidden_units(modules[0])
    one, other = (
        {name: w.detach() * (0 if name == "weight_hh_l0" else 1) for name, w in module.named_parameters()}
        for module in modules
    )
    found = match_weights(other, one, units, signs=signs)
    reached = closeness(permute_units(other, units, found), one)
    choices = product((-1, 1), repeat=4) if signs else [(1, 1, 1, 1)]
    all_of_them = [
        closeness(permute_units(other, units, [Arrangement(torch.tensor(order), torch.tensor(sign))]), one)
        for sign in choices
        for order in permutations(range(4))
    ]
    assert reached == pytest.approx(max(all_of_them), rel=1e-12)


def closeness(one, other):
    return sum(float((one[name] * other[name]).sum()) for name in one)


def test_what_cannot_be_aligned():
    model = classifier()
    units, parameters = units_of(model), model.trainable()
    with pytest.raises(
        ValueError, match=r"the network to align is of another model: gru.weight_ih_l0 is \[24, 5\]"
    ):
        align(parameters, classifier(hidden_size=9).trainable(), units)


# -- barriers


def double_well(parameters):
    """Example k: (1 + k) (w^2 - 1)^2 + k, right where w > k - 1.5: at -1 and 1 the loss is k."""
    k = torch.arange(3, dtype=torch.float64)
    w = parameters["w"].double()
    return (1 + k) * (w**2 - 1) ** 2 + k, w > k - 1.5


LEFT, RIGHT = {"w": torch.tensor(-1.0)}, {"w": torch.tensor(1.0)}


def test_the_barrier_between_two_wells():
    found = barrier(double_well, LEFT, RIGHT, points=5)
    t = np.array([0, 0.25, 0.5, 0.75, 1])
    excess = ((2 * t - 1) ** 2 - 1) ** 2 * 2
    np.testing.assert_array_equal(found.curve["t"], t)
    np.testing.assert_allclose(found.curve["loss"], excess + 1)
    np.testing.assert_allclose(found.curve["excess_loss"], excess)
    assert found.loss.value == pytest.approx(2)
    # Right at -1, -0.5, 0, 0.5, 1: one, one, two, two or three of the three (thresholds -1.5, -0.5, 0.5).
    np.testing.assert_allclose(found.curve["accuracy"], [1 / 3, 1 / 3, 2 / 3, 2 / 3, 1])
    np.testing.assert_allclose(found.curve["excess_error"], [0, 1 / 6, 0, 1 / 6, 0], atol=1e-12)
    assert found.error.value == pytest.approx(1 / 6)
    np.testing.assert_allclose(found.curve["excess_loss_se"][2], np.std([1, 2, 3], ddof=1) / np.sqrt(3))
    assert found.curve["excess_loss_se"].values[[0, -1]].tolist() == [0, 0]
    assert found.loss.low <= 2 <= found.loss.high
    assert (found.loss.low, found.loss.high) == pytest.approx((1, 3), abs=0.4)
    assert all(variable.attrs["units"] for variable in found.curve.variables.values())


def test_a_barrier_is_the_same_from_either_side():
    one, other = (barrier(double_well, *ends, points=4) for ends in ((LEFT, RIGHT), (RIGHT, LEFT)))
    assert one.loss == pytest.approx(other.loss)
    np.testing.assert_allclose(one.curve["loss"], other.curve["loss"][::-1])


def test_a_convex_loss_has_no_barrier():
    found = barrier(lambda p: ((p["w"] - torch.arange(4.0)) ** 2, torch.ones(4)), LEFT, RIGHT)
    assert found.loss == found.error == (0.0, 0.0, 0.0)
    assert float(found.curve["excess_loss"].min()) == pytest.approx(-1)


def test_the_ends_are_the_very_weights():
    seen = []

    def evaluate(parameters):
        seen.append(parameters["w"])
        return double_well(parameters)

    b = {"w": torch.tensor(0.1)}
    barrier(evaluate, LEFT, b, points=3)
    assert seen[0] is LEFT["w"]
    assert seen[-1] is b["w"]
    torch.testing.assert_close(seen[1], torch.tensor(-0.45))
    assert len(seen) == 3


def test_the_interval_covers_the_barrier_of_all_examples():
    """Losses scattered around a known curve with a single highest point."""
    t, covered = np.linspace(0, 1, 5), 0
    for seed in range(100):
        noise = np.random.default_rng(seed).normal(size=(5, 60))
        rows = iter(4 * (t * (1 - t))[:, None] * (1 + noise))
        found = barrier(
            lambda p, rows=rows: (torch.from_numpy(next(rows)), torch.ones(60)),
            LEFT,
            RIGHT,
            points=5,
            resamples=200,
        )
        covered += found.loss.low <= 1 <= found.loss.high
    assert 88 <= covered <= 99


def test_strata_keep_their_sizes_in_every_resample():
    def evaluate(parameters):
        return torch.tensor([0.0] * 6 + [8.0] * 2) * (1 - parameters["w"] ** 2), torch.ones(8)

    plain = barrier(evaluate, LEFT, RIGHT, points=3)
    evaluate.strata = np.array([0] * 6 + [1] * 2)
    stratified = barrier(evaluate, LEFT, RIGHT, points=3)
    assert plain.loss.low < plain.loss.value < plain.loss.high
    assert stratified.loss == (2.0, 2.0, 2.0)
    assert barrier(evaluate, LEFT, RIGHT, points=3, seed=5).loss == stratified.loss


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("place", [0, 2])
def test_what_is_not_finite_is_infinitely_high(bad, place):
    t = iter(range(5))

    def evaluate(parameters):
        return torch.tensor([bad if next(t) == place else 1.0, 2.0]), torch.ones(2)

    found = barrier(evaluate, LEFT, RIGHT, points=5)
    assert found.loss.value == found.loss.high == np.inf
    np.testing.assert_equal(found.curve["loss"].values[place], bad)
    assert found.error == (0.0, 0.0, 0.0)


def test_counters_do_not_move():
    """Those of batch normalization are integers."""
    counted = [{**weights, "n": torch.tensor(count)} for weights, count in ((LEFT, 3), (RIGHT, 5))]
    found = barrier(lambda p: double_well({"w": p["w"]}), *counted, points=3, resamples=2)
    assert found.loss.value == barrier(double_well, LEFT, RIGHT, points=3, resamples=2).loss.value


def test_over_the_chord():
    values = np.array([[0.0, 1], [5, 5], [4, 1]])
    np.testing.assert_allclose(over_chord(values, np.array([0, 0.25, 1])), [[0, 0], [4, 4], [0, 0]])


def test_what_has_no_barrier():
    with pytest.raises(ValueError, match="points=2, resamples=1000: expected at least 3 points"):
        barrier(double_well, LEFT, RIGHT, points=2)
    with pytest.raises(ValueError, match="b is of another model: w is none"):
        barrier(double_well, LEFT, {"v": torch.ones(())})


def test_a_permuted_copy_has_a_barrier_that_alignment_removes():
    model = classifier(dtype=torch.float32, hidden_size=16)
    units, parameters, (encoded, labels) = units_of(model), model.trainable(), reviews()
    evaluate = EvaluationLoss(model, encoded, labels, precision="float32")
    permuted = permute_units(parameters, units, drawn(units))
    before = barrier(evaluate, parameters, permuted, points=5, resamples=50)
    after = barrier(
        evaluate, parameters, align(permuted, parameters, units).parameters, points=5, resamples=50
    )
    assert abs(before.curve["excess_loss"]).max() > 1e-3
    assert abs(after.curve["excess_loss"]).max() < 1e-6
