"""Grids of any shape against plain loops, several workers, killed processes, budgets, what a reader sees."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from threading import Event, Thread
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
import xarray
from soak import children
from torch import nn
from torch.func import functional_call

from gruland.landscape import compute_surface, load_surface, random_directions
from gruland.landscape import surface as surfaces
from gruland.landscape.directions import fingerprint
from gruland.landscape.refinement import NestedGrids
from gruland.landscape.store import Store
from gruland.landscape.surface import axis, grid

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
    line = compute_surface(Wavy(), PLANE, UNIT[:1], size=(6, 1), extent=((-0.5, 2), 1), path=path)
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
        ({"max_seconds": "3"}, "max_seconds='3': expected a number of at least 0"),
        ({"tolerance": "0.1"}, "tolerance='0.1': expected a share of the loss range"),
        ({"tolerance": 0.1, "seed": -1}, "^seed=-1: expected a whole number of at least 0"),
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


@pytest.mark.parametrize("size", [(201, 1), (1, 160), (24, 13), (50, 7)])
def test_interpolation_on_any_grid(size):
    evaluate, extent = Wavy(), ((-1, 1.5), 1)
    surface = compute_surface(evaluate, PLANE, UNIT, size=size, extent=extent, tolerance=0.02)
    exact = compute_surface(Wavy(), PLANE, UNIT, size=size, extent=extent)["loss"].values
    interpolated = surface["interpolated"].values
    assert interpolated.any()
    assert interpolated.sum() in (exact.size - len(evaluate.calls), exact.size - len(evaluate.calls) + 1)
    np.testing.assert_allclose(surface["loss"].values[~interpolated], exact[~interpolated])
    assert np.abs(surface["loss"].values - exact).max() <= 0.02 * np.ptp(exact)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, (1, 5), (4, 2)])
def test_a_grid_too_small_to_interpolate_is_evaluated_whole(size):
    surface = compute_surface(Wavy(), PLANE, UNIT, size=size, tolerance=0.5)
    assert not surface["interpolated"].any()
    np.testing.assert_allclose(surface["loss"], compute_surface(Wavy(), PLANE, UNIT, size=size)["loss"])


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


@pytest.mark.parametrize("name", ["kernel", "seconds", "weights", "sha256"])
def test_a_name_that_a_surface_writes_itself_is_refused(name):
    """It would be overwritten, or not tell surfaces apart."""
    evaluate = Wavy()
    with pytest.raises(ValueError, match=f"^attributes: {name} is a surface's own attribute"):
        compute_surface(evaluate, PLANE, UNIT, size=2, attributes={name: "rbf"})
    evaluate.about = {name: "rbf"}
    with pytest.raises(ValueError, match=f"^attributes: {name} is a surface's own attribute"):
        compute_surface(evaluate, PLANE, UNIT, size=2)


def test_what_computes_a_surface_is_noted_and_does_not_tell_it_apart(tmp_path):
    first, second = Wavy(), Wavy(fail_after=0)
    first.kernel, second.kernel = "cpu", "triton"
    compute_surface(first, PLANE, UNIT, size=2, path=tmp_path / "s.zarr")
    assert compute_surface(second, PLANE, UNIT, size=2, path=tmp_path / "s.zarr").attrs["kernel"] == "cpu"


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
    assert begun.attrs["data"] == "a"


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
    measured = xarray.Dataset({"mine": ("x", np.arange(5.0))})
    measured.to_zarr(tmp_path / "mine.zarr", consolidated=False)
    for path in (precious, precious / "thesis.txt", tmp_path / "mine.zarr"):
        with pytest.raises(ValueError, match="holds something else than a loss surface"):
            compute_surface(Wavy(), PLANE, UNIT, size=2, path=path)
    assert (precious / "thesis.txt").read_text() == "years of work"
    assert xarray.open_zarr(tmp_path / "mine.zarr", consolidated=False).equals(measured)


def store(path, every=60.0, size=(5, 4), patience=0.0, **about):
    return Store(path, axis(size[0], 1.0), axis(size[1], 1.0), about, every=every, patience=patience)


CELLS = [(row, column) for row in range(4) for column in range(5)]
EXPECTED = np.arange(20.0).reshape(4, 5)


def fill(begun, limit=None):
    """Record the cells that are not done; the value of a cell is its number."""
    for cell in [cell for cell in CELLS if not begun.done[cell]][:limit]:
        begun.record(cell, {"loss": 5.0 * cell[0] + cell[1]})


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("name", ["loss", "done", "difference_se"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: bytes(len(data)),
        lambda data: data[:9] + b"\xff" + data[10:],
        None,
    ],
    ids=["torn", "zeros", "flipped", "lost"],
)
def test_damaged_chunks_are_never_read_as_data(tmp_path, caplog, name, damage):
    path = tmp_path / "s.zarr"
    with store(path) as first:
        fill(first, limit=12)
    (chunk,) = tmp_path.glob(f"s.partial-*/{name}/c/0/0")
    chunk.unlink() if damage is None else chunk.write_bytes(damage(chunk.read_bytes()))
    with pytest.raises(FileNotFoundError, match="no loss surface at"):
        load_surface(path, partial=True)
    with store(path) as second:
        assert second.count == 0
        fill(second)
    assert "cannot be read: the surface is computed afresh" in caplog.text
    np.testing.assert_array_equal(load_surface(path)["loss"], EXPECTED)
    chunk = path / name / "c/0/0"  # of the complete surface
    chunk.unlink() if damage is None else chunk.write_bytes(damage(chunk.read_bytes()))
    with store(path) as third:
        assert third.count == 0
        fill(third)
    assert f"{path} cannot be read: the surface is computed afresh" in caplog.text
    np.testing.assert_array_equal(load_surface(path)["loss"], EXPECTED)


def test_a_surface_that_lost_its_checksum_is_not_read(tmp_path):
    with store(path := tmp_path / "s.zarr") as begun:
        fill(begun)
    load_surface(path).to_zarr(tmp_path / "copy.zarr", consolidated=False)  # by somebody else, without any
    np.testing.assert_array_equal(load_surface(tmp_path / "copy.zarr")["loss"], EXPECTED)
    about = path / "zarr.json"
    about.write_text(about.read_text().replace('"sha256"', '"sia256"'))  # a flipped bit
    with pytest.raises(ValueError, match="holds no readable loss surface"):
        load_surface(path)


def test_what_a_process_left_that_was_killed_behind_its_last_step_is_removed(tmp_path):
    path = tmp_path / "s.zarr"
    with store(path) as begun:
        fill(begun, limit=3)
    (partial,) = tmp_path.glob("s.partial-*")
    shutil.copytree(partial, tmp_path / "kept")
    with store(path) as again:
        fill(again)
    (tmp_path / "kept").rename(partial)
    with store(path) as complete:
        assert complete.surface.attrs["complete"]
    assert visible(tmp_path) == ["s.zarr"]


def test_what_the_former_layout_left_is_computed_afresh_and_said(tmp_path, caplog):
    path = tmp_path / "s.zarr"
    with store(path) as begun:
        fill(begun, limit=3)
    (partial,) = tmp_path.glob("s.partial-*")
    shutil.rmtree(partial)
    partial.mkdir()
    (partial / "about.json").write_text("{}")
    with store(path) as again:
        assert again.count == 0
        fill(again)
    assert f"{partial} cannot be read: the surface is computed afresh" in caplog.text
    assert visible(tmp_path) == ["s.zarr"]


def test_a_write_that_stops_anywhere_leaves_a_surface_that_goes_on(tmp_path, monkeypatch):
    """Killed before or after any file of a write: cells are done or not, and none that is done has another value."""
    from zarr.storage import LocalStore

    class Killed(BaseException):
        pass

    put, left = LocalStore.set, []

    async def counted(self, key, value, *rest):
        if not left:
            raise Killed
        left.pop()
        return await put(self, key, value, *rest)

    monkeypatch.setattr(LocalStore, "set", counted)
    path, stops = tmp_path / "s.zarr", []
    for files in range(7):
        left[:] = [None] * 1000
        with store(path) as begun:
            fill(begun, limit=1)
        left[:] = [None] * files
        begun = store(path).__enter__()
        fill(begun, limit=2)
        try:
            begun.write()
        except Killed:
            stops.append(files)
        begun._lock.release()
        found = load_surface(path, partial=True)
        known = found["done"].values
        np.testing.assert_array_equal(found["loss"].values[known], EXPECTED[known])
        # Each turn adds one cell, and two more once the last file, which is that of `done`, is written.
        assert known.sum() == files + 1 + 2 * (files == 6)
    assert stops == list(range(6))
    left[:] = [None] * 1000
    with store(path) as last:
        fill(last)
    np.testing.assert_array_equal(load_surface(path)["loss"], EXPECTED)


# -- one process at a time


def test_a_second_process_waits_or_is_refused(tmp_path, caplog):
    path = tmp_path / "s.zarr"
    with store(path) as first:
        with pytest.raises(BlockingIOError, match="still being computed by another process: try again"):
            store(path).__enter__()
        assert "waiting for it" in caplog.text
        ended = Event()
        waiting = Thread(
            target=lambda: (compute_surface(Wavy(), PLANE, UNIT, size=3, path=path), ended.set())
        )
        waiting.start()
        assert not ended.wait(0.2)
        fill(first)
    waiting.join()
    assert load_surface(path)["loss"].shape == (3, 3)
    assert visible(tmp_path) == ["s.zarr"]


def test_who_waited_takes_the_surface_that_was_completed_meanwhile(tmp_path):
    path, first, second = tmp_path / "s.zarr", Wavy(before=lambda calls: time.sleep(0.02)), Wavy()
    compute = Thread(target=lambda: compute_surface(first, PLANE, UNIT, size=4, path=path))
    compute.start()
    while not first.calls:
        time.sleep(0.001)
    result = compute_surface(second, PLANE, UNIT, size=4, path=path)
    compute.join()
    assert not second.calls
    assert result.identical(load_surface(path))


def test_workers_give_the_same_bits(tmp_path):
    options, parent = {"size": 17, "tolerance": 0.01, "path": tmp_path / "s.zarr"}, os.getpid()
    whole = compute_surface(Wavy(), PLANE, UNIT, size=17, tolerance=0.01)

    def evaluate(parameters):
        x, y = parameters["w"][0].tolist()
        assert os.getpid() != parent or (x, y) == (0.25, -0.5)  # the origin alone is evaluated here
        loss = np.tanh(3 * x) + y**2 + 0.3 * x * y**3
        return loss + torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64), torch.tensor([1.0, 0.0, x > 0.25])

    evaluate.about = {}
    for surface in (
        compute_surface(evaluate, PLANE, UNIT, workers=2, **options),
        load_surface(options["path"]),
    ):
        same(surface, whole)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_killed_process_s_work_is_kept_and_finished_by_the_next(tmp_path):
    path, options, undisturbed = tmp_path / "s.zarr", {"size": (25, 24), "tolerance": 0.01}, Wavy()
    whole = compute_surface(undisturbed, PLANE, UNIT, **options)

    def die_after_three_answers(calls):
        time.sleep(0.02)
        if len(list(tmp_path.glob("s.answers-*/*.npz"))) >= 3:
            (tmp_path / "log").write_text("\n".join(f"{x!r} {y!r}" for x, y in killed.calls))
            os.kill(os.getpid(), signal.SIGKILL)

    killed = Wavy(before=die_after_three_answers)
    ended = children.call(lambda: compute_surface(killed, PLANE, UNIT, path=path, **options) and 0)
    assert ended.status == -signal.SIGKILL, ended.said
    kept = len(list(tmp_path.glob("s.answers-*/*.npz")))
    own = Wavy()
    same(compute_surface(own, PLANE, UNIT, path=path, **options), whole)
    same(load_surface(path), whole)
    assert len(own.calls) == len(undisturbed.calls) - kept  # the origin, which is no cell, once more
    assert visible(tmp_path) == ["log", "s.zarr"]
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert {*own.calls} | {(float(x), float(y)) for x, y in lines} == set(undisturbed.calls)


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


@pytest.mark.parametrize("options", [{"size": 4}, {"size": 5, "tolerance": 0.01}])
def test_where_no_cell_has_a_value_none_is_made_up(clock, options):
    nothing = compute_surface(Wavy(before=clock), PLANE, UNIT, max_seconds=0, **options)
    assert bool(nothing["interpolated"].all())
    assert np.isnan(nothing["loss"]).all()
    assert np.isnan(nothing["accuracy"]).all()
    assert nothing.attrs["origin_loss"] == pytest.approx(float(Wavy.losses(0.25, -0.5).mean()))
    assert nothing.attrs["complete"] is False


@pytest.mark.parametrize("size", [2, 3])  # without a cell at the origin and with one
def test_an_origin_s_loss_is_kept_where_nothing_says_what_is_right(tmp_path, size):
    def evaluate(p):
        return Wavy()(p)[0], torch.full((3,), torch.nan)

    compute_surface(evaluate, PLANE, UNIT, size=size, path=tmp_path / "s.zarr")
    attributes = load_surface(tmp_path / "s.zarr").attrs
    assert attributes["origin_loss"] == pytest.approx(float(Wavy.losses(0.25, -0.5).mean()))
    assert np.isnan(attributes["origin_accuracy"])


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
