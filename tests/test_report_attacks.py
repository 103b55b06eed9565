"""What the report says of attacks that report measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_attack_threat import SURE, UNSURE, Exclaiming
from test_report import NONE, ZONEOUT, Tables, add_attack, add_run, without_pictures
from toy_victims import Answering, AnsweringInDraws, labelled

from gruland.attack import score_forms
from gruland.attack.run import texts_path, write_texts
from gruland.files import read_json, write_json
from gruland.progress import Progress
from gruland.report import attacks, chapters, collect
from gruland.report.adversarial import compared_attacks, table_2
from gruland.report.attacks import between_trainings, certified, measured, transfers
from gruland.report.collect import studies
from gruland.report.examples import Examples, examples
from gruland.report.tables import Table, mean_of
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
def page(root: Path) -> Tables:
    """The curves of the attacks are drawn, those of the trainings are not."""
    return without_pictures(root)


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
    assert Progress._outer is None  # its line is closed, or later ones would stay within it
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


def entry(rate: float, inputs: str = "a", **measures: float | None) -> dict[str, Any]:
    """What an attack of some settings and files might have measured."""
    found = {
        key: None if value is None else {"estimate": value, "low": value, "high": value}
        for key, value in measures.items()
    }
    made_by = {"class": "Mine", "settings": {"rate": rate}, "inputs": {"path": inputs}}
    return {**made_by, "reviews": 10, "scores": {}, "measures": found, "curves": {}}


def test_only_what_met_the_same_attack_is_averaged_and_held_against_each_other(tmp_path: Path) -> None:
    for cell, seed, rate, inputs in (
        *((NONE, seed, 0.1, "a") for seed in range(3)),
        (ZONEOUT, 0, 0.1, "a"), (ZONEOUT, 1, 0.6, "a"), (ZONEOUT, 2, 0.1, "b"),
    ):  # fmt: skip
        folder = add_run(tmp_path, cell, seed)
        add_attack(folder, 1 + seed, dropout=None)
        (found,) = read_json(folder / "results.json")["attacks"].values()
        found["settings"]["rate"] = rate
        found["inputs"] = inputs
        # One training was never right: it has no success. Three of 0.9, 1 and 0.95 have an interval beyond 1.
        mine = entry(rate, inputs, clean_accuracy=(0.9, 1.0, 0.95)[seed], success=(0.5, 0.6, None)[seed])
        Run(folder).update_results(attacks={"typing_errors": found, "mine": mine})
    (study,) = studies(collect([tmp_path]))
    left_out = [
        f"Left out: 2 of 6 runs under {name}, which has other settings or files there than in most."
        for name in ("typing errors", "mine")
    ]
    assert [row.differences["Zoneout 0.1, H=128"].trainings for row in compared_attacks(study)] == [1, 1]
    second = table_2(study)
    assert [row.cells[1] for row in second.rows[:2]] == [
        "1.000, 2.000, 3.000\nmean 2.000 [-0.484, 4.484]",
        "1.000 ± 0.050",
    ]
    assert left_out[0] in second.how
    table = measured(study)
    assert table is not None
    assert table.how[-2:] == left_out
    means = [row for row in table.rows if "mean of" in row.head]
    assert [row.head for row in means] == ["mine\nNo dropout, H=128, mean of 3 trainings"]
    assert means[0].cells[1] == "95.0% [82.6, 100.0]"
    assert means[0].cells[3].startswith("55.0% [0.0, 100.0], of 2")
    accuracy = mean_of({0: 0.9, 1: 1.0, 2: 0.95}, share=True)
    assert (accuracy, mean_of({0: 0.9, 1: 1.0, 2: 0.95})) == ("0.950 [0.826, 1.000]", "0.950 [0.826, 1.074]")


def test_stopwords_of_another_list_make_another_attack(tmp_path: Path) -> None:
    for seed, words in enumerate(("own", "own", "NLTK's")):
        stand_ins = {"stopwords": words, "neighbours": f"by vectors {seed}"}
        Run(add_run(tmp_path, NONE, seed)).update_results(
            attacks={"mine": entry(0.1) | {"stand_ins": stand_ins}}
        )
    (study,) = studies(collect([tmp_path]))
    assert sorted(run.results["seed"] for run in study.alike("mine")) == [0, 1]


def test_models_that_read_each_others_texts_are_not_compared_by_them(tmp_path: Path) -> None:
    for cell, stood in ((NONE, 6), (ZONEOUT, 24)):
        folder = attacked(
            add_run(tmp_path, cell), mine=Answering(answers(stood)), transfer=Answering(answers(stood))
        )
        found = read_json(folder / "results.json")["attacks"]
        found["transfer"]["sources"] = {folder.name: {"own": True}, "other": {"own": False}}
        Run(folder).update_results(attacks=found)
    (study,) = studies(collect([tmp_path]))
    table = attacks.compared(study)
    assert table is not None
    assert [row.cells[0] for row in table.rows] == ["mine"]


def test_certificates_have_a_table_and_curves_and_kinds_of_noise_share_a_panel(tmp_path: Path) -> None:
    folder = add_run(tmp_path, NONE)
    shares = {"certified_0": 0.8, "certified_1": 0.5, "certified_4": 0.1}
    Run(folder).update_results(attacks={"certificate": entry(0.9, **shares), "mine": entry(0.1, success=0.5)})
    (study,) = studies(collect([tmp_path]))
    proved, table = certified(study), measured(study)
    assert proved is not None
    assert table is not None
    assert proved.columns[2:] == ["Right and\ncertified", "1 edit", "4 edits"]
    assert [(row.head.partition("\n")[0], list(row.cells)) for row in proved.rows] == [
        ("certificate", ["10", "80.0% [80.0, 80.0]", "50.0% [50.0, 50.0]", "10.0% [10.0, 10.0]"])
    ]
    assert [row.head.partition("\n")[0] for row in table.rows] == ["mine"]
    line = {"at": [0, 1], "accuracy": [0.9, 0.4], "low": [0.8, 0.3], "high": [1.0, 0.5]}
    panels = attacks._draw({"run": {"edits": line, "insertions": line}}).axes
    assert [axes.get_xlabel() for axes in panels] == [
        "certified edits of words",
        "certified insertions of words",
    ]
    noise = {"rate": line, "rate_delete": line, "rate_qwerty": line}
    mixed, by_swap = attacks._draw({"run": noise, "other": noise}).axes
    assert (len(mixed.lines), len([found for found in by_swap.lines if len(found.get_xdata())])) == (2, 4)


def test_each_attack_that_replays_texts_has_a_matrix_of_its_own(tmp_path: Path) -> None:
    folder = add_run(tmp_path, NONE)
    replayed = {"sources": {"run": {"transfer": {"estimate": 0.5, "low": 0.3, "high": 0.7}}}}
    entries = {name: {**entry(0.1, success=0.5), **replayed} for name in ("transfer", "of_pwws")}
    Run(folder).update_results(attacks=entries)
    (study,) = studies(collect([tmp_path]))
    found = transfers(study)
    assert [(table.key, len(table.columns)) for table in found] == [
        ("s1-transfer", 2),
        ("s1-transfer-of_pwws", 2),
    ]
    assert found[1].title.endswith(": of pwws")


def test_curves_are_drawn_and_changed_words_marked(page: Tables) -> None:
    assert {"s1-curve-mine", "s1-curve-other", "s1-curve-random"} <= set(page.ids)
    assert "accuracy against what the attack may spend" in page.text.lower()
    assert "s1-examples-mine" in page.ids
    assert "mark" in page.tags


def test_examples_are_those_that_were_turned(root: Path) -> None:
    (study,) = studies(collect([root]))
    shown = examples(study.runs[0], study, "key", 2, "mine")
    assert shown is not None
    assert [item.raw for item in shown.items] == ["a film 6", "a film 7"]  # the first six stood
    assert shown.caption.startswith("The first 2 reviews that it turned, ")
    assert "what No dropout, H=128, seed 0, gives" in shown.caption
    assert [(word.text, word.original) for word in shown.items[0].perturbed] == [
        ("a", None),
        ("film", None),
        ("6!", "6"),
    ]
    assert shown.items[0].probabilities == ["as written 0.982", "attacked 0.018"]
    assert examples(study.runs[0], study, "key", 2, "absent") is None


def test_attacks_are_compared_over_trainings_by_the_measure_of_each(tmp_path: Path) -> None:
    (single,) = studies(
        collect([attacked(add_run(tmp_path / "one", NONE), mine=Answering(answers(6))).parent])
    )
    assert between_trainings(single) is None
    for cell, stood in ((NONE, (6, 9, 12)), (ZONEOUT, (12, 18, 18))):
        for seed, count in enumerate(stood):
            attacked(add_run(tmp_path / "three", cell, seed), mine=Answering(answers(count)))
    (study,) = studies(collect([tmp_path / "three"]))
    table = between_trainings(study)
    assert table is not None
    (row,) = table.rows
    assert row.head == "Zoneout 0.1, H=128\nless No dropout, H=128"
    assert row.cells[0] == "accuracy under mine"
    # The differences are 0.2, 0.3 and 0.2; all flipped alike they are as far off in two of eight cases.
    assert row.cells[1].startswith("+0.23 [")
    assert row.cells[2:] == ["3", "0.25", "0.25", "too few trainings to tell"]
