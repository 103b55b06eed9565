"""Landscapes of other people's modules: what they bring is taken as it is, or refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from gruland.landscape import (
    compute_surface,
    displace,
    gates_of,
    load_surface,
    plane_through,
    random_directions,
    random_plane,
)

X, LABELS = torch.randn(16, 4, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 2
WEIGHTS = {"w": torch.ones(2, 2)}


def network(*more: nn.Module) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 6), *more, nn.Tanh(), nn.Linear(6, 2))


def objective(module, x=X):
    @torch.no_grad()
    def evaluate(parameters):
        output = functional_call(module, parameters, x)
        return F.cross_entropy(output, LABELS, reduction="none"), output.argmax(1) == LABELS

    return evaluate


def surface_of(evaluate, parameters, **options):
    return compute_surface(evaluate, parameters, random_directions(parameters, 0), size=3, **options)


# -- parameters


def test_complex_weights_are_refused():
    parameters = {"w": torch.randn(3, 2, dtype=torch.complex64)}
    for take in (random_directions, random_plane):
        with pytest.raises(ValueError, match=r"w is complex: expected real parameters, torch\.view_as_real"):
            take(parameters, 0)
    with pytest.raises(ValueError, match="w is complex"):
        compute_surface(lambda p: p, parameters, [parameters, parameters])


def test_a_whole_state_dict_moves_but_for_its_counters():
    module = network(nn.BatchNorm1d(6))
    module(X)  # counts a batch
    module.eval()
    state = module.state_dict()
    direction, _ = random_directions(state, 0)
    assert direction["1.num_batches_tracked"].item() == 0
    moved = displace(state, [direction], [0.5])
    assert moved["1.num_batches_tracked"].item() == 1
    assert not torch.equal(moved["0.weight"], state["0.weight"])
    assert np.isfinite(surface_of(objective(module), state)["loss"]).all()
    # Trained on: the counter is no part of the way from one to the other.
    other = {**state, "1.num_batches_tracked": torch.tensor(1000), "0.weight": state["0.weight"] + 1}
    assert plane_through(state, {"later": other}).attributes["lengths"][0] == pytest.approx(24**0.5)


def test_named_parameters_serve_as_they_are():
    module = network()
    expected = surface_of(objective(module), dict(module.named_parameters()))
    directions = random_directions(module.named_parameters(), 0)
    found = compute_surface(objective(module), module.named_parameters(), directions, size=3)
    np.testing.assert_array_equal(found["loss"], expected["loss"])
    assert list(random_plane(module.named_parameters(), 0).origin) == list(directions[0])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (iter(()), "there are no parameters: .* is used up"),
        (network().parameters(), "parameters of type generator: expected tensors by name"),
        ([1.0], "parameters of type list: expected tensors by name"),
        ({"w": [1.0]}, "parameters of type dict: expected tensors by name"),
    ],
    ids=["empty", "unnamed", "numbers", "lists"],
)
def test_what_is_no_mapping_of_tensors_is_answered_with_a_line(parameters, message):
    with pytest.raises(ValueError, match=message):
        random_directions(parameters, 0)


# -- stacks of gates


class Own(nn.GRU):
    """A subclass."""


def normed(module):
    return nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")


@pytest.mark.parametrize(
    ("module", "gates"),
    [
        (Own(3, 4), 3),
        (normed(nn.GRU(3, 4)), 3),
        (nn.GRU(3, 4, 2, bidirectional=True), 3),
        (nn.GRUCell(3, 4), 3),
        (nn.LSTM(3, 4, proj_size=2), 4),
        (nn.LSTM(3, 3, proj_size=1), 4),
        (nn.RNN(3, 4), None),
    ],
    ids=["subclass", "weight_norm", "bidirectional", "cell", "projection", "one projection", "no gates"],
)
def test_a_stack_is_known_by_its_parameters(module, gates):
    expected = {n: gates for n, _ in module.named_parameters() if gates and "weight_hr" not in n}
    assert gates_of(module) == expected


@pytest.mark.parametrize("module", [Own(3, 4), normed(nn.GRU(3, 4))], ids=["subclass", "weight_norm"])
def test_a_unit_of_a_subclass_or_of_a_normed_layer_is_scaled_as_a_whole(module):
    parameters = dict(module.named_parameters())
    name = next(n for n in parameters if "weight_hh" in n and parameters[n].shape == (12, 4))
    direction = random_directions(parameters, 0, "unit", gates=gates_of(module))[0][name]
    for unit in range(4):
        own, weights = (t[[unit, 4 + unit, 8 + unit]] for t in (direction, parameters[name].detach()))
        assert float(own.norm()) == pytest.approx(float(weights.norm()), rel=1e-5)
        assert not torch.allclose(own.norm(dim=1), weights.norm(dim=1), rtol=1e-3)


@pytest.mark.parametrize("normalization", ["unit", "gate"])
def test_units_and_gates_need_a_stack(normalization):
    module = network()
    message = f"normalization='{normalization}': there is no stack of gates among 0.weight, 2.weight"
    with pytest.raises(ValueError, match=message):
        random_directions(module.named_parameters(), 0, normalization, gates=gates_of(module))


# -- the objective


def test_an_objective_that_is_no_function_is_refused():
    module = network(nn.Dropout(0.5))  # left in training mode
    with pytest.raises(
        ValueError, match=r"a mean loss of \S+ and \S+ for the same parameters: .*module.eval"
    ):
        surface_of(objective(module), dict(module.named_parameters()))
    surface_of(objective(module.eval()), dict(module.named_parameters()))


def test_other_data_behind_the_same_path_give_another_surface(tmp_path):
    module, path = network(), tmp_path / "surface.zarr"
    parameters = dict(module.named_parameters())
    first = surface_of(objective(module), parameters, path=path)
    np.testing.assert_array_equal(load_surface(path)["loss"], first["loss"])
    other = surface_of(objective(module, X + 1), parameters, path=path)
    np.testing.assert_array_equal(other["loss"], surface_of(objective(module, X + 1), parameters)["loss"])
    assert not np.array_equal(other["loss"], first["loss"])
    kept = surface_of(objective(module, X + 1), parameters, path=path)
    assert kept.attrs["seconds"] == other.attrs["seconds"], "computed again"


def test_numpy_arrays_serve_as_tensors_do():
    module = network()
    parameters, evaluate = dict(module.named_parameters()), objective(module)
    expected = surface_of(evaluate, parameters)
    found = surface_of(lambda p: [part.numpy() for part in evaluate(p)], parameters)
    np.testing.assert_array_equal(found["loss"], expected["loss"])


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (torch.ones(3), "the objective returned one Tensor: expected a pair of losses"),
        (0.5, "the objective returned one float: expected a pair"),
        (
            (torch.tensor(0.5), torch.tensor(True)),
            r"losses of shape \(\) and correctness of shape \(\): expected",
        ),
        ((torch.ones(3), torch.ones(2)), r"losses of shape \(3,\) and correctness of shape \(2,\)"),
        ((torch.ones(0), torch.ones(0)), r"losses of shape \(0,\)"),
        (("a", "b"), "the objective returned str and str: expected"),
    ],
    ids=["losses alone", "a number", "means", "lengths", "nothing", "texts"],
)
def test_what_no_objective_returns_is_answered_with_a_line(returned, message):
    with pytest.raises(ValueError, match=message):
        surface_of(lambda _: returned, WEIGHTS)


def test_other_examples_at_another_point_are_refused():
    def evaluate(parameters):
        count = 3 if torch.equal(parameters["w"], WEIGHTS["w"]) else 4
        return torch.ones(count), torch.ones(count)

    with pytest.raises(
        ValueError, match="returned 4 losses, and 3 at the origin: expected the same examples"
    ):
        surface_of(evaluate, WEIGHTS)


# -- its file


@pytest.fixture
def written(tmp_path):
    module, path = network(), tmp_path / "surface.zarr"
    parameters = dict(module.named_parameters())

    def compute():
        return surface_of(objective(module), parameters, path=path)

    return path, compute, compute()


@pytest.mark.parametrize("damage", ["missing", "flipped"])
@pytest.mark.parametrize("name", ["loss", "interpolated", "alpha"])
def test_a_damaged_chunk_is_found_and_computed_again(written, name, damage):
    path, compute, whole = written
    (chunk,) = [file for file in (path / name / "c").rglob("*") if file.is_file()]
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "missing":
        chunk.unlink()
    else:
        chunk.write_bytes(content)
    with pytest.raises(ValueError, match="holds no readable loss surface: remove it and compute it again"):
        load_surface(path)
    again = compute()
    for variable in whole.data_vars:
        np.testing.assert_array_equal(again[variable], whole[variable])
    np.testing.assert_array_equal(load_surface(path)["loss"], whole["loss"])


def test_a_shape_that_would_fill_the_memory_is_refused(written):
    path, *_ = written
    about = path / "loss" / "zarr.json"
    text = about.read_text()
    about.write_text(text.replace("    3,\n    3\n", "    60000,\n    60000\n"))
    assert about.read_text() != text
    with pytest.raises(ValueError, match="holds no readable loss surface"):
        load_surface(path)
