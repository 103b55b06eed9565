"""Loss surfaces against closed forms, a textbook GRU in float64, and what must hold for every surface."""

from __future__ import annotations

import re
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from gruland.classifier import Classifier
from gruland.data import Encoded
from gruland.landscape import compute_surface, load_surface, random_directions
from gruland.landscape.directions import fingerprint
from gruland.landscape.surface import axis
from gruland.objective import EvaluationLoss
from gruland.regularizers import by_rates
from gruland.task import Task

# -- surfaces


PLANE = {"w": torch.zeros(1, 2, dtype=torch.float64)}
UNIT = [
    {"w": torch.tensor([[1.0, 0.0]], dtype=torch.float64)},
    {"w": torch.tensor([[0.0, 1.0]], dtype=torch.float64)},
]


class Asymmetric:
    """Three examples with losses f, f + 1, f + 5 for f(x, y) = x + 10 y^3; counts its calls and can fail."""

    about: ClassVar = {}  # it says that it is a function: its origin is evaluated once

    def __init__(self, fail_after=None):
        self.calls, self.fail_after = [], fail_after

    def __call__(self, parameters):
        if len(self.calls) == self.fail_after:
            raise RuntimeError("stopped")
        x, y = parameters["w"][0].tolist()
        self.calls.append((x, y))
        losses = self.height(x, y) + torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64)
        return losses, torch.tensor([1.0, 0.0, x > 0])

    @staticmethod
    def height(x, y):
        return x + 10 * y**3


def test_axes_and_cells_of_an_asymmetric_function():
    result = compute_surface(Asymmetric(), PLANE, UNIT, size=5, extent=2.0)
    assert result["loss"].dims == ("beta", "alpha")
    np.testing.assert_array_equal(result["alpha"], [-2, -1, 0, 1, 2])
    for alpha in result["alpha"].values:
        for beta in result["beta"].values:
            cell = result.sel(alpha=alpha, beta=beta)
            assert float(cell["loss"]) == pytest.approx(alpha + 10 * beta**3 + 2)
            assert float(cell["accuracy"]) == pytest.approx((2 if alpha > 0 else 1) / 3)
            assert float(cell["loss_se"]) == pytest.approx(np.std([0, 1, 5], ddof=1) / np.sqrt(3))
    assert result["loss"].values[4, 0] == pytest.approx(-2 + 80 + 2)  # row: beta, column: alpha
    assert bool(result["done"].all())


def test_quadratic_in_two_weights_through_random_directions():
    weights = {"w": torch.tensor([[0.3, -0.7]], dtype=torch.float64)}
    directions = random_directions(weights, seed=0)
    curvature = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)

    def evaluate(p):
        w = p["w"][0]
        return (w @ curvature @ w).expand(2), torch.ones(2)

    result = compute_surface(evaluate, weights, directions, size=7, extent=1.5)
    basis = torch.stack([d["w"][0] for d in directions]).numpy()
    alpha, beta = np.meshgrid(result["alpha"], result["beta"])
    points = weights["w"].numpy() + alpha[..., None] * basis[0] + beta[..., None] * basis[1]
    np.testing.assert_allclose(result["loss"], np.einsum("abi,ij,abj->ab", points, curvature, points))
    np.testing.assert_array_equal(result["loss_se"], 0)


def test_logistic_regression_in_closed_form():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 4)), rng.integers(0, 2, 50)
    module = nn.Linear(4, 1).double()
    weights = dict(module.named_parameters())
    directions = random_directions(weights, seed=1)

    def evaluate(p):
        logits = functional_call(module, p, torch.from_numpy(x))[:, 0]
        target = torch.from_numpy(y).double()
        losses = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return losses, (logits > 0) == target.bool()

    result = compute_surface(evaluate, weights, directions, size=5)
    w, bias = module.weight.detach().numpy()[0], module.bias.item()
    delta, eta = (d["weight"].numpy()[0] for d in directions)
    for i, beta in enumerate(result["beta"].values):
        for j, alpha in enumerate(result["alpha"].values):
            z = x @ (w + alpha * delta + beta * eta) + bias
            losses = np.logaddexp(0, np.where(y == 1, -z, z))
            assert result["loss"].values[i, j] == pytest.approx(losses.mean(), rel=1e-12)
            assert result["loss_se"].values[i, j] == pytest.approx(
                losses.std(ddof=1) / np.sqrt(50), rel=1e-12
            )
            assert result["accuracy"].values[i, j] == pytest.approx(((z > 0) == y).mean())


@pytest.mark.parametrize("size", [0, -3, 5.5, "many", True, None])
def test_impossible_sizes(size):
    with pytest.raises(ValueError, match=rf"^size={size}: expected a whole number of at least 1"):
        axis(size, 1.0)


@pytest.mark.parametrize(
    "extent",
    [0.0, -1.0, float("nan"), float("inf"), "wide", True, None, (1, 1), (2, 1), (0, None), (1, 2, 3)],
)
def test_impossible_extents(extent):
    message = rf"^extent={re.escape(str(extent))}: expected a positive number or \(low, high\)"
    with pytest.raises(ValueError, match=message):
        axis(5, extent)


@pytest.mark.parametrize(("size", "extent"), [(3, 1.0), (51, 0.3), (13, 7), (2, 0.1), (50, 0.3)])
def test_axis_is_symmetric_and_meets_zero_in_its_middle(size, extent):
    steps = axis(size, extent)
    assert len(steps) == size
    assert (steps[0], steps[-1]) == (-extent, extent)
    np.testing.assert_array_equal(steps, -steps[::-1])
    assert (0.0 in steps) == (size % 2 == 1)
    np.testing.assert_array_equal(steps, axis(size, (-extent, extent)))


@pytest.mark.parametrize(
    ("size", "low", "high"), [(11, -0.3, 0.7), (31, -0.1, 0.2), (4, -1, 2), (16, -0.5, 1), (7, 0.25, 4)]
)
def test_an_axis_between_two_ends_is_exactly_zero_where_it_is_zero_up_to_rounding(size, low, high):
    steps = axis(size, (low, high))
    np.testing.assert_allclose(steps, np.linspace(low, high, size), rtol=0, atol=1e-15)
    assert (steps[0], steps[-1]) == (low, high)
    assert (np.abs(steps) < 1e-12).sum() == (steps == 0).sum() == (low < 0)


def test_one_step_is_in_the_middle():
    assert axis(1, 3.0).tolist() == [0.0]
    assert axis(1, (-1, 2)).tolist() == [0.5]


def test_one_example_has_no_standard_error():
    result = compute_surface(lambda p: (p["w"].sum()[None], torch.ones(1)), PLANE, UNIT, size=3)
    assert np.isnan(result["loss_se"]).all()
    assert np.isfinite(result["loss"]).all()


def wild(parameters):
    x, y = parameters["w"][0].tolist()
    loss = float("nan") if x > 0.5 else float("inf") if x < -0.5 else 5e-324 if y else 1e300
    return torch.full((2,), loss, dtype=torch.float64), torch.ones(2)


def test_values_are_kept_as_they_are(tmp_path):
    path = tmp_path / "surface.zarr"
    result = compute_surface(wild, PLANE, UNIT, size=3, path=path)
    for loss in (result["loss"].values, load_surface(path)["loss"].values):
        assert (loss[:, 0] == np.inf).all()
        assert np.isnan(loss[:, 2]).all()
        assert loss[1, 1] == 1e300
        assert loss[0, 1] == 5e-324


# -- the store


def test_a_stopped_surface_goes_on_where_it_was(tmp_path):
    path, whole = tmp_path / "surface.zarr", compute_surface(Asymmetric(), PLANE, UNIT, size=5)
    first, second = Asymmetric(fail_after=7), Asymmetric()
    with pytest.raises(RuntimeError, match="stopped"):
        compute_surface(first, PLANE, UNIT, size=5, path=path)
    assert not path.exists()
    assert int(load_surface(path, partial=True)["done"].sum()) == 7
    result = compute_surface(second, PLANE, UNIT, size=5, path=path)
    # The centre is evaluated again: differences to it need its losses one by one.
    assert len(second.calls) == 25 - 7 + 1
    assert {*first.calls} & {*second.calls} == {(0.0, 0.0)}
    for surface in (result, load_surface(path)):
        for variable in whole.data_vars:
            np.testing.assert_array_equal(surface[variable], whole[variable])
    assert [p.name for p in tmp_path.iterdir() if p.name[0] != "."] == ["surface.zarr"]


def test_a_complete_surface_is_not_computed_again(tmp_path):
    path = tmp_path / "surface.zarr"
    first = compute_surface(Asymmetric(), PLANE, UNIT, size=3, path=path, attributes={"data": "a"})
    again = compute_surface(
        Asymmetric(fail_after=0), PLANE, UNIT, size=3, path=path, attributes={"data": "a"}
    )
    assert again.identical(first)
    assert again.attrs["data"] == "a"


OTHERS = {
    "attributes": {"attributes": {"reviews": 3, "pair": (1, 2), "data": "b"}},
    "size": {"size": 5},
    "extent": {"extent": 0.5},
    "weights": {"parameters": {"w": torch.full((1, 2), 1e-9, dtype=torch.float64)}},
    "directions": {"directions": UNIT[::-1]},
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_surface_is_computed_afresh_and_the_old_one_stays_until_then(tmp_path, what):
    path = tmp_path / "surface.zarr"
    usual = {
        "parameters": PLANE,
        "directions": UNIT,
        "size": 3,
        "attributes": {"reviews": 3, "pair": (1, 2), "data": "a"},
    }
    old = compute_surface(Asymmetric(), **usual, path=path)
    other = {**usual, **OTHERS[what], "path": path}
    with pytest.raises(RuntimeError, match="stopped"):
        compute_surface(Asymmetric(fail_after=4), **other)
    assert load_surface(path).identical(old)
    result = compute_surface(Asymmetric(), **other)
    assert bool(result["done"].all())
    assert load_surface(path).identical(result)
    assert not result.identical(old)
    assert [p.name for p in tmp_path.iterdir() if p.name[0] != "."] == ["surface.zarr"]


def test_a_complete_surface_is_found_beside_a_partial_one_of_other_settings(tmp_path):
    path = tmp_path / "surface.zarr"
    complete = compute_surface(Asymmetric(), PLANE, UNIT, size=3, path=path)
    with pytest.raises(RuntimeError, match="stopped"):
        compute_surface(Asymmetric(fail_after=6), PLANE, UNIT, size=5, path=path)
    (partial,) = tmp_path.glob("surface.partial-*")
    begun = load_surface(partial)
    assert compute_surface(Asymmetric(fail_after=0), PLANE, UNIT, size=3, path=path).identical(complete)
    assert load_surface(path).identical(complete)
    assert load_surface(partial).identical(begun)


def test_a_partial_surface_of_other_settings_is_not_taken_over(tmp_path):
    path, other = tmp_path / "surface.zarr", Asymmetric()
    with pytest.raises(RuntimeError, match="stopped"):
        compute_surface(Asymmetric(fail_after=4), PLANE, UNIT, size=3, path=path, attributes={"data": "a"})
    compute_surface(other, PLANE, UNIT, size=3, path=path, attributes={"data": "b"})
    assert len(other.calls) == 9


def test_the_centre_comes_first_and_then_ever_finer_grids(tmp_path):
    stopped = Asymmetric(fail_after=9)
    with pytest.raises(RuntimeError, match="stopped"):
        compute_surface(stopped, PLANE, UNIT, size=9, path=tmp_path / "s.zarr")
    assert stopped.calls[0] == (0.0, 0.0)
    done = load_surface(tmp_path / "s.zarr", partial=True)["done"].values
    assert done[::4, ::4].all()
    assert done.sum() == 9


def test_a_broken_store_is_named_or_replaced(tmp_path):
    path = tmp_path / "surface.zarr"
    with pytest.raises(FileNotFoundError, match="no loss surface at"):
        load_surface(path)
    path.mkdir()
    with pytest.raises(ValueError, match="holds no readable loss surface"):
        load_surface(path)
    compute_surface(Asymmetric(), PLANE, UNIT, size=3, path=path)
    (path / "loss" / "c" / "0" / "0").write_bytes(b"torn")
    with pytest.raises(ValueError, match="holds no readable loss surface"):
        load_surface(path)
    fresh = Asymmetric()
    compute_surface(fresh, PLANE, UNIT, size=3, path=path)
    assert len(fresh.calls) == 9
    assert load_surface(path)["loss"].values[0, 0] == pytest.approx(-1 - 10 + 2)


# -- the classifier


def encoded(lengths, words, seed=0):
    tokens = np.random.default_rng(seed).integers(1, words, sum(lengths)).astype(np.int32)
    return Encoded(tokens, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


REVIEWS, LABELS = encoded([3, 9, 1, 6, 9, 2, 4], 20), np.array([0, 1, 1, 0, 1, 0, 0])


def classifier(dtype=torch.float32, zoneout=0.0, dropconnect=0.0, **options):
    torch.manual_seed(0)
    vectors = torch.randn(20, 5)
    options = {"hidden_size": 6, "between": "tanh", "backend": "eager", **options}
    regularizer = by_rates(zoneout=zoneout, dropconnect=dropconnect)
    model = Classifier(Task("binary", ("negative", "positive")), vectors, regularizer=regularizer, **options)
    model = model.to(dtype)
    with torch.no_grad():
        for parameter in model.gru.parameters():
            parameter += 0.1 * torch.randn_like(parameter)  # biases, too
    return model


def textbook_loss(weights, vectors, review, label, zoneout):
    """The loss of one review, one step after the other in numpy's float64."""

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    inputs = vectors[review]
    for layer in range(2):
        w_ih, w_hh, b_ih, b_hh = (
            weights[f"gru.{kind}_l{layer}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h, outputs = np.zeros(w_hh.shape[1]), []
        for x in inputs if layer == 0 else np.tanh(inputs):
            (i_r, i_z, i_n), (h_r, h_z, h_n) = np.split(w_ih @ x + b_ih, 3), np.split(w_hh @ h + b_hh, 3)
            r, z = sigmoid(i_r + h_r), sigmoid(i_z + h_z)
            candidate = (1 - z) * np.tanh(i_n + r * h_n) + z * h
            h = zoneout * h + (1 - zoneout) * candidate
            outputs.append(h)
        inputs = np.array(outputs)
    logit = float(weights["head.weight"][0] @ inputs[-1] + weights["head.bias"][0])
    return np.logaddexp(0, -logit if label else logit), (logit >= 0) == label


@pytest.mark.parametrize("zoneout", [0.0, 0.3])
def test_classifier_s_surface_equals_a_textbook_loop(zoneout):
    model = classifier(torch.float64, zoneout=zoneout)
    directions = random_directions(model.trainable(), seed=4)
    result = compute_surface(EvaluationLoss(model, REVIEWS, LABELS), model.trainable(), directions, size=3)
    delta, eta = ({name: d.numpy() for name, d in direction.items()} for direction in directions)
    weights = {name: p.detach().numpy() for name, p in model.trainable().items()}
    for i, beta in enumerate(result["beta"].values):
        for j, alpha in enumerate(result["alpha"].values):
            moved = {name: w + alpha * delta[name] + beta * eta[name] for name, w in weights.items()}
            cells = [
                textbook_loss(moved, model.vectors.numpy(), REVIEWS.sequence(n), label, zoneout)
                for n, label in enumerate(LABELS)
            ]
            losses, correct = map(np.array, zip(*cells, strict=True))
            assert result["loss"].values[i, j] == pytest.approx(losses.mean(), rel=1e-10)
            assert result["loss_se"].values[i, j] == pytest.approx(losses.std(ddof=1) / np.sqrt(7), rel=1e-10)
            assert result["accuracy"].values[i, j] == pytest.approx(correct.mean())
    assert np.ptp(result["loss"].values) > 0.1


def test_the_centre_is_the_untouched_model_s_loss_bit_for_bit():
    model = classifier(dropconnect=0.2, zoneout=0.1).train()
    evaluate = EvaluationLoss(model, REVIEWS, LABELS)
    losses, correct = evaluate({})
    directions = random_directions(model.trainable(), seed=0)
    result = compute_surface(evaluate, model.trainable(), directions, size=3).sel(alpha=0, beta=0)
    assert float(result["loss"]) == losses.mean().item()
    assert float(result["accuracy"]) == correct.mean().item()
    assert float(result["loss_se"]) == pytest.approx(losses.std().item() / np.sqrt(7), rel=1e-12)
    assert float(result["difference_se"]) == 0


def test_no_weight_is_touched_and_the_mode_is_kept():
    model = classifier(zoneout=0.5, dropconnect=0.5).train()
    before, objects = fingerprint(model.state_dict()), list(model.parameters())
    directions = random_directions(model.trainable(), seed=0)
    compute_surface(EvaluationLoss(model, REVIEWS, LABELS), model.trainable(), directions, size=3)
    assert fingerprint(model.state_dict()) == before
    assert all(now is then for now, then in zip(model.parameters(), objects, strict=True))
    assert all(module.training for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_no_weight_is_touched_when_the_forward_pass_fails():
    model = classifier().train()
    before, objects, calls = fingerprint(model.state_dict()), list(model.parameters()), []

    def fail(*_):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("out of memory")

    model.head.register_forward_hook(fail)
    directions = random_directions(model.trainable(), seed=0)
    with pytest.raises(RuntimeError, match="out of memory"):
        compute_surface(EvaluationLoss(model, REVIEWS, LABELS), model.trainable(), directions, size=3)
    assert fingerprint(model.state_dict()) == before
    assert all(now is then for now, then in zip(model.parameters(), objects, strict=True))
    assert model.training


def test_review_losses_do_not_depend_on_batches_or_order():
    model = classifier(torch.float64)
    losses, correct = EvaluationLoss(model, REVIEWS, LABELS)({})
    order = np.array([4, 2, 0, 6, 1, 3, 5])
    for tokens in (1, 9, 20, 1000):
        shuffled, right = EvaluationLoss(model, REVIEWS.take(order), LABELS[order], batch_tokens=tokens)({})
        torch.testing.assert_close(shuffled, losses[order], rtol=1e-12, atol=0)
        assert torch.equal(right, correct[order])


def test_more_than_two_classes():
    torch.manual_seed(0)
    model = Classifier(
        Task("multiclass", ("a", "b", "c")), torch.randn(20, 5), hidden_size=4, backend="eager"
    )
    labels = np.array([0, 1, 2, 0, 1, 2, 2])
    losses, _ = EvaluationLoss(model, REVIEWS, labels)({})
    with torch.no_grad():
        logits = torch.cat([model.eval()(*REVIEWS.take([n]).padded()) for n in range(7)])
    torch.testing.assert_close(
        losses.float(), nn.functional.cross_entropy(logits, torch.tensor(labels), reduction="none")
    )


def test_trained_word_vectors_move_and_frozen_ones_do_not():
    frozen, trained = classifier(), classifier(freeze=False)
    assert "vectors" not in random_directions(frozen.trainable(), 0)[0]
    direction = random_directions(trained.trainable(), 0)[0]["vectors"]
    torch.testing.assert_close(direction.norm(dim=1), trained.vectors.norm(dim=1))
