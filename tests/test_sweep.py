"""Which jobs a sweep's command line means."""

import json

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext, RunMode

from gruland import config, runs, sweep


def sweeper(*arguments):
    loader = ConfigLoaderImpl(create_config_search_path(str(config.CONF)))
    overrides = OverridesParser.create(loader).parse_overrides(list(arguments))
    fixed = [a for a, o in zip(arguments, overrides, strict=True) if not o.is_sweep_override()]
    cfg = loader.load_configuration("train", fixed, RunMode.MULTIRUN)
    cfg.hydra.job.config_name = "train"
    made = sweep.GridSweeper(dict(cfg.hydra.sweeper.params))
    made.hydra_context, made.config = HydraContext(config_loader=loader, callbacks=None), cfg
    return made


def cells(*arguments):
    made = sweeper(*arguments)
    configs = [made._config(job) for job in made._jobs(list(arguments))]
    found = [(config.instantiate(c.regularizer), c) for c in configs]
    return [(r.name, c.model.hidden_size, r.rate, c.seed) for r, c in found]


GRID = {(units, rate) for units in (64, 128, 256) for rate in (0.05, 0.1, 0.5)}


@pytest.mark.parametrize("name", ["zoneout", "dropconnect"])
def test_the_papers_grids(name):
    found = cells(f"regularizer={name}")
    assert len(found) == 9
    assert {(units, rate) for _, units, rate, _ in found} == GRID
    assert {regularizer for regularizer, *_ in found} == {name}


def test_the_baselines_three_sizes():
    assert sorted(units for _, units, _, _ in cells("regularizer=none")) == [64, 128, 256]


def test_a_sweep_over_a_key_of_the_grid_replaces_that_axis():
    found = cells("regularizer=zoneout", "regularizer.rate=0.2,0.3")
    assert {(u, r) for _, u, r, _ in found} == {(u, r) for u in (64, 128, 256) for r in (0.2, 0.3)}


def test_a_fixed_key_of_the_grid_removes_that_axis():
    assert len(cells("regularizer=zoneout", "model.hidden_size=32")) == 3


def test_a_sweep_over_another_key_multiplies():
    found = cells("regularizer=none", "seed=1,2,3")
    assert len(found) == len(set(found)) == 9


def test_several_regularizers_run_the_grid_of_each_the_longest_first():
    found = cells("regularizer=none,zoneout,dropconnect")
    assert len(found) == len(set(found)) == 3 + 9 + 9
    assert {(u, r) for n, u, r, _ in found if n == "dropconnect"} == GRID
    units = [u for _, u, _, _ in found]
    assert units == sorted(units, reverse=True)


def test_the_baseline_takes_no_rate():
    found = cells("regularizer=none,zoneout", "regularizer.rate=0.2,0.3")
    assert sorted(found) == sorted(
        [("none", units, 0.0, 0) for units in (64, 128, 256)]
        + [("zoneout", units, rate, 0) for units in (64, 128, 256) for rate in (0.2, 0.3)]
    )
    with pytest.raises(ValueError, match=r"regularizer\.rate"):
        config.compose("regularizer=none", "regularizer.rate=0.2")


def test_jobs_that_are_finished_count_as_done(tmp_path, capsys):
    configs = [config.compose(f"output_dir={tmp_path}", f"seed={seed}") for seed in range(4)]
    for cfg in configs[:3]:
        run = runs.prepare(cfg)
        run.update_results(status="finished", requested=runs.requested(cfg))
    runs.Run(runs.folder(configs[2])).update_results(requested={})  # another surface is asked for now
    watch = sweep._Watch(configs)
    with watch:
        line = watch._line()
    assert line.startswith("sweep: 2 of 4 jobs, 50%")
    assert "left" not in line  # nothing was done yet that tells how long the rest takes
    assert "sweep: 4 jobs, 2 of them finished already" in capsys.readouterr().err


def test_the_table_names_the_best_cell_and_shows_failures(tmp_path, capsys):
    for name, loss in (("a", 0.5), ("b", 0.4)):
        scores = {"loss": loss, "accuracy": 0.8, "f1": 0.81}
        results = {
            "status": "finished",
            "seed": 0,
            "model": {"regularizer": "zoneout", "rate": 0.1, "hidden_size": 64},
            "training": {"best_epoch": 3},
            "metrics": {"best": {"validation": scores, "test": scores}},
        }
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(results))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "results.json").write_text(json.dumps({"status": "failed", "error": "no space left"}))
    sweep.print_table([tmp_path / name for name in "abcd"])
    out = capsys.readouterr().out
    assert f"best cell: {tmp_path / 'b'} (validation loss 0.400)" in out
    assert "no space left" in out
    assert "not finished" in out
