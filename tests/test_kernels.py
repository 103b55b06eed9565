"""Every backend against a textbook loop in float64, and the choice among them.

T time steps, B sequences, I inputs, H hidden units.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from gruland import kernels
from gruland.kernels import Layer
from gruland.kernels import haste as haste_backend

CPU = torch.device("cpu")
BACKENDS = [
    ("eager", torch.float64, "float32"),
    ("eager", torch.float32, "float32"),
    ("cpu", torch.float32, "float32"),
    ("haste", torch.float64, "float32"),
    ("eager", torch.float64, "bfloat16"),
    ("eager", torch.float32, "bfloat16"),
    ("cpu", torch.float32, "bfloat16"),
]
LENGTHS = {
    "equal": [5, 5, 5],
    "ragged": [7, 4, 4, 1],
    "alone": [6],
    "one step": [1, 1],
    "one": [1],
}
ZONEOUT = ["plain", "expectation", "mask", "always"]


class Backend(NamedTuple):
    name: str
    dtype: torch.dtype
    precision: str = "float32"

    def run(self, *arguments: Any, **options: Any) -> Tensor:
        kernel = kernels.choose(self.name, CPU, self.dtype, True, self.precision)
        return kernel.run_layer(*arguments, **options, precision=self.precision)

    def close(self, actual: Any, expected: Any) -> None:
        """In bfloat16 a number on the border of two is rounded to either: by 2**-8 of itself, seldom."""
        rtol = 1e-9 if self.dtype == torch.float64 else 2e-4
        if self.dtype == torch.float32 and self.precision == "bfloat16":
            actual, expected = ([x] if isinstance(x, Tensor) else x for x in (actual, expected))
            assert all(relative_error(a, b) < 2e-3 for a, b in zip(actual, expected, strict=True))
        else:
            torch.testing.assert_close(actual, expected, rtol=rtol, atol=rtol / 20, check_dtype=False)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Of a whole tensor."""
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).norm() / expected.norm().clamp(min=1e-9))


@pytest.fixture(params=BACKENDS, ids=lambda b: f"{b[0]}-{str(b[1])[6:]}-{b[2]}")
def backend(request: pytest.FixtureRequest) -> Backend:
    backend = Backend(*request.param)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # haste's docstrings, when they are compiled
        reason = kernels.why_not(backend.name, CPU, backend.dtype, True, backend.precision)
        if reason is None and backend.name == "haste":
            import haste_pytorch  # noqa: F401
    if reason is not None:
        pytest.skip(f"backend {backend.name}: {reason}")
    return backend


class Problem(NamedTuple):
    inputs: list[Tensor]  # x_TBI, h0_BH and the four weights
    active: list[int]
    options: dict[str, Any]
    weights_TBH: Tensor  # of the outputs in the scalar whose gradient is taken


def problem(lengths: list[int], zoneout: str, dtype: torch.dtype, hidden: int = 7, seed: int = 0) -> Problem:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    steps, sequences = max(lengths), len(lengths)
    shapes = [(steps, sequences, 5), (sequences, hidden), (3 * hidden, 5), (3 * hidden, hidden)]
    inputs = [normal(*shape).requires_grad_() for shape in [*shapes, (3 * hidden,), (3 * hidden,)]]
    keep = (normal(steps, sequences, hidden) < 0).to(dtype)
    options = {
        "plain": {},
        "expectation": {"zoneout": 0.3},
        "mask": {"keep_TBH": keep, "zoneout": 0.3},
        "always": {"keep_TBH": torch.ones_like(keep)},
    }[zoneout]
    active = [sum(length > t for length in lengths) for t in range(steps)]
    return Problem(inputs, active, options, normal(steps, sequences, hidden))


class _RoundedProduct(torch.autograd.Function):
    """weight @ x with operands rounded to bfloat16, and so is the product's gradient, an operand of the next ones."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: Tensor, bias: Tensor) -> Tensor:
        weight, x = weight.bfloat16().double(), x.bfloat16().double()
        ctx.save_for_backward(weight, x)
        return weight @ x + bias

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weight, x = ctx.saved_tensors
        grad = grad.bfloat16().double()
        return torch.outer(grad, x), weight.t() @ grad, grad


def affine(weight: Tensor, x: Tensor, bias: Tensor, precision: str) -> Tensor:
    if precision == "bfloat16":
        return _RoundedProduct.apply(weight, x, bias)
    return weight @ x + bias


def textbook(
    inputs: list[Tensor],
    active: list[int],
    keep_TBH: Tensor | None = None,
    zoneout: float = 0.0,
    precision: str = "float32",
) -> Tensor:
    """One sequence after the other, in the equations of ``torch.nn.GRU``'s documentation."""
    x_TBI, h0_BH, weight_ih, weight_hh, bias_ih, bias_hh = inputs
    (w_r, w_z, w_n), (u_r, u_z, u_n) = weight_ih.chunk(3), weight_hh.chunk(3)
    (b_r, b_z, b_n), (c_r, c_z, c_n) = bias_ih.chunk(3), bias_hh.chunk(3)
    columns = []
    for b, h in enumerate(h0_BH):
        states = []
        for t in range(sum(n > b for n in active)):
            x = x_TBI[t, b]
            r = 1 / (1 + torch.exp(-(affine(w_r, x, b_r, precision) + affine(u_r, h, c_r, precision))))
            z = 1 / (1 + torch.exp(-(affine(w_z, x, b_z, precision) + affine(u_z, h, c_z, precision))))
            n = torch.tanh(affine(w_n, x, b_n, precision) + r * affine(u_n, h, c_n, precision))
            candidate = (1 - z) * n + z * h
            keep = zoneout if keep_TBH is None else keep_TBH[t, b]
            h = keep * h + (1 - keep) * candidate
            states.append(h)
        states += [torch.zeros_like(h)] * (len(x_TBI) - len(states))
        columns.append(torch.stack(states))
    return torch.stack(columns, 1)


def run(backend: Backend, p: Problem) -> Tensor:
    return backend.run(*p.inputs[:2], Layer(*p.inputs[2:]), torch.tensor(p.active), **p.options)


def gradients(h_TBH: Tensor, inputs: list[Tensor], weights_TBH: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad((h_TBH * weights_TBH).sum(), inputs)


@pytest.mark.parametrize("zoneout", ZONEOUT)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_outputs_and_gradients_are_the_textbooks(backend: Backend, lengths: list[int], zoneout: str) -> None:
    check_textbook(backend, lengths, zoneout)


def check_textbook(backend: Backend, lengths: list[int], zoneout: str) -> None:
    p = problem(lengths, zoneout, backend.dtype)
    exact = [t.detach().double().requires_grad_() for t in p.inputs]
    options = {k: v.double() if isinstance(v, Tensor) else v for k, v in p.options.items()}
    expected, actual = textbook(exact, p.active, **options, precision=backend.precision), run(backend, p)
    assert actual.dtype == backend.dtype
    backend.close(actual, expected)
    expected_gradients = gradients(expected, exact, p.weights_TBH.double())
    backend.close(gradients(actual, p.inputs, p.weights_TBH), expected_gradients)


@pytest.mark.parametrize("hidden", [1, 8, 19, 64])
def test_any_hidden_size(backend: Backend, hidden: int) -> None:
    check_hidden_size(backend, hidden)


def check_hidden_size(backend: Backend, hidden: int) -> None:
    p = problem([4, 2, 1], "mask", backend.dtype, hidden)
    exact = [t.detach().double().requires_grad_() for t in p.inputs]
    expected = textbook(exact, p.active, p.options["keep_TBH"].double(), precision=backend.precision)
    backend.close(run(backend, p), expected)
    expected_gradients = gradients(expected, exact, p.weights_TBH.double())
    backend.close(gradients(run(backend, p), p.inputs, p.weights_TBH), expected_gradients)


@pytest.mark.parametrize("zoneout", ["plain", "mask"])
@pytest.mark.parametrize(("name", "dtype"), [("eager", torch.float64), ("cpu", torch.float32)])
def test_bfloat16_is_close_to_exact(name: str, dtype: torch.dtype, zoneout: str) -> None:
    if reason := kernels.why_not(name, CPU, dtype, True, "bfloat16"):
        pytest.skip(reason)
    p = scaled(problem(LENGTHS["ragged"], zoneout, dtype, hidden=64))
    exact = [t.detach().double().requires_grad_() for t in p.inputs]
    options = {k: v.double() if isinstance(v, Tensor) else v for k, v in p.options.items()}
    expected, actual = textbook(exact, p.active, **options), run(Backend(name, dtype, "bfloat16"), p)
    assert 1e-4 < relative_error(actual, expected) < 1e-2
    expected_gradients = gradients(expected, exact, p.weights_TBH.double())
    actual_gradients = gradients(actual, p.inputs, p.weights_TBH)
    whole = [
        torch.cat([g.double().flatten() for g in grads]) for grads in (actual_gradients, expected_gradients)
    ]
    assert 1e-4 < relative_error(*whole) < 2e-2


def scaled(p: Problem) -> Problem:
    """Weights of the size that an initialization gives them."""
    x, h0, *weights = p.inputs
    scales = (5**-0.5, 64**-0.5, 0.1, 0.1)
    weights = [(s * w).detach().requires_grad_() for s, w in zip(scales, weights, strict=True)]
    return p._replace(inputs=[x, h0, *weights])


@pytest.mark.parametrize("zoneout", ZONEOUT)
@pytest.mark.parametrize("lengths", [LENGTHS["equal"], LENGTHS["ragged"]], ids=["equal", "ragged"])
def test_explicit_backward_pass_is_the_derivative(lengths: list[int], zoneout: str) -> None:
    p = problem(lengths, zoneout, torch.float64, hidden=3)
    backend = Backend("eager", torch.float64)
    assert torch.autograd.gradcheck(lambda *inputs: run(backend, p._replace(inputs=inputs)), tuple(p.inputs))


@pytest.mark.parametrize("wanted", range(6))
def test_each_input_may_want_the_only_gradient(backend: Backend, wanted: int) -> None:
    check_only_gradient(backend, wanted)


def check_only_gradient(backend: Backend, wanted: int) -> None:
    p = problem(LENGTHS["ragged"], "mask", backend.dtype)
    (expected,) = gradients(run(backend, p), [p.inputs[wanted]], p.weights_TBH)
    inputs = [t.detach().requires_grad_(k == wanted) for k, t in enumerate(p.inputs)]
    (alone,) = gradients(run(backend, p._replace(inputs=inputs)), [inputs[wanted]], p.weights_TBH)
    backend.close(alone, expected)


@pytest.mark.parametrize("zoneout", ["plain", "expectation", "mask"])
def test_without_gradients(backend: Backend, zoneout: str) -> None:
    check_without_gradients(backend, zoneout)


def check_without_gradients(backend: Backend, zoneout: str) -> None:
    p = problem(LENGTHS["ragged"], zoneout, backend.dtype)
    with torch.no_grad():
        quiet = run(backend, p)
    with torch.inference_mode():
        inference = run(backend, p._replace(inputs=[t.clone() for t in p.inputs]))
    assert not quiet.requires_grad
    assert inference.is_inference()
    backend.close(quiet, run(backend, p))
    backend.close(inference, quiet)


def test_inputs_are_left_alone(backend: Backend) -> None:
    p = problem(LENGTHS["ragged"], "mask", backend.dtype)
    before = [t.detach().clone() for t in (*p.inputs, p.options["keep_TBH"])]
    gradients(run(backend, p), p.inputs, p.weights_TBH)
    torch.testing.assert_close(
        [t.detach() for t in (*p.inputs, p.options["keep_TBH"])], before, rtol=0, atol=0
    )


def test_two_backward_passes_agree(backend: Backend) -> None:
    p = problem(LENGTHS["ragged"], "mask", backend.dtype)
    h_TBH = run(backend, p)
    once, twice = (
        torch.autograd.grad((h_TBH * p.weights_TBH).sum(), p.inputs, retain_graph=True) for _ in range(2)
    )
    torch.testing.assert_close(once, twice, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["eager", "cpu", "haste"])
def test_padding_is_neither_read_nor_given_a_gradient(name: str) -> None:
    reason = kernels.why_not(name, CPU, torch.float32, True)
    if reason is not None:
        pytest.skip(f"backend {name}: {reason}")
    check_padding(Backend(name, torch.float32))


def check_padding(backend: Backend) -> None:
    p = problem(LENGTHS["ragged"], "mask", torch.float32)
    runs = torch.arange(4) < torch.tensor(p.active).unsqueeze(1)
    with torch.no_grad():
        p.inputs[0][~runs] = torch.nan
        p.options["keep_TBH"][~runs] = torch.nan
        p.weights_TBH[~runs] = 7
    h_TBH = run(backend, p)
    assert not h_TBH[~runs].any()
    grads = gradients(h_TBH, p.inputs, p.weights_TBH)
    assert all(bool(grad.isfinite().all()) for grad in grads)
    assert not grads[0][~runs].any()


def test_a_list_of_running_sequences_may_end_in_zeros() -> None:
    p = problem([3, 2], "plain", torch.float64)
    longer = torch.cat([p.inputs[0], torch.ones(2, 2, 5, dtype=torch.float64)])
    run_layer = kernels.choose("eager", CPU, torch.float64).run_layer
    h_TBH = run_layer(longer, p.inputs[1], Layer(*p.inputs[2:]), [*p.active, 0, 0])
    torch.testing.assert_close(h_TBH[:3], run(Backend("eager", torch.float64), p))
    assert not h_TBH[3:].any()


def test_auto_takes_the_first_that_can_run() -> None:
    for dtype in (torch.float32, torch.float64):
        able = [name for name in kernels.available(CPU, dtype) if name != "triton"]  # an interpreter there
        assert kernels.choose("auto", CPU, dtype).__name__ == f"gruland.kernels.{able[0]}"
    assert "haste" not in kernels.AUTO


def test_auto_does_without_the_compiled_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gruland.kernels.cpu", None)
    assert kernels.choose("auto", CPU, torch.float32).__name__ == "gruland.kernels.eager"
    with pytest.raises(ValueError, match="backend 'cpu' cannot run here"):
        kernels.choose("cpu", CPU, torch.float32)


def test_an_unknown_backend_is_refused_with_the_list() -> None:
    with pytest.raises(
        ValueError, match="'cuda' is unknown: expected one of auto, cpu, triton, eager, haste"
    ):
        kernels.choose("cuda", CPU, torch.float32)


def test_haste_without_its_package_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haste_backend, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="haste_pytorch is not installed"):
        kernels.choose("haste", CPU, torch.float32)
    assert "haste" not in kernels.available()


def test_haste_without_cuda_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haste_backend, "find_spec", lambda name: name == "haste_pytorch" or None)
    assert "without CUDA" in str(kernels.why_not("haste", torch.device("cuda"), torch.float32, True))


def test_describe_has_a_line_for_each_backend() -> None:
    lines = dict(line.split(": ", 1) for line in kernels.describe().splitlines())
    assert list(lines) == list(kernels.NAMES)
    assert lines["eager"] == "can run, products in float32 or bfloat16"
    if "haste" in kernels.available():
        assert lines["haste"].startswith("can run, products in float32; not bfloat16: haste")


def test_a_fused_kernel_without_bfloat16_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cpu = pytest.importorskip("gruland.kernels.cpu")
    monkeypatch.setattr(
        cpu, "unavailable", lambda *options: "no such products" if "bfloat16" in options else None
    )
    kernels._warn_once.cache_clear()
    for _ in range(2):
        assert (
            kernels.choose("auto", CPU, torch.float32, True, "bfloat16").__name__ == "gruland.kernels.eager"
        )
    assert kernels.choose("auto", CPU, torch.float32, True) is cpu
    (record,) = caplog.records
    assert (
        record.getMessage()
        == "precision='bfloat16' runs in the slower backend 'eager': cpu: no such products"
    )
    assert "cpu: can run, products in float32; not bfloat16: no such products" in kernels.describe()
    with pytest.raises(ValueError, match="backend 'cpu' cannot run here: no such products"):
        kernels.choose("cpu", CPU, torch.float32, True, "bfloat16")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="precision 'half' is unknown: expected one of float32, bfloat16"):
        kernels.choose("auto", CPU, torch.float32, precision="half")


def test_haste_multiplies_in_float32_only() -> None:
    assert "not in bfloat16" in str(haste_backend.unavailable(CPU, torch.float32, True, "bfloat16"))


class _FirstMask(torch.autograd.Function):
    """h_t = h_{t-1} (1 - update_t / 2), differentiated as if every update_t were update_0."""

    @staticmethod
    def forward(ctx: Any, h0_BH: Tensor, update_TBH: Tensor) -> Tensor:
        ctx.save_for_backward(update_TBH)
        states = [h0_BH]
        for update in update_TBH:
            states.append(states[-1] * (1 - update / 2))
        return torch.stack(states)

    @staticmethod
    def backward(ctx: Any, grad_TBH: Tensor) -> tuple[Tensor, None]:
        (update_TBH,) = ctx.saved_tensors
        grad = grad_TBH[-1]
        for grad_BH in grad_TBH.flip(0)[1:]:
            grad = grad * (1 - update_TBH[0] / 2) + grad_BH
        return grad, None


def first_mask_for_all(training: bool, zoneout: float, *inputs: Tensor) -> Tensor:
    """A recurrence with the defect of haste 0.5.0rc0, right for weights of zero."""
    return _FirstMask.apply(inputs[1], inputs[-1])


def test_a_haste_with_a_wrong_zoneout_gradient_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haste_backend, "_recurrence", lambda device: first_mask_for_all)
    monkeypatch.setattr(haste_backend, "_is_wrong", haste_backend._is_wrong.__wrapped__)
    p = problem([3, 2], "mask", torch.float64)
    with pytest.warns(UserWarning, match="gradients are wrong"):
        haste_backend.run_layer(*p.inputs[:2], Layer(*p.inputs[2:]), p.active, p.options["keep_TBH"])
    with torch.no_grad():  # nothing is differentiated
        haste_backend.run_layer(*p.inputs[:2], Layer(*p.inputs[2:]), p.active, p.options["keep_TBH"])


def test_a_right_haste_is_not_accused() -> None:
    gru = pytest.importorskip("haste_pytorch.gru")
    assert not haste_backend.zoneout_gradient_is_wrong(gru.GRUScript, CPU)
