"""Grids of any shape against plain loops, surfaces shared by processes, budgets, what a reader of the folder sees."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
import xarray
from torch import nn
from torch.func import functional_call

from gruland.landscape import compute_line, compute_surface, load_surface, random_directions
from gruland.landscape import store as stores
from gruland.landscape import surface as surfaces
from gruland.landscape.directions import fingerprint
from gruland.landscape.refinement import NestedGrids
from gruland.landscape.store import Store, attributes_at
from gruland.landscape.surface import axis, grid
from gruland.progress import Progress

PLANE = {"w": torch.tensor([[0.25, -0.5]], dtype=torch.float64)}
UNIT = [
    {"w": torch.tensor([[1.0, 0.0]], dtype=torch.float64)},
    {"w": torch.tensor([[0.0, 1.0]], dtype=torch.float64)},
]


class Wavy:
    """Three examples with losses f, f + 1, f + 5 for an f without symmetry; counts its calls and can fail."""

    about: ClassVar = {}  # it says that it is a function: its origin is evaluated once

    def __init__(self, fail_after=None, before=lambda calls: None):
        self.calls, self.fail_after, self.before = [], fail_after, before

    def __call__(self, parameters):
        if len(self.calls) == self.fail_after:
            raise RuntimeError("stopped")
        x, y = parameters["w"][0].tolist()
        self.calls.append((x, y))
        self.before(len(self.calls))
        return self.losses(x, y), torch.tensor([1.0, 0.0, x > 0.25])

    @staticmethod
    def losses(x, y):
        return np.tanh(3 * x) + y**2 + 0.3 * x * y**3 + torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64)


def plain_loop(alphas, betas):
    """Mean loss [beta, alpha] of ``Wavy``, one cell after the other."""
    loss = np.empty((len(betas), len(alphas)))
    for i, beta in enumerate(betas):
        for j, alpha in enumerate(alphas):
            x, y = 0.25 + alpha * 1.0 + beta * 0.0, -0.5 + alpha * 0.0 + beta * 1.0
            loss[i, j] = float(np.mean([np.tanh(3 * x) + y**2 + 0.3 * x * y**3 + c for c in (0.0, 1.0, 5.0)]))
    return loss


def same(one, other):
    for name in one.data_vars:
        np.testing.assert_array_equal(one[name], other[name])
    np.testing.assert_array_equal(one["alpha"], other["alpha"])
    np.testing.assert_array_equal(one["beta"], other["beta"])
    assert one.attrs["origin_loss"] == other.attrs["origin_loss"]


# -- grids

GRIDS = [
    ((7, 4), ((-0.5, 1.5), (-1, 0.25))),
    ((4, 7), (1.0, 0.5)),
    ((1, 5), 2.0),
    ((6, 1), ((-1, 2), (0.5, 1))),
    ((2, 2), 1),
    ((1, 1), 1.0),
    (5, (1.0, (0.5, 2))),
    ([3, 4], [1, [-2, 1]]),
]


@pytest.mark.parametrize(("size", "extent"), GRIDS)
def test_every_value_lies_at_its_own_alpha_and_beta(size, extent):
    surface = compute_surface(Wavy(), PLANE, UNIT, size=size, extent=extent)
    columns, rows = (size, size) if isinstance(size, int) else size
    assert surface["loss"].dims == ("beta", "alpha")
    assert surface["loss"].shape == (rows, columns)
    alphas, betas = surface["alpha"].values, surface["beta"].values
    np.testing.assert_allclose(surface["loss"], plain_loop(alphas, betas), rtol=1e-13)
    np.testing.assert_array_equal(
        surface["accuracy"], np.broadcast_to(np.where(alphas > 0, 2, 1) / 3, (rows, columns))
    )
    assert bool(surface["done"].all())
    assert surface.attrs["complete"] is True
    assert surface.attrs["origin_loss"] == Wavy.losses(0.25, -0.5).mean().item()
    assert surface.attrs["origin_accuracy"] == pytest.approx(1 / 3)


def test_size_and_extent_are_those_of_alpha_then_of_beta():
    alpha, beta = grid((3, 5), (1, (0, 2)))
    assert alpha.tolist() == [-1, 0, 1]
    assert beta.tolist() == [0, 0.5, 1, 1.5, 2]


@pytest.mark.parametrize("size", [(3, 4, 5), (3,), "33", (3, 0), (3, 2.5)])
def test_impossible_sizes_of_two_axes(size):
    with pytest.raises(ValueError, match=r"size=.*: expected a whole number of at least 1, or one for each"):
        grid(size, 1.0)


@pytest.mark.parametrize("extent", [(-1, 1), (1, 0), ((0, 1), (1, 0)), (1, 1, 1)])
def test_impossible_extents_of_two_axes(extent):
    with pytest.raises(ValueError, match=r"extent=.*: expected a positive number or"):
        grid(3, extent)


def test_logistic_regression_on_a_grid_that_is_not_square():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(40, 6)), rng.integers(0, 2, 40)
    module = nn.Linear(6, 1).double()
    weights = dict(module.named_parameters())
    directions = random_directions(weights, seed=2)

    def evaluate(p):
        logits, target = functional_call(module, p, torch.from_numpy(x))[:, 0], torch.from_numpy(y).double()
        losses = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return losses, (logits > 0) == target.bool()

    surface = compute_surface(evaluate, weights, directions, size=(7, 3), extent=((-1, 2), 0.5))
    w, bias = module.weight.detach().numpy()[0], module.bias.item()
    delta, eta = (d["weight"].numpy()[0] for d in directions)
    for i, beta in enumerate(surface["beta"].values):
        for j, alpha in enumerate(surface["alpha"].values):
            total, right = 0.0, 0
            for features, label in zip(x, y, strict=True):
                z = float(features @ (w + alpha * delta + beta * eta)) + bias
                total += np.logaddexp(0, -z if label else z)
                right += (z > 0) == label
            assert surface["loss"].values[i, j] == pytest.approx(total / 40, rel=1e-12)
            assert surface["accuracy"].values[i, j] == pytest.approx(right / 40)
    losses, correct = evaluate(weights)
    assert surface.attrs["origin_loss"] == losses.mean().item()
    assert surface.attrs["origin_loss"] == float(surface["loss"].sel(alpha=0, beta=0))
    assert surface.attrs["origin_accuracy"] == correct.double().mean().item()


def test_the_origin_is_evaluated_once_even_where_it_is_no_cell():
    with_cell, without = Wavy(), Wavy()
    compute_surface(with_cell, PLANE, UNIT, size=3)
    compute_surface(without, PLANE, UNIT, size=4)
    assert (len(with_cell.calls), len(without.calls)) == (9, 17)
    assert with_cell.calls[0] == without.calls[0] == (0.25, -0.5)


def test_errors_of_differences_are_those_to_the_origin_even_where_it_is_no_cell():
    def evaluate(p):
        x = float(p["w"][0, 0])
        return torch.tensor([0.0, x, 2 * x], dtype=torch.float64), torch.ones(3)

    surface = compute_surface(evaluate, PLANE, UNIT, size=(2, 1))
    step = surface["alpha"].values
    expected = np.abs(step) * np.std([0, 1, 2], ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(surface["difference_se"].values[0], expected)


def test_a_line_is_a_surface_of_one_row(tmp_path):
    path = tmp_path / "line.zarr"
    line = compute_line(Wavy(), PLANE, UNIT[0], size=6, extent=(-0.5, 2), path=path)
    assert line["beta"].values.tolist() == [0.0]
    np.testing.assert_allclose(line["alpha"], np.linspace(-0.5, 2, 6))
    np.testing.assert_allclose(line["loss"], plain_loop(line["alpha"].values, [0.0]), rtol=1e-13)
    assert load_surface(path).identical(line)
    plane = compute_surface(Wavy(), PLANE, UNIT, size=(6, 1), extent=((-0.5, 2), 1))
    np.testing.assert_array_equal(line["loss"], plane["loss"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"directions": []}, "0 directions given: expected 2, or 1 for a line"),
        ({"directions": UNIT[:1]}, "one direction given: expected a grid of one row, beta = 0"),
        ({"directions": UNIT[:1], "size": (3, 1), "extent": (1, (1, 2))}, "one direction given"),
        ({"directions": [UNIT[0], {"v": UNIT[1]["w"]}]}, r"direction of w: expected the shape \(1, 2\), got nothing"),
        ({"directions": [UNIT[0], {"w": torch.ones(2)}]}, r"direction of w: expected .* got \(2,\)"),
        ({"max_seconds": -1}, "max_seconds=-1: expected a number of at least 0"),
        ({"evaluate": lambda p: (p["w"].sum(), torch.ones(1))}, r"losses of shape \(\) and correctness of shape"),
        ({"evaluate": lambda p: (torch.ones(3), torch.ones(2))}, r"losses of shape \(3,\)"),
        ({"evaluate": lambda p: (torch.ones(0), torch.ones(0))}, r"losses of shape \(0,\)"),
    ],
)  # fmt: skip
def test_arguments_that_cannot_work(arguments, message):
    with pytest.raises(ValueError, match=message):
        compute_surface(
            **{"evaluate": Wavy(), "parameters": PLANE, "directions": UNIT, "size": 3, **arguments}
        )


@pytest.mark.parametrize("fails", [False, True])
def test_an_evaluator_that_writes_into_the_module_changes_neither_values_nor_weights(fails):
    module = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        module.weight.copy_(PLANE["w"])
    before, inner = fingerprint(module.state_dict()), Wavy(fail_after=7 if fails else None)

    def evaluate(parameters):
        module.load_state_dict(parameters)
        return inner({"w": module.weight})

    weights = dict(module.named_parameters())
    directions = [{"weight": direction["w"]} for direction in UNIT]
    if fails:
        with pytest.raises(RuntimeError, match="stopped"):
            compute_surface(evaluate, weights, directions, size=4)
    else:
        surface = compute_surface(evaluate, weights, directions, size=4)
        np.testing.assert_array_equal(
            surface["loss"], compute_surface(Wavy(), PLANE, UNIT, size=4)["loss"].values
        )
    assert fingerprint(module.state_dict()) == before
    assert module.weight.requires_grad


@pytest.mark.parametrize("size", [(51, 1), (1, 40), (24, 13), (50, 7)])
def test_interpolation_on_any_grid(size):
    evaluate, extent = Wavy(), ((-1, 1.5), 1)
    surface = compute_surface(evaluate, PLANE, UNIT, size=size, extent=extent, interpolation=0.02)
    exact = compute_surface(Wavy(), PLANE, UNIT, size=size, extent=extent)["loss"].values
    interpolated = surface["interpolated"].values
    assert interpolated.any()
    assert interpolated.sum() in (exact.size - len(evaluate.calls), exact.size - len(evaluate.calls) + 1)
    np.testing.assert_array_equal(surface["loss"].values[~interpolated], exact[~interpolated])
    assert np.abs(surface["loss"].values - exact).max() <= 0.02 * np.ptp(exact)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, (1, 5), (4, 2)])
def test_a_grid_too_small_to_interpolate_is_evaluated_whole(size):
    surface = compute_surface(Wavy(), PLANE, UNIT, size=size, interpolation=0.5)
    assert not surface["interpolated"].any()
    same(surface, compute_surface(Wavy(), PLANE, UNIT, size=size))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 5), (4, 8), (50, 31)])
def test_nested_grids_of_any_shape_end_with_all_cells(shape):
    nested = NestedGrids(shape)
    rows, columns = nested.grids[-1]
    assert (rows.tolist(), columns.tolist()) == (list(range(shape[0])), list(range(shape[1])))
    assert nested.level.max() == len(nested.grids) - 1
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        assert nested.level[corner] == 0


# -- what the folder holds


def test_units_names_and_attributes(tmp_path):
    path = tmp_path / "s.zarr"
    about = {"normalization": "filter", "data": "f00", "objective": "evaluation loss"}
    compute_surface(Wavy(), PLANE, UNIT, size=2, path=path, attributes=about)
    surface = load_surface(path)
    units = {str(name): variable.attrs["units"] for name, variable in surface.variables.items()}
    assert units == {
        "alpha": "filter-normalized radius", "beta": "filter-normalized radius", "accuracy": "1",
        "loss": "nats", "loss_se": "nats", "difference_se": "nats", "interpolated": "1", "done": "1",
    }  # fmt: skip
    assert all(variable.attrs["long_name"] for variable in surface.variables.values())
    assert about.items() <= surface.attrs.items()
    assert surface.attrs["weights"] == fingerprint(PLANE)
    assert surface.attrs["directions"] == [fingerprint(direction) for direction in UNIT]
    assert surface.attrs["format"] == 3
    assert surface.attrs["complete"] is True
    assert surface.attrs["seconds"] > 0
    assert (
        compute_surface(Wavy(), PLANE, UNIT, size=2, attributes={"units": "bits"})["loss"].attrs["units"]
        == "bits"
    )


def test_a_surface_on_its_way_is_read_when_asked_for(tmp_path):
    path = tmp_path / "s.zarr"
    with pytest.raises(FileNotFoundError, match="no loss surface at"):
        load_surface(path, partial=True)
    with pytest.raises(RuntimeError, match="stopped"):
        compute_surface(Wavy(fail_after=6), PLANE, UNIT, size=4, path=path, attributes={"data": "a"})
    with pytest.raises(FileNotFoundError, match=r"is not complete: .* partial=True"):
        load_surface(path)
    begun = load_surface(path, partial=True)
    assert begun["done"].values.sum() == 5  # and the origin, which is no cell
    np.testing.assert_array_equal(np.isfinite(begun["loss"]), begun["done"])
    assert begun.attrs["complete"] is False
    assert begun.attrs["origin_loss"] == Wavy.losses(0.25, -0.5).mean().item()
    whole = compute_surface(Wavy(), PLANE, UNIT, size=4)
    np.testing.assert_array_equal(begun["loss"].values[begun["done"]], whole["loss"].values[begun["done"]])
    assert [found["data"] for found in attributes_at(path)] == ["a"]


@pytest.mark.parametrize("version", [1, 2])
def test_surfaces_of_earlier_formats_are_read_and_computed_afresh(tmp_path, version):
    path = tmp_path / "surface.zarr"
    now = compute_surface(Wavy(), PLANE, UNIT, size=5)
    old = now.drop_vars(["difference_se", "interpolated"] if version == 1 else [])
    for variable in old.variables.values():
        variable.attrs.clear()
    for name in ("origin_loss", "origin_accuracy", "complete"):
        del old.attrs[name]
    old.attrs["format"] = version
    old.to_zarr(path, consolidated=False)
    read = load_surface(path)
    assert set(read.data_vars) == set(now.data_vars)
    np.testing.assert_array_equal(read["loss"], now["loss"])
    assert np.isnan(read["difference_se"]).all() == (version == 1)
    assert not read["interpolated"].any()
    assert read["loss"].attrs["units"] == "nats"
    assert read.attrs["origin_loss"] == now.attrs["origin_loss"]
    assert read.attrs["origin_accuracy"] == now.attrs["origin_accuracy"]
    assert read.attrs["complete"] is True
    assert read.attrs["format"] == version
    evaluate = Wavy()
    same(compute_surface(evaluate, PLANE, UNIT, size=5, path=path), now)
    assert len(evaluate.calls) == 25
    assert load_surface(path).attrs["format"] == 3


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    precious = tmp_path / "outputs"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    for path in (precious, precious / "thesis.txt"):
        with pytest.raises(ValueError, match="holds something else than a loss surface"):
            compute_surface(Wavy(), PLANE, UNIT, size=2, path=path)
    assert (precious / "thesis.txt").read_text() == "years of work"


def store(path, every=60.0, size=(5, 4), **about):
    return Store(path, axis(size[0], 1.0), axis(size[1], 1.0), about, every)


def fill(worker, limit=None):
    """Evaluate as many cells as this worker is given; the value of a cell is its number."""
    cells = [(row, column) for row in range(4) for column in range(5)]
    for count, cell in enumerate(cell for cell in worker.share(cells) if cell):
        worker.record(cell, {"loss": 5.0 * cell[0] + cell[1]})
        if count + 1 == limit:
            break


EXPECTED = np.arange(20.0).reshape(4, 5)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:-30],
        lambda data: data + data[:17],
        lambda data: data + bytes(480),
        lambda data: data[:100] + b"\xff" + data[101:],
        lambda data: data[:96] + data[110:],
        lambda data: bytes(len(data)),
    ],
    ids=["torn", "torn more", "torn append", "zeros", "flipped", "hole", "lost"],
)
def test_torn_and_corrupt_files_are_never_read_as_data(tmp_path, damage):
    path = tmp_path / "s.zarr"
    with store(path) as first:
        fill(first, limit=12)
    (file,) = tmp_path.glob("s.partial-*/*.left")
    file.write_bytes(damage(file.read_bytes()))
    read = load_surface(path, partial=True)
    known = read["done"].values
    np.testing.assert_array_equal(read["loss"].values[known], EXPECTED[known])
    assert np.isnan(read["loss"].values[~known]).all()
    assert (known.sum() == 0) == (damage(b"x" * 480) == bytes(480))
    with store(path) as second:
        assert second.count == known.sum()
        fill(second)
    np.testing.assert_array_equal(load_surface(path)["loss"], EXPECTED)


def test_records_of_another_surface_are_never_read_as_data(tmp_path):
    for name in ("a", "b"):
        with store(tmp_path / f"{name}.zarr", data=name) as worker:
            fill(worker, limit=3)
    (foreign,), (folder,) = tmp_path.glob("a.partial-*/*.left"), tmp_path.glob("b.partial-*")
    for file in folder.glob("*.left"):
        file.unlink()
    (folder / foreign.name).write_bytes(foreign.read_bytes())
    assert not load_surface(tmp_path / "b.zarr", partial=True)["done"].any()


# -- several workers


@pytest.fixture
def waits(monkeypatch):
    """A clock that waiting alone moves."""
    now = SimpleNamespace(seconds=0.0)

    def sleep(seconds):
        now.seconds += seconds

    monkeypatch.setattr(stores, "time", SimpleNamespace(monotonic=lambda: now.seconds, sleep=sleep))
    return now


CELLS = [(row, column) for row in range(4) for column in range(5)]


def test_workers_leave_alone_what_others_claim_until_it_is_late(tmp_path, waits):
    path = tmp_path / "s.zarr"
    with store(path, every=1.0) as slow, store(path, every=1.0) as other:
        slow.sync()  # sees the other one and claims from now on
        slow.record((3, 4), {"loss": 19.0}, seconds=10.0)
        slow.sync()
        assert [next(slow.share([cell])) for cell in CELLS[:3]] == CELLS[:3]
        given, at = [], []
        for cell in other.share(CELLS):
            if cell:
                given.append(cell)
                at.append(waits.seconds)
                other.record(cell, {"loss": 5.0 * cell[0] + cell[1]})
    assert given == [*CELLS[3:-1], *CELLS[:3]]
    noticed, late = at[0], at[-3]
    assert noticed >= 10 + 1  # a cell and a write of the one that was there
    assert late - noticed >= 2 * 10
    assert late - noticed < 2 * 10 + 5
    np.testing.assert_array_equal(load_surface(path)["loss"], EXPECTED)


def test_who_leaves_in_order_leaves_no_claims_behind(tmp_path, waits):
    path = tmp_path / "s.zarr"
    with store(path, every=1.0) as one, store(path, every=1.0) as two:
        one.sync()
        assert next(one.share(CELLS)) == CELLS[0]
        one.__exit__(None, None, None)
        fill(two)
        began = waits.seconds
        assert began < 2  # one write, until the first would have noticed; longer for what is claimed
    with store(tmp_path / "alone.zarr", every=1.0) as first:
        fill(first, limit=5)
    with store(tmp_path / "alone.zarr", every=1.0) as second:
        fill(second)
    assert waits.seconds == began  # nobody was there to be noticed by
    for name in ("s", "alone"):
        np.testing.assert_array_equal(load_surface(tmp_path / f"{name}.zarr")["loss"], EXPECTED)


def test_two_workers_share_and_both_have_the_whole(tmp_path, waits):
    path = tmp_path / "s.zarr"
    with store(path, every=1.0) as one, store(path, every=1.0) as two:
        one.sync()
        shares = {worker: (cell for cell in worker.share(CELLS) if cell) for worker in (two, one)}
        evaluated = {one: 0, two: 0}
        while shares:
            for worker, share in list(shares.items()):
                if cell := next(share, None):
                    worker.record(cell, {"loss": 5.0 * cell[0] + cell[1]})
                    evaluated[worker] += 1
                else:
                    del shares[worker]
                for each in (one, two):
                    each.sync()
    assert list(evaluated.values()) == [10, 10]
    for surface in (one.surface, two.surface, load_surface(path)):
        np.testing.assert_array_equal(surface["loss"], EXPECTED)
        assert surface.attrs["complete"] is True
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


@pytest.mark.parametrize("interpolation", [None, 0.01])
def test_a_worker_ends_when_another_one_has_completed_the_surface(tmp_path, interpolation):
    path, usual = tmp_path / "s.zarr", {"size": (25, 24), "interpolation": interpolation}
    second = Wavy()

    def overtake(calls):
        if calls == 20:
            same(compute_surface(second, PLANE, UNIT, path=path, **usual), whole)

    whole = compute_surface(Wavy(), PLANE, UNIT, **usual)
    first = Wavy(before=overtake)
    result = compute_surface(first, PLANE, UNIT, path=path, **usual)
    assert len(second.calls) > 20
    assert len(first.calls) <= 21
    same(result, whole)
    assert result.identical(load_surface(path))
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


def test_surfaces_of_two_settings_at_one_path_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "s.zarr"
    other = compute_surface(Wavy(), PLANE, UNIT, size=3)

    def disturb(calls):
        if calls == 9:  # throws the first one's folder away
            same(compute_surface(Wavy(), PLANE, UNIT, size=3, path=path), other)

    first = Wavy(before=disturb)
    result = compute_surface(first, PLANE, UNIT, size=(5, 4), path=path)
    same(result, compute_surface(Wavy(), PLANE, UNIT, size=(5, 4)))
    assert len(first.calls) == 21
    assert load_surface(path).identical(result)
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


def test_progress_counts_what_others_did(tmp_path, monkeypatch):
    path, lines = tmp_path / "s.zarr", []

    class Recorded(Progress):
        def __exit__(self, *error):
            lines.append((self.done, self.total, self.seconds_left))

    monkeypatch.setattr(surfaces, "Progress", Recorded)

    def overtake(calls):
        if calls == 5:
            compute_surface(Wavy(), PLANE, UNIT, size=4, path=path)

    compute_surface(Wavy(before=overtake), PLANE, UNIT, size=4, path=path, label="loss surface")
    assert lines == [(16, 16, 0.0)]


WORKER = """
import sys, time, torch
from pathlib import Path
import numpy as np
from gruland.landscape import compute_surface

folder, options = Path(sys.argv[1]), eval(sys.argv[2])
log = open(folder / "log", "a", buffering=1)

def evaluate(parameters):
    x, y = parameters["w"][0].tolist()
    time.sleep(0.02)
    log.write(f"{x!r} {y!r}\\n")
    loss = np.tanh(3 * x) + y**2 + 0.3 * x * y**3
    return loss + torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64), torch.tensor([1.0, 0.0, x > 0.25])

evaluate.about = {}
unit = torch.eye(2, dtype=torch.float64)
(folder / "ready").touch()
surface = compute_surface(evaluate, {"w": torch.tensor([[0.25, -0.5]], dtype=torch.float64)},
                          [{"w": unit[:1]}, {"w": unit[1:]}], path=folder / "s.zarr", **options)
np.savez(folder / "returned.npz", **{key: surface[key].values for key in surface.data_vars})
"""


class Worker:
    """A process that computes the surface s.zarr in its folder."""

    def __init__(self, folder, **options):
        self.folder = folder
        self.process = subprocess.Popen([sys.executable, "-c", WORKER, str(folder), repr(options)])

    def wait(self, condition):
        deadline = time.monotonic() + 600
        while not condition():
            assert time.monotonic() < deadline
            assert not self.process.poll()
            time.sleep(0.02)

    @property
    def calls(self):
        lines = (self.folder / "log").read_text().splitlines()
        return [tuple(map(float, line.split())) for line in lines]

    def __enter__(self):
        self.wait((self.folder / "ready").exists)
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()


def test_processes_share_a_surface(tmp_path):
    options = {"size": (12, 15), "extent": ((-0.5, 1.0), 1.0)}
    whole = compute_surface(Wavy(), PLANE, UNIT, **options)
    with Worker(tmp_path, **options) as other:
        own = Wavy(before=lambda calls: time.sleep(0.02))
        result = compute_surface(own, PLANE, UNIT, path=tmp_path / "s.zarr", **options)
        assert other.process.wait() == 0
    evaluated = {*own.calls, *other.calls}
    assert min(len(own.calls), len(other.calls)) > 10
    assert len(evaluated) == 12 * 15 + 1  # the origin is no cell
    assert len(own.calls) + len(other.calls) - len(evaluated) <= 1 + 3  # the origin, and hardly any other
    loss = plain_loop(whole["alpha"].values, whole["beta"].values)
    np.testing.assert_allclose(whole["loss"], loss, rtol=1e-13)
    for surface in (result, load_surface(tmp_path / "s.zarr")):
        same(surface, whole)
    with np.load(tmp_path / "returned.npz") as returned:
        for variable in whole.data_vars:
            np.testing.assert_array_equal(returned[variable], whole[variable])
    assert not list(tmp_path.glob("*partial*"))


def test_a_killed_process_s_work_is_kept_and_finished_by_the_other(tmp_path):
    path, options, undisturbed = tmp_path / "s.zarr", {"size": (25, 24), "interpolation": 0.01}, Wavy()
    whole = compute_surface(undisturbed, PLANE, UNIT, **options)

    def written():
        return [file for file in tmp_path.glob("s.partial-*/*.cells") if file.stat().st_size > 1000]

    with Worker(tmp_path, **options) as killed:
        killed.wait(written)

        def kill(calls):
            time.sleep(0.02)
            if calls == 5:
                os.kill(killed.process.pid, signal.SIGKILL)
                killed.process.wait()
                assert load_surface(path, partial=True)["done"].values.any()  # read while a worker is at it

        own = Wavy(before=kill)
        same(compute_surface(own, PLANE, UNIT, path=path, **options), whole)
        assert killed.process.poll() == -signal.SIGKILL
    same(load_surface(path), whole)
    assert {*own.calls, *killed.calls} == set(undisturbed.calls)
    # Lost is at most what a second holds, and nothing of what was written before was done again.
    assert len({*own.calls} & {*killed.calls}) <= 1 + 50


# -- budgets


@pytest.fixture
def clock(monkeypatch):
    """A clock that evaluations alone move, a second each."""
    now = SimpleNamespace(seconds=0.0)

    def tick(calls):
        now.seconds += 1

    fake = SimpleNamespace(monotonic=lambda: now.seconds, perf_counter=lambda: now.seconds)
    monkeypatch.setattr(surfaces, "time", fake)
    return tick


BUDGETS = [
    ({"size": (9, 13)}, 20.5),
    ({"size": 8, "extent": ((-0.5, 1), 1)}, 7),
    ({"size": 17, "interpolation": 0.005}, 30),
]


@pytest.mark.parametrize(("options", "seconds"), BUDGETS)
def test_a_budget_stops_the_evaluation_and_a_later_call_ends_as_an_undisturbed_one(
    tmp_path, clock, options, seconds
):
    path, undisturbed = tmp_path / "s.zarr", Wavy()
    whole = compute_surface(undisturbed, PLANE, UNIT, **options)
    first = Wavy(before=clock)
    stopped = compute_surface(first, PLANE, UNIT, path=path, max_seconds=seconds, **options)
    assert len(first.calls) == np.ceil(seconds)
    assert stopped.attrs["complete"] is False
    known = ~stopped["interpolated"].values
    kept = load_surface(path, partial=True)
    np.testing.assert_array_equal(kept["done"], known)
    assert not kept["interpolated"].any()
    assert np.isfinite(stopped["loss"]).all()
    np.testing.assert_array_equal(stopped["loss"].values[known], whole["loss"].values[known])
    assert known.sum() in (len(first.calls), len(first.calls) - 1)
    second = Wavy(before=clock)
    result = compute_surface(second, PLANE, UNIT, path=path, max_seconds=1e6, **options)
    same(result, whole)
    assert result.attrs["complete"] is True
    assert len(first.calls) + len(second.calls) == len(undisturbed.calls) + 1  # the origin twice
    assert set(first.calls) & set(second.calls) == {(0.25, -0.5)}


def test_no_time_at_all_gives_the_origin_everywhere(clock):
    evaluate = Wavy(before=clock)
    surface = compute_surface(evaluate, PLANE, UNIT, size=5, max_seconds=0)
    assert len(evaluate.calls) == 1
    np.testing.assert_allclose(surface["loss"], surface.attrs["origin_loss"])
    assert surface["interpolated"].values.sum() == 24
    assert np.isnan(surface.attrs["interpolation_error"])
    nothing = compute_surface(Wavy(before=clock), PLANE, UNIT, size=4, max_seconds=0)
    assert bool(nothing["interpolated"].all())


def test_a_quadratic_is_right_after_nine_cells(clock):
    def evaluate(p):
        clock(1)
        x, y = p["w"][0].tolist()
        return torch.full((2,), 3 * x**2 + x * y + 2 * y**2 - y, dtype=torch.float64), torch.ones(2)

    evaluate.about = {}
    surface = compute_surface(evaluate, PLANE, UNIT, size=(13, 21), extent=(2, 1), max_seconds=9)
    assert surface["interpolated"].values.sum() == 13 * 21 - 9
    x, y = np.meshgrid(0.25 + surface["alpha"].values, -0.5 + surface["beta"].values)
    np.testing.assert_allclose(surface["loss"], 3 * x**2 + x * y + 2 * y**2 - y, atol=1e-12)


def test_a_map_is_evenly_spaced_at_any_time(clock):
    surface = compute_surface(Wavy(before=clock), PLANE, UNIT, size=33, max_seconds=81)
    known = ~surface["interpolated"].values
    assert known[::4, ::4].all()
    assert known.sum() == 81


def test_not_finite_values_survive_every_way(tmp_path):
    def evaluate(p):
        x, y = p["w"][0].tolist()
        loss = float("nan") if x > 1 else float("-inf") if x < -0.5 else float("inf") if y > 0.2 else x
        return torch.full((2,), loss, dtype=torch.float64), torch.ones(2)

    path = tmp_path / "s.zarr"
    surface = compute_surface(evaluate, PLANE, UNIT, size=(5, 4), path=path)
    for loss in (surface["loss"].values, load_surface(path)["loss"].values):
        assert np.isneginf(loss[:, 0]).all()
        assert np.isnan(loss[:, 4]).all()
        assert np.isposinf(loss[-1, 1:4]).all()
        assert np.isfinite(loss[0, 1:4]).all()


def test_an_origin_without_a_finite_loss_is_kept_as_an_attribute(tmp_path):
    def evaluate(p):
        return torch.full((2,), float("inf"), dtype=torch.float64), torch.ones(2)

    evaluate.about = {}
    path = tmp_path / "s.zarr"
    result = compute_surface(evaluate, PLANE, UNIT, size=2, path=path)
    assert result.attrs["origin_loss"] == load_surface(path).attrs["origin_loss"] == float("inf")
    again = compute_surface(Wavy(fail_after=0), PLANE, UNIT, size=2, path=path)
    assert isinstance(again, xarray.Dataset)
    assert json.dumps(again.attrs)
