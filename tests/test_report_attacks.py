"""What the report says of attacks that report measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_attack_threat import SURE, UNSURE, Exclaiming
from test_report import NONE, ZONEOUT, Tables, add_run
from toy_victims import Answering, AnsweringInDraws, labelled

from gruland.attack import score_forms
from gruland.attack.run import texts_path, write_texts
from gruland.files import read_json, write_json
from gruland.report import chapters, collect, write
from gruland.report.collect import studies
from gruland.report.examples import Examples, examples
from gruland.report.tables import Table
from gruland.runs import Run

TEXTS = [f"a film {place}" for place in range(30)]


def answers(stood: int) -> dict[str, list[float]]:
    """All reviews are right as they are; so many of them stand the attack."""
    marked = {f"{text}!": [SURE if place < stood else UNSURE] for place, text in enumerate(TEXTS)}
    return {text: [SURE] for text in TEXTS} | marked


def attacked(folder: Path, **victims: Any) -> Path:
    """A run with the results of attacks on toy victims."""
    entries = {}
    for name, victim in victims.items():
        attack = Exclaiming(draws=1, fresh=1)
        outcome = attack(victim, labelled(TEXTS, [1] * len(TEXTS)))
        write_texts(outcome.columns, texts_path(Run(folder), name))
        entries[name] = {"class": "Exclaiming", "settings": vars(attack), "seconds": 1.0, **outcome.results}
    Run(folder).update_results(attacks=entries)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("outputs")
    plain, zoneout = add_run(found, NONE), add_run(found, ZONEOUT)
    attacked(plain, mine=Answering(answers(6)), other=Answering(answers(30)))
    fresh = AnsweringInDraws(answers(24), answers(24), -1)
    attacked(zoneout, mine=Answering(answers(24)), random=fresh)
    results = read_json(zoneout / "results.json")
    cell = {"estimate": 0.5, "low": 0.3, "high": 0.7, "reviews": 20}
    results["attacks"]["transfer"] = {
        **results["attacks"]["mine"],
        "sources": {plain.name: {"transfer": cell}, zoneout.name: {"transfer": None}},
    }
    # A certificate judges its own votes: it has measures, and no verdict on fresh draws.
    results["attacks"]["certificate"] = {
        **{key: value for key, value in results["attacks"]["mine"].items() if key != "verdict"},
        "measures": {"certified_1": cell},
    }
    write_json(zoneout / "results.json", results)
    return found


@pytest.fixture(scope="module")
def page(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return Tables(write(collect([root]), tmp_path_factory.mktemp("report")).read_text())


def test_every_attack_stands_by_name_with_its_intervals(page: Tables) -> None:
    row = page.row("s1-attacks", "mine\nNo dropout, H=128, seed 0")
    assert row[0] == "30"
    assert row[1].startswith("100.0% [")
    assert row[2] == "20.0% [9.5, 37.3]"  # Wilson's of 6 in 30
    assert page.row("s1-attacks", "mine\nZoneout 0.1, H=128, seed 0")[2].startswith("80.0% [")
    random = page.row("s1-random", "random\nZoneout 0.1, H=128, seed 0")
    assert random[0] == "1 / 1"
    assert random[1].startswith("100.0% [")
    assert "→ 80.0% [" in random[1]


def test_models_are_compared_on_the_same_reviews(page: Tables) -> None:
    (row,) = page.tables["s1-attacks-paired"][1:]
    assert row[:3] == ["Zoneout 0.1, H=128, seed 0\nless No dropout, H=128", "mine", "30"]
    assert row[3].startswith("+0.60 [")
    assert float(row[4]) == pytest.approx(2 * 0.5**18, rel=0.1)  # 18 of 18 discordant reviews
    assert row[-1] == "better"


def test_what_was_replayed_is_a_matrix_and_flags_are_said(page: Tables) -> None:
    assert page.row("s1-transfer", "No dropout, H=128, seed 0") == ["50.0% [30.0, 70.0]"]
    assert page.row("s1-transfer", "Zoneout 0.1, H=128, seed 0") == ["–"]
    flag = page.row("s1-flags", "other\nNo dropout, H=128, seed 0")
    assert flag[0].startswith("budget of no use: the accuracy is 100.0%")


def test_an_attack_without_measures_has_its_scores_and_examples(tmp_path: Path) -> None:
    folder, texts = add_run(tmp_path, NONE), ["a fine film", "a dull one"]
    outcome = score_forms(
        Answering({text: [SURE] for text in [*texts, "film fine a", "one dull a"]}),
        labelled(texts, [1, 1]),
        {"raw": texts, "backwards": ["film fine a", "one dull a"]},
    )
    write_texts(outcome.columns, texts_path(Run(folder), "backwards"))
    Run(folder).update_results(attacks={"backwards": outcome.results})
    (study,) = studies(collect([tmp_path]))
    section = chapters._attacks(study, [])
    tables = {block.key: block for block in section.blocks if isinstance(block, Table)}
    rows = [row.cells[:2] for row in tables["s1-robustness"].rows]
    assert rows == [["backwards", "raw"], ["backwards", "backwards"]]
    assert not any("typing errors" in line.lower() for line in tables["s1-robustness"].how)
    assert [block.key for block in section.blocks if isinstance(block, Examples)] == ["s1-examples-backwards"]
    assert section.text == []


def test_curves_are_drawn_and_changed_words_marked(page: Tables) -> None:
    assert {"s1-curve-mine", "s1-curve-other", "s1-curve-random"} <= set(page.ids)
    assert "accuracy against what the attack may spend" in page.text.lower()
    assert "s1-examples-mine" in page.ids
    assert "mark" in page.tags


def test_examples_are_those_that_were_turned(root: Path) -> None:
    (study,) = studies(collect([root]))
    shown = examples(study.runs[0], "key", 2, "mine")
    assert shown is not None
    assert [item.raw for item in shown.items] == ["a film 6", "a film 7"]  # the first six stood
    assert [(word.text, word.original) for word in shown.items[0].perturbed] == [
        ("a", None),
        ("film", None),
        ("6!", "6"),
    ]
    assert shown.items[0].probabilities == ["as written 0.982", "attacked 0.018"]
    assert examples(study.runs[0], "key", 2, "absent") is None
