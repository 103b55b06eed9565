"""Loss surfaces against closed forms, a textbook GRU in float64, and what must hold for every surface."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.func import functional_call

from gruland.classifier import Classifier
from gruland.data import Encoded, subset
from gruland.landscape import (
    ReviewLoss,
    Scale,
    compute_run,
    compute_surface,
    contour_figure,
    figure_3d,
    load_surface,
    minimum,
    random_directions,
    surface_figure,
    write_pictures,
)
from gruland.landscape import __main__ as command
from gruland.landscape.directions import fingerprint
from gruland.landscape.surface import axis
from gruland.task import Task

SETTINGS = {
    "enabled": True,
    "size": 3,
    "extent": 1.0,
    "normalization": "filter",
    "reviews": 4,
    "seed": 0,
    "precision": "auto",
    "tolerance": None,
    "interpolation": None,
}

# -- surfaces


PLANE = {"w": torch.zeros(1, 2, dtype=torch.float64)}
UNIT = [
    {"w": torch.tensor([[1.0, 0.0]], dtype=torch.float64)},
    {"w": torch.tensor([[0.0, 1.0]], dtype=torch.float64)},
]


class Asymmetric:
    """Three examples with losses f, f + 1, f + 5 for f(x, y) = x + 10 y^3; counts its calls and can fail."""

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
    with pytest.raises(ValueError, match=rf"landscape.size={size}: expected a whole number of at least 1"):
        axis(size, 1.0)


@pytest.mark.parametrize(
    "extent",
    [0.0, -1.0, float("nan"), float("inf"), "wide", True, None, (1, 1), (2, 1), (0, None), (1, 2, 3)],
)
def test_impossible_extents(extent):
    message = rf"landscape.extent={re.escape(str(extent))}: expected a positive number or \(low, high\)"
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
    assert [p.name for p in tmp_path.iterdir()] == ["surface.zarr"]


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
    assert [p.name for p in tmp_path.iterdir()] == ["surface.zarr"]


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


KILLED = """
import sys, time, torch
from gruland.landscape import compute_surface

def evaluate(parameters):
    time.sleep(0.02)
    x, y = parameters["w"][0].tolist()
    return x + 10 * y**3 + torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64), torch.tensor([1.0, 0.0, x > 0])

unit = torch.eye(2, dtype=torch.float64)
compute_surface(evaluate, {"w": torch.zeros(1, 2, dtype=torch.float64)}, [{"w": unit[:1]}, {"w": unit[1:]}],
                size=51, path=sys.argv[1])
"""


def begun(path):
    """How many cells there are of a surface on its way."""
    try:
        return int(load_surface(path, partial=True)["done"].sum())
    except FileNotFoundError:
        return 0


def test_a_killed_process_s_cells_are_taken_over(tmp_path):
    path = tmp_path / "surface.zarr"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)])
    deadline = time.monotonic() + 600
    while not begun(path):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = int(load_surface(path, partial=True)["done"].sum())
    assert 0 < done < 51 * 51
    rest = Asymmetric()
    result = compute_surface(rest, PLANE, UNIT, size=51, path=path)
    assert len(rest.calls) == 51 * 51 - done + 1  # the centre once more
    xarray_of_all = compute_surface(Asymmetric(), PLANE, UNIT, size=51)
    np.testing.assert_array_equal(result["loss"], xarray_of_all["loss"])


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


def classifier(dtype=torch.float32, **options):
    torch.manual_seed(0)
    vectors = torch.randn(20, 5)
    options = {"hidden_size": 6, "between": "tanh", "backend": "torch", **options}
    model = Classifier(Task("binary", ("negative", "positive")), vectors, **options).to(dtype)
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
    result = compute_surface(ReviewLoss(model, REVIEWS, LABELS), model.trainable(), directions, size=3)
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
    evaluate = ReviewLoss(model, REVIEWS, LABELS)
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
    compute_surface(ReviewLoss(model, REVIEWS, LABELS), model.trainable(), directions, size=3)
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
        compute_surface(ReviewLoss(model, REVIEWS, LABELS), model.trainable(), directions, size=3)
    assert fingerprint(model.state_dict()) == before
    assert all(now is then for now, then in zip(model.parameters(), objects, strict=True))
    assert model.training


def test_review_losses_do_not_depend_on_batches_or_order():
    model = classifier(torch.float64)
    losses, correct = ReviewLoss(model, REVIEWS, LABELS)({})
    order = np.array([4, 2, 0, 6, 1, 3, 5])
    for tokens in (1, 9, 20, 1000):
        shuffled, right = ReviewLoss(model, REVIEWS.take(order), LABELS[order], batch_tokens=tokens)({})
        torch.testing.assert_close(shuffled, losses[order], rtol=1e-12, atol=0)
        assert torch.equal(right, correct[order])


def test_more_than_two_classes():
    torch.manual_seed(0)
    model = Classifier(
        Task("multiclass", ("a", "b", "c")), torch.randn(20, 5), hidden_size=4, backend="torch"
    )
    labels = np.array([0, 1, 2, 0, 1, 2, 2])
    losses, _ = ReviewLoss(model, REVIEWS, labels)({})
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


# -- a run


class FakeRun:
    def __init__(self, path, **model):
        self.path, self.results, self.model = path, {"name": "zoneout-0.1"}, classifier(**model)
        self.config = OmegaConf.create({"landscape": SETTINGS})
        splits = {"train": SimpleNamespace(encoded=REVIEWS, labels=LABELS)}
        self.data = SimpleNamespace(splits=splits, report={"fingerprint": "f"})
        self.locked = nullcontext

    def update_results(self, **values):
        self.results.update(values)


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr("gruland.landscape.run.write_pictures", lambda *_: None)


def test_a_run_gets_its_surface_pictures_and_results(tmp_path):
    run = FakeRun(tmp_path, zoneout=0.1)
    results = compute_run(run, SETTINGS)
    assert run.results["landscape"] == results
    surface = load_surface(tmp_path / "landscape" / "surface.zarr")
    loss = surface["loss"].values
    assert (results["min_loss"], results["max_loss"]) == (loss.min(), loss.max())
    assert results["center_loss"] == loss[1, 1]
    assert (results["cells"], results["reviews"], results["normalization"]) == (9, 4, "filter")
    assert results["settings"] == {key: value for key, value in SETTINGS.items() if key != "enabled"}
    assert results["not_finite"] == 0
    assert surface.attrs["data"] == "f"
    rows = subset(LABELS, 4, 0)
    losses, _ = ReviewLoss(run.model, REVIEWS.take(rows), LABELS[rows])({})
    assert results["center_loss"] == losses.mean().item()
    written = sorted(p.name for p in (tmp_path / "landscape").iterdir())
    assert written == ["contour.png", "surface.html", "surface.png", "surface.zarr"]


def test_a_run_s_complete_surface_is_left_alone_and_lost_pictures_come_back(tmp_path, monkeypatch):
    run = FakeRun(tmp_path)
    first = compute_run(run, SETTINGS)
    contour, surface = tmp_path / "landscape" / "contour.png", tmp_path / "landscape" / "surface.zarr"
    inode = contour.stat().st_ino
    monkeypatch.setattr(ReviewLoss, "on_plane", lambda *_: pytest.fail("computed again"))
    assert compute_run(run, SETTINGS) == first
    assert contour.stat().st_ino == inode
    contour.unlink()
    assert compute_run(run, SETTINGS) == first
    assert contour.exists()
    assert surface.exists()


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"reviews": "all"}, {"normalization": "tensor"}, {"extent": 0.5}]
)
def test_other_settings_give_another_surface(tmp_path, other, no_pictures):
    run = FakeRun(tmp_path)
    before = compute_run(run, SETTINGS)
    after = compute_run(run, {**SETTINGS, **other})
    assert after["max_loss"] != before["max_loss"]
    assert run.results["landscape"]["settings"] == {**before["settings"], **other}


def test_the_same_weights_with_another_zoneout_are_another_surface(tmp_path, no_pictures):
    run = FakeRun(tmp_path)
    before = compute_run(run, SETTINGS)
    run.model.gru.zoneout = 0.5
    assert compute_run(run, SETTINGS)["center_loss"] != before["center_loss"]


def test_more_reviews_than_there_are_means_all(tmp_path, no_pictures):
    assert compute_run(FakeRun(tmp_path), {**SETTINGS, "reviews": 1000})["reviews"] == 7


@pytest.mark.parametrize("reviews", [0, -1, 2.5, "some", True, None])
def test_impossible_numbers_of_reviews(tmp_path, reviews):
    with pytest.raises(
        ValueError, match=rf"landscape.reviews={reviews}: expected a whole number of at least 1, or all"
    ):
        compute_run(FakeRun(tmp_path), {**SETTINGS, "reviews": reviews})


@pytest.fixture
def two_runs(tmp_path, monkeypatch, no_pictures):
    monkeypatch.chdir(tmp_path)
    found = {Path(name): FakeRun(tmp_path / name) for name in ("one", "two")}

    def load(path):
        if path == Path("broken"):
            raise ValueError("broken is not finished\n(status failed)")
        return found[path]

    monkeypatch.setattr("gruland.runs.find", lambda *paths: [Path(path) for path in paths])
    monkeypatch.setattr("gruland.runs.load", load)
    return found


def test_command_takes_paths_and_overrides(two_runs, capsys):
    assert command.main(["one", "two", "size=5", "reviews=all", "extent=0.25"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["one", "two"]
    assert all("25 cells over 7 reviews" in line for line in lines)
    for run in two_runs.values():
        assert run.results["landscape"]["settings"]["extent"] == 0.25
        assert load_surface(run.path / "landscape" / "surface.zarr")["loss"].shape == (5, 5)


def test_command_keeps_the_run_s_own_settings(two_runs):
    assert command.main(["two"]) == 0
    assert two_runs[Path("two")].results["landscape"]["cells"] == 9
    assert "landscape" not in two_runs[Path("one")].results


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sise=5", "sise=5: expected one of"),
        ("size=0", "landscape.size=0: expected a whole number of at least 1"),
        ("reviews=0", "landscape.reviews=0"),
        ("normalization=layer", "landscape.normalization='layer'"),
        ("seed=x", "landscape.seed=x"),
        ("size.x=5", "size.x=5: expected one of"),
        ("=5", "=5: expected one of"),
        ("size=", "landscape.size=None: expected a whole number"),
        ("size=[", "size=[: the value cannot be read"),
    ],
)
def test_command_answers_wrong_settings_with_a_line(two_runs, capsys, override, message):
    assert command.main(["one", override]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gruland: one: {message}")
    assert not (two_runs[Path("one")].path / "landscape").exists()


def test_command_goes_on_after_a_failing_run(two_runs, capsys):
    assert command.main(["broken", "one"]) == 1
    captured = capsys.readouterr()
    assert captured.err == "gruland: broken: broken is not finished (status failed)\n"
    assert captured.out.startswith("one: 9 cells")


@pytest.mark.parametrize("arguments", [[], ["size=5"]])
def test_command_without_a_path(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        command.main(arguments)
    assert exit_.value.code == 2
    assert "PATH" in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = """
        import sys
        from gruland.landscape.__main__ import main
        try:
            main(["--help"])
        except SystemExit:
            pass
        heavy = {"torch", "xarray", "zarr", "matplotlib", "plotly", "omegaconf"} & set(sys.modules)
        sys.exit(f"imported {heavy}" if heavy else 0)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "PATH" in done.stdout


# -- pictures


def drawn(loss, size=9, **attributes):
    """A surface of a function of (alpha, beta)."""

    def evaluate(p):
        return torch.full((2,), loss(*p["w"][0].tolist()), dtype=torch.float64), torch.ones(2)

    return compute_surface(evaluate, PLANE, UNIT, size=size, attributes=attributes)


def valley(x, y):
    return 0.05 + 3 * (x - 0.25) ** 2 + y**2


def cliff(x, y):
    return valley(x, y) + 500 * max(0.0, x + y - 1.5)


def test_heights_are_linear_but_for_heavy_tails():
    scale = Scale.of(drawn(valley))
    assert scale.knee is None
    np.testing.assert_allclose(
        scale.height(np.array([0.1, 3.0, np.nan, -np.inf])), [0.05, 2.95, np.nan, np.nan]
    )
    scale = Scale.of(drawn(cliff))
    knee, top = scale.knee, scale.high
    assert scale.low < knee < top / 10
    # Nearly linear from the least loss to the knee, and equal steps for equal factors far above it.
    half = scale.height((scale.low + knee) / 2) / scale.height(knee)
    assert half == pytest.approx(0.5, abs=0.05)
    steps = np.diff(scale.height(scale.low + (knee - scale.low) * np.array([100.0, 1000.0, 10000.0])))
    np.testing.assert_allclose(steps, np.log(10), rtol=1e-3)
    assert "logarithmic above" in scale.label


LOSSES = {
    "valley": valley,
    "cliff": cliff,
    "flat": lambda x, y: 7 + 1e-6 * x,
    "negative": lambda x, y: x - 100 * y,
    "tiny": lambda x, y: 1e-9 * np.exp(9 * x),
    "far below": lambda x, y: -1e4 + np.exp(9 * x),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_levels_are_different_short_and_inside(loss):
    scale = Scale.of(drawn(loss))
    assert list(scale.levels) == sorted(scale.levels)
    assert 5 <= len(scale.levels) <= 15
    assert scale.low < scale.levels[0]
    assert scale.levels[-1] < scale.high
    assert 4 <= len(scale.ticks) <= len(scale.levels)
    texts = list(scale.texts(scale.levels).values())
    assert len(set(texts)) == len(texts)
    assert max(map(len, texts)) <= 10


def test_one_scale_holds_several_surfaces():
    one, two = drawn(valley), drawn(lambda x, y: 40 + x)
    scale = Scale.of(one, two)
    assert (scale.low, scale.high) == (one["loss"].min(), 41)
    assert (
        contour_figure(one, scale=scale).axes[0].collections[0].get_clim()
        == contour_figure(two, scale=scale).axes[0].collections[0].get_clim()
    )


def test_contours_mark_centre_and_minimum():
    surface = drawn(valley, normalization="filter", reviews=1000)
    figure = contour_figure(surface, "zoneout 0.1")
    axes = figure.axes[0]
    centre, least = (line.get_xydata()[0].tolist() for line in axes.lines)
    assert centre == [0, 0]
    assert least == [0.25, 0] == list(minimum(surface))
    assert figure.get_suptitle() == "zoneout 0.1\nfilter-normalized directions, 1,000 training reviews"
    assert len(axes.texts) > 3  # labels on the lines
    assert {text.get_text() for text in axes.texts} <= {f"{level:.12g}" for level in Scale.of(surface).levels}


def test_interactive_heights_are_the_losses():
    surface = drawn(valley)
    (trace,) = figure_3d(surface).data
    np.testing.assert_allclose(trace.z, surface["loss"].values - surface["loss"].values.min())
    np.testing.assert_array_equal(trace.customdata[..., 0], surface["loss"])
    np.testing.assert_array_equal(trace.x, surface["alpha"])


def test_cells_that_are_not_finite_are_left_out_and_counted():
    surface = drawn(lambda x, y: float("nan") if x > 0.9 else float("inf") if y > 0.9 else valley(x, y))
    assert np.isnan(figure_3d(surface).data[0].z).sum() == 17
    for figure in (contour_figure(surface), surface_figure(surface)):
        figure.savefig(io.BytesIO())
        assert "17 cells not finite" in figure.get_suptitle()
    assert minimum(surface) == (0.25, 0)


@pytest.mark.parametrize(
    "loss", [lambda x, y: 0.5, lambda x, y: 0.0, lambda x, y: -1e6 * x], ids=["flat", "zero", "below"]
)
def test_unusual_surfaces_can_be_drawn(loss):
    surface = drawn(loss, size=3)
    for figure in (contour_figure(surface), surface_figure(surface)):
        figure.savefig(io.BytesIO())
    figure_3d(surface).to_json()


def test_nothing_finite_cannot_be_drawn(tmp_path):
    with pytest.raises(ValueError, match="no cell of the loss surface is finite"):
        write_pictures(drawn(lambda x, y: float("nan")), tmp_path)
    assert not list(tmp_path.iterdir())


def test_pictures_are_whole_and_need_no_network(tmp_path):
    write_pictures(drawn(valley), tmp_path, "a model")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["contour.png", "surface.html", "surface.png"]
    assert (tmp_path / "contour.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "surface.html").read_text()
    assert "Plotly.newPlot" in page
    assert "<script src=" not in page
    assert "a model" in page
