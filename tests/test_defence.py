"""What each defence does to a training: words, shifts of word vectors and losses, against independent oracles."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

import gruland
from gruland import config, runs
from gruland.classifier import Classifier
from gruland.data import Corpus, Encoded, TextDataModule
from gruland.data.sources import File
from gruland.defence import FGM, VAT, CharAugment, Defence, FreeLB, NoDefence, VectorDefence, WordDeletion
from gruland.defence.base import Rewriting
from gruland.defence.vat import power_iteration
from gruland.defence.vectors import deviations, norms, unit
from gruland.defence.word_deletion import delete
from gruland.embedding import UNKNOWN, load
from gruland.perturbation.perturb import perturb, strip
from gruland.regularizers import Draw, RDrop, Regularizer, Zoneout, mix
from gruland.runs.seals import seal_config
from gruland.task import Task
from gruland.train import train

BINARY = Task("binary", ("negative", "positive"))
LENGTHS = torch.tensor([4, 7, 2])
TOKENS = torch.tensor([[3, 5, 3, 1, 0, 0, 0], [2, 2, 5, 7, 3, 2, 1], [5, 3, 0, 0, 0, 0, 0]])
LABELS = torch.tensor([0, 1, 1])
DRAW = Draw(5)
#: Standard deviations of the word vectors' numbers, as a training would measure them.
SIZES = torch.tensor([0.5, 1.0, 2.0, 1.0, 3.0], dtype=torch.float64)
OPTIONS = sorted(path.stem for path in (config.CONF / "defence").glob("*.yaml"))


def classifier(
    regularizer: Regularizer | None = None, task: Task = BINARY, defence: Defence | None = None
) -> Classifier:
    torch.manual_seed(0)
    vectors = torch.randn(9, 5, dtype=torch.float64)
    return Classifier(task, vectors, hidden_size=6, regularizer=regularizer, defence=defence).double()


def prepared(defence: VectorDefence) -> Any:
    defence._deviations = SIZES
    return defence


def gradient_at(model: Classifier, shift: Tensor) -> tuple[Tensor, Tensor]:
    """The loss [B] where word vectors are shifted, and its gradient by the shift in normalised vectors."""
    shift = shift.detach().requires_grad_()
    embedded = F.embedding(TOKENS, model.vectors) + shift * SIZES
    logits, _ = model.classify(embedded, LENGTHS)
    losses = model.task.loss(logits, LABELS, "none")
    return losses.detach(), torch.autograd.grad(losses.sum(), shift)[0]


# ---- the interface


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_has_its_name_and_a_title(name: str) -> None:
    defence = config.instantiate(gruland.compose(f"defence={name}").defence)
    assert defence.name == name
    assert defence.title


@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in ("none", "char_augment")])
def test_every_option_repeats_itself_and_gives_gradients(name: str) -> None:
    defence = config.instantiate(gruland.compose(f"defence={name}").defence)
    if isinstance(defence, VectorDefence):
        prepared(defence)
    if isinstance(defence, WordDeletion):
        defence.rate = 0.3  # of 0.9 these reviews keep no two words, so that no state is read
    model = classifier(Zoneout(0.3))
    here = DRAW.of_batch(3, torch.device("cpu")).at(4)

    def step() -> Tensor:
        tokens, lengths = defence.words(TOKENS, LENGTHS, here)
        losses, logits = defence.losses(model, tokens, lengths, LABELS, DRAW)
        assert losses.shape == (3,)
        assert logits.shape == (3, 1)
        return losses

    losses = step()
    assert torch.equal(losses, step())
    grads = torch.autograd.grad(losses.mean(), list(model.trainable().values()))
    assert all(bool(g.isfinite().all()) and bool(g.any()) for g in grads)


def test_without_a_defence_training_minimizes_what_it_did() -> None:
    model = classifier(Zoneout(0.3))
    for found, expected in zip(
        model.defence.losses(model, TOKENS, LENGTHS, LABELS, DRAW),
        model.losses(TOKENS, LENGTHS, LABELS, DRAW),
        strict=True,
    ):
        assert torch.equal(found, expected)
    assert NoDefence().hooks == frozenset()


def test_a_run_without_a_defence_is_called_as_ever() -> None:
    before = gruland.compose("regularizer=zoneout")
    older = before.copy()
    del older["defence"]
    assert runs.name(older) == runs.name(before) == "zoneout-0.1-h128-s0-45f5fb8a"
    defended = gruland.compose("regularizer=zoneout", "defence=fgm")
    assert runs.name(defended).startswith("zoneout-0.1-fgm-h128-s0-")
    stronger = gruland.compose("regularizer=zoneout", "defence=fgm", "defence.epsilon=6")
    assert len({runs.name(cfg) for cfg in (before, defended, stronger)}) == 3


# ---- words


def test_words_are_deleted_at_the_rate_and_the_others_keep_their_order() -> None:
    tokens, lengths = torch.arange(1, 401).repeat(50, 1), torch.full((50,), 400)
    lengths[0] = 7
    tokens[0, 7:] = 0
    found, left = WordDeletion(0.7).words(tokens, lengths, Draw(3).of_batch(50, torch.device("cpu")))
    assert stats.binomtest(int(left[1:].sum()), 49 * 400, 0.3).pvalue > 1e-4
    assert found.shape[1] == int(left.max())
    for row, length in zip(found.tolist(), left.tolist(), strict=True):
        assert row[:length] == sorted(set(row[:length]))
        assert not any(row[length:])
    assert set(found[0].tolist()) <= {0, UNKNOWN, *range(1, 8)}


def test_a_review_of_which_nothing_is_left_is_one_unknown_word() -> None:
    dropped = torch.ones_like(TOKENS, dtype=torch.bool)
    dropped[1, 3] = False
    tokens, lengths = delete(TOKENS, LENGTHS, dropped)
    assert tokens.tolist() == [[UNKNOWN], [7], [UNKNOWN]]
    assert lengths.tolist() == [1, 1, 1]


# ---- texts


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> TextDataModule:
    """96 reviews of some twenty words, all of which have a vector, as long as nobody mistypes them."""
    folder, random = tmp_path_factory.mktemp("reviews"), np.random.default_rng(0)
    words = [
        "wonderful",
        "terrible",
        "picture",
        "actors",
        "music",
        "dialogue",
        "ending",
        "camera",
        "boring",
        "moving",
    ]
    vectors = folder / "vectors.txt"
    vectors.write_text("\n".join(f"{word} {i} {i % 3} 1" for i, word in enumerate(words)) + "\n")
    texts = [" ".join(random.choice(words, size=20 + i % 5)) + f" {i}" for i in range(96)]
    corpus = Corpus.of(texts, ["bad", "good"] * 48)
    source = SimpleNamespace(name="toy", files=lambda cache: [vectors], read=lambda files: corpus)
    data = TextDataModule(load(str(vectors)), source, batch_size=8, cache_dir=str(folder))
    data.setup()
    return data


def batches(data: TextDataModule, epoch: int) -> list[list[list[int]]]:
    data.set_epoch(epoch)
    return [[*batch.tokens.tolist(), batch.labels.tolist()] for batch in data.train_dataloader()]


def test_errors_are_new_in_every_epoch_and_the_same_for_any_number_of_processes(
    reviews: TextDataModule,
) -> None:
    plain = [batches(reviews, epoch) for epoch in range(2)]
    defence = CharAugment(rate=0.5, clean=0.0, stripped=False)
    defence.prepare(reviews)
    reviews.rewrite = Rewriting(defence, seed=3)
    try:
        assert reviews.train_dataloader().num_workers == 1
        found = [batches(reviews, epoch) for epoch in range(2)]
        reviews.num_workers = 2
        assert batches(reviews, 1) == found[1]
        # Batches of the same reviews, other words, other ones in the next epoch.
        for epoch in range(2):
            assert [sorted(b[-1]) for b in found[epoch]] == [sorted(b[-1]) for b in plain[epoch]]
            assert found[epoch] != plain[epoch]
        part = reviews.splits["train"]
        texts, ids = part.texts[:4], part.ids[:4]
        first, second = (reviews.rewrite(texts, ids, epoch) for epoch in range(2))
        assert all(a != b for a, b in zip(first, second, strict=True))
        assert reviews.rewrite(texts[2:3], ids[2:3], 0) == first[2:3]
    finally:
        reviews.rewrite, reviews.num_workers = None, 0


def test_errors_are_those_of_the_attack_in_a_share_of_the_reviews(reviews: TextDataModule) -> None:
    defence = CharAugment(rate=0.3, clean=0.6)
    texts = reviews.splits["train"].texts
    written = defence.texts(texts, Draw(9, np.arange(len(texts))))
    kept = [a == b for a, b in zip(texts, written, strict=True)]
    assert stats.binomtest(sum(kept), len(kept), 0.6).pvalue > 1e-4
    first = kept.index(False)
    assert written[first] == perturb(strip(texts[first]), rate=0.3, seed=(mix(9, first),)).text


# ---- shifts of word vectors


def test_deviations_are_those_of_the_words_as_often_as_they_occur() -> None:
    vectors = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    tokens = np.array([1, 1, 3, 2, 1, 3])
    expected = vectors[tokens].std(0)
    np.testing.assert_allclose(deviations(vectors, np.bincount(tokens, minlength=4)), expected, rtol=1e-5)


def test_a_unit_keeps_the_direction_of_tiny_gradients() -> None:
    tiny = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)) * 1e-30
    torch.testing.assert_close(norms(unit(tiny)), torch.ones(3, 1, 1))
    torch.testing.assert_close(unit(tiny), unit(tiny * 1e30))
    assert not unit(torch.zeros(1, 2, 2)).any()


def test_fgm_goes_epsilon_along_the_gradient() -> None:
    model, zeros = classifier(), torch.zeros(3, 7, 5, dtype=torch.float64)
    clean, gradient = gradient_at(model, zeros)
    shift = 0.7 * gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1)
    adversarial, _ = gradient_at(model, shift)
    losses, logits = prepared(FGM(epsilon=0.7, weight=2.0)).losses(model, TOKENS, LENGTHS, LABELS, DRAW)
    torch.testing.assert_close(losses, clean + 2 * adversarial)
    torch.testing.assert_close(logits, model(TOKENS, LENGTHS))
    assert bool((adversarial > clean).all())
    # The shift is a constant to training: the gradient is that of the two losses at fixed vectors.
    wanted = list(model.trainable().values())
    fixed, _ = model.losses(TOKENS, LENGTHS, LABELS, DRAW, shift * SIZES)
    expected = torch.autograd.grad(
        (model.losses(TOKENS, LENGTHS, LABELS, DRAW)[0] + 2 * fixed).mean(), wanted
    )
    torch.testing.assert_close(torch.autograd.grad(losses.mean(), wanted), expected)


def test_both_losses_of_fgm_meet_the_same_masks() -> None:
    model = classifier(Zoneout(0.5))
    losses, _ = prepared(FGM(epsilon=0.0)).losses(model, TOKENS, LENGTHS, LABELS, DRAW)
    torch.testing.assert_close(losses, 2 * model.losses(TOKENS, LENGTHS, LABELS, DRAW)[0])


class Linear:
    """A model whose loss is linear in the word vectors: ascents have a closed form."""

    vectors, task = torch.zeros(9, 5, dtype=torch.float64), BINARY

    def __init__(self) -> None:
        self.slope = torch.randn(3, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        self.slope *= (torch.arange(7) < LENGTHS.unsqueeze(1)).unsqueeze(2)
        self.shifts: list[Tensor] = []

    def losses(
        self, tokens: Tensor, lengths: Tensor, labels: Tensor, draw: Draw, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        self.shifts.append((shift / SIZES).detach())
        return (shift * self.slope).sum((1, 2)), torch.zeros(3, 1)


def test_the_ascent_of_free_lb_is_the_closed_form_on_a_linear_model() -> None:
    model, epsilon = Linear(), 0.8
    losses, _ = prepared(FreeLB(epsilon, step=0.3, steps=6)).losses(model, TOKENS, LENGTHS, LABELS, DRAW)
    direction = model.slope * SIZES
    direction = direction / direction.flatten(1).norm(dim=1).view(-1, 1, 1)
    expected = [model.shifts[0]]
    for _ in range(5):
        moved = expected[-1] + 0.3 * direction
        length = moved.flatten(1).norm(dim=1).view(-1, 1, 1)
        expected.append(torch.where(length > epsilon, moved * epsilon / length, moved))
    torch.testing.assert_close(torch.stack(model.shifts), torch.stack(expected))
    every = [(shift * SIZES * model.slope).sum((1, 2)) for shift in expected]
    torch.testing.assert_close(losses, torch.stack(every).mean(0))


def test_the_first_shift_of_free_lb_is_uniform_and_within_the_ball() -> None:
    model = Linear()
    model.slope = torch.ones(3, 400, 5, dtype=torch.float64)
    lengths = torch.tensor([400, 150, 1])
    tokens = torch.ones(3, 400, dtype=torch.int64)
    prepared(FreeLB(2.0, steps=1)).losses(model, tokens, lengths, LABELS, DRAW)
    (first,) = model.shifts
    for shift, length in zip(first, lengths.tolist(), strict=True):
        assert not shift[length:].any()
        bound = 2.0 / (length * 5) ** 0.5
        assert float(shift.norm()) <= 2.0
        if length > 1:
            uniform = stats.uniform(-bound, 2 * bound)
            assert stats.kstest(shift[:length].flatten().numpy(), uniform.cdf).pvalue > 1e-4


def test_the_power_iteration_finds_the_top_eigenvector_of_a_quadratic_divergence() -> None:
    generator = torch.Generator().manual_seed(2)
    root = torch.randn(2, 12, 12, dtype=torch.float64, generator=generator)
    hessian = root @ root.transpose(1, 2)
    start = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator)

    def divergence(shift: Tensor) -> Tensor:
        return torch.einsum("bi,bij,bj->b", shift.flatten(1), hessian, shift.flatten(1)) / 2

    found = power_iteration(divergence, start, iterations=300, xi=0.1).flatten(1)
    top = torch.linalg.eigh(hessian).eigenvectors[:, :, -1]
    torch.testing.assert_close((found * top).sum(1).abs(), torch.ones(2, dtype=torch.float64))
    one = power_iteration(divergence, start, iterations=1, xi=0.1).flatten(1)
    torch.testing.assert_close(one, F.normalize((hessian @ start.flatten(1).unsqueeze(2)).squeeze(2)))


def test_vat_adds_the_divergence_at_a_shift_of_norm_epsilon() -> None:
    model = classifier(Zoneout(0.3))
    defence = prepared(VAT(epsilon=0.6, weight=0.5, iterations=40, xi=1e-3))
    losses, logits = defence.losses(model, TOKENS, LENGTHS, LABELS, DRAW)
    clean, expected_logits = model.losses(TOKENS, LENGTHS, LABELS, DRAW)
    torch.testing.assert_close(logits, expected_logits)
    found = ((losses - clean) / 0.5).detach()
    # To second order it is half the top eigenvalue of the divergence's second derivative, times the square of epsilon.
    small = prepared(VAT(epsilon=1e-3, weight=1.0, iterations=40, xi=1e-3))
    second = (small.losses(model, TOKENS, LENGTHS, LABELS, DRAW)[0] - clean).detach() / 1e-6

    def divergence(shift: Tensor) -> Tensor:
        whole = torch.cat([shift.view(1, 7, 5), torch.zeros(2, 7, 5, dtype=torch.float64)])
        output = model.logits_and_states(TOKENS, LENGTHS, DRAW, whole * SIZES)[0]
        return model.task.divergence(logits.detach(), output)[0]

    hessian = torch.autograd.functional.hessian(divergence, torch.zeros(35, dtype=torch.float64))
    assert float(second[0]) == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]) / 2, rel=1e-2)
    assert bool((found > 0).all())


def test_the_divergence_is_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    p, q = torch.randn(2, 5, 3, dtype=torch.float64, generator=generator)
    found = Task("multiclass", ("a", "b", "c")).divergence(p, q)
    expected = F.kl_div(q.log_softmax(1), p.log_softmax(1), reduction="none", log_target=True).sum(1)
    torch.testing.assert_close(found, expected)
    many = torch.distributions.kl_divergence(
        torch.distributions.Bernoulli(logits=p), torch.distributions.Bernoulli(logits=q)
    )
    torch.testing.assert_close(Task("multilabel", ("a", "b", "c")).divergence(p, q), many.mean(1))
    torch.testing.assert_close(BINARY.divergence(p[:, :1], q[:, :1]), many[:, 0])


# ---- a training


def test_a_defended_run_is_named_for_its_defence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "more.csv").write_text("text\n" + "a fine film and a dull one\nno words\n" * 8)
    monkeypatch.chdir(tmp_path)
    run = train(
        gruland.compose(
            "experiment=smoke", "attack=none", "landscape.enabled=false", "threads=1", "defence=vat", "data.limit=32",
            "trainer.max_epochs=1", "defence.unlabelled={_target_: gruland.data.sources.File, path: more.csv}",
        )
    )  # fmt: skip
    assert run.path.name.startswith("none-vat-h8-s0-")
    assert run.results["model"]["defence"] == "vat"
    # The file may be moved: it counts by its name and by what it held.
    assert run.config.defence.unlabelled.path == str(tmp_path / "more.csv")
    assert runs.name(run.config) == run.path.name
    assert run.results["inputs"] == run.model.defence.inputs(run.data)
    assert run.model.defence.hooks == {"prepare", "losses"}


def test_vat_beside_two_passes_compares_predictions_under_the_same_masks() -> None:
    model, defence = classifier(RDrop(0.4)), prepared(VAT(epsilon=0.6, weight=1.0))
    unmoved = prepared(VAT(epsilon=0.0, weight=1.0))
    clean, _ = model.losses(TOKENS, LENGTHS, LABELS, DRAW)
    torch.testing.assert_close(unmoved.losses(model, TOKENS, LENGTHS, LABELS, DRAW)[0], clean)
    assert (defence.losses(model, TOKENS, LENGTHS, LABELS, DRAW)[0] > clean).all()


def test_reviews_without_labels_have_their_share_of_vat() -> None:
    model, defence = classifier(), prepared(VAT(epsilon=0.6, weight=2.0))
    alone, _ = defence.losses(model, TOKENS, LENGTHS, LABELS, DRAW)
    clean, _ = model.losses(TOKENS, LENGTHS, LABELS, DRAW)
    defence._reviews = Encoded(np.array([4, 2, 8, 1, 1], np.int32), np.array([0, 3, 5]))
    both, _ = defence.losses(model, TOKENS, LENGTHS, LABELS, DRAW)
    more = (both - clean) / 2 - (alone - clean) / 4  # half the mean divergence of the others, for each review
    torch.testing.assert_close(more, more[:1].expand(3))
    assert float(more[0].detach()) > 0
    assert torch.equal(both, defence.losses(model, TOKENS, LENGTHS, LABELS, DRAW)[0])


def test_reviews_need_no_labels_and_errors_name_the_key(reviews: TextDataModule, tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("text\nmoving music\nboring\n")
    (tmp_path / "none.csv").write_text("words\nmoving music\n")
    (tmp_path / "empty.csv").write_text("text\n")
    defence = VAT(unlabelled=File(tmp_path / "more.csv"))
    defence.prepare(reviews)
    assert defence._reviews is not None
    assert defence._reviews.lengths.tolist() == [2, 1]
    for name, message in (
        ("none", "none.csv has no column text or review: give text=COLUMN"),
        ("empty", "empty.csv holds no texts"),
        ("nowhere", f"path={tmp_path / 'nowhere.csv'} does not exist"),
    ):
        with pytest.raises(ValueError, match=r"^defence\.unlabelled: .*" + re.escape(message)):
            VAT(unlabelled=File(tmp_path / f"{name}.csv")).prepare(reviews)


def test_a_training_goes_on_with_the_unlabelled_reviews_that_it_began_with(
    reviews: TextDataModule, tmp_path: Path
) -> None:
    (tmp_path / "more.csv").write_text("text\nmoving music\n")
    defence, run = VAT(unlabelled=File(tmp_path / "more.csv")), runs.Run(tmp_path)
    run.check_inputs(defence.inputs(reviews))
    run.update_results(inputs=defence.inputs(reviews))
    run.check_inputs(defence.inputs(reviews))
    (tmp_path / "more.csv").write_text("text\nboring music\n")
    with pytest.raises(
        ValueError, match=r"trained with another file behind defence\.unlabelled: give it as it was"
    ):
        run.check_inputs(defence.inputs(reviews))
    sealed = [
        seal_config(f"defence: {{epsilon: 5, unlabelled: {{path: {path}}}}}").splitlines()[0]
        for path in ("a/more.csv", "b/more.csv")
    ]
    assert sealed[0] == sealed[1] != seal_config("defence: {epsilon: 4, unlabelled: {}}").splitlines()[0]


def test_a_defence_that_needs_the_reviews_says_so() -> None:
    model = classifier(defence=FGM())
    with pytest.raises(ValueError, match=r"defence=fgm has not seen the reviews: call prepare\(data\) first"):
        model.defence.losses(model, TOKENS, LENGTHS, LABELS, DRAW)
    model._trainer = SimpleNamespace(datamodule=None)
    with pytest.raises(ValueError, match=r"defence=fgm needs the reviews: give trainer\.fit a data module"):
        model.setup("fit")
