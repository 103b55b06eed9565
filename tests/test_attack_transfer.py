"""Replayed texts, and sets of originals and edits."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from gruland import compose, runs
from gruland.attack import Contrast, EmbeddingPGD, HotFlip, Texts, Transfer, build, evaluate_run
from gruland.attack.victims import texts_of, victim_of
from gruland.data.overlap import letters, shared
from gruland.task import Task


@pytest.fixture(scope="module")
def two(make_run: Callable[..., runs.Run]) -> list[runs.Run]:
    """Runs of two seeds on the same reviews, attacked."""
    found = [make_run("regularizer=none", f"seed={seed}") for seed in (0, 1)]
    for run in found:
        evaluate_run(run, {"hotflip": HotFlip(reviews=16, similarity=-1.0, rate=0.5)})
    return found


def replay(two: list[runs.Run], **settings: Any) -> Transfer:
    return Transfer(sources=[str(run.path) for run in two], **settings)


def test_a_models_own_texts_do_to_it_what_they_did_and_anothers_are_judged_as_they_are(
    two: list[runs.Run],
) -> None:
    first, second = two
    entry = evaluate_run(second, {"transfer": replay(two)})["transfer"]
    own, other = (entry["sources"][run.path.name] for run in (second, first))
    before = second.results["attacks"]["hotflip"]["measures"]
    assert own["measures"]["accuracy_under_attack"] == before["accuracy_under_attack"]
    assert (own["own"], other["own"]) == (True, False)
    assert own["transfer"]["estimate"] == 1  # of the texts that turned it
    # There is one other model: its texts are the worst ones, where they are worse than the review itself.
    replayed = {row["id"]: row for row in rows_of(first, "hotflip")}
    for row in rows_of(second, "transfer"):
        assert row["attacked"] == replayed[row["id"]]["attacked"]
    assert entry["measures"] == other["measures"]
    turned = [
        row for row in replayed.values() if row["right_raw"] == "1.0" and row["right_attacked"] == "0.0"
    ]
    mine = {row["id"]: row for row in rows_of(second, "transfer")}
    tried = [row for row in turned if mine[row["id"]]["right_raw"] == "1.0"]
    assert other["transfer"] is None or other["transfer"]["reviews"] == len(tried)


def rows_of(run: runs.Run, attack: str) -> list[dict[str, str]]:
    with open(run.path / "attack" / attack / "texts.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_other_texts_are_replayed_anew(two: list[runs.Run]) -> None:
    first, second = two
    before = evaluate_run(second, {"transfer": replay(two)})["transfer"]["inputs"]
    assert evaluate_run(second, {"transfer": replay(two)})["transfer"]["inputs"] == before
    evaluate_run(first, {"hotflip": HotFlip(reviews=12, similarity=-1.0, rate=0.5)})
    after = evaluate_run(second, {"transfer": replay(two)})["transfer"]
    assert after["inputs"] != before
    assert after["reviews"] == 12  # those that both have


def test_what_cannot_be_replayed_is_refused(
    two: list[runs.Run], make_run: Callable[..., runs.Run], tmp_path: Path
) -> None:
    victim, texts = victim_of(two[0].model, two[0].data, two[0].path.resolve()), texts_of(two[0].data)
    with pytest.raises(ValueError, match=r"sources=.*expected folders"):
        Transfer()(victim, texts)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        Transfer(sources=["nowhere"])(victim, texts)
    with pytest.raises(ValueError, match="has texts of pwws: attack them with it first"):
        replay(two, of="pwws")(victim, texts)
    with pytest.raises(ValueError, match="the only texts of hotflip there are this run's own"):
        replay(two[:1])(victim, texts)
    shutil.copytree(two[1].path, copy := tmp_path / two[1].path.name)
    with pytest.raises(ValueError, match="are one configuration trained twice"):
        Transfer(sources=[str(two[1].path), str(copy)])(victim, texts)
    evaluate_run(two[0], {"pgd": EmbeddingPGD(reviews=6, steps=1, restarts=1)})
    with pytest.raises(ValueError, match="has no attacked texts: pgd cannot be replayed"):
        replay(two, of="pgd")(victim, texts)
    other = make_run("regularizer=none", "data.split_seed=5")
    with pytest.raises(ValueError, match="are none of this model's test reviews"):
        replay(two)(victim_of(other.model, other.data), texts_of(other.data))
    file = two[1].path / "attack" / "hotflip" / "texts.csv"
    kept = file.read_bytes()
    file.write_bytes(kept + b"1,more\n")
    with pytest.raises(ValueError, match="checksum differs"):
        replay(two)(victim, texts)
    file.write_bytes(kept)


def test_of_several_labels_a_text_is_shared_that_was_right_in_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Four reviews of two labels: both right before, then both, one or none.
    logits = {text: [4.0, 4.0] for text in "abcd"} | {"a!": [4.0, 4.0], "b!": [4.0, -4.0], "c!": [-4.0, -4.0]}

    class Labelling:
        task = Task("multilabel", ("x", "y"))

        def logits(self, texts: Sequence[str]) -> Tensor:
            return torch.tensor([logits[text] for text in texts])

    # The source was never right about d, and stood in no text.
    table = {
        "attacked": ["a!", "b!", "c!", "a!"],
        "right_first": [1.0, 1.0, 1.0, 0.5],
        "right_last": [0.5] * 4,
    }
    frame = pd.DataFrame(table, index=[1, 2, 3, 4])
    monkeypatch.setattr(Transfer, "_runs", lambda self: [SimpleNamespace(path=Path("other"))])
    monkeypatch.setattr(Transfer, "_table", lambda *_: frame)
    texts = Texts(np.arange(1, 5), list("abcd"), np.ones((4, 2), np.float32))
    found = Transfer()(Labelling(), texts).results["sources"]["other"]["transfer"]
    assert (found["estimate"], found["reviews"]) == (pytest.approx(2 / 3), 3)


# ---- contrast sets ----


def write_pairs(path: Path, texts: list[tuple[str, str]], label: int = 1) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["pair_id", "kind", "label", "text"])
        for pair, (original, edited) in enumerate(texts):
            writer.writerow([pair, "orig", (label + pair) % 2, original])
            writer.writerow([pair, "revised", (label + pair + 1) % 2, edited])


PAIRS = [
    (f"a {word} film", f"no {word} film at all") for word in ("good", "bad", "fine", "dull", "moving", "slow")
]


def test_originals_edits_and_both_of_a_pair_are_counted(
    make_run: Callable[..., runs.Run], tmp_path: Path
) -> None:
    run = make_run("regularizer=zoneout", "regularizer.rate=0.3")
    write_pairs(tmp_path / "pairs.csv", PAIRS)
    attack = Contrast(path=str(tmp_path / "pairs.csv"))
    victim = victim_of(run.model, run.data)
    results, columns = attack(victim, texts_of(run.data))
    right = {
        form: ((victim.logits(texts) >= 0).squeeze(1).numpy() == labels)
        for form, texts, labels in (
            ("original", [a for a, _ in PAIRS], np.array([1, 0] * 3)),
            ("edited", [b for _, b in PAIRS], np.array([0, 1] * 3)),
        )
    }
    measures = {name: value["estimate"] for name, value in results["measures"].items() if value}
    assert measures["clean_accuracy"] == right["original"].mean()
    assert measures["accuracy_under_attack"] == right["edited"].mean()
    assert measures["pair_accuracy"] == (right["original"] & right["edited"]).mean()
    assert columns["label"] == ["positive", "negative"] * 3
    assert columns["label_edited"] == ["negative", "positive"] * 3
    assert columns["right_edited"] == right["edited"].tolist()
    defended = Contrast(path=attack.path, draws=1, fresh=2)(victim, texts_of(run.data)).results
    assert defended["verdict"]["draws"] == 2
    entry = evaluate_run(run, {"contrast": attack})["contrast"]
    assert list(entry["inputs"]) == ["path"]


def test_a_model_that_saw_the_texts_is_refused_and_one_that_is_trained_without_is_not(
    make_run: Callable[..., runs.Run], tmp_path: Path
) -> None:
    run, file = make_run("regularizer=none"), tmp_path / "pairs.csv"
    train = run.data.splits["train"].texts
    seen = [(f"{text.upper()}!<br />", f"{text} otherwise") for text in train[:4]]
    write_pairs(file, [*seen, *PAIRS])
    attack = Contrast(path=str(file))
    with pytest.raises(ValueError, match=r"4 train reviews and 0 validation reviews .*data\.exclude="):
        attack(victim_of(run.model, run.data), texts_of(run.data))
    without = make_run("regularizer=none", f"data.exclude={file}")
    assert without.data.report["excluded"] == {"train": 4, "validation": 0}
    assert without.data.report["sizes"]["train"] == len(train) - 4
    assert not set(train[:4]) & set(without.data.splits["train"].texts)
    assert without.path.name != run.path.name
    assert attack(victim_of(without.model, without.data), texts_of(without.data)).results["reviews"] == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pair_id,kind,label\n", "has no column text"),
        ("pair_id,kind,label,text\n1,orig,1,a\n1,orig,1,b\n", "a pair has several texts of the kind orig"),
        (
            "pair_id,kind,label,text\n1,orig,1,a\n2,revised,0,b\n",
            "1 texts of the kind orig, 1 of revised, 0 pairs",
        ),
        (
            "pair_id,kind,label,text\n1,orig,x,a\n1,revised,y,b\n",
            "has the classes x, y: expected the model's",
        ),
        (
            "pair_id,kind,label,text\n1,orig,1,a\n1,revised,0\n",
            r"pairs\.csv, line 3 has 3 fields, the header 4",
        ),
        (
            "pair_id,kind,label,text\n1,orig,,a\n1,revised,0,b\n",
            r"pairs\.csv, line 2 has .* label '': expected both",
        ),
    ],
)
def test_a_file_that_holds_no_pairs_is_refused(
    two: list[runs.Run], tmp_path: Path, text: str, message: str
) -> None:
    run = two[0]
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        Contrast(path=str(tmp_path / "pairs.csv"))(victim_of(run.model, run.data), texts_of(run.data))


def test_a_model_of_several_labels_has_no_pairs(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.csv", PAIRS)
    victim: Any = SimpleNamespace(task=Task("multilabel", ("0", "1")))
    with pytest.raises(ValueError, match="expected a task of one label"):
        Contrast(path=str(tmp_path / "pairs.csv"))(victim, Texts(np.arange(0), [], np.zeros((0, 2))))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a file of originals and edits"):
        Contrast().inputs()
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Contrast(path=str(tmp_path / "none.csv")).inputs()


def test_the_same_letters_are_the_same_text() -> None:
    assert letters("It's <br/>GOOD, 10/10!") == "it s good"
    assert shared(["It's good", "10/10", "bad"], frozenset({"it s good", ""})).tolist() == [
        True,
        False,
        False,
    ]


def test_the_yaml_holds_the_defaults() -> None:
    found = build(compose("attack=[transfer,contrast]").attack)
    assert found["contrast"] == Contrast()
    assert found["transfer"] == Transfer(sources=[])
