"""Control variates over levels, sample sizes and surveys, on populations whose every value is known."""

from __future__ import annotations

import math
from statistics import NormalDist
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
import xarray
from scipy.optimize import minimize

from gruland.landscape import compute_surface, estimation, load_surface, multilevel, sampling_interval
from gruland.landscape import surface as surfaces
from gruland.landscape.allocation import factorized, sizes
from gruland.landscape.multilevel import Estimator, Level, nested_order, parts_of, whole
from gruland.landscape.refinement import NestedGrids
from gruland.landscape.survey import PILOT, Block, Survey, half_width


def population(examples: int, side: int, *, noise: float = 0.1, seed: int = 0):
    """Logistic losses and correctness [cells, N] over a plane on which each example has a smooth logit; labels [N]."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, examples)
    steps = np.linspace(-1, 1, side)
    alpha, beta = (part.ravel()[:, None] for part in np.meshgrid(steps, steps))
    a, b, c = random.normal(size=(3, examples))
    logit = (2 * labels - 1) * (1.5 - alpha**2 - 0.5 * beta**2) + a * alpha + b * beta + c * alpha * beta
    logit = logit + noise * random.normal(size=(side * side, examples))
    sign = 2 * labels - 1
    return np.logaddexp(0, -sign * logit), (sign * logit > 0).astype(float), labels


def levels_of(losses, correct, order, parts):
    return [Level(losses[cells][:, order[:n]].T, correct[cells][:, order[:n]].T) for n, cells in parts]


def columns(labels):
    return labels[:, None].astype(float)


# -- the order of the examples


def test_every_beginning_of_the_order_has_the_strata_in_proportion():
    strata = np.repeat([0, 1, 2], [300, 50, 150])
    order = nested_order(strata, seed=3)
    assert sorted(order) == list(range(500))
    share = np.array([0.6, 0.1, 0.3])
    for n in range(1, 501):
        found = np.bincount(strata[order[:n]], minlength=3)
        assert (np.abs(found - n * share) <= 1 + 1e-9).all()
    assert (order == nested_order(strata, seed=3)).all()
    assert (order != nested_order(strata, seed=4)).any()


def test_few_strata_are_parts_and_many_or_small_ones_are_one():
    labels = np.repeat([0, 1], [300, 700])
    first, second = parts_of(labels, 3, least=200)
    assert (labels[first.rows] == 0).all()
    assert (labels[second.rows] == 1).all()
    assert sorted([*first.rows, *second.rows]) == list(range(1000))
    for strata in (np.repeat([0, 1], [100, 900]), np.arange(1000) % 5):
        (part,) = parts_of(strata, 3, least=200)
        assert sorted(part.rows) == list(range(1000))
        assert np.linalg.matrix_rank(part.known) == len(np.unique(strata)) - 1


# -- estimates


def test_a_census_is_exact():
    losses, correct, labels = population(50, 3)
    found = Estimator(columns(labels))(levels_of(losses, correct, np.arange(50), [(50, slice(None))]))
    np.testing.assert_allclose(found[0][0].values, losses.mean(1))
    np.testing.assert_allclose(found[0][1].values, correct.mean(1))
    assert not found[0][0].modes.any()


def test_what_is_a_linear_function_of_a_census_is_known_from_few_examples():
    random = np.random.default_rng(0)
    coarse = random.exponential(size=(3, 400))
    fine = coarse[:2] * 2 + coarse[2:]
    right = np.ones((5, 400))
    levels = [Level(coarse.T, right[:3].T), Level(fine[:, :60].T, right[:2, :60].T)]
    (_, _), (found, _) = Estimator(np.zeros((400, 0)))(levels)
    np.testing.assert_allclose(found.values, fine.mean(1), rtol=2e-3)
    assert (found.errors < 0.02 * fine.std(1) / np.sqrt(60)).all()


def test_intervals_cover_the_mean_and_the_bias_is_far_below_the_error():
    losses, correct, labels = population(600, 3)
    coarse, fine = [0, 2, 6, 8], [1, 3, 4, 5, 7]
    off, errors, differences, spreads = [], [], [], []
    for seed in range(100):
        order = nested_order(labels, seed)
        levels = levels_of(losses, correct, order, [(240, coarse), (80, fine)])
        parts = [part for part, _ in Estimator(columns(labels[order]))(levels)]
        found = np.concatenate([part.values for part in parts])
        modes = np.concatenate([part.modes for part in parts])
        truth = losses.mean(1)[[*coarse, *fine]]
        off.append(found - truth)
        errors.append(np.sqrt((modes**2).sum(1)))
        differences.append(off[-1][0] - off[-1][5])
        spreads.append(np.linalg.norm(modes[0] - modes[5]))
    off_SC, errors_SC = np.array(off), np.array(errors)
    covered = (np.abs(off_SC) <= 1.96 * errors_SC).mean(0)
    assert (covered > 0.85).all()
    assert 0.92 < covered.mean() < 0.985
    deviation = off_SC.std(0)
    assert (np.abs(off_SC.mean(0)) < 0.1 * deviation + 3 * deviation / np.sqrt(100)).all()
    np.testing.assert_allclose(errors_SC.mean(0), deviation, rtol=0.3)
    # Paired: the error of a difference is that of the modes' difference.
    np.testing.assert_allclose(np.mean(spreads), np.std(differences), rtol=0.3)
    # Control variates pay: the plain mean of 80 examples is far less certain.
    plain = losses.std(1)[fine] / np.sqrt(80)
    assert errors_SC.mean(0)[4:].max() < 0.7 * plain.max()


def test_coefficients_meet_no_example_that_they_were_fitted_on():
    # Of a skewed loss the coefficient and the mean err together: fitted on the same examples, it biases the estimate.
    random = np.random.default_rng(0)
    coarse = random.lognormal(size=2000)
    losses = np.stack([coarse, coarse**1.5])
    same, off = np.zeros(2000, dtype=int), []
    for seed in range(200):
        levels = levels_of(losses, losses > 1, nested_order(same, seed), [(2000, [0]), (50, [1])])
        (_, (fine, _)) = Estimator(np.zeros((2000, 0)))(levels)
        off.append(fine.values[0] - losses[1].mean())
    assert abs(np.mean(off)) < 3 * np.std(off) / np.sqrt(200)


def test_classes_that_come_in_turn_are_no_folds():
    random, labels = np.random.default_rng(1), np.arange(2000) % 5
    coarse = random.normal(size=2000)
    losses = np.stack([coarse, coarse + labels + 0.1 * random.normal(size=2000)]) + 10
    off, errors = [], []
    for seed in range(60):
        order = nested_order(labels, seed)
        levels = levels_of(losses, losses > 10, order, [(2000, [0]), (190, [1])])
        (_, (fine, _)) = Estimator(whole(labels, order).known)(levels)
        off.append(fine.values[0] - losses[1].mean())
        errors.append(fine.errors[0])
    np.testing.assert_allclose(np.mean(errors), np.std(off), rtol=0.35)


@pytest.mark.parametrize("shape", [(1, 2), (9, 2)])
def test_levels_that_cannot_be_are_refused(shape):
    level = Level(np.zeros(shape), np.zeros(shape))
    with pytest.raises(ValueError, match="expected from 2"):
        Estimator(np.zeros((8, 1)))([level])
    with pytest.raises(ValueError, match="not finite"):
        Estimator(np.zeros((8, 1)))([Level(np.full((4, 1), np.nan), np.zeros((4, 1)))])


# -- sample sizes


def test_the_factorization_is_that_of_the_covariance():
    random = np.random.default_rng(1)
    root = random.normal(size=(6, 6))
    covariance = root @ root.T
    order, lower, left = factorized(covariance, 10**9)
    np.testing.assert_allclose((lower * left) @ lower.T, covariance, atol=1e-6)
    assert sorted(order) == list(range(6))
    assert (np.diff(left) <= 1e-9).all()


def test_sizes_keep_the_bound_at_nearly_the_least_cost():
    random = np.random.default_rng(2)
    root = random.normal(size=(5, 5)) * 2.0 ** -np.arange(5)
    _order, lower, left = factorized(root @ root.T, 10**9)
    parts, total, bound = lower**2 * left, 10_000, 0.002

    def variances(n):
        return parts @ (1 / n - 1 / total)

    (found,) = sizes([parts], [total], bound, 20)
    assert (variances(found) <= bound * (1 + 1e-9)).all()
    assert (np.diff(found) <= 0).all()
    constraint = {"type": "ineq", "fun": lambda logs: (bound - variances(np.exp(logs))) / bound}
    best = minimize(
        lambda logs: np.exp(logs).sum() / 1000, np.log(found * 1.2), constraints=[constraint],
        bounds=[(np.log(20), np.log(total))] * 5, method="SLSQP", options={"maxiter": 500},
    )  # fmt: skip
    assert found.sum() <= 1.15 * 1000 * best.fun


def test_parts_get_examples_where_their_losses_vary():
    calm, wild = np.array([[0.01]]), np.array([[1.0]])
    few, many = sizes([calm, wild], [5000, 5000], 0.002, 20)
    assert 10 * few[0] == pytest.approx(many[0], rel=1e-3)  # by the standard deviations (Neyman)
    assert calm / few + wild / many == pytest.approx(0.002 + (calm + wild) / 5000, rel=1e-6)


# -- surveys


def answered(survey, losses, correct, parts, log=None):
    """Let the survey ask until it is content; how many values it took."""
    cost = 0
    for block in (block for blocks in survey.rounds() for block in blocks):
        rows = parts[block.part].rows[block.start : block.stop]
        cost += len(block.cells) * len(rows)
        if log is not None:
            log.append((block.cells.tolist(), *block[1:]))
        survey.add(block, np.stack([losses[block.cells][:, rows], correct[block.cells][:, rows]], 1))
    return cost


@pytest.fixture(scope="module")
def plane():
    """N = 4,000 examples on 17 x 17 cells."""
    return population(4000, 17, noise=0.02)


def surveyed(plane, tolerance, seed=0, side=17, **options):
    losses, correct, labels = plane
    parts = parts_of(labels, seed, PILOT)
    survey = Survey((side, side), parts, tolerance, seed, **options)
    cost = answered(survey, losses, correct, parts)
    return survey.estimates(), losses.mean(1).reshape(side, side), cost / losses.size


@pytest.mark.parametrize("tolerance", [0.05, 0.02])
def test_a_survey_keeps_its_tolerance_with_a_fraction_of_the_values(plane, tolerance):
    inside, within, worst = [], [], []
    for seed in range(2):
        found, truth, cost = surveyed(plane, tolerance, seed)
        error = np.abs(found.loss - truth)
        inside.append((error <= found.half_width + 1e-12).mean())
        within.append((error <= tolerance * np.ptp(truth)).mean())
        worst.append(error.max() / np.ptp(truth) / tolerance)
        assert (found.half_width <= found.allowed * 1.001).all()
        assert cost < 0.4
    assert np.mean(within) >= 0.95
    assert np.mean(inside) >= 0.9
    assert max(worst) <= 2


@pytest.mark.parametrize("bound", [0.0, 0.3, 1.0, 4.9, 5.1, 40.0])
def test_an_interval_covers_the_worst_error_of_an_interpolation(bound):
    half = float(half_width(np.array([2.0]), np.array([2.0 * bound]))[0]) / 2
    inside = NormalDist().cdf(half - bound) - NormalDist().cdf(-half - bound)
    assert inside == pytest.approx(0.95, abs=2e-4)
    assert half_width(np.zeros(1), np.array([bound]))[0] == bound  # nothing is sampled


def test_a_class_that_is_known_whole_adds_no_error():
    parts = [whole(np.zeros(800, dtype=int), np.arange(400) + 400 * number) for number in (0, 1)]
    losses = np.random.default_rng(0).normal(size=(81, 2, 800))
    survey, coarse = Survey((9, 9), parts, 0.01), np.flatnonzero(NestedGrids((9, 9)).coarse)
    cell = np.setdiff1d(np.arange(81), coarse)[:1]
    for part in (0, 1):
        for cells, stop in ((coarse, 96), (cell, 48)):
            survey.add(Block(cells, part, 0, stop), losses[cells][:, :, parts[part].rows[:stop]])
    survey.estimates()
    survey.add(Block(cell, 0, 48, 400), losses[cell][:, :, parts[0].rows[48:]])
    survey.estimates()
    assert survey._own[0, cell] == 0 < survey._own[1, cell]


def test_what_nothing_predicts_is_evaluated_whole():
    random = np.random.default_rng(0)
    losses = random.exponential(size=(81, 1000))
    found, truth, _ = surveyed((losses, (losses < 0.7) * 1.0, np.arange(1000) % 2), 0.01, side=9)
    np.testing.assert_allclose(found.loss, truth)
    assert (found.examples == 1000).all()
    assert not found.half_width.any()


def test_few_examples_are_evaluated_whole(plane):
    losses, correct, labels = (part[..., :150] for part in plane)
    found, truth, cost = surveyed((losses, correct, labels), 0.02)
    assert cost < 1
    assert set(np.unique(found.examples)) == {0, 150}
    known = found.examples > 0
    np.testing.assert_allclose(found.loss[known], truth[known])
    assert (np.abs(found.loss - truth) <= 0.02 * np.ptp(truth)).mean() >= 0.95


def test_an_interrupted_survey_asks_the_same_again(plane):
    losses, correct, labels = plane
    parts, asked = parts_of(labels, 0, PILOT), []
    for _ in range(2):
        log: list[object] = []
        survey = Survey((17, 17), parts, 0.05, 0)
        answered(survey, losses, correct, parts, log)
        asked.append((log, survey.estimates().loss.tolist()))
    assert asked[0] == asked[1]


def test_heavy_tails_and_a_class_that_is_wrong_everywhere(plane):
    losses, correct, labels = plane
    heavy = losses * np.random.default_rng(0).lognormal(sigma=1.5, size=losses.shape[1])
    wrong = np.where(labels == 0, losses + 6.0 * np.linspace(0, 1, 289)[:, None], losses)
    for changed in (heavy, wrong):
        found, truth, _ = surveyed((changed, correct, labels), 0.05)
        error = np.abs(found.loss - truth) / np.ptp(truth)
        assert (error <= 0.05).mean() >= 0.95
        assert error.max() <= 0.1


def test_a_class_whose_losses_do_not_vary_is_hardly_asked(plane):
    losses, correct, labels = plane
    losses, parts = np.where(labels == 0, 0.1, losses), parts_of(labels, 0, PILOT)
    survey, asked, expected = Survey((17, 17), parts, 0.02, 0), [0, 0], []
    for block in (block for blocks in survey.rounds() for block in blocks):
        expected.append(survey.expected)
        rows = parts[block.part].rows[block.start : block.stop]
        asked[block.part] += len(block.cells) * len(rows)
        survey.add(block, np.stack([losses[block.cells][:, rows], correct[block.cells][:, rows]], 1))
    assert asked[0] < 0.5 * asked[1]
    assert survey.losses == sum(asked) <= survey.expected
    assert 0.5 < np.median(expected) / sum(asked) < 2  # what a progress line is about
    error = np.abs(survey.estimates().loss.ravel() - losses.mean(1))
    assert (error <= 0.02 * np.ptp(losses.mean(1))).mean() >= 0.95


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_cells_that_are_not_finite_are_found_and_change_nothing_else(plane, value):
    losses, correct, labels = plane
    broken = losses.copy()
    broken[: 17 * 3] = value  # three rows
    found, truth, cost = surveyed((broken, correct, labels), 0.05)
    assert cost < 0.5
    lost = ~np.isfinite(found.loss)
    assert lost[:2].all()
    assert not lost[3:].any()
    error = np.abs(found.loss[3:] - truth[3:]) / np.ptp(truth[3:])
    assert (error <= 0.05).mean() >= 0.95


def test_a_surface_of_one_value_and_one_without_a_finite_value():
    right = np.ones((81, 500))
    found, _, cost = surveyed((np.full((81, 500), 2.5), right, np.arange(500) % 2), 0.01, side=9)
    np.testing.assert_allclose(found.loss, 2.5)
    assert cost < 1
    found, _, _ = surveyed((np.full((81, 500), np.nan), right, np.arange(500) % 2), 0.01, side=9)
    assert np.isnan(found.loss).all()


@pytest.mark.parametrize("shape", [(1, 51), (51, 1), (2, 2), (1, 1)])
def test_any_grid(shape):
    random = np.random.default_rng(0)
    steps = np.linspace(0, 1, shape[0] * shape[1])[:, None]
    losses = (random.normal(size=900) + 3 * steps) ** 2
    parts = parts_of(np.zeros(900, dtype=int), 0, PILOT)
    survey = Survey(shape, parts, 0.05, 0)
    answered(survey, losses, np.ones_like(losses), parts)
    error = np.abs(survey.estimates().loss.ravel() - losses.mean(1))
    assert (error <= 0.05 * max(np.ptp(losses.mean(1)), 1e-9) + survey.estimates().half_width.ravel()).all()


# -- a surface of any objective


class Bowl:
    """N = 3,000 examples, whose loss is the squared distance to a point of their own; counts what it evaluates."""

    about: ClassVar = {"data": "bowl"}

    def __init__(self, rows=None, counted=None, stop_after=math.inf):
        self.points = np.random.default_rng(0).normal(scale=0.7, size=(3000, 2)) + np.array([0.3, -0.2])
        self.rows = np.arange(3000) if rows is None else rows
        self.counted = [0] if counted is None else counted
        self.stop_after = stop_after

    def take(self, rows):
        return Bowl(self.rows[rows], self.counted, self.stop_after)

    def __call__(self, parameters):
        self.counted[0] += len(self.rows)
        if self.counted[0] > self.stop_after:
            raise RuntimeError("stopped")
        losses = ((parameters["w"].numpy() - self.points[self.rows]) ** 2).sum(1)
        return torch.from_numpy(losses), torch.from_numpy(losses < 1)


PARAMETERS = {"w": torch.zeros(2, dtype=torch.float64)}
AXES = [
    {"w": torch.tensor([1.0, 0.0], dtype=torch.float64)},
    {"w": torch.tensor([0.0, 1.0], dtype=torch.float64)},
]


def test_any_objective_that_can_be_divided_is_estimated(tmp_path):
    exact, objective = compute_surface(Bowl(), PARAMETERS, AXES, size=21), Bowl()
    surface = compute_surface(objective, PARAMETERS, AXES, size=21, tolerance=0.02, path=tmp_path / "s.zarr")
    spread = np.ptp(exact["loss"].values)
    seeds = [
        compute_surface(Bowl(), PARAMETERS, AXES, size=21, tolerance=0.02, seed=seed) for seed in range(1, 6)
    ]
    # The losses are all functions of two numbers, so that the cells of a surface are off together.
    errors = [np.abs(found["loss"] - exact["loss"]).values for found in (surface, *seeds)]
    assert np.mean([error <= 0.02 * spread for error in errors]) >= 0.95
    assert np.max(errors) <= 2 * 0.02 * spread
    assert np.abs(surface["accuracy"] - exact["accuracy"]).max() < 0.1
    assert surface.attrs["achieved_tolerance"] <= 0.021
    assert surface.attrs["origin_loss"] == pytest.approx(exact.attrs["origin_loss"], abs=0.04 * spread)
    # The plane's origin takes all examples once, as they are no stratified sample that tells their number.
    assert objective.counted[0] == surface.attrs["evaluations"] + 3000 < 0.3 * 441 * 3000
    assert load_surface(tmp_path / "s.zarr").identical(surface)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == ["s.zarr"]


def test_differences_to_an_origin_off_the_coarse_grid_have_errors():
    options = {"size": 17, "extent": ((-0.25, 1.75), 1.0)}  # (0, 0) is a cell of the finest grid
    surface = compute_surface(Bowl(), PARAMETERS, AXES, tolerance=0.02, **options)
    exact = compute_surface(Bowl(), PARAMETERS, AXES, **options)
    known = ~surface["interpolated"].values
    assert 0 < known.sum() < 17 * 17
    assert np.isfinite(surface["difference_se"].values[known]).all()
    # An estimate's error of a difference holds that of the examples that were not evaluated, too.
    assert (surface["difference_se"] >= 0.9 * exact["difference_se"]).values[known].all()


@pytest.mark.parametrize("count", [3000, 60])  # sampled, and evaluated whole
def test_losses_alone_are_estimated(count):
    """An objective may not say what is right."""

    class Ungraded(Bowl):
        def take(self, rows):
            return Ungraded(self.rows[rows], self.counted)

        def __call__(self, parameters):
            losses = super().__call__(parameters)[0]
            return losses, torch.full_like(losses, torch.nan)

    options = {"size": 9, "tolerance": 0.05}
    surface = compute_surface(Ungraded(np.arange(count)), PARAMETERS, AXES, **options)
    graded = compute_surface(Bowl(np.arange(count)), PARAMETERS, AXES, **options)
    np.testing.assert_array_equal(surface["loss"], graded["loss"])
    assert np.isnan(surface["accuracy"]).all()
    assert surface.attrs["origin_loss"] == graded.attrs["origin_loss"]


@pytest.mark.parametrize("later", [{"tolerance": 0.05}, {}])
def test_answers_of_other_settings_are_thrown_away_and_said(tmp_path, caplog, later):
    options = {"size": 5, "path": tmp_path / "s.zarr"}
    with pytest.raises(RuntimeError, match="stopped"):
        compute_surface(Bowl(stop_after=8000), PARAMETERS, AXES, tolerance=0.02, **options)
    (answers,) = tmp_path.glob("s.answers-*")
    compute_surface(Bowl(), PARAMETERS, AXES, **options, **later)
    assert f"{answers} is of other settings: the surface is computed afresh" in caplog.text
    assert not list(tmp_path.glob("s.answers-*"))


def test_a_killed_estimation_goes_on_and_ends_with_the_same_numbers(tmp_path):
    options = {"size": 21, "tolerance": 0.02}
    whole = compute_surface(Bowl(), PARAMETERS, AXES, **options)
    total = whole.attrs["evaluations"] + 3000
    first, second = Bowl(stop_after=0.6 * total), Bowl()
    with pytest.raises(RuntimeError, match="stopped"):
        compute_surface(first, PARAMETERS, AXES, path=tmp_path / "s.zarr", **options)
    result = compute_surface(second, PARAMETERS, AXES, path=tmp_path / "s.zarr", **options)
    for name in whole.data_vars:
        np.testing.assert_array_equal(result[name], whole[name])
    assert second.counted[0] < 0.75 * total


def test_what_a_process_leaves_that_is_killed_at_its_end_goes(tmp_path, monkeypatch):
    def killed(answers):
        raise KeyboardInterrupt

    options = {"size": 5, "tolerance": 0.1, "path": tmp_path / "s.zarr"}
    with monkeypatch.context() as patched:
        patched.setattr(estimation.Answers, "discard", killed)
        with pytest.raises(KeyboardInterrupt):
            compute_surface(Bowl(), PARAMETERS, AXES, **options)
    assert list(tmp_path.glob("s.answers-*"))
    compute_surface(Bowl(), PARAMETERS, AXES, **options)
    assert not list(tmp_path.glob("s.answers-*"))


def test_a_budget_of_time_ends_with_what_there_is(tmp_path, monkeypatch):
    options = {"size": 21, "tolerance": 0.02, "path": tmp_path / "s.zarr"}
    now = [0.0]

    def clock():
        now[0] += 1
        return now[0]

    monkeypatch.setattr(estimation, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr(surfaces, "time", SimpleNamespace(monotonic=lambda: 0.0, perf_counter=lambda: 0.0))
    stopped = compute_surface(Bowl(), PARAMETERS, AXES, max_seconds=15, **options)
    assert stopped.attrs["complete"] is False
    assert np.isfinite(stopped["loss"]).all()
    # Of cells beside no value nothing is claimed, and the loss at the trained weights is what it is.
    now[0] = 0.0
    sooner = compute_surface(Bowl(), PARAMETERS, AXES, size=21, tolerance=0.02, max_seconds=2)
    assert np.isinf(sooner["half_width"].values[sooner["interpolated"].values]).all()
    assert sooner.attrs["origin_loss"] == pytest.approx((Bowl().points ** 2).sum(1).mean())
    assert not (tmp_path / "s.zarr").exists()
    result = compute_surface(Bowl(), PARAMETERS, AXES, **options)
    assert result.attrs["complete"] is True
    whole = compute_surface(Bowl(), PARAMETERS, AXES, size=21, tolerance=0.02)
    np.testing.assert_array_equal(result["loss"], whole["loss"])


def test_the_interval_of_a_linear_measure_is_that_of_the_modes():
    surface = compute_surface(Bowl(), PARAMETERS, AXES, size=9, tolerance=0.05)
    found = sampling_interval(lambda drawn: float(drawn["loss"].mean()), surface, draws=300)
    half = 1.96 * np.linalg.norm(surface["modes"].values.mean((1, 2)))
    assert found.estimate == pytest.approx(float(surface["loss"].mean()))
    assert found.width / 2 == pytest.approx(half, rel=0.25)
    assert found.low < found.estimate < found.high
    certain = sampling_interval(lambda surface: 2.0, compute_surface(Bowl(), PARAMETERS, AXES, size=3))
    assert certain.width == 0
    with pytest.raises(ValueError, match="draws=3"):
        sampling_interval(lambda surface: 2.0, xarray.Dataset(), draws=3)


def test_a_fit_that_leaves_an_example_out_leaves_out_its_group(monkeypatch):
    random, groups, seen = np.random.default_rng(2), np.repeat(np.arange(30), 4), []
    losses = random.normal(size=(2, 120))
    order = nested_order(np.zeros(120, dtype=int), 0)
    fold = multilevel._Fold
    monkeypatch.setattr(multilevel, "_Fold", lambda x, y, out: seen.append(out) or fold(x, y, out))
    levels = levels_of(losses, losses > 0, order, [(120, [0]), (60, [1])])
    Estimator(np.zeros((120, 0)), groups[order])(levels)
    assert len(seen) == 5
    assert np.sum(seen, axis=0).tolist() == [1] * 60
    for left_out in seen:
        assert not set(groups[order[:60]][left_out]) & set(groups[order[:60]][~left_out])
