"""Sharpness of losses whose maximum over a box or ball is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gruland.landscape.measures.sharpness import (
    adaptive_sharpness,
    epsilon_sharpness,
    mean_adaptive_sharpness,
    mean_interval,
)

WEIGHTS = {
    "matrix": torch.tensor([[1.0, -2.0], [0.0, 0.5]], dtype=torch.float64),
    "bias": torch.tensor([3.0, -0.25], dtype=torch.float64),
}
SLOPES = {
    "matrix": torch.tensor([[0.5, 2.0], [-7.0, 0.0]], dtype=torch.float64),
    "bias": torch.tensor([-1.0, 0.1], dtype=torch.float64),
}


def flat(vector):
    return torch.cat([part.reshape(-1) for part in vector.values()]).numpy()


def linear(p):
    return 2.0 + sum((SLOPES[name] * (w - WEIGHTS[name])).sum() for name, w in p.items())


def bowl(p):
    """A quadratic around the weights with different curvatures."""
    curvatures = torch.arange(1.0, 7.0, dtype=torch.float64)
    y = torch.cat([(w - WEIGHTS[name]).reshape(-1) for name, w in p.items()])
    return 1.5 + (curvatures * y**2).sum() / 2 + 1e-3 * y.sum()


w, g = flat(WEIGHTS), flat(SLOPES)


@pytest.mark.parametrize("epsilon", [1e-3, 0.1])
def test_epsilon_sharpness_of_a_linear_loss(epsilon):
    found = epsilon_sharpness(linear, WEIGHTS, epsilon=epsilon)
    expected = 100 * epsilon * (np.abs(g) * (np.abs(w) + 1)).sum() / (1 + 2.0)
    assert found.value == pytest.approx(expected)
    assert found.loss == pytest.approx(2 + expected * 3 / 100)
    inside = np.abs(flat(found.parameters) - w) <= epsilon * (np.abs(w) + 1) * (1 + 1e-12)
    assert inside.all()


def test_epsilon_sharpness_of_a_bowl_is_at_a_corner():
    found = epsilon_sharpness(bowl, WEIGHTS, epsilon=0.1)
    side = 0.1 * (np.abs(w) + 1)
    expected = ((np.arange(1, 7) * side**2) / 2).sum() + 1e-3 * side.sum()
    assert found.value == pytest.approx(100 * expected / 2.5)
    np.testing.assert_allclose(flat(found.parameters), w + side)


def test_epsilon_sharpness_finds_a_maximum_within_the_box():
    # The maximum of cos lies 0.07 away, well inside the box of half side 0.2.
    def hill(p):
        return torch.cos(p["w"] - 1.07).sum()

    found = epsilon_sharpness(hill, {"w": torch.ones(3, dtype=torch.float64)}, epsilon=0.1, steps=60)
    assert found.loss == pytest.approx(3.0, abs=1e-4)


def test_adaptive_sharpness_of_a_linear_loss():
    ball = adaptive_sharpness(linear, WEIGHTS, radius=0.2)
    assert ball.value == pytest.approx(0.2 * np.linalg.norm(w * g))
    assert flat(ball.parameters)[2] == w[2] == 0  # a weight of zero does not move
    relative = np.divide(flat(ball.parameters) - w, w, out=np.zeros(6), where=w != 0)
    assert np.linalg.norm(relative) == pytest.approx(0.2)


def test_adaptive_sharpness_of_a_bowl():
    # Without a slope the rise over the ball is half the largest eigenvalue of diag(|w|) H diag(|w|), times radius^2.
    found = adaptive_sharpness(bowl, WEIGHTS, radius=3.0, steps=200)
    expected = (np.arange(1, 7) * w**2).max() / 2 * 9
    assert found.value == pytest.approx(expected, rel=0.01)
    assert found.value == float(bowl(found.parameters) - bowl(WEIGHTS))


def two_layers(p):
    hidden = torch.relu(torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.3, -2.0]], dtype=torch.float64) @ p["one"])
    return (hidden @ p["two"] - torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64)).square().mean()


def test_adaptive_sharpness_is_blind_to_a_rescaling_of_the_layers():
    generator = torch.Generator().manual_seed(0)
    weights = {
        "one": torch.randn(2, 4, generator=generator, dtype=torch.float64),
        "two": torch.randn(4, generator=generator, dtype=torch.float64),
    }
    rescaled = {"one": weights["one"] * 10, "two": weights["two"] / 10}
    assert float(two_layers(rescaled)) == pytest.approx(float(two_layers(weights)))
    for measure in (
        lambda p: adaptive_sharpness(two_layers, p, radius=0.3).value,
        lambda p: mean_adaptive_sharpness(two_layers, p, draws=5).estimate,
    ):
        assert measure(rescaled) == pytest.approx(measure(weights))
    plain = [epsilon_sharpness(two_layers, p, epsilon=0.01).value for p in (weights, rescaled)]
    assert plain[1] > 2 * plain[0]


def test_mean_adaptive_sharpness_of_a_bowl():
    found = mean_adaptive_sharpness(bowl, WEIGHTS, deviation=0.1, draws=400)
    expected = (np.arange(1, 7) * w**2).sum() / 2 * 0.01
    assert found.low < expected < found.high
    deviation = 0.01 / 2 * np.sqrt(2 * ((np.arange(1, 7) * w**2) ** 2).sum())
    assert found.high - found.low == pytest.approx(2 * 1.966 * deviation / 20, rel=0.2)


def test_pairs_of_draws_cancel_a_slope():
    found = mean_adaptive_sharpness(linear, WEIGHTS, draws=3)
    assert (found.estimate, found.low, found.high) == pytest.approx((0, 0, 0), abs=1e-12)


def test_draws_follow_the_seed_alone_and_are_the_same_for_every_loss():
    state = torch.random.get_rng_state()
    one, again, other = (mean_adaptive_sharpness(bowl, WEIGHTS, draws=4, seed=s) for s in (1, 1, 2))
    assert one == again
    assert one != other
    assert torch.equal(torch.random.get_rng_state(), state)


def test_mean_interval_is_student_s():
    found = mean_interval([1.0, 2.0, 6.0])
    assert found.estimate == 3
    assert found.high - 3 == pytest.approx(4.302653 * np.std([1, 2, 6], ddof=1) / np.sqrt(3), rel=1e-6)
    single = mean_interval([1.0])
    assert (single.estimate, single.low, single.high) == (1.0, -np.inf, np.inf)


def test_losses_of_examples_and_a_gradient_of_one_s_own():
    def evaluate(p):
        assert not torch.is_grad_enabled()
        return torch.stack([linear(p) - 1, linear(p) + 1]), torch.ones(2)

    calls = []

    def gradient(p):
        calls.append(p)
        return SLOPES

    for measure in (epsilon_sharpness, adaptive_sharpness):
        assert measure(evaluate, WEIGHTS, gradient, steps=3).value == pytest.approx(
            measure(linear, WEIGHTS, steps=3).value
        )
    assert len(calls) == 6
    assert mean_adaptive_sharpness(evaluate, WEIGHTS, draws=2).estimate == pytest.approx(0, abs=1e-12)


def test_weights_stay_as_they_are():
    leaves = {name: p.clone().requires_grad_() for name, p in WEIGHTS.items()}
    for measure in (epsilon_sharpness, adaptive_sharpness):
        found = measure(bowl, leaves)
        assert not any(p.requires_grad for p in found.parameters.values())
    mean_adaptive_sharpness(bowl, leaves, draws=2)
    for name, p in leaves.items():
        assert torch.equal(p, WEIGHTS[name])
        assert p.grad is None


def test_a_loss_that_is_infinite_in_the_ball():
    def wall(p):
        return torch.where(p["w"] > 1, torch.inf, p["w"] ** 2).sum()

    found = adaptive_sharpness(wall, {"w": torch.ones(2, dtype=torch.float64)})
    assert found.value == np.inf
    with pytest.raises(ValueError, match="the loss at the weights is inf: expected a finite one"):
        adaptive_sharpness(wall, {"w": 2 * torch.ones(2)})


@pytest.mark.parametrize(
    ("measure", "setting", "message"),
    [
        (epsilon_sharpness, {"epsilon": 0}, "epsilon=0: expected a positive number"),
        (epsilon_sharpness, {"steps": 0}, "steps=0: expected a whole number of at least 1"),
        (adaptive_sharpness, {"radius": -1.0}, "radius=-1.0: expected a positive number"),
        (mean_adaptive_sharpness, {"deviation": float("nan")}, "deviation=nan: expected a positive number"),
        (mean_adaptive_sharpness, {"draws": 1}, "draws=1: expected a whole number of at least 2"),
    ],
)
def test_settings_that_cannot_work(measure, setting, message):
    with pytest.raises(ValueError, match=message):
        measure(linear, WEIGHTS, **setting)


def test_progress_names_what_is_done(capsys, monkeypatch):
    monkeypatch.setattr("gruland.progress.Progress.__exit__", lambda self, *_: (print(self), self.close()))
    adaptive_sharpness(linear, WEIGHTS, steps=3, label="sharpness")
    assert "sharpness: 100%, 00:00 left, loss" in capsys.readouterr().out
