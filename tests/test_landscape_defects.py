"""What goes wrong in other landscape packages must not go wrong here: a test for each defect that was found in one."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest
import torch
from soak import children
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from gruland.classifier import Classifier
from gruland.data import Encoded
from gruland.landscape import compute_surface, displace, load_surface, random_directions
from gruland.objective import EvaluationLoss
from gruland.task import Task

SIZE = (7, 5)  # cells along alpha and beta


@pytest.fixture
def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


@pytest.fixture
def evaluate(module):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (50,), generator=generator)

    def losses(parameters):
        with torch.no_grad():
            output = functional_call(module, parameters, inputs)
        return F.cross_entropy(output, labels, reduction="none"), output.argmax(1) == labels

    return losses


def plain_loop(module, evaluate, directions, surface):
    """The loss at every cell by writing the weights into a copy of the module, as a reader would."""
    parameters = {name: p.detach().clone() for name, p in module.named_parameters()}
    values = np.empty((len(surface.beta), len(surface.alpha)))
    for i, beta in enumerate(surface.beta.values):
        for j, alpha in enumerate(surface.alpha.values):
            moved = {n: w + alpha * directions[0][n] + beta * directions[1][n] for n, w in parameters.items()}
            values[i, j] = evaluate(moved)[0].mean()
    return values


def test_the_weights_do_move(module, evaluate):
    """One package evaluates the same weights at every cell."""
    parameters = dict(module.named_parameters())
    directions = random_directions(parameters, 0)
    surface = compute_surface(evaluate, parameters, directions, size=SIZE)
    assert len(np.unique(surface.loss.values)) == surface.loss.size
    moved = displace(parameters, directions, (0.5, 0.5))
    assert all(bool((moved[n] != w).all()) for n, w in parameters.items() if w.dim() > 1)


def test_every_row_is_in_its_place_on_a_grid_that_is_not_square(module, evaluate):
    """One package fills every odd row backwards; another takes the axes for each other where sizes differ."""
    parameters = dict(module.named_parameters())
    directions = random_directions(parameters, 0)
    surface = compute_surface(evaluate, parameters, directions, size=SIZE, extent=((-1.0, 2.0), (-0.5, 0.5)))
    assert surface.loss.dims == ("beta", "alpha")
    assert surface.loss.shape == SIZE[::-1]
    expected = plain_loop(module, evaluate, directions, surface)
    np.testing.assert_allclose(surface.loss.values, expected, rtol=1e-12)
    # A misplaced row would be seen: no row is its own mirror image.
    assert all(np.abs(row - row[::-1]).max() > 1e-3 for row in expected)


def test_orthogonal_directions_are_orthogonal(module):
    """One package makes its second direction from the first, and ends up with two that are nearly parallel."""
    for normalization in ("filter", "tensor", "model"):
        one, two = random_directions(dict(module.named_parameters()), 0, normalization)
        flat = [torch.cat([d[name].flatten() for name in d]) for d in (one, two)]
        assert abs(float(F.cosine_similarity(*flat, dim=0))) < 1e-12


def test_values_are_what_was_evaluated(module, evaluate):
    """One package adds noise to the largest value, and some clip or smooth."""
    parameters = dict(module.named_parameters())
    directions = random_directions(parameters, 0)
    seen = {}

    def recording(moved):
        losses, correct = evaluate(moved)
        losses = losses * (
            np.inf if len(seen) == 3 else np.nan if len(seen) == 5 else 1e30 if len(seen) == 7 else 1
        )
        seen[len(seen)] = float(losses.mean())
        return losses, correct

    recording.about = {}  # evaluated once at the origin
    surface = compute_surface(recording, parameters, directions, size=SIZE)
    assert sorted(map(str, surface.loss.values.ravel())) == sorted(map(str, list(seen.values())))
    assert np.isinf(surface.loss.values).sum() == 1
    assert np.isnan(surface.loss.values).sum() == 1


def test_frozen_word_vectors_and_buffers_stay():
    """One package moves whatever the state_dict holds: frozen embeddings and running means, too."""
    torch.manual_seed(0)
    model = Classifier(Task("binary", ("no", "yes")), torch.randn(12, 5), hidden_size=4).eval()
    rows = [np.array([1, 2, 3]), np.array([4, 5])]
    encoded = Encoded(np.concatenate(rows).astype(np.int32), np.array([0, 3, 5]))
    before = {name: tensor.clone() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    seen = []
    original = model.vectors

    class Watched(EvaluationLoss):
        def __call__(self, parameters):
            seen.append(set(parameters))
            return super().__call__(parameters)

    parameters = model.trainable()
    compute_surface(
        Watched(model, encoded, np.array([0, 1])), parameters, random_directions(parameters, 0), size=(3, 3)
    )
    assert "vectors" not in parameters
    assert all("vectors" not in names for names in seen)
    assert model.vectors is original
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        assert torch.equal(tensor, before[name]), name


def test_a_failure_leaves_the_weights_and_what_was_computed(module, evaluate, tmp_path):
    """Packages that write into the model leave it displaced when they stop; none keeps its cells safely."""
    parameters = dict(module.named_parameters())
    directions = random_directions(parameters, 0)
    before = {name: p.detach().clone() for name, p in parameters.items()}
    calls = []

    def failing(moved):
        calls.append(1)
        if len(calls) == 20:
            raise RuntimeError("out of memory")
        return evaluate(moved)

    failing.about = {}
    with pytest.raises(RuntimeError, match="out of memory"):
        compute_surface(failing, parameters, directions, size=SIZE, path=tmp_path / "surface.zarr")
    assert all(torch.equal(p, before[name]) for name, p in module.named_parameters())
    calls.clear()
    whole = compute_surface(
        counting(evaluate, calls), parameters, directions, size=SIZE, path=tmp_path / "surface.zarr"
    )
    assert len(calls) <= SIZE[0] * SIZE[1] - 19 + 1  # the centre may be needed once more
    np.testing.assert_array_equal(
        whole.loss.values, compute_surface(evaluate, parameters, directions, size=SIZE).loss.values
    )


def counting(evaluate, calls):
    def counted(moved):
        calls.append(1)
        return evaluate(moved)

    counted.about = {}
    return counted


def cells_done(path):
    try:
        return int(load_surface(path, partial=True).done.sum())
    except FileNotFoundError:
        return 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_killed_computation_resumes_and_ends_with_the_same_numbers(tmp_path):
    """No package survives being killed: what is on disk is lost, or taken for complete."""
    path = tmp_path / "surface.zarr"
    parameters = {"w": torch.zeros(1, 2, dtype=torch.float64)}
    directions = [{"w": torch.tensor([row], dtype=torch.float64)} for row in ([1.0, 0.0], [0.0, 1.0])]

    def compute(before):
        def evaluate(moved):
            before()
            x, y = moved["w"][0]
            return torch.stack([x + 10 * y**3, x + 10 * y**3 + 1]), torch.tensor([True, False])

        return compute_surface(evaluate, parameters, directions, size=(9, 5), path=path)

    def die_in_the_middle():
        time.sleep(0.15)
        if cells_done(path) > 3:
            os.kill(os.getpid(), signal.SIGKILL)

    ended = children.call(lambda: compute(die_in_the_middle) and 0)
    assert ended.status == -signal.SIGKILL, ended.said
    assert not path.exists()  # nothing unfinished passes for a surface
    assert 3 < cells_done(path) < 45
    compute(lambda: None)
    surface = load_surface(path)
    expected = surface.alpha + 10 * surface.beta**3 + 0.5
    np.testing.assert_allclose(
        surface.loss.values, expected.transpose("beta", "alpha").values, rtol=1e-12, atol=1e-12
    )


def test_a_unit_of_a_recurrent_network_is_one_group():
    """None knows that it looks at a recurrent network: a GRU's unit is three rows, an LSTM's four."""
    from gruland.landscape import gates_of

    lstm = nn.LSTM(3, 5)
    parameters = dict(lstm.named_parameters())
    one, two = random_directions(parameters, 0, "unit", gates=gates_of(lstm))
    for name in ("weight_ih_l0", "weight_hh_l0"):
        units = [
            t[name].double().reshape(4, 5, -1).transpose(0, 1).reshape(5, -1) for t in (parameters, one, two)
        ]
        torch.testing.assert_close(units[1].norm(dim=1), units[0].detach().norm(dim=1), rtol=1e-6, atol=0)
        assert float((units[1] * units[2]).sum(1).abs().max()) < 1e-6
        rows = one[name].norm(dim=1) / parameters[name].detach().norm(dim=1)
        assert float((rows - 1).abs().max()) > 0.05  # not the rows' own norms
