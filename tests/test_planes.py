"""Planes through weights and trajectories against closed forms and numpy's SVD of the whole matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from gruland.landscape import compute_surface, random_directions
from gruland.landscape.directions import displace, fingerprint
from gruland.landscape.planes import (
    Plane,
    plane_through,
    random_plane,
    random_walk_shares,
    trajectory_plane,
)
from gruland.landscape.trajectory import MEASURES, trajectory
from gruland.surfaces import run_checkpoints


def weights(seed, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"matrix": (5, 4), "convolution": (2, 3, 2, 2), "row": (3, 1), "bias": (6,), "scalar": ()}
    return {
        name: scale * torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        for name, shape in shapes.items()
    }


def flat(vector):
    return np.concatenate([tensor.detach().double().numpy().reshape(-1) for tensor in vector.values()])


def unflat(vector, like):
    parts = np.split(vector, np.cumsum([tensor.numel() for tensor in like.values()])[:-1])
    return {
        name: torch.from_numpy(part.reshape(tensor.shape)).to(tensor.dtype)
        for (name, tensor), part in zip(like.items(), parts, strict=True)
    }


def assert_close(one, other, **tolerances):
    assert list(one) == list(other)
    for name in one:
        torch.testing.assert_close(one[name], other[name], **tolerances)


# -- random and through weights


def test_a_random_plane_is_that_of_the_random_directions():
    origin = weights(0)
    plane = random_plane(origin, 3, normalization="tensor")
    expected = random_directions(origin, 3, "tensor")
    assert [fingerprint(d) for d in plane.directions] == [fingerprint(d) for d in expected]
    assert (plane.kind, plane.points) == ("random", {})
    assert plane.attributes == {
        "seed": 3, "normalization": "tensor", "units": ["tensor-normalized radius"] * 2
    }  # fmt: skip
    assert plane.extent() == ((-1, 1), (-1, 1))


def test_two_other_weights_lie_where_gram_schmidt_puts_them():
    origin, first, second = weights(0), weights(1), weights(2)
    plane = plane_through(origin, {"first": first, "second": second})
    u, v = flat(first) - flat(origin), flat(second) - flat(origin)
    along = u @ v / (u @ u)
    height = np.linalg.norm(v - along * u) / np.linalg.norm(u)
    assert plane.points["first"] == (1.0, 0.0)
    assert plane.points["second"] == pytest.approx((along, height), rel=1e-12)
    delta, eta = map(flat, plane.directions)
    np.testing.assert_allclose(delta, u, atol=1e-14)
    assert delta @ eta == pytest.approx(0, abs=1e-12 * (u @ u))
    assert np.linalg.norm(eta) == pytest.approx(np.linalg.norm(u), rel=1e-12)
    for name, point in (("first", first), ("second", second)):
        assert_close(plane.at(*plane.points[name]), point, rtol=0, atol=1e-14)
        assert plane.coordinates(point) == pytest.approx(plane.points[name], rel=1e-12, abs=1e-12)
        assert plane.residual(point) < 1e-13


def test_one_other_weight_gets_a_filter_normalized_orthogonal_axis():
    origin, other = weights(0), weights(1)
    plane = plane_through(origin, {"other": other}, seed=4)
    delta, eta = plane.directions
    assert plane.points == {"other": (1.0, 0.0)}
    assert_close(plane.at(1, 0), other, rtol=0, atol=1e-15)
    for name in ("matrix", "convolution"):
        rows, along, own = (part[name].flatten(1) for part in (eta, delta, origin))
        torch.testing.assert_close(rows.norm(dim=1), own.norm(dim=1))
        assert (rows * along).sum(1).abs().max() < 1e-13
    for name in ("row", "bias", "scalar"):  # one number, or fewer than two axes: nothing orthogonal
        assert not eta[name].any()
    again, different = (plane_through(origin, {"other": other}, seed=s).directions[1] for s in (4, 5))
    assert fingerprint(again) == fingerprint(eta) != fingerprint(different)
    assert plane.attributes["units"] == ["distance from the origin to other", "filter-normalized radius"]
    assert plane.attributes["lengths"][0] == pytest.approx(np.linalg.norm(flat(other) - flat(origin)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_surface_s_values_at_the_points_are_the_losses_of_the_weights(dtype):
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.BatchNorm1d(5), nn.Linear(5, 1)).to(dtype).eval()
    module[0].bias.requires_grad_(False)
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)

    def evaluate(parameters):
        with torch.no_grad():
            out = functional_call(module, parameters, x)[:, 0]
        return (out - x[:, 0]) ** 2, out > 0

    def trained(seed):
        generator = torch.Generator().manual_seed(seed)
        return {
            name: torch.randn(p.shape, generator=generator).to(dtype)
            for name, p in module.named_parameters()
            if p.requires_grad
        }

    untouched = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    origin, other, third = trained(0), trained(1), trained(2)
    plane = plane_through(origin, {"other": other})
    surface = compute_surface(evaluate, plane.origin, plane.directions, size=5, extent=2.0)
    exact = 1e-5 if dtype == torch.float32 else 1e-12
    for alpha, expected in ((0.0, origin), (1.0, other)):
        value = float(surface["loss"].sel(alpha=alpha, beta=0.0))
        assert value == pytest.approx(float(evaluate(expected)[0].double().mean()), rel=exact)
    plane = plane_through(origin, {"other": other, "third": third})
    value = float(evaluate(plane.at(*plane.points["third"]))[0].mean())
    assert value == pytest.approx(float(evaluate(third)[0].mean()), rel=exact)
    assert "0.bias" not in plane.at(0.5, 0.5)
    assert all(torch.equal(untouched[name], tensor) for name, tensor in module.state_dict().items())


def test_the_origin_stays_itself_and_nothing_is_written():
    origin, other = weights(0, torch.float32), weights(1, torch.float32)
    before = [fingerprint(origin), fingerprint(other)]
    plane = plane_through(origin, {"other": other})
    assert all(tensor is origin[name] for name, tensor in plane.at(0, 0).items())
    plane.at(0.3, 2.0)
    assert [fingerprint(origin), fingerprint(other)] == before
    assert all(d[n].dtype == origin[n].dtype for d in plane.directions for n in origin)


def test_coordinates_and_residual_are_those_of_the_nearest_point():
    """Of axes that are neither orthogonal nor of one length, too."""
    origin = weights(0)
    plane = Plane(origin, [weights(1), combine(weights(1), weights(2), 3.0)], "random")
    normal = flat(weights(3))
    basis = np.stack([flat(d) for d in plane.directions])
    normal -= np.linalg.pinv(basis) @ (basis @ normal)
    point = unflat(flat(origin) + np.array([0.7, -0.2]) @ basis + normal, origin)
    assert plane.coordinates(point) == pytest.approx((0.7, -0.2), rel=1e-10)
    assert plane.residual(point) == pytest.approx(np.linalg.norm(normal), rel=1e-10)


def combine(one, other, factor):
    return {name: tensor + factor * other[name] for name, tensor in one.items()}


def test_the_extent_holds_origin_and_points():
    plane = Plane({}, [], "through", {"a": (1.0, 0.0), "b": (-2.0, 4.0)})
    assert plane.extent(0.5) == ((-3.5, 2.5), (-2.0, 6.0))
    assert Plane({}, [], "through", {"a": (1.0, 0.0)}).extent() == ((-0.25, 1.25), (-1.0, 1.0))


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({}, "through 0 other weights: expected one or two"),
        ({str(n): weights(n) for n in (1, 2, 3)}, "through 3 other weights: expected one or two"),
        ({"final": weights(0)}, "final equals the origin"),
        (
            {"a": weights(1), "b": combine(weights(1), combine(weights(1), weights(0), -1.0), 2.0)},
            "on one line",
        ),
        (
            {"a": {**weights(1), "bias": torch.zeros(7)}},
            r"a is of another model: bias is \[7\], expected \[6\]",
        ),
        ({"a": {**weights(1), "new": torch.zeros(7)}}, r"a is of another model: new is \[7\], expected none"),
        ({"a": {"matrix": torch.zeros(5, 4)}}, r"convolution is none, expected \[2, 3, 2, 2\]"),
        ({"a": {**weights(1), "bias": torch.full((6,), np.nan)}}, "infinite or undefined numbers in bias"),
    ],
)
def test_weights_that_span_no_plane(others, message):
    with pytest.raises(ValueError, match=message):
        plane_through(weights(0), others)


def test_there_is_no_orthogonal_axis_in_rows_of_one_number():
    with pytest.raises(ValueError, match="no parameter has rows of two or more numbers"):
        plane_through({"row": torch.ones(3, 1)}, {"other": {"row": torch.zeros(3, 1)}})


# -- trajectories


def path(points, like=None, seed=0):
    """Checkpoints whose offsets have the given coordinates [n, k] in an orthonormal basis of weight space."""
    like = weights(9) if like is None else like
    dimensions = len(flat(like))
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(dimensions, np.shape(points)[1])))[0].T
    return [unflat(flat(like) + point @ basis, like) for point in np.asarray(points, float)]


def test_checkpoints_in_a_plane_are_found_there():
    points = [[-9, 0], [-4, 3], [-2, 1], [-1, -0.5], [0, 0]]
    checkpoints = path(points)
    plane = trajectory_plane(checkpoints)
    assert sum(plane.attributes["explained"]) == pytest.approx(1, abs=1e-12)
    assert plane.attributes["origin"] == "4"
    found = np.array(list(plane.points.values()))
    # Distances among the checkpoints are kept: the picture is the path itself, rotated.
    np.testing.assert_allclose(found @ found.T, np.array(points) @ np.array(points).T, atol=1e-10)
    for checkpoint in checkpoints:
        assert plane.residual(checkpoint) < 1e-12
    assert plane.points["4"] == (0.0, 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_components_are_those_of_an_svd_of_the_whole_matrix(dtype):
    checkpoints = [weights(seed, dtype) for seed in range(7)]
    plane = trajectory_plane(checkpoints, list("abcdefg"), origin="e")
    matrix = np.stack([flat(c) - flat(checkpoints[4]) for c in checkpoints])
    _, singular, components = np.linalg.svd(matrix - matrix.mean(0), full_matrices=False)
    exact = 1e-6 if dtype == torch.float32 else 1e-12
    np.testing.assert_allclose(
        plane.attributes["explained"], (singular**2 / (singular**2).sum())[:2], rtol=exact
    )
    for direction, component in zip(plane.directions, components, strict=False):
        assert abs(flat(direction) @ component) == pytest.approx(1, abs=exact)
        assert np.linalg.norm(flat(direction)) == pytest.approx(1, abs=exact)
    signs = np.array([np.sign(flat(d) @ c) for d, c in zip(plane.directions, components, strict=False)])
    coordinates = matrix @ components[:2].T * signs
    np.testing.assert_allclose(list(plane.points.values()), coordinates, atol=10 * exact)
    residuals = np.linalg.norm(matrix - coordinates @ (components[:2] * signs[:, None]), axis=1)
    np.testing.assert_allclose([plane.residual(c) for c in checkpoints], residuals, atol=10 * exact)
    assert list(plane.points) == list("abcdefg")
    assert plane.points["e"] == (0.0, 0.0)


def test_the_origin_changes_neither_directions_nor_variance():
    checkpoints = [weights(seed) for seed in range(5)]
    last, first = trajectory_plane(checkpoints), trajectory_plane(checkpoints, origin="0")
    np.testing.assert_allclose(last.attributes["explained"], first.attributes["explained"], rtol=1e-12)
    for one, other in zip(last.directions, first.directions, strict=True):
        assert abs(flat(one) @ flat(other)) == pytest.approx(1, abs=1e-12)


def test_the_same_path_gives_the_same_picture():
    checkpoints = path(np.random.default_rng(1).normal(size=(6, 4)).cumsum(0))
    plane = trajectory_plane(checkpoints)
    found = np.array(list(plane.points.values()))
    farthest = found[np.abs(found).argmax(0), [0, 1]]
    assert farthest[0] < 0 < farthest[1]
    # A rotation of weight space flips the eigenvectors that the SVD happens to find, not the picture.
    for seed in (1, 2, 3):
        turned = path(np.random.default_rng(1).normal(size=(6, 4)).cumsum(0), seed=seed)
        np.testing.assert_allclose(list(trajectory_plane(turned).points.values()), found, atol=1e-10)


def test_random_walks_have_the_known_shares_and_are_cosines():
    n, dimensions = 40, 20_000
    steps = np.random.default_rng(0).normal(size=(n, dimensions)) / np.sqrt(dimensions)
    walk = steps.cumsum(0)
    plane = trajectory_plane([{"w": torch.from_numpy(row)} for row in walk])
    np.testing.assert_allclose(plane.attributes["explained"], random_walk_shares(n), rtol=0.05)
    np.testing.assert_allclose(plane.attributes["random_walk"], random_walk_shares(n), rtol=1e-12)
    points = np.array(list(plane.points.values()))
    for axis, k in ((0, 1), (1, 2)):
        cosine = np.cos(np.pi * k * (np.arange(n) + 0.5) / n)
        assert abs(np.corrcoef(points[:, axis], cosine)[0, 1]) > 0.995


def test_shares_of_a_random_walk():
    n, k = 9, np.arange(1, 3)
    for origin in (-1, 0, 4):
        shares = 6 / (n**2 - 1) / (4 * np.sin(np.pi * k / (2 * n)) ** 2)
        np.testing.assert_allclose(random_walk_shares(n, origin), shares, rtol=1e-10)
    np.testing.assert_allclose(random_walk_shares(500), 6 / (np.pi * k) ** 2, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([weights(0), weights(1)],), "2 checkpoints: expected at least three"),
        ((path([[0.0, 0], [1, 2], [2, 4]]),), "lie on one line"),
        (([weights(0)] * 4,), "lie on one line"),
        (([weights(n) for n in range(3)], ["a", "b"]), "3 checkpoints are named a, b"),
        (([weights(n) for n in range(3)], ["a", "b", "b"]), "3 checkpoints are named a, b, b"),
        (([weights(0), {"w": torch.zeros(2)}, weights(1)],), "1 is of another model"),
    ],
)
def test_checkpoints_without_a_plane(arguments, message):
    with pytest.raises(ValueError, match=message):
        trajectory_plane(*arguments)
    with pytest.raises(ValueError, match="origin='7': expected one of 0, 1, 2"):
        trajectory_plane([weights(n) for n in range(3)], origin="7")


class Quadratic:
    """Example k's loss is k + |w|^2; the weights that were asked for are remembered."""

    def __init__(self):
        self.calls = []

    def __call__(self, parameters):
        self.calls.append(parameters)
        square = sum((tensor.double() ** 2).sum() for tensor in parameters.values())
        return square + torch.arange(4.0, dtype=torch.float64), torch.tensor([1.0, 0, 1, 1])


def test_a_trajectory_has_the_true_losses_and_those_of_the_projections():
    like = {"w": torch.zeros(2, 5, dtype=torch.float64)}
    points = np.array([[-9, 0, 0.3], [-4, 3, 0], [-2, 1, -0.2], [0, 0, 0]])
    checkpoints = dict(zip((0, 2, 3, 7), path(points, like), strict=True))
    evaluate = Quadratic()
    result = trajectory(evaluate, checkpoints)
    assert result["epoch"].values.tolist() == [0, 2, 3, 7]
    assert set(result.data_vars) == set(MEASURES)
    assert evaluate.calls[0]["w"] is checkpoints[0]["w"]
    squares = (points**2).sum(1)
    np.testing.assert_allclose(result["loss"], squares + 1.5, rtol=1e-12)
    np.testing.assert_allclose(result["distance"], np.sqrt(squares), rtol=1e-12)
    np.testing.assert_allclose(result["projected_loss"], squares + 1.5 - result["residual"] ** 2, rtol=1e-12)
    np.testing.assert_allclose(result["alpha"] ** 2 + result["beta"] ** 2 + result["residual"] ** 2, squares)
    assert float(result["residual"].max()) > 0.05
    assert float(result["relative_residual"][0]) == pytest.approx(
        float(result["residual"][0] / np.sqrt(squares[0]))
    )
    assert float(result["relative_residual"][-1]) == 0
    np.testing.assert_allclose(result["accuracy"], 0.75)
    np.testing.assert_allclose(result["loss_se"], np.std([0, 1, 2, 3], ddof=1) / 2)
    np.testing.assert_allclose(
        result["difference_se"], 0, atol=1e-12
    )  # paired: the examples' own part is gone
    assert result.attrs["explained"] == trajectory_plane(list(checkpoints.values())).attributes["explained"]
    assert all(result[name].attrs["units"] for name in (*MEASURES, "epoch"))


def test_a_trajectory_on_another_plane():
    origin = weights(0)
    plane = random_plane(origin, 0)
    on_it = {3: displace(origin, plane.directions, (0.5, -1.0)), 4: origin}
    result = trajectory(Quadratic(), on_it, plane=plane)
    np.testing.assert_allclose(result["alpha"], [0.5, 0], atol=1e-12)
    np.testing.assert_allclose(result["beta"], [-1, 0], atol=1e-12)
    np.testing.assert_allclose(result["residual"], 0, atol=1e-12)
    assert result["alpha"].attrs["units"] == "filter-normalized radius"


class Kept:
    """A run of whose models only the weights count."""

    path = "outputs/run"

    def __init__(self, checkpoints):
        self._checkpoints = checkpoints

    @property
    def epochs(self):
        return sorted(self._checkpoints)

    def load_model(self, which):
        return type(
            "Model", (), {"trainable": lambda _: self._checkpoints[int(which.removeprefix("epoch-"))]}
        )()


def test_the_checkpoints_of_a_run():
    kept = {epoch: weights(epoch) for epoch in (0, 1, 2)}
    assert list(run_checkpoints(Kept(kept))) == [0, 1, 2]
    assert_close(run_checkpoints(Kept(kept))[1], kept[1])
    with pytest.raises(ValueError, match=r"outputs/run keeps the weights of 1 epochs.*epoch_weights"):
        run_checkpoints(Kept({0: weights(0)}))
