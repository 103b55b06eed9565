"""What each regularizer does to a step, a weight, a word or the loss, and that masks are what they are said to be."""

from __future__ import annotations

import ast
import hashlib
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

import gruland
from gruland import GRU, config, kernels, regularizers
from gruland.attack import Certificate
from gruland.classifier import PASS, Classifier
from gruland.gru import BETWEEN_LAYERS, STEP, WORDS
from gruland.kernels import Layer, cpu, philox
from gruland.regularizers import (
    AWD,
    ArTar,
    Bernoulli,
    Composed,
    Draw,
    DropConnect,
    Embedding,
    Fraternal,
    LabelSmoothing,
    LayerNorm,
    Locked,
    NoDropout,
    RDrop,
    Recurrent,
    Regularizer,
    WeightDecay,
    WordDropout,
    Zoneout,
    check_rate,
    draws_of,
    factors,
    mix,
)
from gruland.task import Task

ROOT = Path(gruland.__file__).parent
CPU = torch.device("cpu")
BINARY = Task("binary", ("negative", "positive"))
LENGTHS = torch.tensor([4, 7, 2])
TOKENS = torch.tensor([[3, 5, 3, 1, 0, 0, 0], [2, 2, 5, 7, 3, 2, 1], [5, 3, 0, 0, 0, 0, 0]])


def classifier(regularizer: Regularizer, task: Task = BINARY, **options: Any) -> Classifier:
    torch.manual_seed(0)
    vectors = torch.randn(9, 5, dtype=torch.float64)
    return Classifier(task, vectors, hidden_size=6, regularizer=regularizer, **options).double()


def whole(draw: Draw) -> Draw:
    return draw.of_batch(3, CPU)


# ---- the one way to draw


@pytest.mark.skipif(
    cpu.unavailable(CPU, torch.float32, False) is not None, reason="there is no compiled library"
)
@pytest.mark.parametrize("shape", [(1, 1, 1), (23, 5, 70), (9, 3, 32)])
def test_the_compiled_masks_are_those_of_torchs_integers(shape: tuple[int, int, int]) -> None:
    steps, sequences, units = shape
    keys = torch.tensor([3, -2, 2**40 + 1, 0, 2**31])[:sequences]
    for seed, rate in ((1, 0.1), (2**64 - 5, 0.9), (7, 0.0), (7, 1.0)):
        compiled = philox.bernoulli(seed, rate, steps, keys, units)
        assert torch.equal(compiled, philox.bernoulli_in_torch(seed, rate, steps, keys, units))


def test_a_mask_is_a_function_of_seed_key_time_and_unit() -> None:
    keys = torch.tensor([4, 9, 1])
    mask = philox.bernoulli(3, 0.3, 20, keys, 40)
    assert torch.equal(philox.bernoulli(3, 0.3, 11, keys[[2, 0]], 17), mask[:11, [2, 0], :17])
    assert not torch.equal(philox.bernoulli(4, 0.3, 20, keys, 40), mask)
    # What another process drew: nothing of this one is in it.
    assert hashlib.sha256(mask.numpy().tobytes()).hexdigest()[:16] == "0bae72e7407f9c33"


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5])
def test_masks_are_independent_draws_at_their_rate(rate: float) -> None:
    mask = philox.bernoulli(11, rate, 200, torch.arange(50), 60)
    assert stats.binomtest(int(mask.sum()), mask.numel(), rate).pvalue > 1e-4
    # Counts of ones in groups of 10 along each axis are binomial.
    for axis in range(3):
        ones = mask.movedim(axis, -1).reshape(-1, mask.shape[axis])
        counts = ones[:, : ones.shape[1] // 10 * 10].reshape(-1, 10).sum(1)
        seen = np.bincount(counts.numpy(), minlength=11)
        expected = stats.binom.pmf(np.arange(11), 10, rate) * len(counts)
        likely = expected > 10
        groups = [np.append(x[likely], x[~likely].sum()) for x in (seen, expected)]
        assert stats.chisquare(*[g[groups[1] > 0] for g in groups]).pvalue > 1e-4
        one, other = mask.narrow(axis, 1, mask.shape[axis] - 1), mask.narrow(axis, 0, mask.shape[axis] - 1)
        table = [[int((a & b).sum()) for b in (other, ~other)] for a in (one, ~one)]
        assert stats.chi2_contingency(table).pvalue > 1e-4


def test_before_and_after_masks_have_one_distribution() -> None:
    """The counts of kept units in a step, beside numpy's generator: a Kolmogorov-Smirnov test of two samples."""
    ours = philox.bernoulli(5, 0.1, 400, torch.arange(32), 128).sum(2).flatten()
    theirs = np.random.default_rng(0).binomial(128, 0.1, len(ours))
    assert stats.ks_2samp(ours.numpy(), theirs).pvalue > 1e-3


def test_places_and_seeds_share_nothing() -> None:
    draw = Draw(1)
    seeds = {draw.at(kind, layer).seed for kind in range(4) for layer in range(3)}
    assert len(seeds) == 12
    assert len({one.seed for seed in range(50) for one in draws_of(seed, 20)}) == 1000
    assert draws_of(7, 3) == draws_of(7, 20)[:3]


@pytest.mark.parametrize("count", [0, -1, 2.5, True, None])
def test_impossible_numbers_of_draws_are_refused(count: Any) -> None:
    with pytest.raises(ValueError, match=rf"draws={count}: expected a whole number of at least 1"):
        draws_of(0, count)


def test_mix_begins_as_splitmix64_does() -> None:
    # The first output of SplitMix64 from the states 0 and 1234567, as in its reference implementation.
    assert mix(0) == 0xE220A8397B1DCDAF
    assert mix(1234567) == 6457827717110365317


def test_factors_have_the_mean_one_exactly_at_the_rate_that_is_drawn() -> None:
    kept = factors(torch.tensor([True, False]), 0.05, torch.zeros((), dtype=torch.float64))
    drawn = philox.threshold(0.05) / 2**16
    assert float(kept[1]) * (1 - drawn) == pytest.approx(1, abs=1e-15)
    assert float(kept[0]) == 0


@pytest.mark.parametrize("rate", [-0.1, 1, math.nan, math.inf, "high", True, None])
def test_other_rates_are_refused(rate: Any) -> None:
    with pytest.raises(ValueError, match=rf"rate={rate}: expected a number in \[0, 1\)"):
        check_rate(rate)


@pytest.mark.parametrize("kind", [Locked, Certificate])
def test_a_rate_that_is_drawn_as_one_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"rate=0\.999995: it is drawn to 2\^-16, as 1"):
        kind(rate=0.999995)
    assert kind(rate=0.99999).rate == 0.99999


# ---- what each one does


def cells(gru: GRU, x: Tensor, length: int, keep: Tensor | None, candidate: Tensor | None) -> Tensor:
    """The states [T, H] of one sequence and layer by torch.nn.GRUCell's equations, masks [T, H] written out."""
    w_ih, w_hh, b_ih, b_hh = gru.layer(0)
    h, states = x.new_zeros(gru.hidden_size), []
    for t in range(length):
        (a_r, a_z, a_n), (b_r, b_z, b_n) = (w_ih @ x[t] + b_ih).chunk(3), (w_hh @ h + b_hh).chunk(3)
        r, z = torch.sigmoid(a_r + b_r), torch.sigmoid(a_z + b_z)
        n = torch.tanh(a_n + r * b_n) * (1.0 if candidate is None else candidate[t])
        new = (1 - z) * n + z * h
        h = new if keep is None else torch.where(keep[t], h, new)
        states.append(h)
    return torch.stack(states)


@pytest.mark.parametrize(
    "regularizer",
    [Zoneout(0.4), Recurrent(0.4), Composed({"zoneout": Zoneout(0.3), "recurrent": Recurrent(0.4)})],
    ids=str,
)
def test_masks_of_a_step_and_their_gradients(regularizer: Regularizer) -> None:
    torch.manual_seed(1)
    gru, draw = GRU(5, 6, regularizer=regularizer, dtype=torch.float64), Draw(8)
    x = torch.randn(3, 7, 5, dtype=torch.float64, requires_grad=True)
    masks = regularizer.step(7, 6, whole(draw).at(STEP, 0))
    keep = masks.keep.tensor() if isinstance(masks.keep, Bernoulli) else None
    states, _ = gru(x, lengths=LENGTHS, draw=draw)
    weights = torch.linspace(-1, 1, states.numel(), dtype=torch.float64).view_as(states)
    expected = torch.stack(
        [
            F.pad(
                cells(
                    gru, x[b], int(n), None if keep is None else keep[:, b],
                    None if masks.candidate is None else masks.candidate[:, b],
                ),
                (0, 0, 0, 7 - int(n)),
            )
            for b, n in enumerate(LENGTHS)
        ]
    )  # fmt: skip
    torch.testing.assert_close(states, expected)
    wanted = [x, *gru.parameters()]
    ours, theirs = (torch.autograd.grad((h * weights).sum(), wanted) for h in (states, expected))
    torch.testing.assert_close(ours, theirs)


def test_what_recurrent_dropout_adds_has_its_mean() -> None:
    torch.manual_seed(0)
    gru = GRU(3, 4, regularizer=Recurrent(0.3), dtype=torch.float64)
    x = torch.randn(1, 1, 3, dtype=torch.float64)
    many = gru(x.expand(20_000, -1, -1), draw=Draw(0))[1][0]
    error = many.std(0) / len(many) ** 0.5
    assert bool(((many.mean(0) - gru.eval()(x)[1][0, 0]).abs() < 5 * error).all())


@pytest.mark.parametrize(
    "regularizer", [Recurrent(0.3), Composed({"zoneout": Zoneout(0.3), "recurrent": Recurrent(0.4)})], ids=str
)
def test_masks_of_the_candidate_are_fused(regularizer: Regularizer) -> None:
    kernel = GRU(3, 4, regularizer=regularizer).kernel(CPU, training=True).__name__
    if not kernel.endswith("cpu"):
        pytest.skip("no compiled kernel here")
    x_BTI, found = torch.randn(3, 7, 5), {}
    for backend in ("cpu", "eager"):
        torch.manual_seed(1)
        gru = GRU(5, 19, num_layers=2, between="tanh", regularizer=regularizer, backend=backend)
        x = x_BTI.clone().requires_grad_()
        states, _ = gru(x, lengths=LENGTHS, draw=Draw(8))
        wanted = [x, *gru.parameters()]
        weights = torch.linspace(-1, 1, states.numel()).view_as(states)
        once = torch.autograd.grad((states * weights).sum(), wanted, retain_graph=True)
        # A penalty on gradients differentiates the backward pass.
        slope = torch.autograd.grad((states * weights).sum(), x, create_graph=True)[0]
        found[backend] = [states, *once, *torch.autograd.grad(slope.square().sum(), wanted[1:])]
    torch.testing.assert_close(found["cpu"], found["eager"], rtol=1e-4, atol=1e-5)


def test_a_backend_without_masks_of_the_candidate_says_so() -> None:
    with pytest.raises(ValueError, match=r"backend 'haste' cannot run here: "):
        GRU(3, 4, regularizer=Recurrent(0.3), backend="haste")(torch.zeros(1, 2, 3))
    assert kernels.why_not("triton", CPU, torch.float32, True, masks={"candidate"}) is not None


def test_locked_dropout_is_one_mask_for_all_times() -> None:
    regularizer, draw = Locked(0.4), Draw(2)
    model = classifier(regularizer)
    x = F.embedding(TOKENS, model.vectors)
    dropped = regularizer.words(torch.ones_like(x), TOKENS, whole(draw).at(WORDS))
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert 0 < int((dropped == 0).sum()) < dropped.numel()
    h = torch.ones(7, 3, 6, dtype=torch.float64)
    masks = [regularizer.between(h, whole(draw).at(BETWEEN_LAYERS, k)) for k in range(2)]
    assert torch.equal(masks[0], masks[0][:1].expand_as(h))
    # The whole model, by a GRU without dropout for each layer.
    plain = [GRU(i, 6, dtype=torch.float64) for i in (5, 6)]
    for k, gru in enumerate(plain):
        gru.load_state_dict({f"{n}_l0": w for n, w in model.gru.layer(k)._asdict().items()})
    states, _ = plain[0](x * dropped, lengths=LENGTHS)
    _, last = plain[1](torch.tanh(states) * masks[0].transpose(0, 1), lengths=LENGTHS)
    torch.testing.assert_close(model(TOKENS, LENGTHS, draw), model.head(last[0] * masks[1][0]))


def test_embedding_dropout_leaves_out_a_word_wherever_it_stands() -> None:
    regularizer, draw = Embedding(0.5), whole(Draw(3))
    tokens = torch.arange(200).repeat(3, 2)
    vectors = torch.randn(200, 4)
    x = F.embedding(tokens, vectors).requires_grad_()
    found = regularizer.words(x, tokens, draw)
    kept = found.detach().ne(0).any(2)
    assert torch.equal(kept[:, :200], kept[:, 200:])
    assert not torch.equal(kept[0], kept[1])  # another sequence, other words
    assert stats.binomtest(int(kept[:, :200].sum()), 600, 0.5).pvalue > 1e-4
    torch.testing.assert_close(found, 2 * x * kept.unsqueeze(2))
    torch.testing.assert_close(torch.autograd.grad(found.sum(), x)[0], 2.0 * kept.unsqueeze(2).expand_as(x))


def test_word_dropout_draws_each_place_by_itself() -> None:
    regularizer, draw = WordDropout(0.25), whole(Draw(3))
    tokens = torch.full((3, 2000), 7)
    x = torch.randn(3, 2000, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = regularizer.words(x, tokens, draw)
    kept = found.detach().ne(0).all(2)
    assert torch.equal(kept, found.detach().ne(0).any(2))
    assert stats.binomtest(int(kept.sum()), kept.numel(), 0.75).pvalue > 1e-4
    # The same word twice in a row: whether the one is kept says nothing of the other.
    one, other = kept[:, 1:], kept[:, :-1]
    table = [[int((a & b).sum()) for b in (other, ~other)] for a in (one, ~one)]
    assert stats.chi2_contingency(table).pvalue > 1e-4
    torch.testing.assert_close(found, x * kept.unsqueeze(2) / 0.75)
    torch.testing.assert_close(
        torch.autograd.grad(found.sum(), x)[0], (kept / 0.75).unsqueeze(2).expand_as(x)
    )


def test_weight_decay_is_what_torchs_sgd_takes_off_the_matrices() -> None:
    labels = torch.tensor([0, 1, 1])
    decayed, plain = classifier(WeightDecay(0.3)), classifier(NoDropout())
    matrices = [name for name, p in plain.named_parameters() if p.dim() == 2]
    groups = [
        {
            "params": [p for n, p in plain.named_parameters() if (n in matrices) == chosen],
            "weight_decay": rate,
        }
        for chosen, rate in ((True, 0.3), (False, 0.0))
    ]
    for model, optimizer in (
        (decayed, torch.optim.SGD(decayed.parameters(), lr=0.1)),
        (plain, torch.optim.SGD(groups, lr=0.1)),
    ):
        model.losses(TOKENS, LENGTHS, labels)[0].mean().backward()
        optimizer.step()
    for one, other in zip(decayed.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_r_drop_is_half_of_the_papers_loss() -> None:
    task, labels, draw = Task("multiclass", ("a", "b", "c")), torch.tensor([0, 2, 1]), Draw(4)
    model = classifier(RDrop(0.4, alpha=0.7), task)
    losses, logits = model.losses(TOKENS, LENGTHS, labels, draw)
    one, other = (model(TOKENS, LENGTHS, draw.at(PASS, number)) for number in range(2))
    torch.testing.assert_close(logits, one)
    assert not torch.allclose(one, other)
    p, q = one.log_softmax(1), other.log_softmax(1)
    both = [F.kl_div(b, a, reduction="none", log_target=True).sum(1) for a, b in ((p, q), (q, p))]
    papers = F.nll_loss(p, labels, reduction="none") + F.nll_loss(q, labels, reduction="none")
    papers = papers + 0.7 * (both[0] + both[1]) / 2
    torch.testing.assert_close(losses, papers / 2)
    same = classifier(RDrop(0.0, alpha=0.7), task)
    torch.testing.assert_close(
        same.losses(TOKENS, LENGTHS, labels, draw)[0],
        classifier(NoDropout(), task).losses(TOKENS, LENGTHS, labels)[0],
    )


def test_fraternal_dropout_by_hand() -> None:
    labels, draw = torch.tensor([0, 1, 1]), Draw(4)
    model = classifier(Composed({"zoneout": Zoneout(0.4), "fraternal": Fraternal(0.0, kappa=0.3)}))
    losses, _ = model.losses(TOKENS, LENGTHS, labels, draw)
    one, other = (model(TOKENS, LENGTHS, draw.at(PASS, number)) for number in range(2))
    pair = [
        F.binary_cross_entropy_with_logits(x[:, 0], labels.double(), reduction="none") for x in (one, other)
    ]
    torch.testing.assert_close(losses, (pair[0] + pair[1]) / 2 + 0.3 * (one - other)[:, 0] ** 2)
    wanted = list(model.trainable().values())
    found = torch.autograd.grad(losses.sum(), wanted)
    expected = torch.autograd.grad(((pair[0] + pair[1]) / 2 + 0.3 * (one - other)[:, 0] ** 2).sum(), wanted)
    torch.testing.assert_close(found, expected)


def test_awd_is_the_sum_of_its_parts() -> None:
    labels, draw = torch.tensor([0, 1, 1]), Draw(4)
    found = AWD(dropconnect=0.3, locked=0.2, embedding=0.1, alpha=2.0, beta=1.0, weight_decay=0.01)
    model = classifier(found)
    losses, logits = model.losses(TOKENS, LENGTHS, labels, draw)
    task_loss = BINARY.loss(logits, labels, "none")
    states = model.logits_and_states(TOKENS, LENGTHS, draw)[1]
    squares = sum(float(matrix.detach().pow(2).sum()) for matrix in model.matrices())
    torch.testing.assert_close(losses, task_loss + ArTar().penalty(states, LENGTHS) + 0.005 * squares)
    assert found.hooks == {"words", "weights", "between", "penalty", "decay"}


def test_layer_norm_is_a_cell_of_its_own() -> None:
    """By a loop over torch.nn.LayerNorm, in training and in evaluation, with zoneout beside it."""
    norm = LayerNorm()
    gru = GRU(5, 6, regularizer=Composed({"norm": norm, "zoneout": Zoneout(0.3)}), dtype=torch.float64)
    x = torch.randn(
        1, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    layers = {n: torch.nn.LayerNorm(n, elementwise_affine=False) for n in (12, 6)}
    w_ih, w_hh, b_ih, b_hh = gru.layer(0)

    def products(weight: Tensor, bias: Tensor, vector: Tensor) -> tuple[Tensor, ...]:
        product = weight @ vector
        return (torch.cat([layers[12](product[:12]), layers[6](product[12:])]) + bias).chunk(3)

    h, states = torch.zeros(6, dtype=torch.float64), []
    for t in range(4):
        (a_r, a_z, a_n), (b_r, b_z, b_n) = products(w_ih, b_ih, x[0, t]), products(w_hh, b_hh, h)
        r, z = torch.sigmoid(a_r + b_r), torch.sigmoid(a_z + b_z)
        h = 0.3 * h + 0.7 * ((1 - z) * torch.tanh(a_n + r * b_n) + z * h)
        states.append(h)
    found = gru.eval()(x)[0][0]
    torch.testing.assert_close(found, torch.stack(states))
    wanted = [x, *gru.parameters()]
    ours, theirs = (torch.autograd.grad(y.square().sum(), wanted) for y in (found, torch.stack(states)))
    torch.testing.assert_close(ours, theirs)
    assert gru.kernel(CPU, training=True).__name__ == "gruland.kernels.plain"
    with pytest.raises(ValueError, match="backend 'cpu' cannot run here: Layer norm has a cell of its own"):
        GRU(3, 4, regularizer=norm, backend="cpu")(torch.zeros(1, 2, 3))


def test_dropconnect_scales_what_it_leaves() -> None:
    layer = Layer(*(torch.ones(12, 4), torch.ones(12, 4), torch.ones(12), torch.ones(12)))
    drawn = DropConnect(0.5).weights(layer, whole(Draw(1)))
    assert set(drawn.weight_hh.unique().tolist()) == {0.0, 2.0}
    assert drawn._replace(weight_hh=layer.weight_hh) == layer


def test_ar_and_tar_by_hand() -> None:
    h = torch.randn(3, 7, 6, dtype=torch.float64)
    h = (h * (torch.arange(7) < LENGTHS[:, None]).unsqueeze(2)).requires_grad_()
    found = ArTar(alpha=2.0, beta=3.0).penalty(h, LENGTHS)
    for b, n in enumerate(LENGTHS.tolist()):
        own = h[b, :n].detach().numpy()
        expected = 2 * np.mean(own**2) + 3 * np.mean((own[1:] - own[:-1]) ** 2)
        assert found[b].item() == pytest.approx(expected)
    assert torch.autograd.gradcheck(lambda h: ArTar(2.0, 3.0).penalty(h, LENGTHS), h)
    assert torch.isfinite(ArTar().penalty(h[:, :1], torch.tensor([1, 1, 1]))).all()


@pytest.mark.parametrize("strength", [-1, math.nan, math.inf, "x", True])
def test_strengths_that_cannot_be_are_refused(strength: Any) -> None:
    with pytest.raises(ValueError, match=rf"alpha={strength}: expected a finite number of at least 0"):
        ArTar(alpha=strength)


def test_label_smoothing_is_torchs() -> None:
    logits = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 2, 1, 1, 0])
    found = LabelSmoothing(0.2).loss(Task("multiclass", ("a", "b", "c")), logits, labels)
    expected = F.cross_entropy(logits, labels, reduction="none", label_smoothing=0.2)
    torch.testing.assert_close(found, expected)
    grads = (torch.autograd.grad(loss.sum(), logits)[0] for loss in (found, expected))
    torch.testing.assert_close(*grads)
    one, y = logits[:, :1], torch.tensor([0, 1, 1, 0, 1])
    soft = F.binary_cross_entropy_with_logits(one[:, 0], 0.8 * y.double() + 0.1, reduction="none")
    torch.testing.assert_close(LabelSmoothing(0.2).loss(BINARY, one, y), soft)
    many = torch.randint(0, 2, (5, 3)).double()
    soft = F.binary_cross_entropy_with_logits(logits, 0.8 * many + 0.1, reduction="none").mean(1)
    found = LabelSmoothing(0.2).loss(Task("multilabel", ("a", "b", "c")), logits, many)
    torch.testing.assert_close(found, soft)


def test_training_minimizes_the_loss_and_the_penalty() -> None:
    model = classifier(Composed({"smooth": LabelSmoothing(0.2), "ar_tar": ArTar(), "zoneout": Zoneout(0.3)}))
    labels, draw = torch.tensor([0, 1, 1]), Draw(4)
    losses, logits = model.losses(TOKENS, LENGTHS, labels, draw)
    states, _ = model.gru(F.embedding(TOKENS, model.vectors), lengths=LENGTHS, draw=draw)
    expected = LabelSmoothing(0.2).loss(BINARY, logits, labels) + ArTar().penalty(states, LENGTHS)
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(logits, model(TOKENS, LENGTHS, draw))


def test_composed_parts_draw_apart_and_know_their_settings() -> None:
    both = Composed({"a": DropConnect(0.5), "b": DropConnect(0.5)})
    layer = Layer(torch.ones(12, 4), torch.ones(12, 4), torch.ones(12), torch.ones(12))
    kept = float((both.weights(layer, whole(Draw(0))).weight_hh != 0).float().mean())
    assert 0.05 < kept < 0.45, "two equal masks would keep half"
    found = Composed({"zoneout": Zoneout(0.1), "ar_tar": ArTar()})
    assert (found.name, found.kept, found.random) == ("zoneout_ar_tar", 0.1, True)
    assert found.grid["regularizer.parts.zoneout.rate"] == (0.05, 0.1, 0.5)
    with pytest.raises(
        ValueError, match="parts=a, b: expected at most one part that has masks of which units"
    ):
        Composed({"a": Zoneout(0.1), "b": Zoneout(0.2)})
    with pytest.raises(ValueError, match="at least one regularizer"):
        Composed({})


# ---- the interface

OPTIONS = sorted(path.stem for path in (config.CONF / "regularizer").glob("*.yaml"))


@cache
def option(name: str) -> tuple[Regularizer, DictConfig]:
    cfg = gruland.compose(f"regularizer={name}")
    return config.instantiate(cfg.regularizer), cfg


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_has_its_name_title_and_a_grid_of_known_keys(name: str) -> None:
    regularizer, cfg = option(name)
    assert regularizer.name == name
    assert regularizer.title
    for key, values in regularizer.grid.items():
        assert len(values) > 1
        assert isinstance(OmegaConf.select(cfg, key), int | float), key


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_the_same_in_every_batch_and_gives_gradients(name: str) -> None:
    model = classifier(option(name)[0])
    draw = Draw(5, [10, 20, 30])
    logits = model(TOKENS, LENGTHS, draw)
    part = model(TOKENS[[2, 0]], LENGTHS[[2, 0]], Draw(5, [30, 10]))
    torch.testing.assert_close(part, logits[[2, 0]])
    plain = model.eval()(TOKENS, LENGTHS)
    assert torch.equal(plain, model(TOKENS, LENGTHS))
    losses, _ = model.losses(TOKENS, LENGTHS, torch.tensor([0, 1, 1]), draw)
    grads = torch.autograd.grad(losses.mean(), list(model.trainable().values()))
    assert all(bool(g.isfinite().all()) for g in grads)
    if not model.regularizer.random:
        torch.testing.assert_close(logits, plain)


def test_nothing_outside_names_a_regularizer() -> None:
    """No string, attribute or name of code; what the layer takes as short for one, and the paper's models, may."""
    classes = {
        cls for cls in vars(regularizers).values() if isinstance(cls, type) and issubclass(cls, Regularizer)
    }
    names = {*OPTIONS, *(cls.__name__ for cls in classes)} - {
        "none",
        "embedding",
        "recurrent",
        "locked",
        "Regularizer",
    }
    # models.py has the order and the titles of the paper's models.
    allowed = {"gru.py", "report/models.py", "report/paper.py"}
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        local = path.relative_to(ROOT).as_posix()
        if local.split("/")[0] in ("regularizers", "kernels") or local in allowed:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            word = getattr(node, "attr", None) or getattr(node, "id", None) or getattr(node, "value", None)
            if isinstance(word, str) and word in names:
                found.append(f"{local}:{node.lineno} {word}")
    assert not found
    assert NoDropout().hooks == frozenset()
