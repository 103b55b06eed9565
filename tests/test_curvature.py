"""Hessians against closed forms, full Hessians by torch in float64, and finite differences."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from gruland.classifier import Classifier
from gruland.data import Encoded
from gruland.landscape.measures.curvature import (
    extreme_eigenvalues,
    hessian,
    hessian_plane,
    spectral_density,
    top_eigenvalues,
    trace,
)
from gruland.objective import EvaluationLoss, hessian_product
from gruland.objective.mean_loss import MeanLoss
from gruland.objective.packed_batch import packed_reviews
from gruland.regularizers import by_rates
from gruland.task import Task

# -- losses with a known Hessian


def quadratic(eigenvalues, seed=0):
    """A loss of two tensors whose Hessian is Q diag(eigenvalues) Q'."""
    generator = torch.Generator().manual_seed(seed)
    size = len(eigenvalues)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
    matrix = basis @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ basis.T
    parameters = {
        "matrix": torch.randn(2, 3, generator=generator, dtype=torch.float64),
        "rest": torch.randn(size - 6, generator=generator, dtype=torch.float64),
    }

    def loss(p):
        w = torch.cat([p["matrix"].reshape(-1), p["rest"]])
        return w @ matrix @ w / 2 + w.sum() + 7

    return loss, parameters, matrix.numpy(), basis.numpy()


def flat(vector):
    return torch.cat([part.reshape(-1).double() for part in vector.values()]).numpy()


def dense(operator):
    return (operator @ torch.eye(operator.shape[0], dtype=torch.float64)).numpy()


def columns(operator, rows=slice(None)):
    """The operator times three vectors that are zero but in ``rows``: those rows of the result."""
    vectors = torch.zeros(operator.shape[0], 3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    vectors[rows] = torch.randn(vectors[rows].shape, generator=generator, dtype=torch.float64)
    return (operator @ vectors).numpy()[rows]


SPECTRUM = [9.0, 4.0, 1.0, 0.5, *np.linspace(-0.2, 0.2, 15), -3.0]


def test_products_and_eigenvalues_of_a_quadratic():
    loss, parameters, matrix, basis = quadratic(SPECTRUM)
    operator = hessian(loss, parameters)
    np.testing.assert_allclose(dense(operator), matrix, atol=1e-12)
    assert operator.products == 20
    values, vectors = top_eigenvalues(operator, 3, tolerance=1e-9)
    np.testing.assert_allclose(values, [9, 4, 1], rtol=1e-8)
    for index, vector in enumerate(vectors):
        assert {name: v.shape for name, v in vector.items()} == {n: p.shape for n, p in parameters.items()}
        assert abs(flat(vector) @ basis[:, index]) == pytest.approx(1)
        assert flat(vector)[np.abs(flat(vector)).argmax()] > 0


def test_the_ends_of_a_spectrum_whose_lower_one_is_small():
    loss, parameters, *_ = quadratic([100.0, *np.linspace(0, 1, 18), -0.7])
    ends = extreme_eigenvalues(hessian(loss, parameters), tolerance=1e-6)
    assert (ends.low, ends.high) == (pytest.approx(-0.7, abs=1e-4), pytest.approx(100))
    assert ends.ratio == pytest.approx(0.007, abs=1e-6)
    assert ends.error <= 1e-4
    zero = extreme_eigenvalues(hessian(lambda p: p["rest"].sum(), parameters))
    assert (zero.low, zero.high) == (0, 0)
    assert np.isnan(zero.ratio)


def test_the_lower_end_is_not_mistaken_for_the_crowd_at_zero():
    """As in a network's Hessian: 20,000 eigenvalues about zero, a large one, and a lower end far from the crowd.

    The least Ritz value rests at zero with a small residual before the Krylov space reaches the lower end.
    """
    spectrum = 0.01 * torch.randn(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spectrum[:60], spectrum[60], spectrum[61] = torch.linspace(0.1, 5, 60), 40.0, -2.0
    parameters = {"w": torch.zeros(20_000, dtype=torch.float64)}
    ends = extreme_eigenvalues(hessian(lambda p: (spectrum * p["w"] ** 2).sum() / 2, parameters))
    assert ends.low == pytest.approx(-2, abs=0.4)  # 1% of the larger one
    assert ends.high == pytest.approx(40, rel=0.01)


def test_trace_within_its_interval_and_exact_where_all_is_deflated():
    loss, parameters, matrix, _ = quadratic(SPECTRUM)
    operator = hessian(loss, parameters)
    found = trace(operator, 200, seed=1)
    assert found.low < np.trace(matrix) < found.high
    # Hutchinson's variance with signs: twice the squares off the diagonal.
    variance = 2 * ((matrix**2).sum() - (np.diag(matrix) ** 2).sum())
    assert (found.high - found.low) / 2 == pytest.approx(1.97 * np.sqrt(variance / 200), rel=0.2)
    top = top_eigenvalues(operator, 4, tolerance=1e-10)
    deflated = trace(operator, 20, seed=1, deflate=top)
    plain = trace(operator, 20, seed=1)
    assert deflated.low < np.trace(matrix) < deflated.high
    assert deflated.high - deflated.low < 0.7 * (plain.high - plain.low)
    diagonal = hessian(lambda p: (p["w"] ** 2 * torch.arange(1.0, 6)).sum() / 2, {"w": torch.ones(5)})
    exact = trace(diagonal, 3)
    assert (exact.estimate, exact.low, exact.high) == (15, 15, 15)
    assert trace(operator, 1).high == np.inf


def test_spectral_density_has_the_eigenvalues_masses():
    spread = np.linspace(-0.1, 0.1, 100)
    eigenvalues = np.r_[np.full(60, -1.0), np.full(30, 0.0), np.full(10, 2.0)] + spread
    loss = lambda p: (p["w"] ** 2 * torch.from_numpy(eigenvalues)).sum() / 2  # noqa: E731
    operator = hessian(loss, {"w": torch.ones(100, dtype=torch.float64)})
    state = torch.random.get_rng_state()
    grid, density, draws = spectral_density(operator, steps=40, draws=30, points=500)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (draws.shape, density.shape) == ((30, 500), (500,))
    np.testing.assert_allclose(density, draws.mean(0))
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=0.01)
    for low, high, mass in ((-1.5, -0.5, 0.6), (-0.5, 1, 0.3), (1, 3, 0.1)):
        inside = (grid > low) & (grid < high)
        assert np.trapezoid(density[inside], grid[inside]) == pytest.approx(mass, abs=0.04)
    again = spectral_density(operator, steps=40, draws=30, points=500)
    np.testing.assert_array_equal(again.draws, draws)
    assert (
        np.abs(spectral_density(operator, steps=40, draws=1, seed=1, points=500).density - draws[0]).max()
        > 0.01
    )


def test_logistic_regression_s_hessian_in_closed_form():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 4)), rng.integers(0, 2, 50)
    module = nn.Linear(4, 1).double()

    def loss(p):
        logits = functional_call(module, p, torch.from_numpy(x))[:, 0]
        return nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(y).double())

    inputs = np.c_[x, np.ones(50)]
    chance = 1 / (1 + np.exp(-(x @ module.weight.detach().numpy()[0] + module.bias.item())))
    expected = (inputs * (chance * (1 - chance))[:, None]).T @ inputs / 50
    operator = hessian(loss, dict(module.named_parameters()))
    np.testing.assert_allclose(dense(operator), expected, rtol=1e-10)
    values, _ = top_eigenvalues(operator, 2, tolerance=0.0)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(expected)[::-1][:2])


def test_torch_s_gru():
    torch.manual_seed(0)
    gru, x = nn.GRU(2, 3).double(), torch.randn(5, 4, 2, dtype=torch.float64)
    parameters = dict(gru.named_parameters())

    def loss(p):
        return functional_call(gru, p, x)[0].square().mean()

    sizes = [p.numel() for p in parameters.values()]

    def of_one(w):
        parts = w.split(sizes)
        named = zip(parameters.items(), parts, strict=True)
        return loss({name: part.view(p.shape) for (name, p), part in named})

    point = torch.cat([p.detach().reshape(-1) for p in parameters.values()])
    expected = torch.autograd.functional.hessian(of_one, point).numpy()
    np.testing.assert_allclose(dense(hessian(loss, parameters)), expected, atol=1e-12)


# -- a classifier of reviews


def example(zoneout=0.0, layers=2, between="tanh", kind="binary", freeze=True, hidden=4, **options):
    generator = torch.Generator().manual_seed(2)
    torch.manual_seed(3)
    task = Task(kind, ("neg", "pos") if kind == "binary" else ("a", "b", "c"))
    vectors = torch.randn(20, 3, generator=generator)
    model = Classifier(
        task, vectors, hidden_size=hidden, num_layers=layers, between=between, freeze=freeze,
        regularizer=by_rates(zoneout=zoneout), **options,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.gru.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    lengths = np.array([1, 7, 3, 12, 3, 5, 1, 9])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(task.classes), 8)
    if kind == "multilabel":
        labels = rng.integers(0, 2, (8, 3)).astype(np.float32)
    return model.eval(), Encoded(rng.integers(1, 20, offsets[-1]).astype(np.int32), offsets), labels


EXAMPLES = {
    "plain": {},
    "zoneout": {"zoneout": 0.3},
    "nearly all zoned out": {"zoneout": 0.99},
    "one layer": {"layers": 1, "zoneout": 0.1},
    "relu, three layers": {"layers": 3, "between": "relu"},
    "no activation": {"between": None, "zoneout": 0.2},
    "multiclass": {"kind": "multiclass"},
    "multilabel": {"kind": "multilabel"},
}


@pytest.fixture(params=EXAMPLES.values(), ids=EXAMPLES)
def reviews(request):
    return example(**request.param)


@pytest.mark.parametrize("batch_tokens", [1, 20, 10_000])
def test_composed_loss_is_the_evaluation_loss(reviews, batch_tokens):
    model, encoded, labels = reviews
    loss = MeanLoss(model, encoded, labels, batch_tokens=batch_tokens)
    moved = {name: p.detach() * 1.1 for name, p in model.trainable().items()}
    expected = EvaluationLoss(model, encoded, labels, precision="float32")(moved)[0].mean()
    assert float(loss(moved)) == pytest.approx(float(expected), rel=1e-6)
    assert len(loss.batches) == {1: 8, 20: 4, 10_000: 1}[batch_tokens]
    assert float(sum(batch(loss.complete(moved)) for batch in loss.batches)) == pytest.approx(
        float(expected), rel=1e-6
    )


def test_packed_reviews_are_the_words_step_by_step():
    encoded = Encoded(np.arange(1, 7, dtype=np.int32), np.array([0, 3, 5, 6]))
    packed = packed_reviews(encoded)
    assert packed.tokens_S.tolist() == [1, 4, 6, 2, 5, 3]
    assert packed.running == [3, 2, 1]
    assert packed.last_B.tolist() == [5, 4, 2]


def test_gradients_and_products_against_finite_differences(reviews):
    model, encoded, labels = reviews
    loss = MeanLoss(model, encoded, labels, batch_tokens=25, dtype=torch.float64)
    parameters = {name: p.detach().double() for name, p in model.trainable().items()}
    generator = torch.Generator().manual_seed(4)
    vector = {
        n: torch.randn(p.shape, generator=generator, dtype=torch.float64) for n, p in parameters.items()
    }

    def at(step):
        return {name: p + step * vector[name] for name, p in parameters.items()}

    def slopes(p):
        leaves = {name: w.clone().requires_grad_() for name, w in p.items()}
        return flat(dict(zip(leaves, torch.autograd.grad(loss(leaves), list(leaves.values())), strict=True)))

    h = 1e-5
    rise = float(loss(at(h)) - loss(at(-h))) / (2 * h)
    assert slopes(parameters) @ flat(vector) == pytest.approx(rise, rel=1e-7, abs=1e-10)
    difference = (slopes(at(h)) - slopes(at(-h))) / (2 * h)
    np.testing.assert_allclose(
        flat(loss.hessian_product(parameters)(vector)), difference, rtol=1e-5, atol=1e-8
    )


def test_products_are_those_of_a_double_backward_pass(reviews):
    model, encoded, labels = reviews
    loss = MeanLoss(model, encoded, labels, batch_tokens=25, dtype=torch.float64)
    parameters = {name: p.double() for name, p in model.trainable().items()}
    found = columns(hessian(loss, parameters))
    loss.hessian_product = lambda parameters: None
    np.testing.assert_allclose(found, columns(hessian(loss, parameters)), rtol=1e-9, atol=1e-12)
    assert np.abs(found).max() > 1e-3


def places(parameters, names):
    """Where the parameters of these names lie among all numbers."""
    parts = torch.arange(sum(p.numel() for p in parameters.values())).split(
        [p.numel() for p in parameters.values()]
    )
    return torch.cat([part for name, part in zip(parameters, parts, strict=True) if name in names])


@pytest.mark.parametrize("batch_tokens", [20, 10_000])
def test_products_of_a_part_of_the_parameters_with_nothing_kept(monkeypatch, batch_tokens):
    model, encoded, labels = example(zoneout=0.2)
    loss = MeanLoss(model, encoded, labels, batch_tokens=batch_tokens, dtype=torch.float64)
    whole = {name: p.double() for name, p in model.trainable().items()}
    part = {name: p for name, p in whole.items() if name in ("gru.weight_hh_l0", "head.weight")}
    expected = columns(hessian(loss, whole), places(whole, part))
    monkeypatch.setattr(hessian_product, "MEMORY", 0)
    np.testing.assert_allclose(columns(hessian(loss, part)), expected, atol=1e-13)


def test_long_batches_are_computed_in_blocks(monkeypatch):
    model, encoded, labels = example(zoneout=0.2)
    loss = MeanLoss(model, encoded, labels, dtype=torch.float64)
    parameters = {name: p.double() for name, p in model.trainable().items()}
    whole = columns(hessian(loss, parameters))
    monkeypatch.setattr(hessian_product, "_ROWS", 7)
    np.testing.assert_allclose(columns(hessian(loss, parameters)), whole, atol=1e-14)


def test_trained_word_vectors_have_a_hessian():
    model, encoded, labels = example(freeze=False, hidden=2, layers=1)
    loss = MeanLoss(model, encoded, labels, dtype=torch.float64)
    parameters = {name: p.detach().double() for name, p in model.trainable().items()}
    rest = {name: p for name, p in parameters.items() if name != "vectors"}
    assert len(rest) == len(parameters) - 1
    found = columns(hessian(loss, parameters), places(parameters, rest))
    np.testing.assert_allclose(found, columns(hessian(loss, rest)), atol=1e-12)
    words = columns(hessian(loss, parameters), places(parameters, ["vectors"]))
    assert np.abs(words).max() > 1e-3


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_the_kernel_s_gradient_is_the_loss_s(dtype, precision):
    model, encoded, labels = example(zoneout=0.2, precision=precision)
    loss = MeanLoss(model.train(), encoded, labels, dtype=dtype)
    leaves = {name: p.detach().clone().requires_grad_() for name, p in model.trainable().items()}
    expected = dict(zip(leaves, torch.autograd.grad(loss(leaves), list(leaves.values())), strict=True))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    found = loss.gradient(model.trainable())
    assert model.training
    assert {name: g.dtype for name, g in found.items()} == {name: p.dtype for name, p in before.items()}
    np.testing.assert_allclose(flat(found), flat(expected), rtol=1e-4, atol=1e-6)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())


def test_float32_products_are_close_to_float64_s():
    model, encoded, labels = example(zoneout=0.1)
    single, double = (MeanLoss(model, encoded, labels, dtype=d) for d in (torch.float32, torch.float64))
    parameters = model.trainable()
    exact = columns(hessian(double, parameters))
    np.testing.assert_allclose(columns(hessian(single, parameters)), exact, atol=1e-5 * np.abs(exact).max())


def test_the_model_stays_as_it_is():
    model, encoded, labels = example()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    operator = hessian(MeanLoss(model, encoded, labels), model.trainable())
    top_eigenvalues(operator, 1)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())


# -- planes and maps


def test_hessian_plane_s_axes():
    loss, parameters, _, basis = quadratic(SPECTRUM)
    plane = hessian_plane(loss, parameters, tolerance=1e-10)
    norm = np.linalg.norm(flat(parameters))
    for index, direction in enumerate(plane.directions):
        assert np.linalg.norm(flat(direction)) == pytest.approx(norm)
        assert abs(flat(direction) @ basis[:, index]) == pytest.approx(norm)
        bent = [loss({n: p + s * direction[n] for n, p in parameters.items()}) for s in (-0.1, 0, 0.1)]
        rise = float(bent[0] - 2 * bent[1] + bent[2]) / 2 / 0.01
        assert plane.attributes["rise"][index] == pytest.approx(rise)
    assert plane.kind == "hessian"


# -- what cannot work


def test_errors():
    loss, parameters, *_ = quadratic(SPECTRUM)
    operator = hessian(loss, parameters)
    with pytest.raises(ValueError, match="no parameters"):
        hessian(loss, {})
    for k in (0, 20, 1.5):
        with pytest.raises(ValueError, match=rf"k={k}: expected a whole number between 1 and 19"):
            top_eigenvalues(operator, k)
    with pytest.raises(ValueError, match="samples=0"):
        trace(operator, 0)
    with pytest.raises(ValueError, match="steps=1: expected a whole number of at least 2"):
        spectral_density(operator, 1)
    nowhere = hessian(lambda p: p["w"].log().sum(), {"w": torch.zeros(3)})
    for measure in (lambda: top_eigenvalues(nowhere, 1), lambda: trace(nowhere)):
        with pytest.raises(ValueError, match="not finite: expected weights with a finite loss"):
            measure()
    model, encoded, labels = example()
    with pytest.raises(ValueError, match="got 8 reviews and 7 labels"):
        MeanLoss(model, encoded, labels[:7])


def test_without_curvlinops_there_is_one_line(monkeypatch):
    original = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("curvlinops"):
            raise ModuleNotFoundError("No module named 'curvlinops'")
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    loss, parameters, *_ = quadratic(SPECTRUM)
    with pytest.raises(
        ModuleNotFoundError, match=r"needs curvlinops .* make setup, or pip install 'gruland\[hessian\]'"
    ):
        spectral_density(hessian(loss, parameters))


def test_progress_says_how_many_products(capsys, monkeypatch):
    monkeypatch.setattr("gruland.progress.Progress.__exit__", lambda self, *_: (print(self), self.close()))
    loss, parameters, *_ = quadratic(SPECTRUM)
    trace(hessian(loss, parameters), 3, label="trace")
    assert "trace: 100%, 00:00 left, 3 products" in capsys.readouterr().out
