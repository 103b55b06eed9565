"""A run's surface: what its settings lead to, what is written, and the command."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import textwrap
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from test_landscape import LABELS, REVIEWS, classifier

import gruland
from gruland import runs
from gruland.data import subset
from gruland.files import write_json
from gruland.landscape import __main__ as command
from gruland.landscape import contour_figure, gates_of, load_directions, load_surface, random_directions
from gruland.landscape.directions import displace, fingerprint
from gruland.landscape.pictures import PICTURES
from gruland.objective import EvaluationLoss, TrainingLoss
from gruland.surfaces import HOW_COMPUTED, Surface, compute_run, objective_of, plane_of, surface_of
from gruland.surfaces.__main__ import _cells
from gruland.weights import save_weights

#: Those of a configuration before there were others.
SETTINGS = Surface(size=3, reviews=4)


class FakeRun:
    def __init__(self, path, **model):
        self.path, self.results, self.model = path, {"name": "zoneout-0.1"}, classifier(**model)
        self.config = OmegaConf.create({"landscape": SETTINGS.to_dict()})
        rest = np.array([0, 1, 2, 3])
        splits = {
            "train": SimpleNamespace(encoded=REVIEWS, labels=LABELS),
            "test": SimpleNamespace(encoded=REVIEWS.take(rest), labels=LABELS[rest]),
        }
        self.data = SimpleNamespace(splits=splits, report={"fingerprint": "f"})
        self.locked = nullcontext

    def update_results(self, **values):
        self.results.update(values)


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr("gruland.surfaces.results.write_pictures", lambda *_: None)


def test_a_run_gets_its_surface_pictures_and_results(tmp_path):
    run = FakeRun(tmp_path, zoneout=0.1)
    results = compute_run(run, SETTINGS)
    assert run.results["landscape"] == results
    surface = load_surface(tmp_path / "landscape" / "surface.zarr")
    loss = surface["loss"].values
    assert (results["min_loss"], results["max_loss"]) == (loss.min(), loss.max())
    assert results["center_loss"] == loss[1, 1]
    assert (results["cells"], results["reviews"], results["normalization"]) == (9, 4, "filter")
    assert results["settings"] == SETTINGS.to_dict()
    assert results["not_finite"] == 0
    assert surface.attrs["data"] == "f"
    rows = subset(LABELS, 4, 0)
    losses, _ = EvaluationLoss(run.model, REVIEWS.take(rows), LABELS[rows])({})
    assert results["center_loss"] == losses.mean().item()
    written = sorted(p.name for p in (tmp_path / "landscape").iterdir() if p.name[0] != ".")
    assert written == sorted([*PICTURES, "directions.npz", "surface.zarr"])


def test_a_run_s_complete_surface_is_left_alone_and_lost_pictures_come_back(tmp_path, monkeypatch):
    run = FakeRun(tmp_path)
    first = compute_run(run, SETTINGS)
    contour, surface = tmp_path / "landscape" / "contour.png", tmp_path / "landscape" / "surface.zarr"
    inode = contour.stat().st_ino
    monkeypatch.setattr(EvaluationLoss, "on_plane", lambda *_: pytest.fail("computed again"))
    assert compute_run(run, SETTINGS) == first
    assert contour.stat().st_ino == inode
    contour.unlink()
    assert compute_run(run, SETTINGS) == first
    assert contour.exists()
    assert surface.exists()


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"reviews_seed": 3},
        {"reviews": "all"},
        {"split": "test"},
        {"normalization": "tensor"},
        {"normalization": "unit"},
        {"vectors": "with_row"},
        {"only": "gru.weight_hh_*"},
        {"only": ["*_l0", "head*"]},
        {"gate": "update"},
        {"gate": 2},
        {"extent": 0.5},
        {"extent": [0.5, 1.0]},
        {"extent": [[0.0, 0.5], [-1.0, 0.0]]},
    ],
)
def test_other_settings_give_another_surface(tmp_path, other, no_pictures):
    run = FakeRun(tmp_path)
    before = compute_run(run, SETTINGS)
    after = compute_run(run, replace(SETTINGS, **other))
    assert after["max_loss"] != before["max_loss"]
    assert run.results["landscape"]["settings"] == {**before["settings"], **other}


def test_the_same_weights_with_another_zoneout_are_another_surface(tmp_path, no_pictures):
    run = FakeRun(tmp_path, zoneout=0.1)
    before = compute_run(run, SETTINGS)
    run.model.regularizer.rate = 0.5
    assert compute_run(run, SETTINGS)["center_loss"] != before["center_loss"]


def test_more_reviews_than_there_are_means_all(tmp_path, no_pictures):
    assert compute_run(FakeRun(tmp_path), replace(SETTINGS, reviews=1000))["reviews"] == 7


@pytest.mark.parametrize("reviews", [0, -1, 2.5, "some", True, None])
def test_impossible_numbers_of_reviews(tmp_path, reviews):
    with pytest.raises(
        ValueError, match=rf"landscape.reviews={reviews}: expected a whole number of at least 1, or all"
    ):
        compute_run(FakeRun(tmp_path), replace(SETTINGS, reviews=reviews))


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
        ("sise=5", "landscape.sise=5: there is no such key, did you mean landscape.size?"),
        ("landscape.sise=5", "landscape.sise=5: there is no such key, did you mean landscape.size?"),
        ("landscape=nosuch", "landscape=nosuch is unknown: expected one of default"),
        ("size=3,5", "size=3,5: expected one value; a command on finished runs has no sweep"),
        ("size=99999999999999999999", "landscape.size=99999999999999999999: expected a whole number that"),
        ("size=0", "landscape.size=0: expected a whole number of at least 1"),
        ("workers=0", "landscape.workers=0: expected a whole number of at least 1"),
        ("engine=dask", "landscape.engine=dask: expected one of local, ray"),
        ("reviews=0", "landscape.reviews=0"),
        ("normalization=layer", "landscape.normalization='layer'"),
        ("seed=x", "landscape.seed=x"),
        ("size.x=5", "landscape.size={'x': 5}: expected a whole number"),
        ("=5", "landscape.=5: there is no such key"),
        ("size=", "landscape.size=: expected a whole number"),
        ("size=[", "size=[: cannot be read"),
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "PATH"), (["size=5"], "no PATH given"), (["one", "enabled=false"], "enabled is for gruland.train")],
)
def test_command_without_a_path_or_with_a_setting_of_no_use(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        command.main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = """
        import sys
        from gruland.landscape.__main__ import main
        try:
            main(["--help"])
        except SystemExit:
            pass
        heavy = {"torch", "xarray", "zarr", "matplotlib", "plotly"} & set(sys.modules)
        sys.exit(f"imported {heavy}" if heavy else 0)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "PATH" in done.stdout


# -- what the settings lead to


def test_the_configuration_and_the_class_have_the_same_keys_and_defaults():
    node = gruland.compose().landscape
    assert node._target_ == "gruland.surfaces.Surface"
    assert Surface.of(node) == Surface(enabled=node.enabled)
    assert set(node) - {"_target_", *HOW_COMPUTED} == set(Surface().to_dict())


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("sise", r"landscape.sise=3: there is no such key, did you mean landscape.size\?"),
        ("zzzz", "landscape.zzzz=3: there is no such key, expected one of enabled, workers, engine, size"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(key, message):
    with pytest.raises(ValueError, match=message):
        Surface.of({key: 3})


def test_a_run_s_cells_are_the_losses_of_its_displaced_weights(tmp_path, no_pictures):
    run = FakeRun(tmp_path, zoneout=0.1)
    assert compute_run(run, SETTINGS)["settings"] == SETTINGS.to_dict()
    surface = load_surface(tmp_path / "landscape" / "surface.zarr")
    model, rows = run.model, subset(LABELS, 4, 0)
    evaluate = EvaluationLoss(model, REVIEWS.take(rows), LABELS[rows])
    directions = random_directions(model.trainable(), 0)
    for i, j in ((1, 1), (0, 2), (2, 1)):
        steps = float(surface["alpha"][j]), float(surface["beta"][i])
        losses, _ = evaluate(displace(model.trainable(), directions, steps))
        assert float(surface["loss"][i, j]) == losses.mean().item()


def test_one_objective_serves_many_planes(tmp_path, no_pictures):
    settings = replace(SETTINGS, reviews_seed=7, objective="training", draws=2)
    run = FakeRun(tmp_path, zoneout=0.3, dropconnect=0.2)
    evaluate = objective_of(run.model, run.data, settings)
    for seed in (0, 1):
        shared = surface_of(run, replace(settings, seed=seed), evaluate=evaluate)
        compute_run(run, replace(settings, seed=seed))
        own = load_surface(tmp_path / "landscape" / "surface.zarr")
        for name in own.data_vars:
            np.testing.assert_array_equal(shared[name], own[name])
        ours, theirs = (
            {k: v for k, v in s.attrs.items() if k not in ("seconds", "gruland")} for s in (shared, own)
        )
        assert ours == theirs
        assert (own.attrs["objective"], own.attrs["draws"], own.attrs["reviews_seed"]) == (
            "training loss",
            2,
            7,
        )


def test_the_training_objective_knows_its_reviews(tmp_path, no_pictures):
    run = FakeRun(tmp_path, zoneout=0.3)
    settings = replace(SETTINGS, objective="training", draws=3, reviews_seed=2)
    results = compute_run(run, settings)
    rows = subset(LABELS, 4, 2)
    losses, correct = TrainingLoss(run.model, REVIEWS, LABELS, draws=3, seed=2)({})
    # A review's masks are its own, whether it is one of 4 or of 7.
    assert results["center_loss"] == pytest.approx(losses[rows].mean().item(), rel=1e-6)
    surface = load_surface(tmp_path / "landscape" / "surface.zarr")
    assert surface.attrs["origin_accuracy"] == pytest.approx(correct[rows].mean().item())
    assert (results["objective"], results["draws"]) == ("training loss", 3)
    assert compute_run(run, SETTINGS)["center_loss"] != results["center_loss"]


def test_a_tolerance_with_the_training_objective(tmp_path, no_pictures):
    run = FakeRun(tmp_path, zoneout=0.3)
    results = compute_run(run, replace(SETTINGS, objective="training", draws=2, tolerance=0.5, reviews="all"))
    assert results["reviews"] == 7
    surface = load_surface(tmp_path / "landscape" / "surface.zarr")
    assert surface.attrs["objective"] == "training loss"


def test_the_split_of_the_settings(tmp_path, no_pictures):
    run = FakeRun(tmp_path)
    results = compute_run(run, replace(SETTINGS, split="test", reviews="all"))
    losses, _ = EvaluationLoss(run.model, REVIEWS.take(np.arange(4)), LABELS[:4])({})
    assert (results["reviews"], results["split"]) == (4, "test")
    assert results["center_loss"] == losses.mean().item()


@pytest.mark.parametrize(
    "settings",
    [
        {"normalization": "unit"},
        {"normalization": "gate", "vectors": "with_row"},
        {"only": "gru.weight_hh_*", "gate": "new"},
        {"only": ["gru.weight_ih_l0", "head.weight"], "normalization": "model"},
    ],
)
def test_the_surface_s_directions_are_those_of_the_settings(tmp_path, no_pictures, settings):
    run = FakeRun(tmp_path)
    compute_run(run, replace(SETTINGS, **settings))
    directions, about = load_directions(tmp_path / "landscape" / "directions.npz")
    options = {key: value for key, value in settings.items() if key != "normalization"}
    expected = random_directions(
        run.model.trainable(), 0, settings.get("normalization", "filter"),
        gates=gates_of(run.model), **options,
    )  # fmt: skip
    for one, other in zip(directions, expected, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in other)
    assert about["kind"] == "random"
    attributes = load_surface(tmp_path / "landscape" / "surface.zarr").attrs
    assert attributes["plane"]["kind"] == "random"
    assert attributes["plane"]["directions"]["cosine"] < 1e-6
    assert set(attributes["plane"]["directions"]["tensors"]) == {
        name for name, tensor in expected[0].items() if tensor.any()
    }


def test_any_grid(tmp_path, no_pictures):
    settings = replace(SETTINGS, size=[4, 2], extent=[[-0.5, 1.0], [0.25, 0.5]])
    results = compute_run(FakeRun(tmp_path), settings)
    surface = load_surface(tmp_path / "landscape" / "surface.zarr")
    np.testing.assert_allclose(surface["alpha"], [-0.5, 0.0, 0.5, 1.0])
    np.testing.assert_allclose(surface["beta"], [0.25, 0.5])
    assert results["cells"] == 8
    # The grid has no such cell.
    assert results["center_loss"] == compute_run(FakeRun(tmp_path / "other"), SETTINGS)["center_loss"]


def test_a_budget_that_runs_out_and_the_command_that_goes_on(tmp_path, no_pictures, capsys, monkeypatch):
    run = FakeRun(tmp_path)
    monkeypatch.setattr("gruland.runs.find", lambda *paths: list(paths))
    monkeypatch.setattr("gruland.runs.load", lambda _: run)
    assert command.main(["here", "size=9", "max_seconds=1e-9"]) == 0
    results = run.results["landscape"]
    assert not results["complete"]
    assert results["evaluated"] <= 1
    assert "the time ran out: the same command goes on" in capsys.readouterr().out
    assert not (tmp_path / "landscape" / "surface.zarr").exists()
    assert command.main(["here", "size=9", "max_seconds=60"]) == 0
    assert run.results["landscape"]["complete"]
    assert run.results["landscape"]["evaluated"] == 81
    whole = surface_of(run, replace(SETTINGS, size=9))
    np.testing.assert_array_equal(
        load_surface(tmp_path / "landscape" / "surface.zarr")["loss"], whole["loss"]
    )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"size": [3, 0]}, r"landscape.size=\[3, 0\]: expected a whole number of at least 1, or \[alpha, beta\]"),
        ({"size": [3, 3, 3]}, r"landscape.size=\[3, 3, 3\]: expected"),
        ({"size": True}, "landscape.size=True: expected"),
        ({"extent": 0}, "landscape.extent=0: expected a positive number, "),
        ({"extent": math.inf}, "landscape.extent=inf: expected"),
        ({"extent": [1.0, -1.0]}, r"landscape.extent=\[1.0, -1.0\]: expected"),
        ({"extent": [[-1.0, 1.0], [1.0, 1.0]]}, r"landscape.extent=\[\[-1.0, 1.0\], \[1.0, 1.0\]\]: expected"),
        ({"split": "dev"}, "landscape.split=dev: expected one of train, validation, test"),
        ({"objective": "loss"}, "landscape.objective=loss: expected one of evaluation, training"),
        ({"draws": 0}, "landscape.draws=0: expected a whole number of at least 1"),
        ({"reviews_seed": -1}, "landscape.reviews_seed=-1: expected a whole number of at least 0, or null"),
        ({"vectors": "all"}, "landscape.vectors='all': expected ignore, tensor or with_row"),
        ({"only": []}, r"landscape.only=\[\]: expected a pattern"),
        ({"only": [1]}, r"landscape.only=\[1\]: expected a pattern"),
        ({"gate": 1.5}, "landscape.gate=1.5: expected reset, update, new, a number below 3, or null"),
        ({"gate": "forget"}, "landscape.gate=forget: expected reset, update, new, "),
        ({"gate": 3}, "landscape.gate=3: expected reset, update, new, "),
        ({"gate": "new", "vectors": "tensor"}, "gate=new with landscape.vectors=tensor: expected vectors=with_row"),
        ({"plane": "hessian", "only": "gru.*"}, r"only=gru.\*: expected null with landscape.plane=hessian, it is for"),
        ({"plane": "initial", "normalization": "unit"}, "normalization=unit: expected filter with landscape.plane="),
        ({"max_seconds": 0}, "landscape.max_seconds=0: expected a positive number, or null"),
        ({"plane": "nowhere"}, "landscape.plane=nowhere: expected random, initial, final, trajectory, hessian or"),
        ({"plane": None}, "landscape.plane=None: expected random, "),
        ({"plane": ["initial", "hessian"]}, "landscape.plane=hessian: expected initial, final or the path"),
        ({"plane": ["initial", "final", "x"]}, "landscape.plane=.*: expected"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work(setting, message):
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **setting)
    with pytest.raises(ValueError, match=message):
        Surface.of(OmegaConf.create({**SETTINGS.to_dict(), **setting}))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"only": "gru.kernel*"}, r"nothing moves \(only=\['gru.kernel\*'\]\)"),
    ],
)
def test_settings_that_do_not_fit_the_model(tmp_path, setting, message):
    with pytest.raises(ValueError, match=message):
        compute_run(FakeRun(tmp_path), replace(SETTINGS, **setting))


# -- planes of a run


@pytest.fixture
def kept(smoke_run, tmp_path):
    """A finished run that kept its epochs 0 to 3, of which the second is the best."""
    folder = tmp_path / "kept"
    shutil.copytree(smoke_run.path, folder, ignore=shutil.ignore_patterns("landscape", "attack"))
    run = runs.Run(folder)
    run.update_results(name="kept", training={**run.results["training"], "best_epoch": 2, "epochs": 3})
    best = load_file(run.checkpoint("best"))
    generator = torch.Generator().manual_seed(0)
    for epoch, share in enumerate((1.0, 0.3, 0.0, 0.2)):
        noise = {name: 0.2 * torch.randn(w.shape, generator=generator) for name, w in best.items()}
        weights = {name: w + share * noise[name] for name, w in best.items()}
        save_weights(weights, run.checkpoint(f"epoch-{epoch}"))
    save_weights(weights, run.checkpoint("last"))
    run.seal_training()
    return run


def loss_of(run, which, settings):
    return float(objective_of(run.load_model(which), run.data, settings)({})[0].mean())


def test_a_plane_through_the_initial_and_the_final_weights(kept, no_pictures, caplog):
    settings = replace(SETTINGS, plane=["initial", "final"], extent=None, size=3, precision="float32")
    plane = plane_of(kept, settings)
    surface = surface_of(kept, replace(settings, extent=[[0.0, 1.0], [0.0, 1.0]]), plane=plane)
    assert plane.points["initial"] == (1.0, 0.0)
    at_initial = float(surface["loss"].sel(alpha=1.0, beta=0.0))
    assert at_initial == pytest.approx(loss_of(kept, "epoch-0", settings), rel=1e-5)
    assert surface.attrs["origin_loss"] == pytest.approx(loss_of(kept, "best", settings), rel=1e-6)
    assert surface.attrs["plane"]["points"]["initial"] == [1.0, 0.0]
    assert "normalization" not in surface.attrs
    results = compute_run(kept, settings)
    assert (results["plane"], results["normalization"]) == ("through", None)
    assert results["points"]["final"] == list(plane.points["final"])
    whole = load_surface(kept.path / "landscape" / "surface.zarr")
    for alpha, beta in plane.points.values():
        assert whole["alpha"].min() <= alpha <= whole["alpha"].max()
        assert whole["beta"].min() <= beta <= whole["beta"].max()
    assert "does not reach" not in caplog.text
    surface_of(kept, replace(settings, extent=0.5))
    assert "landscape.extent=0.5 does not reach initial at (1, 0): extent=null reaches every" in caplog.text


@pytest.mark.parametrize("plane", ["initial", "final"])
def test_a_plane_through_one_checkpoint(kept, plane):
    settings = replace(SETTINGS, plane=plane, extent=[[0.0, 1.0], [-0.5, 0.5]], precision="float32")
    surface = surface_of(kept, settings)
    expected = loss_of(kept, {"initial": "epoch-0", "final": "last"}[plane], settings)
    assert float(surface["loss"].sel(alpha=1.0, beta=0.0)) == pytest.approx(expected, rel=1e-5)


def test_a_plane_through_another_run(kept, smoke_run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(kept.path, other)
    shutil.copy(other / "checkpoints" / "last.safetensors", other / "checkpoints" / "best.safetensors")
    name = runs.name(runs.Run(other).config)
    runs.Run(other).update_results(name=name)
    runs.Run(other).seal_training()
    settings = replace(SETTINGS, plane=str(other), extent=[[0.0, 1.0], [-0.5, 0.5]], precision="float32")
    surface = surface_of(kept, settings)
    assert surface.attrs["plane"]["points"] == {name: [1.0, 0.0]}
    expected = loss_of(kept, "last", settings)
    assert float(surface["loss"].sel(alpha=1.0, beta=0.0)) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="equals the origin"):
        surface_of(kept, replace(settings, plane=str(smoke_run.path)))


def test_the_plane_of_a_training(kept, no_pictures):
    settings = replace(SETTINGS, plane="trajectory", extent=None, precision="float32")
    results = compute_run(kept, settings)
    assert results["center_loss"] == pytest.approx(loss_of(kept, "best", settings), rel=1e-6)
    assert list(results["points"]) == ["0", "1", "2", "3"]
    np.testing.assert_allclose(results["points"]["2"], (0, 0), atol=1e-6)
    surface = load_surface(kept.path / "landscape" / "surface.zarr")
    assert sum(surface.attrs["plane"]["explained"]) <= 1 + 1e-9


def test_averaged_weights_are_a_point_of_their_own_on_the_path(kept):
    """The epochs keep what was trained, the best checkpoint its average."""
    averaged = {name: w + 0.05 for name, w in load_file(kept.checkpoint("best")).items()}
    save_weights(averaged, kept.checkpoint("best"))
    kept.seal_training()
    run = runs.Run(kept.path)
    plane = plane_of(run, replace(SETTINGS, plane="trajectory"))
    assert list(plane.points) == ["0", "1", "2", "3", "best"]
    assert fingerprint(plane.origin) == fingerprint(run.model.trainable())
    trained = dict(run.load_model("epoch-2").trainable())
    np.testing.assert_allclose(plane.coordinates(trained), plane.points["2"], rtol=1e-6)
    assert plane.points["2"] != pytest.approx((0, 0), abs=0.1)


def test_the_path_of_a_training_is_drawn_with_its_true_losses_and_computed_once(
    kept, no_pictures, monkeypatch
):
    settings = replace(SETTINGS, plane="trajectory", extent=None, precision="float32")
    results = compute_run(kept, settings)
    path = results["path"]
    assert path["epoch"] == [0, 1, 2, 3]
    expected = [loss_of(kept, f"epoch-{epoch}", settings) for epoch in path["epoch"]]
    np.testing.assert_allclose(path["loss"], expected, rtol=1e-5)
    points = [results["points"][str(epoch)] for epoch in path["epoch"]]
    np.testing.assert_allclose(np.transpose([path["alpha"], path["beta"]]), points, atol=1e-5)
    pictures = [kept.path / "landscape" / name for name in ("trajectory.png", "trajectory.pdf")]
    assert all(picture.stat().st_size > 5000 for picture in pictures)
    with monkeypatch.context() as patched:
        patched.setattr("gruland.surfaces.results.run_path", lambda *_: pytest.fail("computed again"))
        assert compute_run(kept, settings) == results
    compute_run(kept, SETTINGS)  # another plane: the path's pictures would not belong to it
    assert not any(picture.exists() for picture in pictures)


@pytest.mark.parametrize("plane", ["initial", "trajectory"])
def test_planes_that_need_the_epochs(tmp_path, smoke_run, plane):
    with pytest.raises(ValueError, match=f"{smoke_run.path}.*: train with callbacks=.default,epoch_weights"):
        surface_of(smoke_run, replace(SETTINGS, plane=plane))


def test_a_hessian_plane_is_computed_once(tmp_path, no_pictures, monkeypatch):
    run, calls = FakeRun(tmp_path), []

    def hessian_plane(loss, parameters, *, seed, label):
        from gruland.landscape.planes import Plane

        calls.append((loss, seed))
        directions = random_directions(parameters, seed + 10)
        return Plane(parameters, directions, "hessian", {}, {"eigenvalues": [2.0, 1.0], "rise": [4.0, 2.0]})

    def composed(model, encoded, labels):
        assert model is run.model
        return encoded.size

    # In the place of what has tests of its own.
    for name, stub in (
        ("objective.mean_loss", SimpleNamespace(MeanLoss=composed)),
        ("landscape.measures.curvature", SimpleNamespace(hessian_plane=hessian_plane)),
    ):
        monkeypatch.setitem(sys.modules, f"gruland.{name}", stub)
    settings = replace(SETTINGS, plane="hessian", extent=None)
    first = compute_run(run, settings)
    assert compute_run(run, settings) == first
    assert calls == [(4, 0)]
    surface = load_surface(tmp_path / "landscape" / "surface.zarr")
    assert surface.attrs["plane"]["eigenvalues"] == [2.0, 1.0]
    np.testing.assert_allclose(surface["alpha"], [-0.5, 0, 0.5])  # 4 * 0.5^2 = 1 nat
    compute_run(run, replace(settings, seed=1))
    assert calls == [(4, 0), (4, 1)]


# -- the command's other words


def test_results_are_written_within_the_lock_and_cells_are_not(tmp_path, monkeypatch):
    run, path = FakeRun(tmp_path), tmp_path / "landscape" / "surface.zarr"
    seen = []

    class Lock:
        def __enter__(self):
            seen.append((path.exists(), "landscape" in run.results))

        def __exit__(self, *_):
            seen.append((path.exists(), "landscape" in run.results))

    compute_run(run, SETTINGS, writing=Lock)
    assert seen == [(True, False), (True, True)]


def test_a_locked_run_is_waited_for(tmp_path):
    run = runs.Run(tmp_path)
    with (
        run.locked(),
        pytest.raises(ValueError, match="is being worked on by another process"),
        run.locked(0.05),
    ):
        pytest.fail("entered twice")
    with run.locked(0.05):
        pass


def test_compare_is_a_command_even_where_a_folder_has_its_name(tmp_path, monkeypatch, two_runs):
    given = []
    module = SimpleNamespace(main=lambda words: given.append(words) or 3)
    monkeypatch.setitem(sys.modules, "gruland.report.landscapes.__main__", module)
    (tmp_path / "compare").mkdir()
    assert command.main(["compare", "one", "planes=3"]) == 3
    assert given == [["one", "planes=3"]]
    two_runs[Path("compare")] = FakeRun(tmp_path / "compare")
    assert command.main(["./compare"]) == 0
    assert two_runs[Path("compare")].results["landscape"]["cells"] == 9


@pytest.mark.parametrize("inside", ["", "landscape/surface.zarr"])
def test_export_takes_a_run_or_a_surface(tmp_path, no_pictures, capsys, inside):
    compute_run(FakeRun(tmp_path), SETTINGS)
    file = tmp_path / "surface.npz"
    assert command.main(["export", str(tmp_path / inside), str(file)]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    with np.load(file) as arrays:
        expected = load_surface(tmp_path / "landscape" / "surface.zarr")["loss"]
        np.testing.assert_array_equal(arrays["loss"], expected)
    write_json(tmp_path / "results.json", {"landscape": {"complete": False}})  # a later one is on its way
    if not inside:
        with pytest.raises(ValueError, match="its surface is not complete"):
            command.main(["export", str(tmp_path), str(file)])
    write_json(tmp_path / "results.json", {"files": {"landscape/surface.zarr": "of another one"}})
    if not inside:
        with pytest.raises(ValueError, match="is not what the run wrote"):
            command.main(["export", str(tmp_path), str(file)])


def test_the_line_of_a_surface_of_which_nothing_is_known_yet_has_no_nan():
    results = {"interpolated": 80, "evaluated": 1, "cells": 81, "interpolation_error": math.nan}
    assert _cells(results) == (
        "1 of 81 cells (the others interpolated with an error that nothing is known about yet)"
    )
    assert "within about 1.00% of the range" in _cells({**results, "interpolation_error": 0.01})


@pytest.mark.parametrize(
    ("split", "words"),
    [("train", "4 training reviews"), ("validation", "4 validation reviews"), ("test", "4 test")],
)
def test_a_picture_names_the_split_that_was_evaluated(tmp_path, split, words):
    run = FakeRun(tmp_path)
    run.data.splits = {split: run.data.splits["train"]}
    surface = surface_of(run, replace(SETTINGS, split=split))
    assert words in contour_figure(surface, "a model").get_suptitle()


def test_export_without_a_surface(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no loss surface at"):
        command.main(["export", str(tmp_path), "x.npz"])


def test_command_takes_lists_and_patterns(two_runs):
    assert command.main(["one", "size=[4,3]", "only=*hh*", "extent=[[-1,0.5],[0,1]]"]) == 0
    settings = two_runs[Path("one")].results["landscape"]["settings"]
    assert (settings["size"], settings["only"]) == ([4, 3], "*hh*")
    assert settings["extent"] == [[-1, 0.5], [0, 1]]
