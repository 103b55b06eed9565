"""Random directions: the norms of every group, orthogonality within it, and what must not move."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from gruland.classifier import Classifier
from gruland.gru import GRU
from gruland.landscape.directions import (
    NORMALIZATIONS,
    describe_directions,
    displace,
    fingerprint,
    gates_of,
    load_directions,
    random_directions,
    save_directions,
)
from gruland.task import Task

UNITS = 5


@pytest.fixture
def parameters():
    """Weights of very different sizes, a GRU's, a convolution, and things with few numbers."""
    generator = torch.Generator().manual_seed(1)
    weights = {
        "matrix": torch.randn(40, 30, generator=generator) * torch.logspace(-3, 3, 40)[:, None],
        "gru.weight_hh_l0": torch.randn(3 * UNITS, UNITS, generator=generator),
        "gru.bias_hh_l0": torch.randn(3 * UNITS, generator=generator),
        "convolution.weight": torch.randn(6, 3, 5, 5, generator=generator, dtype=torch.float64),
        "convolution.bias": torch.randn(6, generator=generator, dtype=torch.float64),
        "row": torch.randn(1, 7, generator=generator),
        "norm.weight": torch.randn(9, generator=generator),
        "scalar": torch.tensor(2.0),
    }
    weights["matrix"][4] = 0
    return weights


GATES = {"gru.weight_hh_l0": 3, "gru.bias_hh_l0": 3}


def groups_of(tensors: dict, normalization: str) -> list[torch.Tensor]:
    """The groups of the matrices, written down a second time: a list of flat vectors in float64."""
    matrices = {name: t.double() for name, t in tensors.items() if t.dim() > 1}
    if normalization == "model":
        return [torch.cat([t.flatten() for t in matrices.values()])]
    groups = []
    for name, t in matrices.items():
        gates = GATES.get(name, 1)
        rows = [row.flatten() for row in t]
        units = len(rows) // gates
        if normalization == "filter":
            groups += rows
        elif normalization == "unit":
            groups += [
                torch.cat([rows[gate * units + unit] for gate in range(gates)]) for unit in range(units)
            ]
        elif normalization == "gate":
            groups += [torch.cat(rows[gate * units : (gate + 1) * units]) for gate in range(gates)]
        else:
            groups.append(t.flatten())
    return groups


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_every_group_has_the_weights_norm_and_all_directions_are_orthogonal_in_it(parameters, normalization):
    drawn = random_directions(parameters, 3, normalization, gates=GATES, count=3)
    weights = groups_of(parameters, normalization)
    one, two, three = (groups_of(direction, normalization) for direction in drawn)
    for w, a, b, c in zip(weights, one, two, three, strict=True):
        for group in (a, b, c):
            torch.testing.assert_close(group.norm(), w.norm(), rtol=1e-6, atol=0)
        for x, y in ((a, b), (a, c), (b, c)):
            assert abs(x @ y) <= 1e-6 * x.norm() * y.norm()
    assert describe_directions(parameters, drawn)["cosine"] < 1e-6


def test_groups_differ(parameters):
    drawn = {
        n: random_directions(parameters, 3, n, gates=GATES)[0]["gru.weight_hh_l0"] for n in NORMALIZATIONS
    }
    for n in NORMALIZATIONS:
        assert all(n == m or not torch.allclose(drawn[n], drawn[m], rtol=0.01) for m in NORMALIZATIONS)


def test_the_first_direction_is_a_scaled_gaussian_draw(parameters):
    by_row, by_tensor = (
        random_directions(parameters, 3, n)[0]["convolution.weight"].flatten(1) for n in ("filter", "tensor")
    )
    cosine = nn.functional.cosine_similarity(by_row, by_tensor)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))
    standardized = (by_tensor / by_tensor.std()).flatten()
    assert abs(float((standardized**4).mean()) - 3) < 1  # a Gaussian's kurtosis; uniform noise has 1.8


def test_a_group_without_room_for_a_second_direction_keeps_its_norm():
    parameters = {"weight": torch.tensor([[3.0], [0.0], [-2.0]])}
    for direction in random_directions(parameters, 0, count=4):
        assert torch.equal(direction["weight"].abs(), parameters["weight"].abs())
    pair = {"weight": torch.tensor([[3.0, 4.0]])}  # two directions fit in, not a third
    one, two, three = (direction["weight"].flatten() for direction in random_directions(pair, 0, count=3))
    assert abs(one @ two) < 1e-5
    torch.testing.assert_close(three.norm(), torch.tensor(5.0))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_vectors_stay_by_default(parameters, normalization):
    for direction in random_directions(parameters, 0, normalization, gates=GATES):
        assert list(direction) == list(parameters)
        for name, weights in parameters.items():
            assert (direction[name].shape, direction[name].dtype) == (weights.shape, weights.dtype)
            assert bool(direction[name].any()) == (weights.dim() > 1)


def test_vectors_as_tensors_have_their_own_norm(parameters):
    one, two = random_directions(parameters, 0, vectors="tensor")
    for name in ("gru.bias_hh_l0", "norm.weight", "convolution.bias", "scalar"):
        torch.testing.assert_close(one[name].norm(), parameters[name].norm())
        torch.testing.assert_close(two[name].norm(), parameters[name].norm())
        if parameters[name].numel() > 1:
            assert abs(one[name].double() @ two[name].double()) < 1e-5 * float(parameters[name].norm()) ** 2
    # What the matrices do is the same.
    assert torch.equal(one["matrix"], random_directions(parameters, 0)[0]["matrix"])


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_vectors_with_their_rows(parameters, normalization):
    joined = {
        "gru.weight_hh_l0": torch.cat(
            [parameters["gru.weight_hh_l0"], parameters["gru.bias_hh_l0"][:, None]], 1
        ),
        "convolution.weight": torch.cat(
            [parameters["convolution.weight"].flatten(1), parameters["convolution.bias"][:, None]], 1
        ),
        "matrix": parameters["matrix"],
        "row": parameters["row"],
    }
    drawn = random_directions(parameters, 0, normalization, vectors="with_row", gates=GATES)
    as_joined = [
        {
            "gru.weight_hh_l0": torch.cat([d["gru.weight_hh_l0"], d["gru.bias_hh_l0"][:, None]], 1),
            "convolution.weight": torch.cat(
                [d["convolution.weight"].flatten(1), d["convolution.bias"][:, None]], 1
            ),
            "matrix": d["matrix"],
            "row": d["row"],
        }
        for d in drawn
    ]
    groups = zip(*(groups_of(tensors, normalization) for tensors in (joined, *as_joined)), strict=True)
    for w, a, b in groups:
        torch.testing.assert_close(a.norm(), w.norm(), rtol=1e-6, atol=0)
        torch.testing.assert_close(b.norm(), w.norm(), rtol=1e-6, atol=0)
        assert abs(a @ b) <= 1e-6 * a.norm() * b.norm()
    for direction in drawn:  # no matrix has a number of theirs in each row
        assert not direction["norm.weight"].any()
        assert not direction["scalar"].any()
        assert direction["gru.bias_hh_l0"].all()


def test_only_some_parameters_move(parameters):
    for direction in random_directions(parameters, 0, only=["gru.weight_hh_*", "row"]):
        assert {name for name, d in direction.items() if d.any()} == {"gru.weight_hh_l0", "row"}
    # Each tensor moves as it would among all.
    alone, among = (random_directions(parameters, 0, only=only)[1]["row"] for only in ("row", "*"))
    assert torch.equal(alone, among)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("gate", ["update", 1])
def test_only_one_gate_moves(parameters, normalization, gate):
    for direction in random_directions(parameters, 0, normalization, gates=GATES, gate=gate):
        assert {name for name, d in direction.items() if d.any()} == {"gru.weight_hh_l0"}
        reset, update, new = direction["gru.weight_hh_l0"].chunk(3)
        assert not reset.any()
        assert not new.any()
        torch.testing.assert_close(update.norm(), parameters["gru.weight_hh_l0"].chunk(3)[1].norm())


def test_gates_of_modules():
    module = nn.ModuleDict(
        {
            "ours": GRU(4, 3, num_layers=2),
            "gru": nn.GRU(4, 3),
            "lstm": nn.LSTM(4, 3, proj_size=2),
            "head": nn.Linear(3, 1),
        }
    )
    gates = gates_of(module)
    assert len([name for name in gates if name.startswith("ours.")]) == 8
    assert (gates["gru.weight_hh_l0"], gates["gru.bias_ih_l0"], gates["lstm.weight_ih_l0"]) == (3, 3, 4)
    assert not {"lstm.weight_hr_l0", "head.weight"} & set(gates)  # a projection has no gates
    assert gates_of(nn.GRU(2, 2))["weight_ih_l0"] == 3
    for name, number in gates.items():
        assert module.get_parameter(name).shape[0] == number * 3


def test_frozen_word_vectors_and_buffers_never_move():
    vectors = torch.randn(11, 4)
    model = Classifier(Task("binary", ("no", "yes")), vectors, hidden_size=3)
    assert not any("vectors" in name for name in random_directions(model.trainable(), 0)[0])


def test_directions_follow_the_seed_alone(parameters):
    state = torch.random.get_rng_state()
    one, two = random_directions(parameters, seed=5)
    assert [fingerprint(d) for d in random_directions(parameters, 5)] == [fingerprint(one), fingerprint(two)]
    assert torch.equal(torch.random.get_rng_state(), state)
    other, _ = random_directions(parameters, seed=6)
    cosine = nn.functional.cosine_similarity(one["matrix"].flatten(), other["matrix"].flatten(), dim=0)
    assert abs(float(cosine)) < 0.3


def test_directions_do_not_depend_on_the_dtype(parameters):
    double = {name: w.double() for name, w in parameters.items()}
    for single, exact in zip(random_directions(parameters, 2), random_directions(double, 2), strict=True):
        torch.testing.assert_close(single["matrix"].double(), exact["matrix"], rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalization": "layer"}, "normalization='layer': expected filter, unit, gate, tensor or model"),
        ({"vectors": "bias"}, "vectors='bias': expected ignore, tensor or with_row"),
        ({"seed": -1}, "seed=-1: expected a whole number"),
        ({"only": "gru.wieght*"}, r"nothing moves \(only=\['gru.wieght\*'\]\): expected one of matrix, gru"),
        ({"only": "matrix", "gate": 0, "gates": GATES}, "nothing moves .*gate 0"),
        ({"gate": 0}, "need gates=gates_of"),
        ({"normalization": "unit"}, "need gates=gates_of"),
        ({"gate": "forget", "gates": GATES}, "gate 'forget': expected reset, update, new or 0 to 2"),
        ({"gate": 3, "gates": GATES}, "gate 3: expected reset"),
        ({"gate": 1, "gates": GATES, "vectors": "tensor"}, "gate= with vectors='tensor'"),
    ],
)
def test_wrong_options_are_answered_with_a_line(parameters, options, message):
    with pytest.raises(ValueError, match=message):
        random_directions(parameters, **{"seed": 0, **options})


def test_description(parameters):
    one = {name: 2 * w for name, w in parameters.items()}
    two = {name: torch.zeros_like(w) for name, w in parameters.items()}
    two["row"] = parameters["row"]
    about = json.loads(json.dumps(describe_directions(parameters, [one, two])))
    whole = torch.cat([w.double().flatten() for w in parameters.values()]).norm().item()
    row = float(parameters["row"].double().norm())
    assert about["norm_ratios"] == pytest.approx([2, row / whole])
    assert about["cosine"] == pytest.approx(row / whole)
    assert about["tensors"]["row"]["cosine"] == pytest.approx(1)
    assert about["tensors"]["matrix"] == {
        "cosine": 0.0,
        "norms": pytest.approx([2 * float(parameters["matrix"].double().norm()), 0]),
        "weights_norm": pytest.approx(float(parameters["matrix"].double().norm())),
        "norm_ratios": pytest.approx([2, 0]),
        "moved": 39 * 30,
    }


def test_directions_are_saved_whole(parameters, tmp_path):
    drawn = random_directions(parameters, 0, vectors="tensor")
    save_directions(tmp_path / "directions.npz", drawn, seed=0)
    loaded, about = load_directions(tmp_path / "directions.npz")
    assert about == {"seed": 0}
    assert [fingerprint(d) for d in loaded] == [fingerprint(d) for d in drawn]
    (tmp_path / "broken.npz").write_bytes((tmp_path / "directions.npz").read_bytes()[:500])
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    save_directions(tmp_path / "half.npz", [{"w": torch.tensor([1.0, 0.1], dtype=torch.bfloat16)}])
    assert load_directions(tmp_path / "half.npz")[0][0]["w"].tolist() == pytest.approx([1.0, 0.1], rel=1e-2)
    for name in ("broken", "other"):
        with pytest.raises(ValueError, match=f"{name}.npz holds no directions"):
            load_directions(tmp_path / f"{name}.npz")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_directions(tmp_path / "none.npz")


def test_displace(parameters):
    directions = random_directions(parameters, 0)
    before = fingerprint(parameters)
    moved = displace(parameters, directions, (0.5, -2.0))
    for name, weights in parameters.items():
        torch.testing.assert_close(moved[name], weights + 0.5 * directions[0][name] - 2 * directions[1][name])
        assert moved[name].data_ptr() != weights.data_ptr()
    assert fingerprint(parameters) == before
    assert all(
        moved is parameters[name] for name, moved in displace(parameters, directions, (0.0, 0.0)).items()
    )


def test_fingerprint_sees_every_bit_and_no_order():
    tensors = {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([[2.0]])}
    same = {"b": torch.tensor([[2.0]]), "a": torch.tensor([0.0, 1.0])}
    assert fingerprint(tensors) == fingerprint(same)
    for other in (
        {"a": torch.tensor([-0.0, 1.0]), "b": torch.tensor([[2.0]])},
        {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([2.0])},
        {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([[2.0]], dtype=torch.float64)},
        {"c": torch.tensor([0.0, 1.0]), "b": torch.tensor([[2.0]])},
    ):
        assert fingerprint(other) != fingerprint(tensors)
