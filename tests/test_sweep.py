"""Which jobs a sweep's command line means, and what it says at the end."""

import errno
import json
import os
import re
import runpy
import sys
import time
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf

import hydra_plugins
from gruland import config, experiment, runs, sweep
from hydra_plugins.gruland_sweeper import GridSweeper


def sweeper(*arguments):
    # Hydra hands a loader to its plug-ins and has no public way to make one.
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.utils import create_config_search_path

    loader = ConfigLoaderImpl(create_config_search_path(str(config.CONF)))
    overrides = OverridesParser.create(loader).parse_overrides(list(arguments))
    fixed = [a for a, o in zip(arguments, overrides, strict=True) if not o.is_sweep_override()]
    cfg = loader.load_configuration("train", fixed, RunMode.MULTIRUN)
    cfg.hydra.job.config_name = "train"
    made = GridSweeper(dict(cfg.hydra.sweeper.params))
    made.hydra_context, made.config = HydraContext(config_loader=loader, callbacks=None), cfg
    return made


def cells(*arguments):
    """Regularizer, units, rate and seed of each job, as its words say; the first and the last are composed, too."""
    made = sweeper(*arguments)
    jobs = made.jobs(list(arguments))
    found = []
    for job in jobs:
        said = {"regularizer.rate": 0, "seed": 0} | dict(word.split("=", 1) for word in job)
        units, rate, seed = (said[key] for key in ("model.hidden_size", "regularizer.rate", "seed"))
        found.append((said["regularizer"], int(units), float(rate), int(seed)))
    for end in (0, -1):
        cfg = made.compose(jobs[end])
        regularizer = config.instantiate(cfg.regularizer)
        assert (regularizer.name, cfg.model.hidden_size, regularizer.rate, cfg.seed) == found[end]
    return found


def test_hydra_finds_the_sweeper_by_itself():
    names = {f"{found.__module__}.{found.__name__}" for found in Plugins.instance().discover(Sweeper)}
    assert config.OmegaConf.load(config.CONF / "hydra/sweeper/grid.yaml")._target_ in names


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


def test_defences_cross_the_grids_and_take_the_settings_that_they_have():
    words = ["defence=none,fgm", "regularizer=none,zoneout", "model.hidden_size=8"]
    made = sweeper(*words)
    jobs = made.jobs([*words, "regularizer.rate=0.1", "defence.epsilon=1,2"])
    found = [made.compose(job) for job in jobs]
    names = {(c.regularizer.get("rate"), c.defence.get("epsilon")) for c in found}
    assert len(found) == 6
    assert names == {(rate, epsilon) for rate in (None, 0.1) for epsilon in (None, 1, 2)}
    with pytest.raises(ValueError, match=r"defence\.epsilom=1: none of defence=none,fgm has the key"):
        made.jobs(["defence=none,fgm", "model.hidden_size=8", "defence.epsilom=1"])
    jobs = made.jobs(["defence=none,vat", "model.hidden_size=8", "defence.unlabelled={path:more.csv}"])
    assert (
        sum("defence.unlabelled={path:more.csv}" in job for job in jobs) == 1
    )  # null where nothing is given


def test_the_baseline_takes_no_rate():
    found = cells("regularizer=none,zoneout", "regularizer.rate=0.2,0.3", "model.hidden_size=16")
    assert sorted(found) == [("none", 16, 0.0, 0), ("zoneout", 16, 0.2, 0), ("zoneout", 16, 0.3, 0)]
    with pytest.raises(ValueError, match=r"regularizer\.rate"):
        config.compose("regularizer=none", "regularizer.rate=0.2")


def test_jobs_that_are_finished_count_as_done(tmp_path, capsys):
    configs = [config.compose(f"output_dir={tmp_path}", f"seed={seed}") for seed in range(4)]
    for cfg in configs[:3]:
        run = runs.prepare(cfg)
        run.update_results(**results(name=run.path.name), requested=runs.requested(cfg))
    run.update_results(requested={})  # another surface is asked for now
    with sweep._watched(configs):
        (run.path / "metrics.csv").write_text("epoch\n1\n2\n3\n4\n5\n")
        run.update_results(requested=runs.requested(configs[2]))
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "sweep: 4 jobs, 2 of them finished already"
    assert said[1].startswith(f"[3/4] {run.path.name}: validation loss 0.500 (test ")
    assert len(said[1].replace(run.path.name, "dropconnect-0.05-h128-s0-a8ee15fb")) <= 80
    assert said[-1].startswith("sweep: 4 jobs ended in")


def test_what_a_job_has_done_is_read_from_its_folder(tmp_path):
    cfg = config.compose(f"output_dir={tmp_path}", "trainer.max_epochs=4", "model.hidden_size=64")
    job = sweep._Job.of(cfg)
    run = runs.prepare(cfg)
    assert job.done == 0
    (run.path / "metrics.csv").write_text("epoch,train_loss\n1,0.7\n")
    assert job.done / job.work == pytest.approx(1 / 5)  # four epochs, and what follows them
    run.update_results(status="running")
    assert job.look() is None
    run.update_results(status="failed", error="no space left")
    assert job.look()["error"] == "no space left"
    assert job.look() is None  # it is told once
    assert job.done == job.work


def test_a_setting_that_only_some_regularizers_have_may_be_given():
    found = cells("regularizer=none,zoneout", "++regularizer.rate=0.2", "model.hidden_size=8")
    assert found == [("none", 8, 0.0, 0), ("zoneout", 8, 0.2, 0)]


def test_a_range_without_steps_is_refused():
    with pytest.raises(ValueError, match=r"interval\(0\.1,0\.2\): a grid has values, .*hydra/sweeper=optuna"):
        cells("optimizer.lr=interval(0.1,0.2)")


def test_two_jobs_that_would_share_a_folder_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text("text,label\n")
    configs = [config.compose(f"data.path={name}.csv") for name in "ab"]
    with pytest.raises(ValueError, match=r"would share the folder .*they differ in data\.path"):
        sweep.check(configs)


def test_a_launcher_that_cannot_open_a_log_file_says_the_systems_reason(monkeypatch, capsys):
    class Full:
        def launch(self, jobs, initial_job_idx):
            raise ValueError("Unable to configure handler 'file'") from OSError(errno.ENOSPC, "No space left")

    for name in (sweep._SWEEP, config.SWEEP_JOBS, sweep.QUIET):
        monkeypatch.setenv(name, "1")
    with pytest.raises(SystemExit):
        sweep.launch(Full(), [], [])
    assert "the launcher stopped: OSError: [Errno 28] No space left: make room" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("launcher", "threads"),
    [({"n_jobs": -1}, 1), ({"n_jobs": 4}, 2), ({"n_jobs": 100}, 1), ({"cpus_per_task": 3}, 3), ({}, 8),
     ({"ray": {"remote": {"num_cpus": 2}}}, 2), ({"ray": {}}, 1),
     ({"_target_": "a.SlurmLauncher", "cpus_per_task": None}, 8),
     ({"_target_": "a.LocalLauncher", "cpus_per_task": None}, 2)],
)  # fmt: skip
def test_the_cores_are_divided_by_what_the_launcher_runs_at_once(monkeypatch, launcher, threads):
    class Multirun:
        initialized = staticmethod(lambda: True)
        get = staticmethod(lambda: OmegaConf.create({"mode": RunMode.MULTIRUN, "launcher": launcher}))

    monkeypatch.setattr(experiment, "HydraConfig", Multirun)
    monkeypatch.setattr(config, "cores", lambda: 8)
    monkeypatch.setenv(config.SWEEP_JOBS, "3")
    assert experiment.threads_per_job() == threads


def test_what_becomes_of_slurm_jobs_is_read_from_the_queue():
    """``squeue`` prints a line a job of the user; one that it has forgotten ended long ago."""
    gruland_slurm = pytest.importorskip("hydra_plugins.gruland_slurm")
    pytest.importorskip("submitit", reason="needs the extra `slurm`")
    queue = gruland_slurm.Queue()
    for job in ("7_0", "7_1", "7_2", "7_3"):
        queue.register_job(job)
    queue._info_dict = queue.read_info(b"6 CANCELLED\n7_0 RUNNING\n7_1 COMPLETED\n7_3 REQUEUE_HOLD\n")
    assert [queue.get_state(f"7_{k}", "cache") for k in range(4)] == [
        "RUNNING", "COMPLETED", "CANCELLED", "REQUEUE_HOLD",
    ]  # fmt: skip
    assert [queue.is_done(f"7_{k}", "cache") for k in range(4)] == [False, True, True, False]


def test_a_slurm_sweep_without_submitit_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "hydra_plugins.hydra_submitit_launcher", None)
    found = next(path for path in hydra_plugins.__path__ if Path(path, "gruland_slurm.py").exists())
    launcher = runpy.run_path(str(Path(found, "gruland_slurm.py")))["SlurmLauncher"]
    with pytest.raises(ImportError, match=r"needs submitit: pip install 'gruland\[slurm\]'"):
        launcher(partition=None)


def results(loss=0.5, **changes):
    scores = {"loss": loss, "accuracy": 0.8, "f1": 0.81}
    return {
        "status": "finished",
        "name": "x",
        "seed": 0,
        "model": {"regularizer": "zoneout", "rate": 0.1, "hidden_size": 64},
        "data": {"class_counts": {"train": {"negative": 10, "positive": 10}}},
        "training": {"best_epoch": 3},
        "metrics": {"best": {"validation": scores, "test": scores}},
    } | changes


def written(folder, results, *overrides):
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(results))
    if overrides:
        OmegaConf.save(config.compose(*overrides), folder / "config.yaml")
    return folder


def test_the_table_names_the_best_cell_and_gives_errors_a_place_of_their_own(tmp_path, capsys):
    larger = {"regularizer": "zoneout", "rate": 0.1, "hidden_size": 128}
    a, b = written(tmp_path / "a", results(0.5)), written(tmp_path / "b", results(0.4, model=larger))
    c = written(tmp_path / "c", {"status": "failed", "error": "no space left"})
    sweep.print_table([a, b, c, tmp_path / "d"])
    lines = capsys.readouterr().out.splitlines()
    assert f"best cell: {b} (validation loss 0.400)" in lines
    assert "c: failed: no space left" in lines
    assert "d: not finished" in lines


def test_what_is_swept_is_a_column_and_the_table_fits_the_terminal(tmp_path, capsys):
    folders = [
        written(tmp_path / f"{lr}", results(lr), "regularizer=zoneout", f"optimizer.lr={lr}", "threads=1")
        for lr in (0.1, 0.2)
    ]
    for width in (80, 60, 40):
        sweep.print_table(folders, width)
        lines = capsys.readouterr().out.splitlines()
        start = next(i for i, line in enumerate(lines) if "lr" in line.split())
        header, *rows = lines[start : start + 3]
        assert max(map(len, lines[: start + 3])) <= width
        assert [row.split()[header.split().index("lr")] for row in rows] == ["0.1", "0.2"]


def test_settings_of_a_regularizer_and_a_defence_have_columns_and_make_cells(tmp_path, capsys):
    """The mean is over seeds alone; a setting's column has its whole key where the last part is another's name."""
    model = {"regularizer": "ar_tar", "rate": 0, "hidden_size": 64}
    tried = {(1.0, 0): 0.1, (2.0, 0): 0.5, (2.0, 1): 0.3}
    tried = [
        written(tmp_path / f"{alpha}-{seed}", results(loss, model=model, seed=seed), "regularizer=ar_tar",
                f"regularizer.alpha={alpha}", f"seed={seed}")
        for (alpha, seed), loss in tried.items()
    ]  # fmt: skip
    sweep.print_table(tried, 100)
    out = capsys.readouterr().out
    assert "alpha" in out
    assert f"best cell: {tried[0]} (validation loss 0.100)" in out
    model = {"regularizer": "zoneout", "rate": 0.1, "hidden_size": 64, "defence": "char_augment"}
    tried = [
        written(tmp_path / f"{rate}", results(model=model), "regularizer=zoneout", "defence=char_augment",
                f"defence.rate={rate}")
        for rate in (0.25, 0.75)
    ]  # fmt: skip
    sweep.print_table(tried, 120)
    out = capsys.readouterr().out
    assert re.search(r"regularizer +units +defence\.rate", out)
    assert re.search(r"zoneout +64 +0\.25", out)
    assert f"best cell: {tried[0]} (validation loss 0.500)" in out


def test_a_loss_worse_than_guessing_is_marked(tmp_path, capsys):
    sweep.print_table([written(tmp_path / "a", results(383070.0))])
    out = capsys.readouterr().out
    assert "!3.831e+05" in out
    assert "worse than guessing" in out
    sweep.print_table([written(tmp_path / "b", results(0.69))])
    assert "!" not in capsys.readouterr().out


def test_the_runs_of_another_sweeper_are_told_in_a_table_too(tmp_path, capsys):
    grid = config.OmegaConf.load(config.CONF / "hydra/sweeper/grid.yaml")._target_
    for target, told in (("hydra._internal.core_plugins.basic_sweeper.BasicSweeper", ["b"]), (grid, [])):
        sweeper = {"sweeper": {"_target_": target}, "sweep": {"dir": str(tmp_path / target)}}
        cfg = OmegaConf.create({"hydra": sweeper})
        sweep.Table().on_multirun_start(cfg)
        for name, age in (("a", 60), ("b", 0)):  # that of a minute before is not of this sweep
            (tmp_path / target).mkdir(exist_ok=True)
            record = written(tmp_path / target / name, results()) / ".hydra" / "overrides.yaml"
            record.parent.mkdir()
            record.touch()
            os.utime(record, (time.time() - age + 1,) * 2)
        sweep.Table.tell()
        sweep.Table.tell()  # once is enough
        found = re.findall(r"^run: (\S+)", capsys.readouterr().out, re.MULTILINE)
        assert [Path(run).name for run in found] == told
