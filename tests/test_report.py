"""The report: what it finds, what its tables say, what a browser makes of it."""

from __future__ import annotations

import base64
import csv
import html
import json
import math
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from scipy.stats import ttest_1samp

from gruland.cells import Cell
from gruland.config import compose
from gruland.landscape.pictures import Scale
from gruland.landscape.store import Store, load_surface
from gruland.report import collect, commands, write
from gruland.report.__main__ import main
from gruland.report.collect import Run, landscape_setting, studies
from gruland.runs import identity

NONE, ZONEOUT, DROPCONNECT = Cell("none", 0.0, 128), Cell("zoneout", 0.1, 128), Cell("dropconnect", 0.05, 256)
NASTY = "<script>alert('x')</script> & <br /> a | b *c* _d_"


def scores(loss: float, accuracy: float = 0.8, count: int = 500) -> dict[str, Any]:
    return {"loss": loss, "accuracy": accuracy, "f1": accuracy - 0.01, "count": count, "loss_se": loss / 20}


def config_of(cell: Cell, seed: int, experiment: str, *overrides: str) -> Any:
    rate = [f"regularizer.rate={cell.rate}"] if cell.rate else []
    words = [
        f"regularizer={cell.regularizer}",
        *rate,
        f"model.hidden_size={cell.hidden_size}",
        f"seed={seed}",
    ]
    return compose(*words, f"experiment_name={experiment}", *overrides)


def results_of(cell: Cell, seed: int, test_loss: float, experiment: str) -> dict[str, Any]:
    """results.json of a finished run; validation loss 0.9 x test loss, at the last epoch test loss x 1.5."""
    splits = {"train": 0.5, "validation": 0.9, "test": 1.0}
    metrics = {
        when: {
            split: scores(test_loss * factor * (1.5 if when == "last" else 1))
            for split, factor in splits.items()
        }
        for when in ("best", "last")
    }
    return {
        "schema": 1,
        "gruland": "0.1.0",
        "name": f"{cell.regularizer}-{cell.rate:g}-h{cell.hidden_size}-s{seed}",
        "experiment": experiment,
        "status": "finished",
        "error": None,
        "model": {**cell._asdict(), "num_layers": 2, "parameters": 186241, "backend": "eager"},
        "seed": seed,
        "data": {
            "source": "reviews",
            "sizes": {"train": 2000, "validation": 1000, "test": 1000},
            "available": {"train": 12500, "validation": 6250, "test": 6250},
            "limited": True,
            "duplicates": {"across": {"train-validation": 1, "train-test": 2, "validation-test": 0}},
            "coverage": {"tokens": {"train": 0.987}},
            "vocabulary": {"name": "glove.6B.50d", "dimension": 50},
            "fingerprint": "0" * 64,
        },
        "training": {"epochs": 6, "best_epoch": 4, "seconds": 90.0},
        "metrics": metrics,
        "environment": {
            "python": "3.11.2",
            "torch": "2.13.0",
            "platform": "Linux",
            "device": "cpu",
            "threads": 1,
        },
    }


def add_run(
    root: Path,
    cell: Cell,
    seed: int = 0,
    test_loss: float = 0.5,
    *,
    experiment: str = "reviews",
    overrides: Any = (),
) -> Path:
    """A finished run's folder, without surface and adversarial evaluation."""
    results = results_of(cell, seed, test_loss, experiment)
    folder = root / experiment / results["name"]
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config_of(cell, seed, experiment, *overrides)))
    (folder / "results.json").write_text(json.dumps(results))
    rows = [
        f"{epoch},{test_loss * 1.2 / epoch},0.8,{test_loss * (0.9 + 0.05 * (epoch - 4) ** 2)},0.8,0.8,15.0"
        for epoch in range(1, 7)
    ]
    columns = "epoch,train_loss,train_accuracy,validation_loss,validation_accuracy,validation_f1,seconds"
    (folder / "metrics.csv").write_text("\n".join([columns, *rows]) + "\n")
    return folder


def update(folder: Path, **values: Any) -> None:
    path = folder / "results.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def add_surface(folder: Path, steepness: float, size: int = 21) -> None:
    axis = np.linspace(-1, 1, size)
    path, about = (
        folder / "landscape" / "surface.zarr",
        {"normalization": "filter", "reviews": 200, "examples": "200 training reviews"},
    )
    with Store(path, axis, axis, about, every=math.inf) as store:
        for row, beta in enumerate(axis):
            for column, alpha in enumerate(axis):
                bump = 0.2 * math.sin(3 * alpha) ** 2
                loss = 0.1 + steepness * (alpha**2 + 0.5 * beta**2 + bump)
                store.record((row, column), {"loss": loss, "accuracy": 0.9, "loss_se": 0.01})
    landscape = {
        "settings": {**config_of(NONE, 0, "x")["landscape"], "size": size},
        "center_loss": 0.1,
        "min_loss": 0.1,
        "max_loss": 0.1 + steepness * 1.5,
        "seconds": 3.0,
        "cells": size * size,
        "reviews": 200,
        "normalization": "filter",
    }
    landscape["settings"].pop("enabled")
    update(folder, landscape=landscape)


def add_attack(folder: Path, loss: float, *, dropout: float | None) -> None:
    """raw 0.5 x, stripped 0.6 x, perturbed 1 x ``loss``; with dropout ``dropout`` x that."""
    measured = {
        form: {
            "plain": scores(loss * factor, 0.7, 200),
            "dropout": None
            if dropout is None
            else {
                **scores(loss * factor * dropout, 0.71, 200),
                "draws": 5,
                "loss_of_mean_probability": 0.111,
            },
        }
        for form, factor in {"raw": 0.5, "stripped": 0.6, "perturbed": 1.0}.items()
    }
    settings = {"reviews": 200, "rate": 0.3, "mode": "sequence", "seed": 0, "draws": 5, "dropout_seed": 0}
    entry = {"settings": settings, "reviews": 200, "achieved_rate": 0.447, "scores": measured}
    update(folder, attacks={"typing_errors": entry})
    (folder / "attack" / "typing_errors").mkdir(parents=True)
    with open(folder / "attack" / "typing_errors" / "texts.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label", "raw", "stripped", "perturbed", "words", "changed"])
        writer.writerow([7, "positive", NASTY, "a fine film", "a fone film", 3, 1])
        writer.writerow([8, "negative", "dull " * 200, "dull " * 200, "dull " * 200, 200, 0])


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two grids, three sizes, three seeds of one cell, surfaces and attacks of three runs, a failed run."""
    root = tmp_path_factory.mktemp("outputs")
    folders = {}
    for size in (64, 128, 256):
        folders[Cell("none", 0.0, size)] = add_run(root, Cell("none", 0.0, size), 0, 0.4 + size / 1000)
        for kind in ("zoneout", "dropconnect"):
            for rate in (0.05, 0.1, 0.5):
                cell = Cell(kind, rate, size)
                folders[cell] = add_run(root, cell, 0, 0.4 + rate / 2 + abs(size - 128) / 1000)
    for seed, loss in ((1, 0.5), (2, 0.3)):
        add_run(root, ZONEOUT, seed, loss)
    for cell, steepness in ((NONE, 2.0), (ZONEOUT, 1.0), (DROPCONNECT, 0.5)):
        add_surface(folders[cell], steepness)
        add_attack(folders[cell], 1 + steepness, dropout=None if cell == NONE else 0.9)
    failed = add_run(root, Cell("none", 0.0, 512))
    update(failed, status="failed", error="out of <memory>")
    return root


class Tables(HTMLParser):
    """The page's tables by id, its visible text, ids, and what it links to."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: dict[str, list[list[str]]] = {}
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given[key] for key in ("src", "href", "xlink:href") if given.get(key)]
        if tag == "table":
            self._rows = self.tables.setdefault(given["aria-labelledby"], [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
        if tag in ("td", "th", "script", "style"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("td", "th"):
            self._rows[-1][-1] += data
        if not self._open or self._open[-1] not in ("script", "style"):
            self.text += data

    def row(self, table: str, head: str) -> list[str]:
        return next(row[1:] for row in self.tables[table] if row[0] == head)


def markdown_tables(text: str) -> list[list[list[str]]]:
    """The pipe tables of a Markdown page, escapes undone."""
    tables: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if not line.startswith("|"):
            tables += [[]] if tables[-1] else []
        elif not re.fullmatch(r"[|: -]+", line):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            tables[-1].append([plain(cell.strip()) for cell in cells])
    return [table for table in tables if table]


def plain(text: str) -> str:
    return html.unescape(re.sub(r"\\([\\`*_{}\[\]|~#$])", r"\1", text.replace("<br>", "\n")))


@pytest.fixture(scope="module")
def folder(outputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of ``outputs``, made by the command in a process of its own, which must not import torch."""
    target = tmp_path_factory.mktemp("report")
    code = (
        "import sys; from gruland.report.__main__ import main; main(sys.argv[1:]);"
        "sys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    )
    command = [sys.executable, "-c", code, str(outputs), "--output", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"report: {target / 'report.html'}\n"
    return target


@pytest.fixture(scope="module")
def page(folder: Path) -> Tables:
    return Tables((folder / "report.html").read_text())


def test_the_papers_figures_stand_in_tables_1_to_3(page: Tables) -> None:
    """As printed, typed here a second time."""
    assert page.row("s1-table-1", "Train, paper")[:3] == [
        "0.004, 0.000, 0.036",
        "0.011, 0.010",
        "0.002, 0.006, 0.005",
    ]
    assert page.row("s1-table-1", "Validation, paper")[:3] == [
        "0.344, 0.234, 0.283",
        "0.281, 0.262",
        "0.249, 0.284, 0.298",
    ]
    assert page.row("s1-table-1", "Test, paper")[:3] == [
        "0.572, 0.603, 0.572",
        "0.582, 0.504",
        "0.533, 0.464, 0.575",
    ]
    assert [row[1] for row in page.tables["s1-table-2"][1:4]] == ["1.208", "1.353", "0.544"]
    assert page.row("s1-table-3", "With dropout at test time, paper")[:2] == ["1.365", "0.537"]
    assert page.row("s1-table-3", "Without dropout at test time, paper")[:2] == ["1.353", "0.544"]


def test_surfaces_are_captioned_by_what_they_are_of(tmp_path: Path) -> None:
    def run(**landscape: Any) -> Run:
        return Run(tmp_path, "finished", None, {"landscape": landscape}, {})

    usual = run(split="train", objective="evaluation loss", plane="random")
    random = "two seeded random directions, normalized to the weights"
    assert landscape_setting([usual, usual]) == f"training reviews, evaluation mode; {random}"
    other = run(split="test", objective="training loss", draws=8, plane="trajectory")
    masks = "test reviews with masks as in training (mean of 8 draws)"
    assert landscape_setting([other]) == f"{masks}; a trajectory plane"
    both = f"training reviews, evaluation mode or {masks}; {random} or a trajectory plane"
    assert landscape_setting([usual, other]) == both


def test_table_1_holds_the_runs_losses(page: Tables) -> None:
    head = page.tables["s1-table-1"][0]
    assert head == [
        "",
        "No dropout\nH=128, the paper’s",
        "Zoneout 0.1\nH=128, the paper’s, our best",
        "DropConnect 0.05\nH=256, the paper’s",
        "No dropout\nH=64, our best",
        "DropConnect 0.05\nH=128, our best",
    ]
    assert page.row("s1-table-1", "Seeds") == ["0", "0, 1, 2", "0", "0", "0"]
    best, last = (page.row("s1-table-1", f"Test, ours, {when}") for when in ("best epoch", "last epoch *"))
    assert best[0] == "0.528 ± 0.026"
    assert last[0] == "0.792 ± 0.040"
    validation = page.row("s1-table-1", "Validation, ours, best epoch *")
    assert validation[4] == "0.383 ± 0.019"


def test_three_seeds_get_their_mean_and_interval(page: Tables) -> None:
    values = [0.45, 0.5, 0.3]
    bounds = ttest_1samp(values, 0).confidence_interval(0.95)
    expected = f"0.450, 0.500, 0.300\nmean {np.mean(values):.3f} [{bounds.low:.3f}, {bounds.high:.3f}]"
    assert page.row("s1-table-1", "Test, ours, best epoch")[1] == expected


def test_tables_2_and_3_hold_the_adversarial_losses(page: Tables) -> None:
    none, zoneout, dropconnect, *others = page.tables["s1-table-2"][1:]
    assert none[2:] == ["3.000 ± 0.150", "0.700", "1.500 ± 0.075", "1.800 ± 0.090", "0"]
    assert (zoneout[2], dropconnect[2]) == ("2.000 ± 0.100", "1.500 ± 0.075")
    assert [row[2] for row in others] == ["not run", "not run"]
    assert page.row("s1-table-3", "With dropout at test time, ours") == [
        "1.800 ± 0.090",
        "1.350 ± 0.068",
        "not run",
    ]
    assert page.row("s1-table-3", "Without dropout at test time, ours") == [
        "2.000 ± 0.100",
        "1.500 ± 0.075",
        "not run",
    ]
    raw = next(
        row for row in page.tables["s1-robustness"] if row[:2] == ["Zoneout 0.1, H=128, seed 0", "raw"]
    )
    assert raw[2:] == ["–", "1.000 ± 0.050", "0.700", "0.900 ± 0.045", "0.710", "0.111"]
    assert "44.7% of the words changed" in page.text


def test_the_data_and_what_was_compared_are_named(page: Tables) -> None:
    for fact in (
        "reviews: train 2,000 of 12,500, validation 1,000 of 6,250, test 1,000 of 6,250 reviews",
        "3 texts of one split stand in another, too",
        "glove.6B.50d, 50 dimensions; 98.7% of the words of the training reviews have one",
        "21 models (No dropout, Zoneout, DropConnect), 23 runs, seeds 0, 1, 2",
        "python 3.11.2, torch 2.13.0",
    ):
        assert fact in page.text


def test_every_run_is_listed_and_the_failed_one_with_its_error(page: Tables, outputs: Path) -> None:
    rows = page.tables["runs"][1:]
    assert {row[0] for row in rows} == {f"reviews/{path.name}" for path in (outputs / "reviews").iterdir()}
    assert page.row("runs", "reviews/none-0-h512-s0") == ["failed: out of <memory>"]
    assert page.row("runs", "reviews/none-0-h128-s0")[:5] == [
        "0",
        "4 of 6",
        "0.264 ± 0.013",
        "0.475 ± 0.024",
        "0.528 ± 0.026",
    ]


def test_markdown_has_the_same_tables(folder: Path, page: Tables) -> None:
    tables = [
        t
        for t in markdown_tables((folder / "report.md").read_text())
        if t[0] != ["Model", "Contours", "Surface"]
    ]
    padded = [[row + [""] * (len(table[0]) - len(row)) for row in table] for table in page.tables.values()]
    assert tables == padded


def test_markdown_shows_every_picture_beside_it(folder: Path) -> None:
    shown = set(re.findall(r"\]\((report_files/[^)]+)\)", (folder / "report.md").read_text()))
    assert shown == {f"report_files/{path.name}" for path in (folder / "report_files").iterdir()}
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in shown)


def test_reviews_are_shown_as_text_with_the_changed_words_marked(folder: Path, page: Tables) -> None:
    text = (folder / "report.html").read_text()
    assert NASTY in page.text
    assert NASTY not in text
    assert '<mark title="fine">fone</mark>' in text
    assert text.count("<mark ") == 1
    markdown = (folder / "report.md").read_text()
    assert "<script" not in markdown
    assert "a **fone** film" in markdown
    assert plain(next(line for line in markdown.splitlines() if "alert" in line)).strip(" >") == NASTY


def test_the_page_needs_nothing_outside_itself(folder: Path, page: Tables) -> None:
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert "link" not in page.tags
    assert len(page.ids) == len(set(page.ids))
    targets = {link[1:] for link in page.links if link.startswith("#")}
    assert targets <= set(page.ids)
    assert (folder / "report.html").read_text().count("plotly.js v") == 1


def test_surfaces_share_one_scale(folder: Path, outputs: Path) -> None:
    found = re.findall(
        r'<script type="application/json" data-surface="[^"]+">(.*?)</script>',
        (folder / "report.html").read_text(),
    )
    figures = [json.loads(text) for text in found]
    stores = [load_surface(path) for path in outputs.rglob("surface.zarr")]
    assert len(figures) == len(stores) == 3
    low, high = Scale.of(*stores).limits
    for figure in figures:
        (trace,), axis = figure["data"], figure["layout"]["scene"]["zaxis"]
        assert (trace["cmin"], trace["cmax"], *axis["range"]) == (low, high, low, high)
    tops = [
        np.frombuffer(base64.b64decode(f["data"][0]["z"]["bdata"]), f["data"][0]["z"]["dtype"]).max()
        for f in figures
    ]
    assert max(tops) == pytest.approx(high)
    assert sorted(tops, reverse=True) == tops  # the steepest, none, first


def test_the_heat_maps_hold_every_cell(folder: Path, outputs: Path) -> None:
    text = (folder / "report.html").read_text()
    figure = text[text.index('id="s1-grids"') : text.index("</figure>", text.index('id="s1-grids"'))]
    printed = re.findall(r">(\d\.\d{3})</text>", figure)
    (study,) = studies(collect([outputs]))
    for split in ("validation", "test"):
        for runs in study.cells.values():
            mean = np.mean([run.scores("best", split)["loss"] for run in runs])
            assert f"{mean:.3f}" in printed
    assert len(printed) == 3 * 21


def test_a_printed_command_composes_the_runs_configuration(tmp_path: Path) -> None:
    overrides = (
        "experiment=smoke",
        "data.limit={train:10,validation:5,test:null}",
        "optimizer.lr=0.01",
        "data.split=random",
    )
    run = add_run(tmp_path, ZONEOUT, 3, experiment="mine", overrides=overrides)
    (study,) = studies(collect([tmp_path]))
    (command,) = commands.training(study, [ZONEOUT])
    program, words = shlex.split(command)[:3], shlex.split(command)[3:]
    assert program == ["python", "-m", "gruland.train"]
    again, before = compose(*words), OmegaConf.load(run / "config.yaml")
    assert isinstance(before, DictConfig)
    assert identity(again) == identity(before)
    assert again.experiment_name == "mine"


def test_measuring_names_only_the_settings_that_differ(tmp_path: Path) -> None:
    run = add_run(tmp_path, NONE)
    add_surface(run, 1.0, size=5)
    assert commands.measuring("gruland.landscape", "landscape", collect([tmp_path])) == [
        f"python -m gruland.landscape {run} size=5"
    ]


def test_one_run_alone_makes_a_report(tmp_path: Path) -> None:
    run = add_run(tmp_path, Cell("zoneout", 0.3, 32), test_loss=0.7)
    text = Tables(write(collect([run]), run).read_text())
    assert text.row("s1-table-1", "Test, ours, best epoch") == [
        "not run",
        "not run",
        "not run",
        "0.700 ± 0.035",
    ]
    assert "trained once" in text.text
    assert "No run has a loss surface yet" in text.text
    assert "No run has an adversarial evaluation yet" in text.text
    assert "script" not in text.tags


def test_a_diverged_run_is_never_the_best(tmp_path: Path) -> None:
    add_run(tmp_path, Cell("none", 0.0, 64), test_loss=math.nan)
    add_run(tmp_path, Cell("none", 0.0, 256), test_loss=0.9)
    (study,) = studies(collect([tmp_path]))
    assert study.best == {"none": Cell("none", 0.0, 256)}
    page = Tables(write(collect([tmp_path]), tmp_path).read_text())
    assert page.row("runs", "reviews/none-0-h64-s0")[2] == "nan"


def test_a_broken_surface_and_broken_texts_are_said_to_be(tmp_path: Path) -> None:
    run = add_run(tmp_path, NONE)
    add_surface(run, 1.0, size=5)
    add_attack(run, 1.0, dropout=None)
    shutil.rmtree(run / "landscape" / "surface.zarr" / "loss")
    (run / "attack" / "typing_errors" / "texts.csv").write_text("id,label\n1,x\n")
    page = Tables(write(collect([tmp_path]), tmp_path).read_text())
    assert "1 surface could not be read." in page.text
    assert "s1-examples" not in page.ids


def test_seeds_are_compared_and_settings_are_not(tmp_path: Path) -> None:
    for seed in (0, 1):
        add_run(tmp_path, NONE, seed)
    add_run(tmp_path, NONE, 2, overrides=("data.limit=100",))
    add_run(tmp_path, NONE, 3, experiment="other")
    found = studies(collect([tmp_path]))
    assert [sorted(run.seed or 0 for run in study.runs) for study in found] == [[3], [0, 1], [2]]


def test_collect_reads_each_run_once_and_says_what_is_wrong(tmp_path: Path) -> None:
    good = add_run(tmp_path, NONE)
    for name, content in (
        ("broken", "{"),
        ("newer", '{"schema": 99}'),
        ("poor", '{"schema": 1, "status": "finished"}'),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(content)
    (tmp_path / "started").mkdir()
    (tmp_path / "started" / "config.yaml").write_text("seed: 0\n")
    shutil.copytree(good, tmp_path / ".hidden")
    runs = {run.path.name: run for run in collect([tmp_path, good, tmp_path / "reviews"])}
    assert {name: run.status for name, run in runs.items()} == {
        good.name: "finished",
        "broken": "unreadable",
        "newer": "unreadable",
        "poor": "unreadable",
        "started": "unfinished",
    }
    assert runs[good.name].error is None
    assert "schema 99" in (runs["newer"].error or "")
    assert "metrics.best.test.loss" in (runs["poor"].error or "")
    assert all("\n" not in (run.error or "") for run in runs.values())


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_text("x"), "is a file"),
        (lambda path: path.mkdir(), "no run folder in"),
        (
            lambda path: update(add_run(path, NONE), status="failed", error="no\nmemory"),
            "(the first: no memory)",
        ),
    ],
)
def test_bad_paths_give_one_line_and_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Any, expected: str
) -> None:
    make(tmp_path / "runs")
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "runs")])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("gruland: ")
    assert error.count("\n") == 1
    assert expected in error
    assert not list(tmp_path.rglob("report*"))


def test_an_output_that_is_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, target = add_run(tmp_path, NONE), tmp_path / "target"
    target.write_text("mine")
    with pytest.raises(SystemExit) as stop:
        main([str(run), "--output", str(target)])
    assert stop.value.code == 1
    assert "--output" in capsys.readouterr().err
    assert target.read_text() == "mine"


def test_a_failure_leaves_the_earlier_report_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = add_run(tmp_path, NONE)
    before = write(collect([run]), tmp_path).read_bytes()

    def full(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write(collect([run]), tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_the_same_runs_give_the_same_page(tmp_path: Path) -> None:
    run = add_run(tmp_path, NONE)
    add_surface(run, 1.0, size=5)
    assert (
        write(collect([run]), tmp_path / "a").read_bytes()
        == write(collect([run]), tmp_path / "b").read_bytes()
    )


def test_a_browser_without_a_network_draws_the_page(browser: Any, folder: Path, tmp_path: Path) -> None:
    tab = browser.new_page()
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    tab.on("request", lambda request: errors.append(request.url) if request.url.startswith("http") else None)
    tab.goto((folder / "report.html").as_uri())
    live = tab.locator(".live").first
    live.scroll_into_view_if_needed()
    tab.wait_for_function("plots.length === 3 && plots.every(plot => plot.querySelector('canvas'))")

    for name in ("s1-table-1", "s1-table-2", "s1-table-3", "s1-robustness", "s1-landscapes", "runs"):
        assert tab.locator(f"table[aria-labelledby='{name}'] tbody tr").count() >= 3
    assert tab.locator(".surface > svg").count() == 3
    assert tab.locator(".surface > svg path").count() > 30
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")

    live.screenshot(path=tmp_path / "surface.png")
    assert _colours(tmp_path / "surface.png") > 200
    tab.screenshot(path=tmp_path / "page.png")

    turn = "Plotly.relayout(plots[0], {'scene.camera': {eye: {x: 2, y: 0.5, z: 0.5}}})"
    tab.evaluate(turn)
    tab.wait_for_function("plots.every(plot => plot._fullLayout.scene.camera.eye.x === 2)")
    assert errors == []


def test_without_webgl_the_stills_are_shown(browser: Any, folder: Path) -> None:
    tab = browser.new_page()
    tab.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    tab.goto((folder / "report.html").as_uri())
    assert tab.locator(".still").first.is_visible()
    assert not tab.locator(".live").first.is_visible()


def _colours(path: Path) -> int:
    """How many different colours a picture has."""
    from PIL import Image

    with Image.open(path) as image:
        return len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0))
