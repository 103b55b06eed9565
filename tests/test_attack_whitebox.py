"""HotFlip and projected gradients against closed forms, loops and the models that they attack."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F
from toy_victims import WORDS, Linear, labelled, reviews

from gruland import compose, runs
from gruland.attack import EmbeddingPGD, HotFlip, build, evaluate_run
from gruland.attack.__main__ import main as command
from gruland.attack.base import OpenVictim
from gruland.attack.embedding_pgd import project, steepest
from gruland.attack.gradients import margins, slope
from gruland.attack.hotflip import _nearest, _one_character
from gruland.attack.victims import texts_of, victim_of
from gruland.callbacks import AdversarialEvaluation, LossSurface
from gruland.regularizers import draws_of
from gruland.surfaces import Surface
from gruland.task import Task


@pytest.fixture(scope="module")
def zoneout(make_run: Callable[..., runs.Run]) -> runs.Run:
    return make_run("regularizer=zoneout", "regularizer.rate=0.3")


@pytest.fixture(scope="module")
def victim(zoneout: runs.Run) -> OpenVictim:
    found = victim_of(zoneout.model, zoneout.data)
    assert isinstance(found, OpenVictim)
    return found


def logits_of(probabilities: list[float], labels: np.ndarray) -> np.ndarray:
    """The binary logits that give the labels these probabilities."""
    p = np.array(probabilities)
    return np.log(p / (1 - p)) * (2 * labels - 1)


# ---- what is raised ----


def test_the_margin_is_how_far_the_best_wrong_answer_lies_above() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [4.0, -1.0, 0.0]])
    assert margins(Task("multiclass", ("a", "b", "c")), logits, torch.tensor([1, 2])).tolist() == [-1, 4]
    assert margins(
        Task("binary", ("a", "b")), torch.tensor([[2.0], [2.0]]), torch.tensor([1, 0])
    ).tolist() == [-2, 2]
    several = Task("multilabel", ("a", "b"))
    assert margins(several, torch.tensor([[2.0, -3.0]]), torch.tensor([[1.0, 1.0]])).tolist() == [3]


def test_the_gradient_is_that_of_finite_differences_and_none_reaches_the_weights(
    victim: Any, zoneout: runs.Run
) -> None:
    tokens_BT, lengths_B = zoneout.data.encode(["good film never", "bad"]).padded()
    labels, embedded = torch.tensor([1, 0]), F.embedding(tokens_BT, victim.vectors)
    found = slope(victim, embedded, tokens_BT, lengths_B, labels, [None])

    def margin(moved: Tensor) -> Tensor:
        logits = victim.logits_of_vectors(moved, tokens_BT, lengths_B)
        return margins(victim.task, logits, labels).sum()

    for place in [(0, 0, 0), (0, 2, 3), (1, 0, 5)]:
        step = torch.zeros_like(embedded)
        step[place] = 0.05
        with torch.no_grad():
            numeric = (margin(embedded + step) - margin(embedded - step)) / 0.1
        assert float(found.gradient_BTD[place]) == pytest.approx(float(numeric), rel=2e-2, abs=2e-5)
    assert found.gradient_BTD[1, 1:].abs().max() == 0  # padding
    assert all(weight.grad is None and weight.requires_grad for weight in zoneout.model.trainable().values())


def test_several_draws_give_the_mean_of_their_slopes(victim: Any, zoneout: runs.Run) -> None:
    tokens_BT, lengths_B = zoneout.data.encode(["good film never", "bad plot"]).padded()
    labels, embedded = torch.tensor([1, 0]), F.embedding(tokens_BT, victim.vectors)
    draws = draws_of(5, 3, np.array([11, 12]))
    together = slope(victim, embedded, tokens_BT, lengths_B, labels, draws)
    alone = [slope(victim, embedded, tokens_BT, lengths_B, labels, [draw]) for draw in draws]
    for name in together._fields:
        mean = torch.stack([getattr(one, name) for one in alone]).mean(0)
        torch.testing.assert_close(getattr(together, name), mean)
    assert (alone[0].margins_B != alone[1].margins_B).all()


def test_the_probabilities_are_those_that_asking_gives(victim: Any, zoneout: runs.Run) -> None:
    texts = texts_of(zoneout.data).sample(6, 0)
    attack = HotFlip(draws=3)
    tokens_BT, lengths_B = zoneout.data.encode(texts.texts).padded()
    found = slope(
        victim,
        F.embedding(tokens_BT, victim.vectors),
        tokens_BT,
        lengths_B,
        torch.as_tensor(texts.labels),
        draws_of(attack.attack_seed, 3, texts.ids),
    )
    torch.testing.assert_close(
        found.probabilities_BC, attack.ask(victim, texts.texts, texts.ids), rtol=0, atol=1e-6
    )


# ---- projected gradients ----


@pytest.mark.parametrize(
    ("norm", "length"),
    [
        ("l2_review", lambda w, words: w.norm() * math.sqrt(words)),
        ("l2_word", lambda w, words: w.norm() * words),
        ("linf", lambda w, words: w.abs().sum() * words),
    ],
)
def test_on_a_linear_model_it_finds_the_worst_case(
    norm: str, length: Callable[[Tensor, int], Tensor]
) -> None:
    model, texts, radius = Linear(), reviews(12), 0.7
    attack = EmbeddingPGD(norm=norm, radii=[radius], steps=8)
    columns = attack(model, texts).columns
    clean, attacked = (
        logits_of(columns[f"probability_{form}"], texts.labels) for form in ("raw", "attacked")
    )
    worst = np.array([float(length(model.weights, len(text.split()))) for text in texts.texts])
    assert (clean - attacked) * (2 * texts.labels - 1) == pytest.approx(radius * worst, abs=2e-4)


def test_radius_zero_is_the_review_as_it_is(victim: Any, zoneout: runs.Run) -> None:
    attack = EmbeddingPGD(reviews=8, radii=[0], steps=1, draws=2, fresh=2)
    outcome = attack(victim, texts_of(zoneout.data))
    scores = outcome.results["scores"]
    assert scores["raw"] == scores["attacked"]
    assert outcome.columns["right_raw"] == outcome.columns["right_attacked"]
    asked = attack.judge(
        victim,
        attack.sample(texts_of(zoneout.data)),
        dict.fromkeys(("raw", "attacked"), outcome.columns["raw"]),
    )
    assert asked.columns["probability_raw"] == pytest.approx(outcome.columns["probability_raw"], abs=2e-6)
    assert asked.results["scores"]["raw"]["dropout"]["loss"] == pytest.approx(
        scores["raw"]["dropout"]["loss"], abs=1e-5
    )


@pytest.mark.parametrize("norm", ["l2_review", "l2_word", "linf"])
def test_the_loss_does_not_fall_with_the_radius(victim: Any, zoneout: runs.Run, norm: str) -> None:
    texts, before = texts_of(zoneout.data), None
    for radii in ([0.1], [0.1, 0.4], [0.1, 0.4, 0.5]):
        outcome = EmbeddingPGD(reviews=8, norm=norm, radii=radii, steps=2, restarts=1)(victim, texts)
        now = np.array(outcome.columns["probability_attacked"])
        assert before is None or (now <= before + 1e-6).all()
        assert (now < np.array(outcome.columns["probability_raw"])).all()
        before = now
    assert {name: curve["at"] for name, curve in outcome.results["curves"].items()} == {
        "radius": [0, 0.1, 0.4, 0.5]
    }


@pytest.mark.parametrize("norm", ["l2_review", "l2_word", "linf"])
def test_a_projection_ends_in_the_ball_and_leaves_what_is_in_it(norm: str) -> None:
    inside = 0.01 * torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(project(inside, 1.0, norm), inside)
    projected = project(1000 * inside, 1.0, norm)
    lengths = {
        "l2_review": projected.flatten(1).norm(dim=1),
        "l2_word": projected.norm(dim=2),
        "linf": projected.abs().amax((1, 2)),
    }[norm]
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    assert not steepest(torch.zeros(1, 2, 3), norm).any()


# ---- HotFlip ----


def greedy(model: Linear, text: str, label: int, most: int) -> str:
    """Every replacement of every content word tried, the worst one kept, until the model errs."""
    words, flipped = text.split(), set[int]()
    while len(flipped) < most and (float(model.logits([" ".join(words)])) >= 0) == bool(label):
        tries = [
            (place, other)
            for place, word in enumerate(words)
            for other in WORDS
            if place not in flipped and "the" not in (word, other) and other != word
        ]
        if not tries:
            break
        texts = [" ".join([*words[:place], other, *words[place + 1 :]]) for place, other in tries]
        worst = int((model.logits(texts).squeeze(1) * (1 - 2 * label)).argmax())
        place, other = tries[worst]
        flipped.add(place)
        words[place] = other
    return " ".join(words)


def test_on_a_linear_model_it_makes_the_flips_of_an_exhaustive_search() -> None:
    model, texts = Linear(), reviews(20)
    outcome = HotFlip(beam=1, rate=0.5, similarity=-1)(model, texts)
    found = outcome.columns["attacked"]
    for text, label, attacked, changed in zip(
        texts.texts, texts.labels, found, outcome.columns["changed"], strict=True
    ):
        words = text.split()
        expected = greedy(model, text, int(label), max(1, len(words) // 2))
        still = (float(model.logits([expected])) >= 0) == bool(label)
        # Of flips that are as good as each other any will do.
        assert still or float(model.logits([attacked])) == pytest.approx(
            float(model.logits([expected])), abs=1e-5
        )
        assert changed == sum(a != b for a, b in zip(words, attacked.split(), strict=True))
    assert 0 < outcome.results["measures"]["success"]["estimate"] < 1
    assert outcome.columns["read"] == texts.texts
    # Reviews that the model gets wrong already are left alone.
    wrong = [place for place, right in enumerate(outcome.columns["right_raw"]) if not right]
    assert wrong
    assert all(
        found[place] == texts.texts[place] and outcome.columns["queries"][place] == 1 for place in wrong
    )


def test_a_wider_beam_finds_no_less() -> None:
    model, texts = Linear(), reviews(30, seed=1)
    narrow, wide = (HotFlip(beam=beam, rate=0.6, similarity=0)(model, texts) for beam in (1, 4))
    assert sum(wide.columns["right_attacked"]) <= sum(narrow.columns["right_attacked"])
    assert sum(wide.columns["queries"]) > sum(narrow.columns["queries"])


def test_candidates_are_near_and_the_nearest_first() -> None:
    vectors = torch.tensor([[0, 0], [0, 0], [1, 0], [1, 0.1], [1, 1], [-1, 0]], dtype=torch.float32)
    assert _nearest([2], np.arange(2, 6), vectors, 0.5, 9) == {2: [3, 4]}
    assert _nearest([2], np.arange(2, 6), vectors, 0.5, 1) == {2: [3]}
    assert _nearest([5], np.arange(2, 6), vectors, 0.5, 9) == {}


def test_characters_are_flipped_to_words_alone() -> None:
    offered = {word: place + 2 for place, word in enumerate(WORDS)}
    near = _one_character({2: "good", 6: "bad"}, offered, 9)
    assert near == {2: [WORDS.index("gold") + 2, WORDS.index("goad") + 2]}
    texts = labelled(["good good film"] * 2, [0, 1])
    outcome = HotFlip(units="characters", rate=1)(Linear(), texts)
    for before, after in zip(outcome.columns["read"], outcome.columns["attacked"], strict=True):
        for a, b in zip(before.split(), after.split(), strict=True):
            assert b in WORDS
            assert sum(x != y for x, y in zip(a, b, strict=True)) <= 1


def test_a_text_does_not_depend_on_its_neighbours_in_the_batch(victim: Any, zoneout: runs.Run) -> None:
    options: dict[str, Any] = {"similarity": -1.0, "rate": 0.4, "draws": 2, "fresh": 2}
    few, many = (HotFlip(reviews=n, **options)(victim, texts_of(zoneout.data)).columns for n in (3, 12))
    where = [many["id"].index(key) for key in few["id"]]
    assert few["attacked"] == [many["attacked"][place] for place in where]
    assert few["right_attacked"] == [many["right_attacked"][place] for place in where]


# ---- in a run, and from the command line ----


def test_the_command_holds_a_run_against_its_thresholds(
    make_run: Callable[..., runs.Run],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = make_run("regularizer=zoneout", "regularizer.rate=0.3")
    chosen = ["attack=hotflip", "reviews=10", "similarity=-1.0", "rate=0.9", "draws=2", "fresh=3"]
    status = command([str(run.path), *chosen, "gate.accuracy_under_attack=1.0"])
    said = capsys.readouterr()
    entry = run.results["attacks"]["hotflip"]
    assert entry["draws"] == 2
    assert entry["verdict"]["draws"] == 3
    assert entry["measures"]["accuracy_under_attack"]["estimate"] < 1
    assert status == 3
    assert f"{run.path.name}: hotflip: gate.accuracy_under_attack=1:" in said.err
    assert "accuracy under attack" in said.out
    for option in ("gate.accuracy=1", "gate.success=much"):
        with pytest.raises(SystemExit):
            command([str(run.path), *chosen, option])
        assert option in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on loaders
def test_what_takes_gradients_runs_at_the_end_of_a_trainers_test(
    make_run: Callable[..., runs.Run], undrawn: None
) -> None:
    """Lightning tests in inference mode, where nothing has a gradient."""
    run = make_run("regularizer=none", "embedding.freeze=false")
    attacks = {"hotflip": HotFlip(reviews=3), "pgd": EmbeddingPGD(reviews=3, steps=2, restarts=1)}
    surface = Surface(size=3, reviews=8, plane="hessian")
    trainer = pl.Trainer(
        accelerator="cpu", callbacks=[LossSurface(surface), AdversarialEvaluation(attacks)], logger=False,
        default_root_dir=run.path, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.test(run.model, run.data, verbose=False)
    assert run.results["landscape"]["plane"] == "hessian"
    found = run.results["attacks"]
    again = evaluate_run(run, {f"{name}-again": attack for name, attack in attacks.items()})
    assert [found[name]["measures"] for name in attacks] == [entry["measures"] for entry in again.values()]


def test_another_checkpoint_lies_beside_the_best(make_run: Callable[..., runs.Run]) -> None:
    run = make_run("regularizer=none")
    run.checkpoint("last").write_bytes(run.checkpoint("best").read_bytes())
    attack = EmbeddingPGD(reviews=6, steps=1, restarts=1)
    best = evaluate_run(run, {"pgd": attack})
    last = evaluate_run(run, {"pgd": attack}, which="last")
    assert list(run.results["attacks"]) == ["pgd", "pgd-last"]
    assert best["pgd"]["measures"] == last["pgd-last"]["measures"]
    assert evaluate_run(run, {"pgd": attack}, which="last") == last  # it is done already


def test_a_black_box_attack_flags_the_white_box_one_of_the_same_run(
    make_run: Callable[..., runs.Run],
) -> None:
    from test_attack_threat import Exclaiming

    class Asking(Exclaiming):
        """Finds a wrong answer to every review."""

        def __call__(self, victim: Any, texts: Any) -> Any:
            sample = self.sample(texts)
            outcome = self.judge(victim, sample, {"raw": sample.texts, "attacked": sample.texts})
            return outcome._replace(columns={**outcome.columns, "right_attacked": [0.0] * 20})

    run = make_run("regularizer=none")
    evaluate_run(run, {"pgd": EmbeddingPGD(reviews=20, radii=[1e-6], steps=1, restarts=1)})
    evaluate_run(run, {"asking": Asking(reviews=20)})
    flags = run.results["attacks"]["pgd"]["flags"]
    assert {"budget_of_no_use", "beaten_by_black_box"} <= set(flags)
    assert "asking, which only asks the model" in flags["beaten_by_black_box"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("attack.hotflip.units=letters", "attack.hotflip.units=letters: expected words or characters"),
        ("attack.hotflip.similarity=2", "attack.hotflip.similarity=2: expected a number in"),
        ("attack.hotflip.beam=0", "attack.hotflip.beam=0: expected a whole number of at least 1"),
        ("attack.embedding_pgd.norm=l1", "attack.embedding_pgd.norm=l1: expected l2_review, l2_word or linf"),
        ("attack.embedding_pgd.radii=[1,0.5]", "attack.embedding_pgd.radii=.*expected rising numbers"),
        ("attack.embedding_pgd.steps=0", "attack.embedding_pgd.steps=0: expected a whole number"),
    ],
)
def test_wrong_settings(change: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(compose("attack=[hotflip,embedding_pgd]", change).attack)


def test_a_closed_model_is_refused_with_what_it_lacks() -> None:
    class Closed:
        task = Linear.task

        def logits(self, texts: list[str]) -> Tensor:
            return torch.zeros(len(texts), 1)

    for attack in (HotFlip(), EmbeddingPGD()):
        with pytest.raises(ValueError, match="needs the words' vectors and gradients of Closed"):
            attack(Closed(), reviews(3))


def test_the_yaml_holds_the_defaults() -> None:
    for name, attack in build(compose("attack=[hotflip,embedding_pgd]").attack).items():
        default = type(attack)()
        assert replace(attack, **({"radii": default.radii} if name == "embedding_pgd" else {})) == default
