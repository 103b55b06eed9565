"""What every attack reports, from answers written by hand; flags, thresholds and exit statuses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_victims import BINARY, Answering, AnsweringInDraws, Linear, labelled

from gruland import runs
from gruland.attack import Effort, HotFlip, Outcome, Texts, Threat, Victim, evaluate_run, flags, gate, verdict
from gruland.attack.run import _identity, is_done
from gruland.attack.verdict import Answers
from gruland.regularizers import mix
from gruland.task import Task

SURE, UNSURE = 4.0, -4.0


@dataclass(frozen=True)
class Exclaiming(Threat):
    """Puts a mark behind every review that the model gets right."""

    def __call__(self, victim: Victim, texts: Texts) -> Outcome:
        sample = self.sample(texts)
        right = victim.task.correct(
            self.ask(victim, sample.texts, sample.ids), torch.as_tensor(sample.labels)
        ).tolist()
        attacked = [text + "!" * int(ok) for text, ok in zip(sample.texts, right, strict=True)]
        effort = Effort([1 + 4 * int(ok) for ok in right], [int(ok) for ok in right], [2] * len(right))
        return self.judge(victim, sample, {"raw": sample.texts, "attacked": attacked}, effort)


def test_measures_count_what_stands_in_the_table() -> None:
    # Four positive reviews: one wrong from the start, of the three others two are turned.
    table = {
        "a": [SURE],
        "b": [SURE],
        "c": [SURE],
        "d": [UNSURE],
        "a!": [UNSURE],
        "b!": [SURE],
        "c!": [UNSURE],
    }
    outcome = Exclaiming()(Answering(table), labelled("abcd", [1] * 4))
    measures = outcome.results["measures"]
    assert {name: value["estimate"] for name, value in measures.items() if "calibration" not in name} == {
        "clean_accuracy": 0.75,
        "accuracy_under_attack": 0.25,
        "success": pytest.approx(2 / 3),
        "queries_mean": 5,
        "queries_median": 5,
        "words_changed": 0.5,
        "similarity": 0.5,
    }
    assert measures["success"]["reviews"] == 3
    assert measures["words_changed"]["reviews"] == 2
    assert outcome.results["curves"]["words_changed"]["accuracy"] == [0.75] * 10 + [0.25]
    assert outcome.results["verdict"]["draws"] == outcome.results["draws"] == 0
    assert outcome.results["flags"] == {}
    assert outcome.columns["right_raw"] == [1, 1, 1, 0]
    assert outcome.columns["right_attacked"] == [0, 1, 0, 0]
    assert outcome.columns["queries"] == [5, 5, 5, 1]


def test_a_random_model_is_judged_on_draws_that_the_attack_did_not_see() -> None:
    seed = mix(7, 1)
    fresh = {
        "a": [SURE] * 4,
        "b": [SURE, SURE, SURE, UNSURE],
        "a!": [UNSURE, SURE, SURE, SURE],
        "b!": [UNSURE] * 4,
    }
    own = {"a": [SURE] * 2, "b": [SURE] * 2, "a!": [UNSURE] * 2, "b!": [UNSURE] * 2}
    victim = AnsweringInDraws(fresh, own, seed)
    results = Exclaiming(draws=2, fresh=4, dropout_seed=7)(victim, labelled("ab", [1, 1])).results
    clean, attacked = (results["verdict"][kind] for kind in ("clean", "attacked"))
    assert results["verdict"]["draws"] == 4
    assert [clean[key]["estimate"] for key in ("accuracy", "majority", "worst")] == [7 / 8, 1, 1 / 2]
    assert [attacked[key]["estimate"] for key in ("accuracy", "majority", "worst")] == [3 / 8, 1 / 2, 0]
    losses = [np.log1p(np.exp(-logit)) for text in ("a!", "b!") for logit in fresh[text]]
    assert attacked["loss"]["estimate"] == pytest.approx(np.mean(losses))
    # Draw by draw: of 7 answers that were right, 4 are wrong afterwards: 1 of a, 3 of b.
    assert results["measures"]["success"]["estimate"] == pytest.approx(4 / 7)
    assert results["own_draws"]["success"]["estimate"] == 1
    assert results["own_draws"]["success_fresh"]["estimate"] == 0.5
    assert Exclaiming(draws=0, fresh=4)(victim, labelled("ab", [1, 1])).results["draws"] == 0


def test_an_attack_that_fits_its_draws_is_flagged() -> None:
    texts = [f"t{k}" for k in range(40)]
    marked = [text + "!" for text in texts]
    own = {key: [SURE] for key in texts} | {key: [UNSURE] for key in marked}
    fresh = {key: [SURE] for key in texts} | {
        text: [SURE if k % 2 else UNSURE] for k, text in enumerate(marked)
    }
    attack = Exclaiming(draws=1, fresh=1)
    found = attack(AnsweringInDraws(fresh, own, mix(0, 1)), labelled(texts, [1] * 40)).results["flags"]
    assert list(found) == ["overfits_its_draws"]
    assert (
        "100.0% on the attack's 1 draws of the masks and 50.0% on fresh ones" in found["overfits_its_draws"]
    )
    assert attack(AnsweringInDraws(own, own, mix(0, 1)), labelled(texts, [1] * 40)).results["flags"] == {}


def test_outputs_that_vary_are_flagged() -> None:
    class Restless(Linear):
        def logits(self, texts: Sequence[str]) -> Tensor:
            return torch.randn(len(texts), 1)

    texts = labelled(["good film"], [1])
    assert list(flags.outputs_vary(Restless(), texts, 0)) == ["outputs_vary"]
    assert flags.outputs_vary(Linear(), texts, 0) == {}


def test_a_search_that_finds_nothing_is_flagged_and_one_that_does_is_not() -> None:
    falling = {"accuracy": [0.9, 0.5, 0.1], "high": [0.95, 0.6, 0.2], "at": [1, 2, 4]}
    assert flags.budget_of_no_use({"queries": falling}) == {}
    for accuracies in ([0.9, 0.9, 0.9], [0.9, 0.5, 0.7]):
        curve = falling | {"accuracy": accuracies}
        assert list(flags.budget_of_no_use({"queries": curve})) == ["budget_of_no_use"]
    assert list(flags.gradients_vanish(np.array([1.0, 0.0, 2.0]))) == ["gradients_vanish"]
    assert flags.gradients_vanish(np.array([1.0, 2.0])) == {}


def test_a_black_box_attack_that_beats_the_white_box_one_is_flagged_on_it() -> None:
    import pandas as pd

    entries = {
        "gradient": {"knowledge": "gradients", "verdict": {"draws": 0}},
        "asking": {"knowledge": "queries", "verdict": {"draws": 0}},
    }
    strong, weak = pd.Series([0.0] * 20), pd.Series([0.0] * 10 + [1.0] * 10)
    found = flags.beaten_by_black_box(entries, {"gradient": weak, "asking": strong})
    assert list(found) == ["gradient"]
    assert "leaves 0.0% of 20 reviews right, gradient by gradients 50.0%" in found["gradient"]
    assert flags.beaten_by_black_box(entries, {"gradient": strong, "asking": weak}) == {}
    entries["asking"]["verdict"] = {"draws": 20}  # another model, as it were
    assert flags.beaten_by_black_box(entries, {"gradient": weak, "asking": strong}) == {}


def test_majority_of_several_labels_and_of_several_classes() -> None:
    several = Task("multilabel", ("a", "b"))
    outputs = torch.tensor([[[1.0, -1.0]], [[1.0, 1.0]], [[-1.0, -1.0]]])  # [S = 3, N = 1, K = 2]
    labels = torch.tensor([[1.0, 0.0]])
    answers = Answers.of(several, outputs, labels)
    assert answers.majority().tolist() == [1]
    assert answers.rights.tolist() == pytest.approx([2 / 3])
    three = Task("multiclass", ("a", "b", "c"))
    outputs = torch.tensor([[[9.0, 0, 0]], [[0, 9.0, 0]], [[0, 9.0, 0]]])
    assert Answers.of(three, outputs, torch.tensor([1])).majority().tolist() == [1]


def test_of_several_labels_a_text_is_turned_that_was_right_in_all_of_them() -> None:
    task, labels = Task("multilabel", tuple("abcde")), torch.ones(2, 5)
    right, nearly = torch.full((1, 2, 5), 4.0), torch.full((1, 2, 5), 4.0)
    nearly[0, :, 0] = -4.0
    whole, four_of_five = (Answers.of(task, outputs, labels).rights_SN for outputs in (right, nearly))
    assert verdict.success(four_of_five, four_of_five) is None
    found = [verdict.success(whole, attacked) for attacked in (whole, four_of_five)]
    assert [one and one["estimate"] for one in found] == [0, 1]


def test_similarity_is_that_of_the_characters() -> None:
    assert verdict.similarities(["kitten", "", "same"], ["sitting", "", "same"]).tolist() == pytest.approx(
        [1 - 3 / 7, 1, 1]
    )


ENTRY: dict[str, Any] = {
    "measures": {
        "accuracy_under_attack": {"estimate": 0.55, "low": 0.5, "high": 0.6},
        "success": {"estimate": 0.4, "low": 0.3, "high": 0.5},
    },
    "verdict": {"attacked": {"loss": {"estimate": 1.2, "low": None, "high": None}}},
    "flags": {},
}


def test_thresholds_and_flags_decide_the_status() -> None:
    def status(entry: dict[str, Any], **thresholds: float) -> int:
        said = gate.Verdict(thresholds)
        said.add("run", {"mine": entry})
        return said.status

    flagged = ENTRY | {"flags": {"gradients_vanish": "..."}}
    assert status(ENTRY, accuracy_under_attack=0.5, success=0.5, loss=1.5) == 0
    assert status(ENTRY, accuracy_under_attack=0.6) == gate.MISSED == 3
    assert status(ENTRY, success=0.3) == status(ENTRY, loss=1) == gate.MISSED
    assert status(flagged) == gate.FLAGGED == 4
    assert status(flagged, accuracy_under_attack=0.6) == gate.MISSED
    # Flags that are only reported are said, and decide nothing.
    reporting = gate.Verdict({}, flags="report")
    reporting.add("run", {"mine": flagged})
    assert (reporting.status, reporting.lines) == (0, ["run: mine: ..."])
    with pytest.raises(ValueError, match="flags=ignore: expected fail or report"):
        gate.Verdict({}, flags="ignore")
    both = gate.Verdict({"success": 0.3})
    both.add("run", {"mine": flagged, "other": ENTRY | {"measures": {}}})
    assert both.status == gate.MISSED
    assert both.lines == [
        "run: mine: gate.success=0.3: 0.4 [0.3, 0.5], expected at most 0.3",
        "run: mine: ...",
    ]


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ({"accuracy": 0.5}, "gate.accuracy=0.5: expected one of"),
        ({"success": "high"}, "gate.success=high: expected a"),
        ({"loss": math.nan}, "gate.loss=nan: expected a finite number"),
        ({"loss": math.inf}, "gate.loss=inf: expected a finite number"),
    ],
)
def test_wrong_thresholds(thresholds: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gate.Verdict(thresholds)


def test_a_threshold_that_no_attack_can_miss_is_refused() -> None:
    certificate = {"measures": {"certified_1": {"estimate": 0.4, "low": 0.3, "high": 0.5}}}
    said = gate.Verdict({"certified_1": 0.5})
    with pytest.raises(ValueError, match=r"gate\.certified_1=0\.5: of mine and plain none reports it"):
        said.add("run", {"mine": ENTRY, "plain": {"class": "mine.Attack"}})
    said.add("run", {"mine": ENTRY, "certificate": certificate})
    assert said.lines == ["run: certificate: gate.certified_1=0.5: 0.4 [0.3, 0.5], expected at least 0.5"]
    # Nobody asks in an attack that counts no queries; in another every review may be wrong as it is.
    with pytest.raises(ValueError, match=r"gate\.queries_mean=10: of mine none reports it"):
        gate.Verdict({"queries_mean": 10}).add("run", {"mine": ENTRY})
    wrong = Exclaiming()(Answering({"a": [UNSURE]}), labelled("a", [1])).results
    assert wrong["measures"]["queries_mean"] is wrong["measures"]["words_changed"] is None
    said = gate.Verdict({"queries_mean": 10})
    said.add("run", {"mine": wrong})
    assert said.status == 0


@pytest.mark.parametrize(("measure", "bound"), [("loss", 9.0), ("worst", 0.1)])
def test_what_is_no_number_keeps_no_threshold(measure: str, bound: float) -> None:
    judged = {"verdict": {"attacked": {measure: {"estimate": math.nan, "low": None, "high": None}}}}
    said = gate.Verdict({measure: bound})
    said.add("run", {"mine": ENTRY | judged})
    assert said.status == gate.MISSED


def test_an_edited_attack_of_ones_own_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from dataclasses import dataclass\n\n@dataclass(frozen=True)\nclass Own:\n    reviews: int = 1\n"
    (tmp_path / "attack_of_ones_own.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    attack = import_module("attack_of_ones_own").Own()
    before = _identity(attack)
    assert _identity(attack) == before
    (tmp_path / "attack_of_ones_own.py").write_text(f"{code}    # other texts\n")
    now = _identity(attack)
    assert now != before
    assert now | {"code": ""} == before | {"code": ""}
    assert not {"code", "revision"} & set(_identity(HotFlip()))


def test_a_revised_attack_is_another_one() -> None:
    before = _identity(Exclaiming())
    with mock.patch.object(Exclaiming, "revision", 2, create=True):
        assert _identity(Exclaiming()) == before | {"revision": 2}


def test_a_file_that_is_edited_during_an_attack_makes_its_results_old(
    make_run: Callable[..., runs.Run], tmp_path: Path
) -> None:
    file = tmp_path / "read.txt"
    file.write_text("as the attack read it")

    class Slow(Exclaiming):
        def inputs(self) -> dict[str, str]:
            return {"path": file.read_text()}

        def __call__(self, victim: Any, texts: Any) -> Any:
            file.write_text("edited meanwhile")
            return super().__call__(victim, texts)

    run = make_run("regularizer=none")
    (entry,) = evaluate_run(run, {"slow": Slow(reviews=2)}).values()
    assert entry["inputs"] == {"path": "as the attack read it"}
    assert not is_done(run, "slow", Slow(reviews=2))


@pytest.mark.parametrize("change", [{"reviews": 0}, {"draws": -1}, {"fresh": 0}, {"seed": True}])
def test_wrong_settings(change: dict[str, Any]) -> None:
    (key,) = change
    with pytest.raises(ValueError, match=f"{key}=.*expected a whole number"):
        Exclaiming(**change)


def test_binary_answers_have_two_classes() -> None:
    assert Exclaiming().ask(Linear(), ["good film"], np.array([0])).shape == (1, len(BINARY.classes))
