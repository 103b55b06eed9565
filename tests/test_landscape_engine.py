"""The words' projections against forward passes in float64, and how well cells are interpolated."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray
from omegaconf import OmegaConf
from test_landscape import PLANE, UNIT, Asymmetric
from torch.func import functional_call

from gruland import kernels
from gruland.classifier import Classifier
from gruland.data import Encoded, subset
from gruland.kernels import cpu
from gruland.landscape import __main__ as command
from gruland.landscape import (
    compute_surface,
    contour_figure,
    displace,
    figure_3d,
    load_surface,
    random_directions,
)
from gruland.landscape.directions import fingerprint
from gruland.landscape.multilevel import whole
from gruland.landscape.refinement import NestedGrids, halvings, spread_of
from gruland.landscape.sample import achieved_tolerance, standard_error
from gruland.landscape.survey import Survey
from gruland.objective import EvaluationLoss, evaluation
from gruland.objective import projection as projections
from gruland.regularizers import by_rates
from gruland.report import flatness
from gruland.surfaces import Surface, compute_run, losses, surface_of
from gruland.task import Task

# -- reviews and models


def reviews(count=40, words=30, seed=0, longest=12):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Encoded(rng.integers(1, words, offsets[-1]).astype(np.int32), offsets), rng.integers(0, 2, count)


def classifier(task=None, zoneout=0.0, dropconnect=0.0, **options):
    torch.manual_seed(0)
    task = task or Task("binary", ("negative", "positive"))
    regularizer = by_rates(zoneout=zoneout, dropconnect=dropconnect)
    options = {"hidden_size": 6, "regularizer": regularizer, **options}
    model = Classifier(task, torch.randn(30, 5), **options)
    with torch.no_grad():
        for parameter in model.gru.parameters():
            parameter += 0.1 * torch.randn_like(parameter)  # biases, too
    return model.eval()


def plain_final_states(
    table_V3H, tokens, offsets, layers, *, between="tanh", zoneout=0.0, precision="float32"
):
    """What the kernel computes, a sequence and a step at a time."""
    activation = {None: lambda x: x, "tanh": torch.tanh, "relu": torch.relu}[between]
    states = []
    for start, end in pairwise(offsets):
        outputs = table_V3H[torch.from_numpy(np.asarray(tokens[start:end], dtype=np.int64))]
        for index, layer in enumerate(layers):
            if index:
                outputs = product(activation(outputs), layer.weight_ih, precision) + layer.bias_ih
            h, seen = torch.zeros(1, layer.weight_hh.shape[1]), []
            for projected in outputs.split(1):
                (i_r, i_z, i_n), (h_r, h_z, h_n) = (
                    part.chunk(3, 1)
                    for part in (projected, product(h, layer.weight_hh, precision) + layer.bias_hh)
                )
                z = torch.sigmoid(i_z + h_z)
                candidate = (1 - z) * torch.tanh(i_n + torch.sigmoid(i_r + h_r) * h_n) + z * h
                h = zoneout * h + (1 - zoneout) * candidate
                seen.append(h)
            outputs = torch.cat(seen)
        states.append(h)
    return torch.cat(states)


def product(x, weight, precision):
    if precision == "bfloat16":
        x, weight = x.bfloat16().float(), weight.bfloat16().float()
    return x @ weight.t()


@pytest.fixture(params=["plain", "compiled"])
def kernel(request, monkeypatch):
    """The kernel's functions in plain torch, and the compiled ones where there are any."""
    if request.param == "plain":
        monkeypatch.setattr(cpu, "final_states", plain_final_states)
        monkeypatch.setattr(cpu, "precisions", lambda: ("float32", "bfloat16"))
        monkeypatch.setattr(cpu, "unavailable", _plain_unavailable)
    elif reason := projections.unavailable(classifier()):
        pytest.skip(f"no kernel: {reason}")


def _plain_unavailable(device, dtype, training, precision="float32"):
    return None if dtype == torch.float32 else "the kernel computes in float32"


def losses_in_double(model, parameters, encoded, labels):
    """Each review alone through the model's own forward pass in float64."""
    exact = Classifier(
        model.task,
        model.vectors.double(),
        hidden_size=model.gru.hidden_size,
        num_layers=model.gru.num_layers,
        between=model.gru.between,
        regularizer=model.regularizer,
        backend="eager",
    ).double()
    moved = {name: p.detach().double() for name, p in parameters.items()}
    with torch.no_grad():
        logits = [
            functional_call(exact.eval(), moved, encoded.take([n]).padded()) for n in range(encoded.size)
        ]
    return model.task.loss(torch.cat(logits), torch.as_tensor(labels), "none")


CELLS = [(0.0, 0.0), (1.0, -1.0), (0.5, 0.0), (0.0, -0.25), (-1.0, 1.0)]
TOLERANCE = {"float32": 1e-6, "bfloat16": 1e-3}


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize(
    "options", [{}, {"zoneout": 0.3, "dropconnect": 0.2}, {"between": "relu", "num_layers": 3}]
)
def test_cells_equal_forward_passes_in_double(kernel, precision, options):
    if precision not in cpu.precisions():
        pytest.skip(f"this machine has no {precision} products")
    model, (encoded, labels) = classifier(**options), reviews()
    directions = random_directions(model.trainable(), seed=1)
    evaluate = EvaluationLoss(model, encoded, labels, precision=precision)
    assert (evaluate.reason, evaluate.precision) == (None, precision)
    at = evaluate.on_plane(model.trainable(), directions)
    for steps in CELLS:
        expected = losses_in_double(
            model, displace(model.trainable(), directions, steps), encoded, labels
        ).mean()
        assert float(at(steps)[0].mean()) == pytest.approx(float(expected), rel=TOLERANCE[precision])
    assert torch.equal(at((0.0, 0.0))[0], evaluate({})[0])


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_cells_of_other_tasks(kernel, kind):
    model, (encoded, _) = classifier(Task(kind, ("a", "b", "c"))), reviews()
    rng = np.random.default_rng(0)
    labels = (
        rng.integers(0, 3, 40) if kind == "multiclass" else rng.integers(0, 2, (40, 3)).astype(np.float32)
    )
    directions = random_directions(model.trainable(), seed=1)
    evaluate = EvaluationLoss(model, encoded, labels, precision="float32")
    losses, correct = evaluate.on_plane(model.trainable(), directions)((1.0, 0.5))
    moved = displace(model.trainable(), directions, (1.0, 0.5))
    torch.testing.assert_close(losses, losses_in_double(model, moved, encoded, labels), rtol=1e-5, atol=1e-6)
    assert correct.shape == (40,)
    assert len(np.unique(evaluate.strata)) == len(np.unique(labels, axis=0))


def test_the_centre_is_the_untouched_model_s_loss_and_no_weight_moves(kernel):
    model, (encoded, labels) = classifier(zoneout=0.1).train(), reviews()
    before = fingerprint(model.state_dict())
    evaluate = EvaluationLoss(model, encoded, labels)
    losses, correct = evaluate({})
    directions = random_directions(model.trainable(), seed=0)
    surface = compute_surface(evaluate, model.trainable(), directions, size=3)
    centre = surface.sel(alpha=0, beta=0)
    assert float(centre["loss"]) == losses.mean().item()
    assert float(centre["accuracy"]) == correct.mean().item()
    assert float(centre["difference_se"]) == 0
    assert fingerprint(model.state_dict()) == before
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_a_direction_that_leaves_the_input_weights_alone(kernel):
    model, (encoded, labels) = classifier(), reviews()
    moving = {n: p for n, p in model.trainable().items() if n.startswith(("head", "gru.weight_hh"))}
    directions = random_directions(moving, seed=0)
    evaluate = EvaluationLoss(model, encoded, labels, precision="float32")
    losses, _ = evaluate.on_plane(moving, directions)((0.5, 1.0))
    moved = {**model.trainable(), **displace(moving, directions, (0.5, 1.0))}
    torch.testing.assert_close(losses, losses_in_double(model, moved, encoded, labels), rtol=1e-5, atol=1e-6)


def test_tables_beyond_the_memory_are_projected_cell_by_cell(kernel, monkeypatch, caplog):
    model, (encoded, labels) = classifier(), reviews()
    directions = random_directions(model.trainable(), seed=0)
    evaluate = EvaluationLoss(model, encoded, labels, precision="float32")
    usual = evaluate.on_plane(model.trainable(), directions)
    monkeypatch.setattr(projections, "MEMORY", 1000)
    at = evaluate.on_plane(model.trainable(), directions)
    assert "words are projected anew at each cell" in caplog.text
    for steps in CELLS:
        torch.testing.assert_close(at(steps)[0], usual(steps)[0], rtol=1e-5, atol=1e-6)
    assert torch.equal(at((0.0, 0.0))[0], usual((0.0, 0.0))[0])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"freeze": False}, "the word vectors are trained"),
        ({"backend": "eager"}, "the model's backend is eager"),
        ({"dtype": torch.float64}, "the kernel computes in float32"),
        ({"switch": "off"}, "switched off by GRULAND_CPU_KERNEL"),
    ],
)
def test_without_projections_a_cell_is_a_forward_pass(options, reason, monkeypatch):
    options = dict(options)
    monkeypatch.setattr(cpu, "final_states", lambda *_, **__: pytest.fail("the kernel ran"))
    if "switch" in options:
        monkeypatch.setenv("GRULAND_CPU_KERNEL", options.pop("switch"))
    dtype = options.pop("dtype", torch.float32)
    model, (encoded, labels) = classifier(**options).to(dtype), reviews()
    evaluate = EvaluationLoss(model, encoded, labels)
    assert reason in evaluate.reason
    assert evaluate.precision == str(dtype).removeprefix("torch.")
    directions = random_directions(model.trainable(), seed=0)
    losses, _ = evaluate.on_plane(model.trainable(), directions)((1.0, -0.5))
    moved = displace(model.trainable(), directions, (1.0, -0.5))
    assert torch.equal(losses, evaluate(moved)[0])
    if model.vectors.requires_grad:
        return  # the words have moved, too
    torch.testing.assert_close(losses, losses_in_double(model, moved, encoded, labels), rtol=1e-5, atol=1e-6)


def test_precisions(kernel):
    model, (encoded, labels) = classifier(), reviews()
    assert EvaluationLoss(model, encoded, labels).precision == cpu.precisions()[-1]
    with pytest.raises(ValueError, match=r"^precision=half: expected auto, float32, bfloat16"):
        EvaluationLoss(model, encoded, labels, precision="half")
    model.gru.backend = kernels.check_name("eager")
    with pytest.raises(ValueError, match=r"bfloat16 cannot be had here \(the model's backend is eager\)"):
        EvaluationLoss(model, encoded, labels, precision="bfloat16")


# -- sampling


class Population:
    """Examples of two classes whose losses a step (x, y) changes by f(x, y) times (1 + class) plus noise."""

    def __init__(self, rows, count=20_000, noise=1.0):
        rng = np.random.default_rng(5)
        self.labels = rng.integers(0, 2, count)
        self.own, self.noise = rng.exponential(size=count)[rows], noise * rng.normal(size=count)[rows]
        self.strata = self.labels[rows]

    def losses(self, x, y):
        distance = x**2 + 0.5 * y**2
        return self.own + distance * (4 * self.strata + self.noise)

    def __call__(self, parameters):
        losses = torch.from_numpy(self.losses(*parameters["w"][0].tolist()))
        return losses, torch.ones(len(losses))


def test_errors_of_differences_are_paired_and_stratified():
    population = Population(np.arange(300))
    surface = compute_surface(population, PLANE, UNIT, size=5)
    centre = population.losses(0, 0)
    for alpha in surface["alpha"].values:
        for beta in surface["beta"].values:
            cell, losses = surface.sel(alpha=alpha, beta=beta), population.losses(alpha, beta)
            assert float(cell["loss_se"]) == pytest.approx(losses.std(ddof=1) / np.sqrt(300))
            parts = [(losses - centre)[population.strata == k] for k in (0, 1)]
            squares = sum(((part - part.mean()) ** 2).sum() for part in parts)
            assert float(cell["difference_se"]) == pytest.approx(np.sqrt(squares / 298 / 300))
    surface = compute_surface(lambda p: population(p), PLANE, UNIT, size=3)  # a function has no strata
    difference = population.losses(1, 1) - centre
    assert float(surface.sel(alpha=1, beta=1)["difference_se"]) == pytest.approx(
        difference.std(ddof=1) / np.sqrt(300)
    )


def test_standard_error_of_samples_drawn_in_proportion():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [3000, 1000])
    values = rng.normal(size=4000) + 10 * labels
    means, errors = [], []
    for seed in range(300):
        rows = subset(labels, 100, seed)
        means.append(values[rows].mean())
        errors.append(standard_error(values[rows], labels[rows]))
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)
    assert standard_error(values[:100]) == pytest.approx(values[:100].std(ddof=1) / 10)
    assert np.isnan(standard_error(np.array([1.0])))
    assert np.isnan(standard_error(np.array([1.0, 2.0]), np.array([0, 1])))
    assert np.isnan(standard_error(np.array([1.0, np.inf, 2.0])))


def measured(loss, error):
    return xarray.Dataset({"loss": ("cell", np.array(loss)), "difference_se": ("cell", np.array(error))})


def test_the_certainty_of_a_sample():
    assert achieved_tolerance(measured([1.0, 3.0], [0.0, 0.1]), 100, 100) == 0  # every review: no sample
    assert achieved_tolerance(measured([1.0, 3.0], [0.0, 0.1]), 75, 100) == pytest.approx(0.098 / 2)
    assert achieved_tolerance(measured([1.0, 1.0], [0.0, 0.1]), 75, 100) is None


# -- adaptive interpolation


@pytest.mark.parametrize("size", [3, 5, 7, 13, 21, 25, 51, 101])
def test_nested_grids(size):
    grids = halvings(size)
    assert grids[0].tolist() == [0, size // 2, size - 1]
    assert grids[-1].tolist() == list(range(size))
    for coarse, fine in pairwise(grids):
        assert set(coarse) < set(fine)
        assert len(fine) <= 2 * len(coarse) - 1
        np.testing.assert_array_equal(fine, size - 1 - fine[::-1])
    level = NestedGrids((size, size)).level
    assert level[0, 0] == 0
    assert level.max() == len(grids) - 1


def followed(truth, tolerance, seed=0):
    """Values with what a survey of one kind of example asked for, and which those are."""
    values = np.full(truth.shape, np.nan)
    survey = Survey(truth.shape, [whole(np.zeros(2), np.arange(2))], tolerance, seed)
    for block in (block for blocks in survey.rounds() for block in blocks):
        assert np.isnan(values.flat[block.cells]).all()  # no cell twice
        values.flat[block.cells] = truth.flat[block.cells]
        survey.add(block, np.broadcast_to(truth.flat[block.cells][:, None, None], (len(block.cells), 2, 2)))
    return values, survey.estimates().examples > 0


def plane(size=51, columns=None):
    return np.meshgrid(np.linspace(-1, 1, columns or size), np.linspace(-1, 1, size))


X, Y = plane()
SURFACES = {
    "quadratic": (3 * X**2 + Y**2 + X * Y, 110),
    "valley": (100 * (Y - X**2) ** 2 + (1 - X) ** 2, 110),
    "cliff": (np.tanh(5 * (X + 0.3 * Y - 0.2)) + 0.3 * Y**2, 600),
    "bump": (X**2 + Y**2 + 2 * np.exp(-((X - 0.37) ** 2 + (Y + 0.21) ** 2) / 0.02), 800),
    "flat": (0 * X, 110),
    "far up": (1e8 + np.sin(3 * X) * Y, 300),
}


@pytest.mark.parametrize("tolerance", [0.005, 0.01])
@pytest.mark.parametrize("name", SURFACES)
def test_interpolated_cells_are_within_the_tolerance(name, tolerance):
    truth, most = SURFACES[name]
    values, known = followed(truth, tolerance)
    predicted = NestedGrids(truth.shape).predict(values, known)
    assert known.sum() <= most
    np.testing.assert_array_equal(predicted.values[known], truth[known])
    assert not predicted.error[known].any()
    assert np.abs(predicted.values - truth).max() <= tolerance * np.ptp(truth)
    assert predicted.error.max() <= tolerance * np.ptp(truth)


def test_a_bump_is_refined_where_it_is():
    _, known = followed(SURFACES["bump"][0], 0.005)
    near = (X - 0.37) ** 2 + (Y + 0.21) ** 2 < 0.02
    assert known[near].mean() > 0.9
    assert known[X < -0.5].mean() < 0.2


def test_white_noise_is_evaluated_whole():
    truth = np.random.default_rng(0).normal(size=(25, 25))
    values, known = followed(truth, 0.01)
    assert known.all()
    np.testing.assert_array_equal(NestedGrids(truth.shape).predict(values, known).values, truth)


@pytest.mark.parametrize(
    "truth",
    [
        np.where(X + Y > 1.2, np.inf, X**2 + Y**2),
        np.where(X > 0.7, np.nan, X**2 + Y**2),
        np.full(X.shape, np.nan),
        np.where(X > 0.5, 1e300, X),
    ],
    ids=["infinite", "nan", "nothing", "huge"],
)
def test_losses_that_are_not_finite_are_found_cell_by_cell(truth):
    values, known = followed(truth, 0.01)
    predicted = NestedGrids(truth.shape).predict(values, known).values
    finite = np.isfinite(truth)
    np.testing.assert_array_equal(np.isfinite(predicted), finite)
    np.testing.assert_allclose(predicted[finite], truth[finite], atol=0.01 * (spread_of(truth) or 1))


def test_other_shapes_and_seeds():
    wide, tall = plane(11, 41)
    truth = np.sin(3 * wide) + tall
    values, known = followed(truth, 0.01)
    assert known.sum() < truth.size
    error = np.abs(NestedGrids(truth.shape).predict(values, known).values - truth).max()
    assert error <= 0.01 * np.ptp(truth)
    _, again = followed(truth, 0.01)
    _, other = followed(truth, 0.01, seed=1)
    np.testing.assert_array_equal(known, again)
    assert (known != other).any()


def test_a_narrow_bump_between_the_coarse_cells_can_be_found_by_a_check():
    truth = X**2 + 0.3 * np.exp(-((X - 0.36) ** 2 + (Y - 0.36) ** 2) / 0.02)
    coarse = NestedGrids(truth.shape).coarse
    found = []
    for seed in range(8):
        values, known = followed(np.where(coarse, X**2, truth), 0.02, seed)
        error = np.abs(NestedGrids(truth.shape).predict(values, known).values - values)[known].max()
        found.append(known.sum() > coarse.sum() + 24)
        assert error == 0
    assert sum(found) >= 4


class Hill(Asymmetric):
    """The same with f(x, y) = tanh(3 x) + y^2."""

    @staticmethod
    def height(x, y):
        return np.tanh(3 * x) + y**2


def test_an_adaptive_surface_says_what_is_interpolated(tmp_path):
    evaluate, exact = Hill(), compute_surface(Hill(), PLANE, UNIT, size=25)
    path = tmp_path / "surface.zarr"
    surface = compute_surface(evaluate, PLANE, UNIT, size=25, tolerance=0.01, path=path)
    interpolated = surface["interpolated"].values
    assert 0 < interpolated.sum() == 625 - len(evaluate.calls)
    assert bool(surface["done"].all())
    for name in ("loss", "accuracy", "loss_se", "difference_se"):
        np.testing.assert_allclose(
            surface[name].values[~interpolated], exact[name].values[~interpolated], rtol=1e-9, atol=1e-12
        )
    assert np.isnan(surface["loss_se"].values[interpolated]).all()
    assert np.isnan(surface["difference_se"].values[interpolated]).all()
    assert ((surface["accuracy"] >= 0) & (surface["accuracy"] <= 1)).all()
    spread = np.ptp(exact["loss"].values)
    assert np.abs(surface["loss"] - exact["loss"]).max() <= 0.01 * spread
    assert 0 < surface.attrs["interpolation_error"] <= 0.01
    assert load_surface(path).identical(surface)
    assert not exact["interpolated"].any()
    assert f"{interpolated.sum()} of 625 cells interpolated" in contour_figure(surface).get_suptitle()
    texts = np.asarray(figure_3d(surface).data[0].text)
    np.testing.assert_array_equal(texts == "(interpolated)", interpolated)


def test_an_adaptive_surface_is_another_one_than_the_exact_one(tmp_path):
    path = tmp_path / "surface.zarr"
    compute_surface(Hill(), PLANE, UNIT, size=25, tolerance=0.01, path=path)
    again = compute_surface(Hill(fail_after=0), PLANE, UNIT, size=25, tolerance=0.01, path=path)
    assert again["interpolated"].any()
    exact = compute_surface(Hill(), PLANE, UNIT, size=25, path=path)
    assert not exact["interpolated"].any()
    assert "interpolation_error" not in exact.attrs


@pytest.mark.parametrize("after", [1, 30, 100])
def test_a_stopped_adaptive_surface_ends_as_an_undisturbed_one(tmp_path, after):
    path, undisturbed = tmp_path / "surface.zarr", Hill()
    whole = compute_surface(undisturbed, PLANE, UNIT, size=25, tolerance=0.005)
    assert len(undisturbed.calls) > after
    first, second = Hill(fail_after=after), Hill()
    with pytest.raises(RuntimeError, match="stopped"):
        compute_surface(first, PLANE, UNIT, size=25, tolerance=0.005, path=path)
    result = compute_surface(second, PLANE, UNIT, size=25, tolerance=0.005, path=path)
    assert len(first.calls) + len(second.calls) == len(undisturbed.calls) + 1  # the centre twice
    for name in whole.data_vars:
        np.testing.assert_array_equal(result[name], whole[name])
    assert result.attrs["interpolation_error"] == whole.attrs["interpolation_error"]


# -- a run

SETTINGS = Surface(size=9, reviews="all", seed=1)


class FakeRun:
    def __init__(self, path, **model):
        self.path, self.results, self.model = path, {"name": "none"}, classifier(backend="eager", **model)
        self.config = OmegaConf.create({"landscape": SETTINGS.to_dict()})
        with torch.no_grad():
            self.model.head.weight *= 5  # as far from the start as a trained model's
        encoded, labels = reviews(1000, longest=6)[0], (np.arange(1000) % 10 > 0).astype(np.int64)
        splits = {"train": SimpleNamespace(encoded=encoded, labels=labels)}
        self.data = SimpleNamespace(splits=splits, report={"fingerprint": "f"})
        self.locked = nullcontext

    def update_results(self, **values):
        self.results.update(values)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr("gruland.surfaces.results.write_pictures", lambda *_: None)
    return FakeRun(tmp_path)


def test_an_exact_surface_in_the_results(run):
    results = compute_run(run, SETTINGS)
    assert (results["evaluated"], results["interpolated"], results["interpolation_error"]) == (81, 0, None)
    assert (results["reviews"], results["evaluations"], results["achieved_tolerance"]) == (1000, 81_000, 0)
    assert results["precision"] == "float32"
    assert results["kernel"] == "the model's own forward pass (the model's backend is eager)"
    surface = load_surface(run.path / "landscape" / "surface.zarr")
    assert surface.attrs["precision"] == "float32"


def test_a_tolerance_takes_few_values_and_is_not_computed_twice(run, monkeypatch):
    exact = compute_run(run, SETTINGS)
    settings = replace(SETTINGS, tolerance=0.1)
    results = compute_run(run, settings)
    assert results["reviews"] == 1000
    assert results["evaluations"] < 0.6 * 81_000
    assert 0 < results["achieved_tolerance"] <= 0.1
    spread = exact["max_loss"] - exact["min_loss"]
    for name in ("center_loss", "min_loss", "max_loss"):
        assert results[name] == pytest.approx(exact[name], abs=0.2 * spread)
    with monkeypatch.context() as patch:
        patch.setattr(EvaluationLoss, "on_plane", lambda *_: pytest.fail("computed again"))
        assert compute_run(run, settings) == results
        again = load_surface(run.path / "landscape" / "surface.zarr")
    assert again["modes"].dims == ("mode", "beta", "alpha")


class Rounded(EvaluationLoss):
    """Whose products in bfloat16 are off by ``error``; takes down of how many reviews losses were asked for."""

    error, counts = 0.0, []

    def _measured(self, logits):
        losses, correct = super()._measured(logits)
        self.counts.append(len(losses))
        return losses + (self.error if self.precision == "bfloat16" else 0), correct


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(("error", "taken"), [(1e-6, "bfloat16"), (0.05, "float32")])
def test_products_are_rounded_only_where_the_tolerance_allows_it(run, monkeypatch, error, taken, given):
    monkeypatch.setattr(losses, "EvaluationLoss", Rounded)
    monkeypatch.setattr(Rounded, "error", error)
    monkeypatch.setattr(Rounded, "counts", [])
    monkeypatch.setattr(evaluation, "precisions", lambda model: ("float32", "bfloat16"))
    settings = replace(SETTINGS, tolerance=0.2)
    evaluate = losses.objective_of(run.model, run.data, settings) if given else None
    surface = surface_of(run, settings, evaluate=evaluate)
    assert surface.attrs["precision"] == taken
    assert surface.attrs["split"] == "train"  # the objective's other attributes are there
    assert max(Rounded.counts) < 1000


def test_a_tolerance_where_the_model_s_own_products_are_rounded(tmp_path):
    run = FakeRun(tmp_path, precision="bfloat16")
    assert surface_of(run, replace(SETTINGS, size=5, tolerance=0.2)).attrs["precision"] == "bfloat16"


def test_some_reviews_have_the_precision_of_all(monkeypatch):
    """A worker's machine may be faster in another one, or lack it."""
    monkeypatch.setattr(evaluation, "precisions", lambda model: ("float32", "bfloat16"))
    every = EvaluationLoss(classifier(backend="eager"), *reviews())
    monkeypatch.setattr(evaluation, "precisions", lambda model: ("bfloat16", "float32"))
    assert every.take(np.arange(3)).precision == every.precision == "bfloat16"
    monkeypatch.setattr(evaluation, "precisions", lambda model: ("float32",))
    with pytest.raises(ValueError, match="precision=bfloat16 cannot be had here"):
        every.take(np.arange(3))


def test_the_command_takes_the_new_settings_for_an_old_run(run, monkeypatch, capsys):
    monkeypatch.setattr("gruland.runs.find", lambda *paths: list(paths))
    monkeypatch.setattr("gruland.runs.load", lambda _: run)
    arguments = ["here", "size=17", "tolerance=0.2", "precision=float32"]
    assert command.main(arguments) == 0
    results = run.results["landscape"]
    assert results["interpolated"] == 289 - results["evaluated"] > 0
    line = capsys.readouterr().out
    assert f"{results['evaluated']} of 289 cells (the others interpolated within about" in line
    assert "each cell within" in line
    assert command.main(["here"]) == 0
    assert "81 cells over 1,000 reviews" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"precision": "double"}, "landscape.precision=double: expected one of auto, float32, bfloat16"),
        ({"tolerance": 0}, r"landscape.tolerance=0: expected a share of the loss range in \(0, 1\), or null"),
        ({"tolerance": "small"}, "landscape.tolerance=small: expected a share"),
        ({"tolerance": 1.5}, "landscape.tolerance=1.5: expected a share"),
        ({"tolerance": True}, "landscape.tolerance=True: expected a share"),
        ({"precision": "bfloat16"}, r"landscape.precision=bfloat16 cannot be had here"),
    ],
)
def test_settings_that_cannot_work(run, setting, message):
    with pytest.raises(ValueError, match=message):
        compute_run(run, replace(SETTINGS, **setting))


# -- the report


def test_the_report_s_table_counts_evaluated_cells():
    results = {"normalization": "filter", "cells": 2601, "reviews": 100, "evaluated": 233}
    run = SimpleNamespace(results={"seed": 0, "landscape": {**results, "interpolated": 2368}})
    study = SimpleNamespace(models=[SimpleNamespace(label="zoneout 0.1", runs={0: run})])
    assert "233 of 2601" in flatness._landscape_row(run, 0.5, study).cells
    run.results["landscape"] = {**results, "interpolated": 0}
    assert "2601" in flatness._landscape_row(run, 0.5, study).cells
