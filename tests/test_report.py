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
from contextlib import redirect_stderr, redirect_stdout
from copy import deepcopy
from functools import cache
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from scipy.stats import ttest_1samp

from gruland.config import compose
from gruland.landscape.pictures import Scale
from gruland.landscape.store import Store, load_surface
from gruland.report import collect, commands, defences, figures, flatness, write
from gruland.report.__main__ import main
from gruland.report.choice import choose
from gruland.report.collect import best_of, landscape_setting, studies
from gruland.report.columns import columns
from gruland.report.differences import Quantity, between_models, remark
from gruland.runs import Run, identity
from gruland.runs import name as run_name


class Cell(NamedTuple):
    """Regularizer, rate and hidden units of a model."""

    regularizer: str
    rate: float
    hidden_size: int


NONE, ZONEOUT, DROPCONNECT = Cell("none", 0.0, 128), Cell("zoneout", 0.1, 128), Cell("dropconnect", 0.05, 256)
NASTY = "<script>alert('x')</script> & <br /> a | b *c* _d_"


def scores(loss: float, accuracy: float = 0.8, count: int = 500) -> dict[str, Any]:
    return {"loss": loss, "accuracy": accuracy, "f1": accuracy - 0.01, "count": count, "loss_se": loss / 20}


composed = cache(compose)


def config_of(cell: Cell, seed: int, experiment: str, *overrides: str) -> Any:
    rate = [f"regularizer.rate={cell.rate}"] if cell.rate else []
    words = [f"regularizer={cell.regularizer}", *rate, f"model.hidden_size={cell.hidden_size}", *overrides]
    config = deepcopy(composed(*words))
    config.seed, config.experiment_name = seed, experiment
    return config


def results_of(
    cell: Cell, seed: int, test_loss: float, experiment: str, overrides: Any = ()
) -> dict[str, Any]:
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
        "name": run_name(config_of(cell, seed, experiment, *overrides)),
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
    results = results_of(cell, seed, test_loss, experiment, overrides)
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
            for rate in (0.05, 0.1):
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


def without_pictures(folder: Path) -> Tables:
    """The report of a folder; its pictures, which take most of the time, are not drawn."""

    def undrawn(key: str, title: str, caption: str, draw: Any) -> figures.Picture:
        return figures.Picture(key, title, caption, "<svg/>", b"")

    with mock.patch.object(figures, "picture", undrawn):
        return Tables(write(collect([folder]), folder).read_text())


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
    """The report of ``outputs``, made by the command."""
    target = tmp_path_factory.mktemp("report")
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        main([str(outputs), "--output", str(target)])
    failed = next((outputs / "reviews").glob("none-h512-*"))
    assert err.getvalue() == f"gruland: left out {failed}: failed: out of <memory>\n"
    assert out.getvalue() == f"report: {target / 'report.html'}\n"
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
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps({"landscape": landscape}))
        return Run(folder)

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
        "Zoneout 0.1\nH=128, the paper’s",
        "DropConnect 0.05\nH=256, the paper’s",
        "No dropout\nH=64, our best",
        "Zoneout 0.05\nH=128, our best",
        "DropConnect 0.05\nH=128, our best",
    ]
    assert page.row("s1-table-1", "Seeds") == ["0", "0, 1, 2", "0", "0", "0", "0"]
    best, last = (page.row("s1-table-1", f"Test, ours, {when}") for when in ("best epoch", "last epoch *"))
    assert best[0] == "0.528 ± 0.026"
    assert last[0] == "0.792 ± 0.040"
    validation = page.row("s1-table-1", "Validation, ours, best epoch *")
    assert validation[5] == "0.383 ± 0.019"


def test_three_seeds_get_their_mean_and_interval(page: Tables) -> None:
    values = [0.45, 0.5, 0.3]
    bounds = ttest_1samp(values, 0).confidence_interval(0.95)
    expected = f"0.450, 0.500, 0.300\nmean {np.mean(values):.3f} [{bounds.low:.3f}, {bounds.high:.3f}]"
    assert page.row("s1-table-1", "Test, ours, best epoch")[1] == expected


def test_tables_2_and_3_hold_the_adversarial_losses(page: Tables) -> None:
    none, zoneout, dropconnect, *others = page.tables["s1-table-2"][1:]
    assert none[2:] == ["3.000 ± 0.150", "0.700", "1.500 ± 0.075", "1.800 ± 0.090", "0"]
    assert (zoneout[2], dropconnect[2]) == ("2.000 ± 0.100", "1.500 ± 0.075")
    assert [row[2] for row in others] == ["not run"] * 3
    assert page.row("s1-table-3", "With dropout at test time, ours") == [
        "1.800 ± 0.090",
        "1.350 ± 0.068",
        "not run",
        "not run",
    ]
    assert page.row("s1-table-3", "Without dropout at test time, ours") == [
        "2.000 ± 0.100",
        "1.500 ± 0.075",
        "not run",
        "not run",
    ]
    raw = next(
        row
        for row in page.tables["s1-robustness"]
        if row[:3] == ["Zoneout 0.1, H=128, seed 0", "typing errors", "raw"]
    )
    assert raw[3:] == ["–", "1.000 ± 0.050", "0.700", "0.900 ± 0.045", "0.710", "0.111"]
    assert "44.7% of the words changed" in page.text


def test_the_data_and_what_was_compared_are_named(page: Tables) -> None:
    for fact in (
        "reviews: train 2,000 of 12,500, validation 1,000 of 6,250, test 1,000 of 6,250 reviews",
        "3 texts of one split stand in another, too",
        "glove.6B.50d, 50 dimensions; 98.7% of the words of the training reviews have one",
        "15 models (No dropout, Zoneout, DropConnect), 17 runs, seeds 0, 1, 2",
        "python 3.11.2, torch 2.13.0",
    ):
        assert fact in page.text


def test_every_run_is_listed_and_the_failed_one_with_its_error(page: Tables, outputs: Path) -> None:
    rows = page.tables["runs"][1:]
    assert {row[0] for row in rows} == {f"reviews/{path.name}" for path in (outputs / "reviews").iterdir()}
    names = {path.name.rpartition("-")[0]: path.name for path in (outputs / "reviews").iterdir()}
    assert page.row("runs", f"reviews/{names['none-h512-s0']}") == ["failed: out of <memory>"]
    assert page.row("runs", f"reviews/{names['none-h128-s0']}")[:5] == [
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
        for model in study.models:
            mean = np.mean(list(model.values("best", split).values()))
            assert f"{mean:.3f}" in printed
    assert len(printed) == 3 * 15


def test_a_printed_command_composes_the_runs_configuration(tmp_path: Path) -> None:
    overrides = (
        "experiment=smoke",
        "data.limit={train:10,validation:5,test:null}",
        "optimizer.lr=0.01",
        "data.split=random",
    )
    run = add_run(tmp_path, ZONEOUT, 3, experiment="mine", overrides=overrides)
    (study,) = studies(collect([tmp_path]))
    (command,) = commands.training(study, study.models)
    program, words = shlex.split(command)[:3], shlex.split(command)[3:]
    assert program == ["python", "-m", "gruland.train"]
    again, before = compose(*words), OmegaConf.load(run / "config.yaml")
    assert isinstance(before, DictConfig)
    assert identity(again) == identity(before)
    assert again.experiment_name == "mine"


def test_measuring_names_only_the_settings_that_differ(tmp_path: Path) -> None:
    run = add_run(tmp_path, NONE)
    add_surface(run, 1.0, size=5)
    assert commands.measuring("gruland.landscape", "landscape", collect([tmp_path]).runs) == [
        f"python -m gruland.landscape {run} size=5"
    ]


def test_typing_errors_are_named_where_the_run_was_trained_with_another_attack(tmp_path: Path) -> None:
    own = add_run(tmp_path, NONE)
    other = add_run(tmp_path, ZONEOUT)
    config = OmegaConf.load(other / "config.yaml")
    config.attack = {"hotflip": {"_target_": "gruland.attack.HotFlip"}}
    OmegaConf.save(config, other / "config.yaml")
    for run in (own, other):
        add_attack(run, 1.0, dropout=None)
        (entry,) = json.loads((run / "results.json").read_text())["attacks"].values()
        entry["settings"]["rate"] = 0.5
        update(run, attacks={"typing_errors": entry, "hotflip": {"settings": {"beam": 7}}})
    found = {shlex.split(line)[3]: shlex.split(line)[4:] for line in commands.measuring(
        "gruland.attack", "attack", collect([tmp_path]).runs
    )}  # fmt: skip
    assert found == {
        str(own): ["typing_errors.rate=0.5"],
        str(other): ["attack=typing_errors", "typing_errors.rate=0.5"],
    }


def test_one_run_alone_makes_a_report(tmp_path: Path) -> None:
    run = add_run(tmp_path, Cell("zoneout", 0.3, 32), test_loss=0.7)
    text = without_pictures(run)
    assert text.row("s1-table-1", "Test, ours, best epoch") == [
        "not run",
        "not run",
        "not run",
        "0.700 ± 0.035",
    ]
    assert "trained once" in text.text
    assert "No run has a loss surface yet" in text.text
    assert "No run has an adversarial evaluation yet" in text.text
    assert "nothing can be said" not in text.text  # there is nothing to compare it with
    assert "script" not in text.tags


def test_a_diverged_run_is_never_the_best(tmp_path: Path) -> None:
    add_run(tmp_path, Cell("none", 0.0, 64), test_loss=math.nan)
    add_run(tmp_path, Cell("none", 0.0, 256), test_loss=0.9)
    (study,) = studies(collect([tmp_path]))
    assert [model.place for model in study.best_models] == [("none", 0.0, 256)]
    page = without_pictures(tmp_path)
    (row,) = [row for row in page.tables["runs"] if row[0].startswith("reviews/none-h64-s0")]
    assert row[3] == "nan"
    assert row[-1] == "warning: diverged, the validation loss is no number"


def test_a_broken_surface_and_broken_texts_are_said_to_be(tmp_path: Path) -> None:
    run = add_run(tmp_path, NONE)
    add_surface(run, 1.0, size=5)
    add_attack(run, 1.0, dropout=None)
    shutil.rmtree(run / "landscape" / "surface.zarr" / "loss")
    (run / "attack" / "typing_errors" / "texts.csv").write_text("id,label\n1,x\n")
    page = without_pictures(tmp_path)
    assert f"1 surface could not be read, or changed since the run wrote it: {run.name}." in page.text
    assert "s1-examples" not in page.ids


def test_seeds_are_compared_and_other_reviews_are_not(tmp_path: Path) -> None:
    for seed in (0, 1):
        add_run(tmp_path, NONE, seed)
    add_run(tmp_path, NONE, 2, overrides=("data.limit=100",))
    add_run(tmp_path, NONE, 3, experiment="other")
    found = studies(collect([tmp_path]))
    assert [sorted(run.results["seed"] for run in study.runs) for study in found] == [[3], [0, 1], [2]]


def test_collect_reads_each_run_once_and_says_what_is_left_out_and_why(tmp_path: Path) -> None:
    good = add_run(tmp_path, NONE)
    bad = {
        "broken": lambda folder: (folder / "results.json").write_text("{"),
        "binary": lambda folder: (folder / "results.json").write_bytes(b"\xff\xfe\x00"),
        "newer": lambda folder: update(folder, schema=99),
        "poor": lambda folder: update(folder, metrics={"best": {}, "last": {}}),
        "worded": lambda folder: update(folder, training={"epochs": 6, "seconds": "long"}),
        "cut": lambda folder: (folder / "config.yaml").write_text("data: {_target_"),
        "edited": lambda folder: (folder / "config.yaml").write_text(
            (folder / "config.yaml").read_text().replace("num_layers: 2", "num_layers: 3")
        ),
        "command": lambda folder: (folder / "config.yaml").write_text(
            "embedding: {_target_: setuptools._distutils.spawn.spawn, cmd: [touch, hacked]}"
        ),
        "started": lambda folder: (folder / "results.json").unlink(),
    }
    for name, spoil in bad.items():
        shutil.copytree(good, tmp_path / name)
        spoil(tmp_path / name)
    shutil.copytree(good, tmp_path / ".hidden")
    found = collect([tmp_path, good, tmp_path / "reviews"])
    assert [run.path for run in found.runs] == [good]
    left_out = {path.name: why for path, why in found.left_out.items()}
    assert left_out.keys() == bad.keys()
    assert all("\n" not in why for why in left_out.values())
    for name, expected in {
        "broken": "is not valid JSON", "newer": "schema 99", "poor": "lacks metrics.best.train.loss",
        "worded": "training.seconds is 'long', expected a number", "cut": "config.yaml is not readable YAML",
        "edited": "config.yaml is not the run's own", "command": "is not among the classes",
        "started": "unfinished: no results.json",
    }.items():  # fmt: skip
        assert expected in left_out[name], name
    page = Tables(write(found, tmp_path / "out").read_text())
    listed = {row[0].rpartition("/")[2]: row[1] for row in page.tables["runs"] if len(row) == 2}
    assert listed == left_out


def test_a_second_run_of_a_model_and_seed_is_left_out(tmp_path: Path) -> None:
    add_run(tmp_path / "a", NONE)
    again = add_run(tmp_path / "b", NONE)
    found = collect([tmp_path])
    (study,) = studies(found)
    assert len(study.runs) == 1
    assert "the same model and seed as" in found.left_out[again]


# -- models, and the best of them


def lr(tmp_path: Path, *rates: float, seeds: Any = (0,), losses: Any = None) -> Any:
    for rate in rates:
        for seed in seeds:
            loss = 0.5 if losses is None else losses[rate][seed]
            add_run(tmp_path, NONE, seed, loss, overrides=[f"optimizer.lr={rate}"])
    return studies(collect([tmp_path]))


def test_what_was_swept_is_a_column_and_compared(tmp_path: Path) -> None:
    (study,) = lr(tmp_path, 0.1, 0.01, 0.001, losses={0.1: [0.9], 0.01: [0.4], 0.001: [0.5]})
    assert [model.label for model in study.models] == [
        f"No dropout, H=128, lr={r}" for r in (0.001, 0.01, 0.1)
    ]
    assert study.best_models[0].others == {"optimizer.lr": 0.01}
    file = write(collect([tmp_path]), tmp_path)
    page = Tables(file.read_text())
    assert page.tables["s1-models"][0][:5] == ["Regularizer", "Rate", "Units", "lr", "Seeds"]
    assert [row[3] for row in page.tables["s1-models"][1:]] == ["0.001", "0.01", "0.1"]
    assert "best of 3 is No dropout, H=128, lr=0.01" in page.text
    assert "learning rate" not in page.text, "which is no setting of the study"
    assert file.stat().st_size < 1_000_000
    assert "s2" not in page.ids


def test_defences_and_regularizers_are_one_table(tmp_path: Path) -> None:
    def add(cell: Cell, seed: int, loss: float, *words: str) -> None:
        run = add_run(tmp_path, cell, seed, loss, overrides=words)
        if words:
            model = results_of(cell, seed, loss, "reviews", words)["model"]
            update(run, model={**model, "defence": words[0].partition("=")[2]})
        add_attack(run, 2 * loss, dropout=None)
        attacks = json.loads((run / "results.json").read_text())["attacks"]
        update(run, attacks=attacks | {"typing_errors-last": attacks["typing_errors"]})

    for seed in range(2):
        add(NONE, seed, 0.5 + seed / 100)
        add(NONE, seed, 0.6 + seed / 100, "defence=fgm")
    add(ZONEOUT, 0, 0.4)
    add(ZONEOUT, 0, 0.3, "defence=word_deletion")
    add(NONE, 0, 0.9, "defence=fgm", "defence.epsilon=9")
    (study,) = studies(collect([tmp_path]))
    table = defences.table(study)
    assert table is not None
    assert table.columns[1:] == ["No dropout", "Zoneout"]
    cells = {row.head: list(row.cells) for row in table.rows}
    assert cells["Test loss, none"] == ["0.505", "0.400"]
    assert cells["Test loss, fgm"] == ["0.605", "not run"], "the weaker one has the lesser validation loss"
    assert cells["Test loss, word_deletion"] == ["not run", "0.300"]
    assert "Accuracy under typing errors, word_deletion" in cells
    assert not any("last" in head for head in cells), "the table is about the best epoch"
    others = {json.dumps(model.others) for model in study.models}
    assert json.dumps({"defence": "fgm", "defence.epsilon": 9}) in others
    assert not any("_target_" in text for text in others)
    defended = next(model for model in study.models if model.others["defence"] == "word_deletion")
    (line,) = commands.training(study, [defended])
    assert shlex.split(line).count("defence=word_deletion") == 1
    assert run_name(compose(*shlex.split(line)[3:])) in {run.path.name for run in study.runs}


def test_vectors_and_other_settings_of_the_same_reviews_are_compared(tmp_path: Path) -> None:
    add_run(tmp_path, NONE)
    other = add_run(tmp_path, NONE, overrides=["data.max_length=100"])
    data = json.loads((other / "results.json").read_text())["data"]
    update(other, data={**data, "fingerprint": "1" * 64})  # the words of a review are other ones
    (study,) = studies(collect([tmp_path]))
    assert len(study.models) == 2
    assert [list(model.others) for model in study.models] == [["data.max_length"]] * 2


def test_another_file_behind_the_same_path_is_a_study_of_its_own(tmp_path: Path) -> None:
    add_run(tmp_path, NONE)
    other = add_run(tmp_path, NONE, 1)
    data = json.loads((other / "results.json").read_text())["data"]
    update(other, data={**data, "fingerprint": "1" * 64})
    assert len(studies(collect([tmp_path]))) == 2
    with pytest.raises(
        ValueError, match="2 different data sets or parts of one, and their losses do not compare"
    ):
        best_of(collect([tmp_path]))


def test_the_best_is_chosen_by_the_mean_and_not_by_the_luckiest_seed(tmp_path: Path) -> None:
    (study,) = lr(tmp_path, 0.1, 0.01, seeds=(0, 1, 2), losses={0.1: [0.1, 0.9, 0.8], 0.01: [0.3, 0.3, 0.3]})
    lucky, steady = sorted(study.models, key=lambda model: -model.others["optimizer.lr"])
    choice = study.best["none"]
    assert choice.model is steady
    assert choice.by_seed == {0: lucky, 1: steady, 2: steady}
    page = without_pictures(tmp_path)
    assert page.tables["s1-choice"][1:] == [
        ["No dropout, seeds 0, 1, 2", steady.label, "0.270", "–", "–"],
        # 0.9 x 0.1 there, 0.9 x 0.85 on the others.
        ["seed 0 alone", lucky.label, "0.090", "0.765", "0.675"],
        ["seed 1 alone", steady.label, "0.270", "0.270", "0.000"],
        ["seed 2 alone", steady.label, "0.270", "0.270", "0.000"],
    ]


def test_a_model_that_was_trained_again_is_judged_by_what_its_rivals_have(tmp_path: Path) -> None:
    losses = {0.1: [0.3, 0.5, 0.5], 0.01: [0.4], 0.001: [0.45]}
    for rate, own in losses.items():
        for seed, loss in enumerate(own):
            add_run(tmp_path, NONE, seed, loss, overrides=[f"optimizer.lr={rate}"])
    (study,) = studies(collect([tmp_path]))
    choice = choose(study.models)
    assert (choice.seeds, choice.model.others["optimizer.lr"]) == ((0,), 0.1)


def test_the_command_best_prints_the_runs_of_the_chosen_models(tmp_path: Path, capsys: Any) -> None:
    from gruland.best import main as best

    lr(tmp_path, 0.1, 0.01, seeds=(0, 1), losses={0.1: [0.1, 0.9], 0.01: [0.3, 0.3]})
    add_run(tmp_path, ZONEOUT)
    best([str(tmp_path)])
    printed = capsys.readouterr().out.splitlines()
    seeds = [json.loads((Path(line) / "results.json").read_text())["seed"] for line in printed]
    assert seeds == [0, 1, 0]
    best(["--overrides", str(tmp_path)])
    assert capsys.readouterr().out.splitlines() == [
        "optimizer.lr=0.01 regularizer=none model.hidden_size=128",
        "regularizer=zoneout model.hidden_size=128 regularizer.rate=0.1 optimizer.lr=0.001",
    ]


def test_the_printed_overrides_train_the_same_model(tmp_path: Path, capsys: Any) -> None:
    """Also in what no other run differs from, and in a key that no file of the configuration has."""
    from gruland.best import main as best

    added = ["data.limit=500", "+trainer.accumulate_grad_batches=4"]
    folder = add_run(tmp_path, Cell("zoneout", 0.12345678, 128), overrides=added)
    best(["--overrides", str(tmp_path)])
    words = shlex.split(capsys.readouterr().out)
    assert "++trainer.accumulate_grad_batches=4" in words
    assert identity(compose(*words)) == identity(Run(folder).config)


# -- differences


def test_few_paired_trainings_are_said_to_show_nothing(tmp_path: Path) -> None:
    for seed in range(5):
        add_run(tmp_path, NONE, seed, 0.6 + seed / 100)
        add_run(tmp_path, ZONEOUT, seed, 0.3 + seed / 100)
    page = without_pictures(tmp_path)
    rows = page.tables["s1-losses-compared"]
    assert rows[1][:2] == ["Zoneout 0.1, H=128\nless No dropout, H=128", "test loss, best epoch, nats"]
    assert [row[3:] for row in rows[1:]] == [
        ["5", "0.062", "0.19", "too few trainings to tell"],
        ["5", "1", "1", "too few trainings to tell"],
        ["5", "0.062", "0.19", "too few trainings to tell"],
    ]
    assert "With 5 paired trainings the exact test cannot give less than p = 0.0625" in page.text
    assert "none is more than chance would give" in page.text[: page.text.index("Made by gruland")]


def test_enough_paired_trainings_show_a_difference(tmp_path: Path) -> None:
    for seed in range(8):
        add_run(tmp_path, NONE, seed, 0.6 + seed / 100)
        add_run(tmp_path, ZONEOUT, seed, 0.3 + seed / 90)
    page = without_pictures(tmp_path)
    assert [row[-1] for row in page.tables["s1-losses-compared"][1:]] == [
        "smaller: better",
        "not distinguishable",
        "smaller: better",
    ]
    opening = page.text[: page.text.index("Made by gruland")]
    assert (
        "More than chance, after correction for 3 tests: Zoneout 0.1, H=128 less No dropout, H=128" in opening
    )


def test_one_common_training_is_called_what_it_is(tmp_path: Path) -> None:
    add_run(tmp_path, NONE, 0, 0.6)
    add_run(tmp_path, ZONEOUT, 0, 0.3)
    page = without_pictures(tmp_path)
    assert page.tables["s1-losses-compared"][1][2:] == ["-0.300", "1", "–", "–", "undetermined"]
    assert "the table is about these two trainings" in page.text
    assert "No model shares two training seeds with the one that it is compared with" in page.text
    assert "distinguishable" not in page.text


def test_one_common_training_beside_others_is_called_independent_samples(tmp_path: Path) -> None:
    for cell, seeds in ((NONE, (0, 1, 2)), (ZONEOUT, (2, 3, 4))):
        for seed in seeds:
            add_run(tmp_path, cell, seed, 0.5 + seed / 100)
    (study,) = studies(collect([tmp_path]))
    rows = between_models(
        study, [(Quantity("x", "x", "", ""), lambda run: run.results["metrics"]["best"]["test"]["loss"])]
    )
    assert rows[0].differences["Zoneout 0.1, H=128"].interval.over == ("seeds",)
    (said,) = remark(rows)
    assert "over independent trainings: nothing is paired and nothing tested" in said


def test_models_of_one_regularizer_that_differ_in_its_settings_have_labels_and_commands_of_their_own(
    tmp_path: Path,
) -> None:
    for rate in (0.1, 0.3):
        add_run(tmp_path, Cell("awd", 0.0, 128), overrides=[f"regularizer.dropconnect={rate}"])
    (study,) = studies(collect([tmp_path]))
    assert [model.label for model in study.models] == [
        "Awd, H=128, dropconnect=0.1",
        "Awd, H=128, dropconnect=0.3",
    ]
    assert ["regularizer.dropconnect=0.3" in line for line in commands.training(study, study.models)] == [
        False,
        True,
    ]


def test_two_models_that_would_be_called_the_same_are_refused(tmp_path: Path) -> None:
    for name in ("locked", "recurrent"):
        folder = add_run(tmp_path, Cell(name, 0.1, 128))
        model = json.loads((folder / "results.json").read_text())["model"]
        update(folder, model={**model, "title": "Mine"})
    with pytest.raises(ValueError, match=r"both called Mine 0\.1, H=128: report them apart"):
        studies(collect([tmp_path]))


def test_the_papers_column_is_a_model_without_a_defence_or_says_so(tmp_path: Path) -> None:
    def defended() -> None:
        folder = add_run(tmp_path, ZONEOUT, 0, 0.1, overrides=["defence=fgm"])
        results = json.loads((folder / "results.json").read_text())
        update(folder, model={**results["model"], "defence": "fgm"})

    def label() -> str:
        (study,) = studies(collect([tmp_path]))
        return next(column.label for column in columns(study) if column.place == ZONEOUT)

    defended()
    assert label() == "Zoneout 0.1\nH=128, the paper’s with fgm, our best"
    add_run(tmp_path, ZONEOUT, 0, 0.5)
    assert label() == "Zoneout 0.1\nH=128, defence=none, the paper’s"


def test_the_flat_area_is_a_mean_over_surfaces_of_the_same_settings(tmp_path: Path) -> None:
    folders = [add_run(tmp_path, NONE, seed) for seed in range(3)]
    for folder, size in zip(folders, (5, 13, 13), strict=True):
        update(folder, landscape={"settings": {"size": size}})
    (study,) = studies(collect([tmp_path]))
    table = flatness.landscapes(study, dict(zip(study.runs, (0.9, 0.1, 0.3), strict=True)), 1.0)
    mean = table.rows[-1]
    assert (
        mean.head == "No dropout, H=128, mean of 2 trainings (1 with other settings of the surface left out)"
    )
    assert (
        mean.cells[-1] == "0.20 [0.00, 1.00]"
    )  # Student's t with 2 trainings says [-1.07, 1.47]: it is a share


def test_many_pairs_of_one_training_are_counted_in_place_of_listed(tmp_path: Path) -> None:
    for seed in range(2):
        add_run(tmp_path, NONE, seed, 0.6 + seed / 100)
        add_run(tmp_path, ZONEOUT, seed, 0.3 + seed / 90)
    for rate in (0.2, 0.3, 0.4, 0.5):
        add_run(tmp_path, Cell("zoneout", rate, 128), 0, 0.4)
    page = without_pictures(tmp_path)
    assert {row[0] for row in page.tables["s1-losses-compared"][1:]} == {
        "Zoneout 0.1, H=128\nless No dropout, H=128",
        "",
    }
    assert "Left out: 4 with one training in common with what they are compared with." in page.text


# -- texts that mean something to a browser, a shell or matplotlib

HOSTILE = "\n```\n<script>alert(1)</script>\n```\n$x_{$ 'q' \\ \"d\" ${seed}"


@pytest.mark.parametrize(
    "path",
    ["/d/IMDB Dataset.csv", "/d/imdb (1).csv", "/home/rené/x.csv", "/d/a=b.csv", "/d/日本.csv", "/d/it's,[a].csv",
     "/d/a\\'b.csv", "/d/<b>`c`.csv", "/d/new\nline.csv"],
)  # fmt: skip
def test_a_printed_command_runs_when_it_is_copied(tmp_path: Path, path: str) -> None:
    run = add_run(tmp_path, ZONEOUT)
    config = OmegaConf.load(run / "config.yaml")
    config.data.path = path
    (run / "config.yaml").write_text(OmegaConf.to_yaml(config))
    (study,) = studies(collect([tmp_path]))
    (command,) = commands.training(study, study.models)
    assert not set(command) & set("\n`<>")
    words = subprocess.run(
        ["bash", "-c", command.replace("python -m gruland.train", "printf '%s\\0'", 1)],
        capture_output=True, text=True, check=True,
    ).stdout.split("\0")[:-1]  # fmt: skip
    assert compose(*words).data.path == path


def test_what_was_typed_is_printed_again(tmp_path: Path) -> None:
    for seed in (0, 1):
        run = add_run(tmp_path, ZONEOUT, seed, overrides=["optimizer.lr=0.01"])
        (run / ".hydra").mkdir()
        typed = ["regularizer=zoneout", "++optimizer.lr=0.01", f"seed={seed}"]
        (run / ".hydra" / "overrides.yaml").write_text(OmegaConf.to_yaml(typed))
    (study,) = studies(collect([tmp_path]))
    assert commands.training(study, study.models) == [
        # With -m the grid's axes would be swept.
        "python -m gruland.train regularizer=zoneout ++optimizer.lr=0.01 model.hidden_size=128 regularizer.rate=0.1 "
        "seed=0,1 -m"
    ]


def test_hostile_texts_are_texts_on_both_pages_and_in_pictures(tmp_path: Path) -> None:
    run = add_run(tmp_path, Cell("zoneout", 0.1, 64), experiment="x")
    add_surface(run, 1.0, size=5)
    results = json.loads((run / "results.json").read_text())
    update(
        run,
        model={**results["model"], "regularizer": "$x_{$", "title": "$x_{$"},
        data={**results["data"], "source": HOSTILE},
    )
    update(add_run(tmp_path, NONE, experiment="y"), status="failed", error=HOSTILE)
    config = OmegaConf.load(run / "config.yaml")
    config.data.path = HOSTILE.replace("${seed}", "")
    (run / "config.yaml").write_text(OmegaConf.to_yaml(config))
    page = write(collect([tmp_path]), tmp_path)
    for text in (page.read_text(), page.with_suffix(".md").read_text()):
        assert "<script>alert" not in text
        assert "failed" in text
    assert "$x_{$ 0.1, H=64" in Tables(page.read_text()).text
    fences = [line for line in page.with_suffix(".md").read_text().splitlines() if line.startswith("```")]
    assert set(fences) == {"```"}
    assert len(fences) % 2 == 0


def test_pictures_and_tables_reach_the_dashboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: dict[str, Any] = {}
    run = SimpleNamespace(summary={}, log=logged.update, finish=lambda: logged.update(finished=True))
    fake = SimpleNamespace(
        Html=str, Settings=dict, init=lambda **_: run, login=lambda **_: False, Image=lambda image, caption: image.size,
        Table=lambda columns, data: [columns, *data],
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "wandb", fake)
    folder = add_run(tmp_path, NONE)
    add_surface(folder, 1.0, size=5)
    data = json.loads((folder / "results.json").read_text())["data"]
    update(add_run(tmp_path, ZONEOUT), data={**data, "source": "other reviews"})  # a study of its own
    write(collect([tmp_path]), tmp_path, wandb="study")
    assert logged["finished"]
    for key in ("s1", "s2"):
        assert any(name.startswith(f"Experiment reviews ({key})/") for name in logged)
    assert "one training" in run.summary["answer"]
    assert any(key.endswith("Table 1: mean train, validation and test loss") for key in logged)
    assert any(key.endswith("No dropout, H=128, seed 0") for key in logged)
    for table in (value for value in logged.values() if isinstance(value, list)):
        assert len({len(row) for row in table}) == 1
        assert len(set(table[0])) == len(table[0])


def test_a_long_review_is_shown(tmp_path: Path) -> None:
    run = add_run(tmp_path, NONE)
    add_attack(run, 1.0, dropout=None)
    with open(run / "attack" / "typing_errors" / "texts.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label", "raw", "stripped", "perturbed", "words", "changed"])
        writer.writerow([7, "positive", *["good " * 60_000] * 3, 60_000, 0])
    page = without_pictures(tmp_path)
    assert "good good … " in page.text


@pytest.mark.parametrize(
    ("loss", "expected"),
    [(383_070.0, "warning: diverged, guessing has a loss of 0.693"), (0.8, "warning: learned nothing, gue"), (0.7, "")],
)  # fmt: skip
def test_a_run_that_learned_nothing_is_marked(tmp_path: Path, loss: float, expected: str) -> None:
    run = add_run(tmp_path, NONE, test_loss=loss)
    data = json.loads((run / "results.json").read_text())["data"]
    update(run, data={**data, "class_counts": {"train": {"negative": 1000, "positive": 1000}}})
    page = without_pictures(tmp_path)
    assert page.tables["runs"][1][-1].startswith(expected)
    assert ("1 model learned nothing or diverged" in page.text) == bool(expected)


def test_the_flat_area_of_the_report_is_the_measure_s(tmp_path: Path) -> None:
    from gruland.landscape.measures import flat_area
    from gruland.stats import crossed_interval

    areas = []
    for seed, steepness in enumerate((0.5, 0.7, 0.6)):
        run = add_run(tmp_path, NONE, seed)
        add_surface(run, steepness, size=13)
        areas.append(flat_area(load_surface(run / "landscape" / "surface.zarr"), radius=1.0))
    page = without_pictures(tmp_path)
    rows = page.tables["s1-landscapes"][1:]
    assert [row[-1] for row in rows[:3]] == [f"{area:.3f}" for area in areas]
    assert rows[3][0] == "No dropout, H=128, mean of 3 trainings"
    assert rows[3][-1] == str(crossed_interval([[area] for area in areas]).within(0, 1))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_text("x"), "is a file"),
        (lambda path: path.mkdir(), "no run folder in"),
        (
            lambda path: update(add_run(path, NONE), status="failed", error="no\nmemory"),
            " can be read: failed: no memory",
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
