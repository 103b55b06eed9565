"""The comparison of models: which runs are one model, the table, and the whole command on smoke-sized runs."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import gruland
from gruland.files import read_json, write_json
from gruland.landscape import __main__ as command
from gruland.regularizers import LayerNorm
from gruland.report.collect import collect
from gruland.report.differences import Quantity, count_tests, remark, rows
from gruland.report.landscapes.chapter import read_chapter
from gruland.report.landscapes.compare import compare
from gruland.report.landscapes.figures import _grids
from gruland.report.landscapes.measurements import Bench, Measured
from gruland.report.models import Model, references
from gruland.report.models import models as models_of
from gruland.stats import crossed_interval, paired_difference
from gruland.surfaces import Surface
from gruland.train import train

SMALL = {"directions": 2, "size": 5, "reviews": 10, "curvature": 4}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two models of two seeds each, with their epochs."""
    folder = tmp_path_factory.mktemp("compared")
    for regularizer in ("none", "zoneout"):
        for seed in (0, 1):
            train(
                gruland.compose(
                    "experiment=smoke", f"regularizer={regularizer}", f"seed={seed}", f"output_dir={folder}",
                    "callbacks=[default,epoch_weights]", "trainer.max_epochs=3", "threads=1",
                    "landscape.enabled=false", "attack=none",
                )
            )  # fmt: skip
    return folder


def models(*folders):
    return models_of(collect(folders).runs)


def model(regularizer, rate, hidden_size, **others):
    factors = {"regularizer": regularizer, "regularizer.rate": rate, "model.hidden_size": hidden_size}
    return Model({**factors, **others}, {})


# -- models


def test_runs_that_differ_in_their_seed_are_one_model(trained):
    found = models(trained)
    assert [model.label for model in found] == ["No dropout, H=8", "Zoneout 0.1, H=8"]
    assert [list(model.runs) for model in found] == [[0, 1], [0, 1]]
    assert all(run.config.seed == seed for model in found for seed, run in model.runs.items())


def test_a_model_is_compared_with_the_one_of_its_size_that_has_no_regularizer():
    found = [
        model(kind, rate, size) for kind, rate in (("none", 0.0), ("zoneout", 0.1)) for size in (64, 256)
    ]
    found.append(model("dropconnect", 0.1, 128))
    assert {model.label: other.label for model, other in references(found).items()} == {
        "No dropout, H=256": "No dropout, H=64",
        "Zoneout 0.1, H=64": "No dropout, H=64",
        "Zoneout 0.1, H=256": "No dropout, H=256",
        "DropConnect 0.1, H=128": "No dropout, H=64",  # nothing of its size: the first
    }
    assert references(found[:1]) == {}
    swept = [model(kind, 0.0, 64, lr=lr) for kind in ("none", "zoneout") for lr in (0.1, 0.2)]
    assert references(swept)[swept[3]] is swept[1], "of the same learning rate"


def test_seeds_on_other_data_are_another_model(trained):
    folder = models(trained)[1].runs[1].path
    results = read_json(folder / "results.json")
    changed = {**results, "data": {**results["data"], "fingerprint": "of another file"}}
    write_json(folder / "results.json", changed)
    try:
        labels = [(model.label, list(model.runs)) for model in models(trained)]
    finally:
        write_json(folder / "results.json", results)
    own = results["data"]["fingerprint"][:8]
    assert sorted(labels[-2:]) == sorted(
        [(f"Zoneout 0.1, H=8, fingerprint={own}", [0]), ("Zoneout 0.1, H=8, fingerprint=of anoth", [1])]
    )


# -- the table

AREA = Quantity("area", "flat area", "1", "share", "flatter", "sharper")
PAIR = {"zoneout": "none"}


def measured(generator, *, shift, seeds=(0, 1, 2), directions=6):
    """Seeds and directions act on both models alike, so that pairing removes them."""
    by_seed = {seed: np.random.default_rng(seed).normal() for seed in range(9)}
    by_direction = np.random.default_rng(99).normal(size=directions)
    return {
        seed: (shift + by_seed[seed] + by_direction + generator.normal(scale=0.01, size=directions)).tolist()
        for seed in seeds
    }


def row(quantity, values, references):
    (found,) = rows([(quantity, values)], references)
    return found


def test_a_row_is_what_the_statistics_say():
    generator = np.random.default_rng(0)
    seeds = range(7)
    one, two = measured(generator, shift=0, seeds=seeds), measured(generator, shift=0.2, seeds=seeds)
    found = row(AREA, {"none": one, "zoneout": two}, PAIR)
    a, b = (np.array(list(values.values())) for values in (one, two))
    assert found.values == {"none": crossed_interval(a), "zoneout": crossed_interval(b)}
    assert found.differences["zoneout"].interval == paired_difference(b, a)
    assert found.verdict("zoneout") == "larger: flatter"
    assert row(AREA, {"none": two, "zoneout": one}, PAIR).verdict("zoneout") == "smaller: sharper"
    # Far smaller than what seeds and directions do: pairing finds it.
    assert found.values["none"].width > 1 > 0.2 > found.differences["zoneout"].interval.width


def test_an_interval_ends_where_no_value_can_be():
    share = Quantity("area", "flat area", "1", "share", bounds=(0.0, 1.0))
    values = {
        "none": {0: [0.9, 1.0], 1: [1.0, 0.8]},
        "few": {0: [0.1, 0.0], 1: [0.0, 0.0]},
        "one": {0: [0.5]},
    }
    found = row(share, values, {}).values
    free = row(AREA, values, {}).values
    assert free["none"].high > 1 > free["none"].low == found["none"].low
    assert found["none"].high == 1
    assert free["few"].low < 0 == found["few"].low
    assert found["one"] == free["one"]
    assert found["one"].width == math.inf, "it says nothing, and goes on doing so"


def test_no_difference_is_called_that():
    generator, seeds = np.random.default_rng(1), range(7)
    none, zoneout = (measured(generator, shift=shift, seeds=seeds) for shift in (0, 0.001))
    found = row(AREA, {"none": none, "zoneout": zoneout}, PAIR)
    assert not found.differences["zoneout"].significant
    assert found.verdict("zoneout") == "not distinguishable"


def test_three_trainings_are_too_few_and_the_table_says_how_many_it_takes():
    generator = np.random.default_rng(4)
    none, zoneout = measured(generator, shift=0), measured(generator, shift=5)
    found = rows([(AREA, {"none": none, "zoneout": zoneout})] * 12, PAIR)
    assert count_tests(found) == 12
    assert {item.verdict("zoneout", 12) for item in found} == {"too few trainings to tell"}
    assert "cannot give less than p = 0.25" in remark(found)[0]
    assert "It takes 6 paired trainings for one difference, 9 for the 12 of this table." in remark(found)[0]


def test_only_what_both_models_have_is_compared():
    generator = np.random.default_rng(2)
    one = measured(generator, shift=0, seeds=(0, 1, 2))
    two = measured(generator, shift=0.2, seeds=(1, 2, 3), directions=6)
    two[3] = two[3][:4]  # a comparison on its way
    found = row(AREA, {"none": one, "zoneout": two}, PAIR)
    a = np.array([one[seed][:4] for seed in (1, 2)])
    b = np.array([two[seed][:4] for seed in (1, 2)])
    assert found.differences["zoneout"].interval == paired_difference(b, a)


def test_one_common_training_is_about_these_two_and_gets_no_verdict():
    found = row(AREA, {"none": {0: [1.0, 1.1, 1.2]}, "zoneout": {0: [2.0, 2.1, 2.2]}}, PAIR)
    assert found.differences["zoneout"].interval.low > 0
    assert found.verdict("zoneout") == ""
    assert remark([found]) == [
        "Where two models have one training seed in common, the table is about these two trainings: it says nothing "
        "of how other trainings of the two models would differ."
    ]
    single = row(AREA, {"none": {0: [1.0]}, "zoneout": {0: [2.0]}}, PAIR)
    assert single.verdict("zoneout") == "undetermined"


def test_a_row_survives_being_written():
    generator = np.random.default_rng(3)
    found = row(AREA, {"none": measured(generator, shift=0), "zoneout": measured(generator, shift=1)}, PAIR)
    plain = json.loads(json.dumps(found.to_dict(1)))
    again = type(found).from_dict("area", plain)
    assert (again.values, again.differences, again.references) == (found.values, found.differences, PAIR)


# -- the pictures


def swept(*places):
    """A comparison of one training of each cell; a cell's loss at its origin is its rate."""
    from gruland.landscape import compute_surface

    models, surfaces = [], {}
    for number, place in enumerate(places):
        origin = {"w": torch.zeros(2)}

        def loss(weights, rate=place[1]):
            return torch.tensor([rate + float((weights["w"] ** 2).sum())] * 2), torch.ones(2)

        axes = [{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])}]
        models.append(model(*place, number=number))
        surfaces[models[-1].label] = {0: [compute_surface(loss, origin, axes, size=5)]}
    return Measured({}, models, surfaces)


def test_a_swept_grid_gets_a_sheet_with_every_cell_in_its_place():
    cells = [("zoneout", rate, size) for size in (64, 256) for rate in (0.1, 0.5)]
    found = list(_grids(swept(("none", 0.0, 64), ("none", 0.0, 256), *cells[:3])))
    assert [name for name, _, _ in found] == ["grid-zoneout"]  # no dropout has one rate: no grid
    axes = np.array(found[0][2].axes[:4]).reshape(2, 2)
    assert [panel.get_title() for panel in axes[0]] == ["rate 0.1", "rate 0.5"]
    assert [panel.get_ylabel() for panel in axes[:, 0]] == ["H = 64", "H = 256"]
    assert [[panel.texts[0].get_text() for panel in row] for row in axes] == [
        ["0.100", "0.500"],
        ["0.100", "not run"],
    ]


def test_models_that_share_a_cell_are_no_grid():
    cells = [("zoneout", rate, size) for size in (64, 256) for rate in (0.1, 0.5)]
    assert not list(_grids(swept(*cells, cells[0])))


# -- the whole


@pytest.mark.slow
def test_the_command_measures_writes_and_does_nothing_twice(trained, tmp_path, capsys, monkeypatch):
    words = [f"{key}={value}" for key, value in SMALL.items()]
    assert command.main(["compare", str(trained), *words, "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "comparison.md")
    page = (tmp_path / "out" / "comparison.md").read_text()
    for picture in re.findall(r"\]\((\S+\.png)\)", page):
        assert (tmp_path / "out" / picture).stat().st_size > 5000, picture
        assert (tmp_path / "out" / picture).with_suffix(".pdf").exists()
    assert (tmp_path / "out" / "surfaces.html").exists()
    assert (tmp_path / "out" / "comparison.html").exists()
    result = json.loads((tmp_path / "out" / "comparison.json").read_text())
    chapter = read_chapter(tmp_path / "out" / "comparison.json", "c1")
    assert "2 paired trainings cannot show any" in chapter.answer[0]
    assert {block.key for section in chapter.sections for block in section.blocks} >= {
        "c1-differences",
        "c1-contours",
    }
    assert set(result["models"]) == {"No dropout, H=8", "Zoneout 0.1, H=8"}
    assert {"flat_area", "roughness", "top_eigenvalue", "trace", "worst_sharpness"} <= set(result["measures"])
    assert set(result["barriers"]) == set(result["models"])
    for label, curve in result["area_curves"].items():
        area = result["measures"]["flat_area"]["values"][label]["estimate"]
        assert np.interp(0.1, curve["thresholds"], curve["estimate"]) == pytest.approx(area, abs=0.02)
        bounds = np.array([curve[key] for key in ("low", "estimate", "high")])
        assert (np.diff(bounds, axis=0) >= 0).all()
        assert bounds.min() >= 0
        assert bounds.max() <= 1  # a share

    # Planes as workers compute them, here in this process, are those of the comparison itself.
    for planes in trained.glob("*/*/landscape/comparison/planes-*"):
        shutil.rmtree(planes)
    with monkeypatch.context() as patch:
        patch.setattr("gruland.workers.Workers.alone", True)
        patch.setattr("gruland.landscape.pictures.write", lambda *_: None)
        compare(collect([trained]), {**SMALL, "workers": 2}, folder=tmp_path / "workers")
    assert json.loads((tmp_path / "workers" / "comparison.json").read_text()) == result

    def again(*_, **__):
        pytest.fail("computed again")

    monkeypatch.setattr("gruland.objective.evaluation.EvaluationLoss.__call__", again)
    monkeypatch.setattr("gruland.objective.evaluation.EvaluationLoss.on_plane", again)
    monkeypatch.setattr("gruland.objective.mean_loss.MeanLoss.__call__", again)
    monkeypatch.setattr("gruland.landscape.pictures.write", lambda *_: None)
    compare(collect([trained]), SMALL, folder=tmp_path / "again")
    assert json.loads((tmp_path / "again" / "comparison.json").read_text()) == result


def test_values_are_those_of_the_runs_own_planes(trained, tmp_path, monkeypatch):
    """The same numbers by hand: load, draw, evaluate, measure."""
    from gruland.data import subset
    from gruland.landscape import compute_surface, gates_of, random_directions
    from gruland.landscape.measures import loss_gap
    from gruland.objective import EvaluationLoss

    monkeypatch.setattr("gruland.landscape.pictures.write", lambda *_: None)
    monkeypatch.setattr(Bench, "curvature", lambda *_: None)  # as of models with a cell of their own
    compare(collect([trained]), {**SMALL, "barriers": False}, folder=tmp_path)
    page = json.loads((tmp_path / "comparison.json").read_text())
    assert page["text"][1].startswith("No Hessians and sharpnesses of No dropout, H=8, Zoneout 0.1, H=8")
    result = page["measures"]["loss_gap"]
    for model in models(trained):
        values = []
        for run in model.runs.values():
            split = run.data.splits["train"]
            rows = subset(split.labels, 10, 0)
            loss = EvaluationLoss(run.model, split.encoded.take(rows), split.labels[rows])
            parameters = run.model.trainable()
            for seed in (0, 1):
                directions = random_directions(parameters, seed, gates=gates_of(run.model))
                values.append(loss_gap(compute_surface(loss, parameters, directions, size=5), 1.0))
        assert result["values"][model.label]["estimate"] == pytest.approx(np.mean(values), rel=1e-6)


@pytest.fixture
def rough(monkeypatch):
    """Hessians are measured with few products: it is about which are computed, and when."""
    few = {"EIGENVALUES": 2, "PROBES": 2, "STEPS": 8, "DRAWS": 1, "PERTURBATIONS": 2}
    for name, number in few.items():
        monkeypatch.setattr(f"gruland.report.landscapes.hessians.{name}", number)


def test_a_model_with_a_cell_of_its_own_has_no_curvature(tmp_path, caplog):
    bench = Bench(SimpleNamespace(path=tmp_path), Surface(reviews_seed=0), "a run")
    bench.model = SimpleNamespace(regularizer=LayerNorm())
    assert bench.curvature(4) is None
    assert "a run: Layer norm has a cell of its own, no Hessian and no sharpness" in caplog.text


@pytest.mark.usefixtures("rough")
def test_a_changed_model_is_measured_anew(trained, tmp_path):
    """What is kept belongs to the weights that it was computed of."""
    from gruland.report.landscapes.measurements import benches

    settings = Surface(size=3, reviews=10, reviews_seed=0)
    named = [("a run", models(trained)[0].runs[0])]
    (bench,) = benches(named, settings)
    before = bench.curvature(4)
    (bench,) = benches(named, settings)
    with torch.no_grad():
        bench.model.head.weight.mul_(3.0)
    assert bench.curvature(4)["eigenvalues"] != before["eigenvalues"]
    (bench,) = benches(named, settings)
    assert bench.curvature(4)["eigenvalues"] == pytest.approx(before["eigenvalues"])


@pytest.mark.usefixtures("rough")
def test_what_does_not_depend_on_the_planes_is_taken_over(trained, monkeypatch):
    """Other planes: the Hessian and the barriers are read. Other reviews: both are computed."""
    from gruland.report.landscapes.measurements import benches

    runs = [(f"seed {seed}", run) for seed, run in models(trained)[0].runs.items()][:2]
    settings = Surface(size=3, reviews=9, reviews_seed=0)
    one, other = benches(runs, settings)
    curvature, barrier = one.curvature(4), one.barrier(other)
    computed = []
    for name in ("curvature", "mean_sharpness"):
        monkeypatch.setattr(
            f"gruland.report.landscapes.hessians.{name}",
            lambda *_, name=name: computed.append(name) or {},
        )
    monkeypatch.setattr(type(one), "_barrier", lambda *_: computed.append("barrier") or {})
    for change in ({"size": 5}, {"extent": 2.0}, {"seed": 3}, {"normalization": "unit"}):
        one, other = benches(runs, replace(settings, **change))
        assert (one.curvature(4), one.barrier(other)) == (curvature, barrier), change
    assert computed == []
    one, other = benches(runs, replace(settings, reviews=8))
    one.curvature(4), one.barrier(other)
    assert computed == ["mean_sharpness", "barrier"], "the Hessian has reviews of its own"
    one.curvature(5)
    assert computed[2:] == ["curvature"]
    one, other = benches(runs, replace(settings, reviews_seed=1))
    one.curvature(4), one.barrier(other)
    assert computed[3:] == ["curvature", "mean_sharpness", "barrier"]
    one, other = benches(runs, settings)
    one.evaluate.precision = "another"  # what auto came to on another machine
    one.curvature(4), one.barrier(other)
    assert computed[6:] == ["mean_sharpness", "barrier"], "the Hessian is in the model's own precision"


def test_a_part_of_the_plane_and_of_the_parameters(trained, tmp_path, monkeypatch):
    """Lists among the settings, planes of less than a ripple's reach, and models of different data."""
    monkeypatch.setattr("gruland.landscape.pictures.write", lambda *_: None)
    monkeypatch.setattr(Model, "data", property(lambda self: self.label))
    words = [
        "directions=1",
        "curvature=0",
        "size=9",
        "extent=0.2",
        "reviews=10",
        "barriers=false",
        "paths=false",
    ]
    words += ["only=[gru.weight_hh_*,head.*]", "normalization=unit"]
    assert command.main(["compare", str(trained), *words, "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "comparison.json").read_text())
    assert result["settings"]["only"] == ["gru.weight_hh_*", "head.*"]
    page = (tmp_path / "comparison.md").read_text()
    assert "extent 0.2: flat areas are of the disc of that radius" in page
    assert "The models differ in their data" in page


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("directions=0", "directions=0: expected a whole number of at least 1"),
        ("curvature=-1", "curvature=-1: expected a whole number of at least 0"),
        ("size=4", "size=4: expected an odd number from 5 on"),
        ("extent=[[-1,2],[-1,1]]", "extent=[[-1, 2], [-1, 1]]: expected a positive number"),
        ("direktions=3", "direktions is unknown: did you mean directions?"),
        ("plane=hessian", "plane is unknown: did you mean"),
        ("size=[5,7]", "size=[5, 7]: expected an odd number"),
        ("paths=3", "paths=3: expected true or false"),
        ("reviews=0", "landscape.reviews=0"),
    ],
)
def test_wrong_settings_are_answered_with_a_line(trained, tmp_path, override, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        command.main(["compare", str(trained), override, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_no_run_there(tmp_path):
    with pytest.raises(ValueError, match="no run folder in"):
        command.main(["compare", str(tmp_path)])


def test_what_is_kept_of_a_run_is_computed_again_where_it_is_damaged(tmp_path, caplog):
    bench = Bench(SimpleNamespace(path=tmp_path), None, "a run")
    bench.evaluate = SimpleNamespace(about={"data": "of these reviews"})
    file, computed = tmp_path / "barrier.json", []

    def kept(identity="these weights"):
        return bench._kept(file, identity, lambda: computed.append(1) or {"loss": 0.25})

    assert [kept(), kept(), kept("other weights"), kept("other weights")] == [{"loss": 0.25}] * 4
    assert len(computed) == 2
    file.write_text(file.read_text().replace("0.25", "0.75"))
    assert kept("other weights") == kept("other weights") == {"loss": 0.25}
    assert len(computed) == 3
    assert f"{file} cannot be read" in caplog.text
