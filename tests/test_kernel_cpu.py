"""The fused CPU kernel: against a float64 loop written from the equations and against torch.nn.GRU.

T time steps, B sequences, I inputs, H hidden units.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil

import pytest
import torch
from torch import Tensor
from torch.autograd import grad
from torch.func import functional_call

from gruland.kernels import Layer, cpu
from gruland.kernels.cpu import binding
from gruland.kernels.cpu import layer as layer_module

CPU, FLOAT = torch.device("cpu"), torch.float32
NAMES = ("output", "x", "h0", "weight_ih", "weight_hh", "bias_ih", "bias_hh")
# Only that: a kernel that does not compile has to fail here.
pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(params=["float32", "bfloat16"])
def precision(request):
    if reason := cpu.unavailable(CPU, FLOAT, True, request.param):
        pytest.skip(reason)
    return request.param


def rounded(x: Tensor) -> Tensor:
    return x.bfloat16().to(x.dtype)


class _RoundedProduct(torch.autograd.Function):
    """x @ weight.t() with operands rounded to bfloat16: also in its gradients, of which the product's is one."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        x, weight = rounded(x), rounded(weight)
        ctx.save_for_backward(x, weight)
        return x @ weight.t() + bias

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad = rounded(grad)
        return grad @ weight, grad.t() @ x, grad.sum(0)


def affine(x: Tensor, weight: Tensor, bias: Tensor, precision: str) -> Tensor:
    if precision == "bfloat16":
        return _RoundedProduct.apply(x, weight, bias)
    return x @ weight.t() + bias


def textbook(
    x_TBI: Tensor,
    h_BH: Tensor,
    layer: Layer,
    active: Tensor,
    keep_TBH: Tensor | None = None,
    zoneout: float = 0.0,
    precision: str = "float32",
) -> Tensor:
    """The equations of torch.nn.GRU's documentation with zoneout's, a sequence and a step at a time."""
    states_TBH = []
    for t, running in enumerate(active.tolist()):
        r_x, z_x, n_x = affine(x_TBI[t], layer.weight_ih, layer.bias_ih, precision).chunk(3, 1)
        r_h, z_h, n_h = affine(h_BH, layer.weight_hh, layer.bias_hh, precision).chunk(3, 1)
        r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
        n = torch.tanh(n_x + r * n_h)
        keep = zoneout if keep_TBH is None else keep_TBH[t]
        h_BH = keep * h_BH + (1 - keep) * ((1 - z) * n + z * h_BH)
        runs = (torch.arange(len(h_BH)) < running).unsqueeze(1)
        states_TBH.append(torch.where(runs, h_BH, 0))
    return torch.stack(states_TBH)


def count(lengths: Tensor, steps: int) -> Tensor:
    return (lengths > torch.arange(steps).unsqueeze(1)).sum(1)


def example(steps: int, sequences: int, inputs: int, hidden: int, ragged: bool = False, seed: int = 0):
    """x, h0, weights and biases, and the number of running sequences at each step."""
    g = torch.Generator().manual_seed(seed)
    lengths = torch.full((sequences,), steps)
    if ragged:
        lengths = torch.randint(1, steps + 1, (sequences,), generator=g).sort(descending=True).values
    shapes = (steps, sequences, inputs), (sequences, hidden), (3 * hidden, inputs), (3 * hidden, hidden)
    scales = 1.0, 0.5, inputs**-0.5, hidden**-0.5
    tensors = [s * torch.randn(shape, generator=g) for s, shape in zip(scales, shapes, strict=True)]
    tensors += [0.3 * torch.randn(3 * hidden, generator=g) for _ in range(2)]
    return tensors, count(lengths, steps)


def mask(shape: tuple[int, ...], rate: float = 0.3) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)).lt(rate).float()


def values_and_gradients(
    run, tensors, active, keep_TBH=None, zoneout=0.0, dtype=FLOAT, precision="float32"
) -> list[Tensor]:
    leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
    if keep_TBH is not None and keep_TBH.dtype != torch.bool:
        keep_TBH = keep_TBH.to(dtype)
    out_TBH = run(leaves[0], leaves[1], Layer(*leaves[2:]), active, keep_TBH, zoneout, precision)
    weighting = torch.randn(out_TBH.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return [out_TBH.detach(), *grad(out_TBH, leaves, weighting.to(dtype))]


def assert_close(got: list[Tensor], expected: list[Tensor], tolerance: float = 3e-6) -> None:
    for name, a, b in zip(NAMES, got, expected, strict=True):
        error = (a.double() - b.double()).abs().max() / b.abs().max()
        assert error <= tolerance, f"{name}: {error:.1e}"


def relative_error(got: Tensor, expected: Tensor) -> Tensor:
    return (got.double() - expected.double()).norm() / expected.double().norm()


def check(tensors, active, keep_TBH=None, zoneout=0.0, precision="float32") -> None:
    """Against the textbook. An operand on the border of two bfloat16 numbers may be rounded to either."""
    got = values_and_gradients(cpu.run_layer, tensors, active, keep_TBH, zoneout, precision=precision)
    keep_TBH = None if keep_TBH is None else keep_TBH.double()
    expected = values_and_gradients(
        textbook, tensors, active, keep_TBH, zoneout, torch.float64, precision=precision
    )
    if precision == "float32":
        assert_close(got, expected)
    else:
        for name, a, b in zip(NAMES, got, expected, strict=True):
            assert relative_error(a, b) < 2e-3, f"{name}: {relative_error(a, b):.1e}"


@pytest.mark.parametrize("zoneout", ["none", "mask", "bytes", "expectation"])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("hidden", [1, 3, 16, 50, 64, 100, 128])
def test_outputs_and_gradients(hidden, ragged, zoneout, precision):
    tensors, active = example(13, 11, 10, hidden, ragged)
    keep = {"mask": mask((13, 11, hidden)), "bytes": mask((13, 11, hidden)).bool()}.get(zoneout)
    check(tensors, active, keep, 0.2 if zoneout == "expectation" else 0.0, precision)


@pytest.mark.parametrize(("steps", "sequences", "inputs"), [(1, 1, 1), (1, 7, 5), (9, 1, 4), (30, 40, 33)])
def test_sizes(steps, sequences, inputs, precision):
    tensors, active = example(steps, sequences, inputs, 20, ragged=sequences > 1)
    check(tensors, active, precision=precision)


@pytest.mark.parametrize("zoneout", ["none", "mask"])
def test_bfloat16_is_close_to_exact(zoneout):
    if reason := cpu.unavailable(CPU, FLOAT, True, "bfloat16"):
        pytest.skip(reason)
    tensors, active = example(60, 16, 50, 96, ragged=True)
    keep = mask((60, 16, 96)) if zoneout == "mask" else None
    got = values_and_gradients(cpu.run_layer, tensors, active, keep, precision="bfloat16")
    exact = values_and_gradients(textbook, tensors, active, keep, dtype=torch.float64)
    assert 1e-4 < relative_error(got[0], exact[0]) < 5e-3
    whole = [torch.cat([g.double().flatten() for g in grads[1:]]) for grads in (got, exact)]
    assert 1e-4 < relative_error(*whole) < 2e-2


@pytest.mark.parametrize("hidden", [5, 48])
def test_agrees_with_torch(hidden):
    tensors, active = example(12, 6, 10, hidden, ragged=True)
    module = torch.nn.GRU(10, hidden)
    lengths = (active.unsqueeze(1) > torch.arange(6)).sum(0)

    def run_module(x_TBI, h0_BH, layer, *_):
        names = (f"{name}_l0" for name in Layer._fields)
        packed = torch.nn.utils.rnn.pack_padded_sequence(x_TBI, lengths)
        out, _ = functional_call(module, dict(zip(names, layer, strict=True)), (packed, h0_BH.unsqueeze(0)))
        return torch.nn.utils.rnn.pad_packed_sequence(out, total_length=12)[0]

    assert_close(
        values_and_gradients(cpu.run_layer, tensors, active),
        values_and_gradients(run_module, tensors, active),
    )


def test_padding_is_zero_and_ignored(precision):
    tensors, active = example(9, 5, 4, 18)
    active = torch.tensor([5, 4, 4, 2, 1, 1, 1, 0, 0])
    padding = torch.arange(5) >= active.unsqueeze(1)
    out_TBH, grad_x, *others = values_and_gradients(cpu.run_layer, tensors, active, precision=precision)
    assert out_TBH[padding].eq(0).all()
    assert grad_x[padding].eq(0).all()
    tensors[0][padding] = torch.nan
    same = values_and_gradients(cpu.run_layer, tensors, active, precision=precision)
    assert all(map(torch.equal, same, [out_TBH, grad_x, *others]))


def test_a_full_mask_keeps_the_initial_state_exactly():
    (x, h0, *weights), active = example(7, 3, 4, 21)
    out_TBH = cpu.run_layer(x, h0, Layer(*weights), active, torch.ones(7, 3, 21))
    assert torch.equal(out_TBH, h0.expand(7, 3, 21))
    none = cpu.run_layer(x, h0, Layer(*weights), active, torch.zeros(7, 3, 21))
    assert torch.equal(none, cpu.run_layer(x, h0, Layer(*weights), active))


@pytest.mark.parametrize("zoneout", [False, True])
def test_number_of_threads_changes_no_bit(zoneout, threads, precision):
    tensors, active = example(40, 23, 50, 64, ragged=True)  # enough work for ten threads
    keep = mask((40, 23, 64)) if zoneout else None
    results = []
    for number in (1, 2, 3, 7):
        threads(number)
        results.append(values_and_gradients(cpu.run_layer, tensors, active, keep, precision=precision))
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


def assert_rows_do_not_depend_on_the_batch(hidden: int, precision: str = "float32") -> None:
    (x, h0, *weights), active = example(10, 19, 12, hidden, ragged=True)
    leaves = x.clone().requires_grad_(), h0.clone().requires_grad_()
    whole = cpu.run_layer(*leaves, Layer(*weights), active, precision=precision)
    whole_grads = grad(whole, leaves, torch.ones_like(whole))
    for b in range(19):
        steps = int((active > b).sum())
        alone_leaves = x[:steps, b : b + 1].clone().requires_grad_(), h0[b : b + 1].clone().requires_grad_()
        alone = cpu.run_layer(*alone_leaves, Layer(*weights), [1] * steps, precision=precision)
        alone_grads = grad(alone, alone_leaves, torch.ones_like(alone))
        assert torch.equal(alone[:, 0], whole[:steps, b])
        assert torch.equal(alone_grads[0][:, 0], whole_grads[0][:steps, b])
        assert torch.equal(alone_grads[1][0], whole_grads[1][b])


@pytest.mark.parametrize("hidden", [7, 40])
def test_batch_changes_no_bit_of_a_sequence(hidden, precision):
    assert_rows_do_not_depend_on_the_batch(hidden, precision)


def gate_functions() -> tuple[Tensor, Tensor, Tensor]:
    """Arguments, and the kernel's sigmoid and tanh of them.

    One unit whose z is sigmoid(x) and keeps a state of 1, or whose z is 0, so that n = tanh(x) is the state.
    """
    near_zero = torch.linspace(-1e-3, 1e-3, 2001)
    x = torch.cat([torch.linspace(-30, 30, 60001), near_zero, torch.tensor([-1e30, 1e30])])
    x_TBI, state = x.view(1, -1, 1), torch.ones(len(x), 1)
    zeros = torch.zeros(3, 1), torch.zeros(3)

    def layer(weight, bias):
        return Layer(torch.tensor(weight).view(3, 1), zeros[0], torch.tensor(bias), zeros[1])

    sigmoid = cpu.run_layer(x_TBI, state, layer([0.0, 1.0, 0.0], [0.0, 0.0, 0.0]), [len(x)])
    tanh = cpu.run_layer(x_TBI, 0 * state, layer([0.0, 0.0, 1.0], [0.0, -80.0, 0.0]), [len(x)])
    return x, sigmoid.flatten(), tanh.flatten()


def test_gate_functions_are_accurate():
    x, sigmoid, tanh = gate_functions()
    assert (sigmoid - torch.sigmoid(x.double())).abs().max() < 2e-7
    assert (tanh - torch.tanh(x.double())).abs().max() < 2e-7
    assert tanh[x == 0].eq(0).all()


@pytest.mark.parametrize("where", ["x", "h0", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "keep"])
def test_nan_stays(where, precision):
    tensors, active = example(6, 9, 4, 20)
    keep = torch.zeros(6, 9, 20)
    named = dict(zip(("x", "h0", *Layer._fields), tensors, strict=True), keep=keep)
    named[where].view(-1)[-1] = torch.nan
    out_TBH, *grads = values_and_gradients(cpu.run_layer, tensors, active, keep, precision=precision)
    assert out_TBH[-1, -1].isnan().any()
    assert all(g.isnan().any() for g in grads)
    if where in ("x", "h0", "keep"):
        assert out_TBH[:, :-1].isfinite().all()


def test_nan_in_the_gradient_stays():
    (x, h0, *weights), active = example(5, 2, 3, 8)
    weights[1].requires_grad_()
    out_TBH = cpu.run_layer(x, h0, Layer(*weights), active)
    assert grad(out_TBH.sum() * torch.nan, weights[1])[0].isnan().any()


def test_infinite_arguments_saturate():
    (x, h0, *weights), active = example(3, 2, 1, 8)
    for value in (torch.inf, -torch.inf, 3e38):
        out_TBH = cpu.run_layer(torch.full_like(x, value), h0, Layer(*weights), active)
        assert out_TBH.isfinite().all()


def test_memory_layout_does_not_matter():
    tensors, active = example(8, 6, 5, 12, ragged=True)
    keep = mask((8, 6, 12))
    expected = values_and_gradients(cpu.run_layer, tensors, active, keep)

    def strided(tensor: Tensor, axes: tuple[int, int]) -> Tensor:
        return tensor.transpose(*axes).contiguous().transpose(*axes)

    def run(x_TBI, h0_BH, layer, active, keep_TBH, zoneout, precision):
        for axes in ((0, 1), (1, 2)):
            turned = Layer(strided(layer[0], (0, 1)), strided(layer[1], (0, 1)), *layer[2:])
            out_TBH = cpu.run_layer(
                strided(x_TBI, axes), strided(h0_BH, (0, 1)), turned, active.tolist(), strided(keep_TBH, axes)
            )
            # The output's gradient arrives with strides as well.
            outs.append(strided(out_TBH, axes))
        return outs[-1]

    outs: list[Tensor] = []
    assert all(map(torch.equal, values_and_gradients(run, tensors, active, keep), expected))
    assert torch.equal(outs[0], outs[1])


def test_an_expanded_gradient():
    (x, *others), active = example(4, 3, 2, 6)
    x.requires_grad_()
    first = grad(cpu.run_layer(x, others[0], Layer(*others[1:]), active).sum(), x)[0]
    out_TBH = cpu.run_layer(x, others[0], Layer(*others[1:]), active)
    assert torch.equal(first, grad(out_TBH, x, torch.ones(4, 3, 6))[0])


def test_only_what_is_wanted_gets_a_gradient():
    tensors, active = example(5, 4, 3, 10)
    all_grads = values_and_gradients(cpu.run_layer, tensors, active)[1:]
    for wanted in range(6):
        leaves = [tensor.clone().requires_grad_(i == wanted) for i, tensor in enumerate(tensors)]
        out_TBH = cpu.run_layer(*leaves[:2], Layer(*leaves[2:]), active)
        weighting = torch.randn(
            out_TBH.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
        )
        out_TBH.backward(weighting.float())
        assert torch.equal(leaves[wanted].grad, all_grads[wanted])
        assert all(leaf.grad is None for i, leaf in enumerate(leaves) if i != wanted)


def test_memory_of_slopes_is_used_again():
    tensors, active = example(7, 6, 5, 12, ragged=True)
    expected = values_and_gradients(cpu.run_layer, tensors, active)
    kept = cpu.run_layer(*tensors[:2], Layer(*(t.requires_grad_() for t in tensors[2:])), active)
    for _ in range(3):  # a pass that is still to come keeps its memory
        assert all(map(torch.equal, values_and_gradients(cpu.run_layer, tensors, active), expected))
    weighting = torch.randn(kept.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert all(map(torch.equal, grad(kept, tensors[2:], weighting.float()), expected[3:]))
    assert len(layer_module._Slopes._spare) <= layer_module._Slopes.MOST


def test_batches_of_all_lengths_use_the_same_memory(monkeypatch):
    monkeypatch.setattr(layer_module._Slopes, "_spare", [])

    def addresses(steps: int) -> list[int]:
        tensors, active = example(steps, 6, 5, 12)
        values_and_gradients(cpu.run_layer, tensors, active)
        return [tensor.data_ptr() for tensor in layer_module._Slopes._spare]

    longest = addresses(40)
    assert addresses(3) == addresses(17) == addresses(40) == longest
    for steps in (41, 42, 43, 44, 45):
        addresses(steps)
    sizes = [len(tensor) for tensor in layer_module._Slopes._spare]
    assert sizes == sorted(sizes)
    assert len(sizes) == layer_module._Slopes.MOST


def test_last_states_and_their_gradient(precision):
    (x, h0, *weights), active = example(9, 7, 5, 20, ragged=True)
    leaves = [tensor.requires_grad_() for tensor in (x, h0, *weights)]
    options = [Layer(*weights)], active, [None], 0.0, precision
    last = (active.unsqueeze(1) > torch.arange(7)).sum(0) - 1, torch.arange(7)
    states_TBH, last_LBH = cpu.run_layers(x, h0.unsqueeze(0), *options)
    assert torch.equal(states_TBH, cpu.run_layer(x, h0, Layer(*weights), active, precision=precision))
    assert torch.equal(last_LBH[0], states_TBH[last])
    (first,) = grad(last_LBH.square().sum(), leaves[:1], retain_graph=True)
    assert torch.equal(first, grad(states_TBH[last].square().sum(), leaves[:1])[0])


def test_backward_twice_and_a_second_derivative():
    (x, *others), active = example(5, 4, 3, 10)
    x.requires_grad_()
    out_TBH = cpu.run_layer(x, others[0], Layer(*others[1:]), active)
    first = grad(out_TBH.sum(), x, retain_graph=True)[0]
    assert torch.equal(first, grad(out_TBH.sum(), x, retain_graph=True)[0])
    (again,) = grad(out_TBH.sum(), x, create_graph=True)
    torch.testing.assert_close(again, first, rtol=1e-4, atol=1e-5)
    assert grad(again.square().sum(), x)[0].any()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode):
    (x, h0, *weights), active = example(6, 4, 5, 9, ragged=True)
    weights[0].requires_grad_()
    recorded = cpu.run_layer(x, h0, Layer(*weights), active)
    with mode():
        out_TBH = cpu.run_layer(x, h0, Layer(*weights), active)
    assert recorded.requires_grad
    assert not out_TBH.requires_grad
    assert torch.equal(out_TBH, recorded)


class _Cell(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight_hh = torch.nn.Parameter(torch.zeros(30, 10))

    def forward(self, x_TBI, h0_BH, others, active):
        return cpu.run_layer(x_TBI, h0_BH, Layer(others[0], self.weight_hh, *others[1:]), active)


def test_functional_call():
    (x, h0, weight_ih, weight_hh, *biases), active = example(5, 4, 3, 10)
    out_TBH = functional_call(_Cell(), {"weight_hh": weight_hh}, (x, h0, [weight_ih, *biases], active))
    assert torch.equal(out_TBH, cpu.run_layer(x, h0, Layer(weight_ih, weight_hh, *biases), active))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process(threads):
    (x, h0, *weights), active = example(40, 23, 50, 64)
    threads(2)
    out_TBH = cpu.run_layer(x, h0, Layer(*weights), active)
    process = os.fork()
    if process == 0:
        # NumPy's comparison: PyTorch's own threads do not survive a fork.
        same = cpu.run_layer(x, h0, Layer(*weights), active).numpy() == out_TBH.numpy()
        os._exit(0 if same.all() else 1)
    assert os.waitpid(process, 0)[1] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"h0_BH": torch.zeros(3, 6)}, r"h0 has shape \[3, 6\]: expected \[2, 6\]"),
        ({"keep_TBH": torch.zeros(4, 2, 5)}, r"keep has shape \[4, 2, 5\]"),
        ({"active": [2, 1]}, r"active has shape \[2\]: expected \[4\]"),
        ({"active": [2, 3, 1, 1]}, r"active is \[2, 3, 1, 1\]: expected 2 first"),
        ({"active": [1, 1, 1, 1]}, "expected 2 first"),
        ({"active": [2, 1, 0, -1]}, "falling numbers"),
        ({"x_TBI": torch.zeros(4, 2, 3, dtype=torch.float64)}, "float32 tensors on cpu: got torch.float64"),
    ],
)
def test_wrong_arguments(change, message):
    (x, h0, *weights), active = example(4, 2, 3, 6)
    arguments = {"x_TBI": x, "h0_BH": h0, "layer": Layer(*weights), "active": active} | change
    with pytest.raises(ValueError, match=message):
        cpu.run_layer(**arguments)


def test_what_the_kernel_does_not_do(monkeypatch):
    assert cpu.unavailable(CPU, FLOAT, True) is None
    assert "float64" in cpu.unavailable(CPU, torch.float64, True)
    assert "meta" in cpu.unavailable(torch.device("meta"), FLOAT, False)
    monkeypatch.setenv("GRULAND_CPU_KERNEL", "off")
    assert "GRULAND_CPU_KERNEL" in cpu.unavailable(CPU, FLOAT, True)


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """No library in the cache, neither in this process nor on the disk."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    binding.compiled.cache_clear()
    yield tmp_path
    binding.compiled.cache_clear()


@pytest.mark.parametrize("architecture", ["x86-64", pytest.param("x86-64-v3", marks=pytest.mark.slow)])
def test_other_instruction_sets(architecture, fresh, monkeypatch, threads):
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("needs an x86-64 processor")
    if architecture == "x86-64-v3" and not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        pytest.skip("needs AVX2")
    monkeypatch.setattr(binding, "ARCHITECTURES", ((f"-march={architecture}",),))
    for hidden, zoneout in ((3, 0.0), (50, 0.2), (64, 0.0)):
        tensors, active = example(9, 11, 10, hidden, ragged=True)
        keep = None if zoneout else mask((9, 11, hidden))
        got = values_and_gradients(cpu.run_layer, tensors, active, keep, zoneout)
        assert_close(got, values_and_gradients(textbook, tensors, active, keep, zoneout, torch.float64))
    assert_rows_do_not_depend_on_the_batch(19)
    test_gate_functions_are_accurate()
    test_nan_stays("x", "float32")
    assert "does not multiply in bfloat16" in cpu.unavailable(CPU, FLOAT, True, "bfloat16")
    with pytest.raises(ValueError, match="precision 'bfloat16' cannot run: this processor"):
        values_and_gradients(cpu.run_layer, tensors, active, precision="bfloat16")
    assert len(list(fresh.iterdir())) == 1


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("PATH", "", "no C++ compiler was found (c++, g++, clang++)"),
        ("CXX", "no-such-compiler -m64", "no C++ compiler was found (no-such-compiler)"),
        ("CXX", "false", "false failed with exit status 1"),
        ("TORCH_EXTENSIONS_DIR", "/dev/null/folder", "/dev/null"),
    ],
)
def test_without_a_compiler(variable, value, message, fresh, monkeypatch, caplog):
    monkeypatch.setenv(variable, value)
    with caplog.at_level(logging.WARNING):
        reasons = {cpu.unavailable(CPU, FLOAT, training) for training in (True, False)}
    (reason,) = reasons
    assert message in reason
    assert "\n" not in reason
    said = [record.getMessage() for record in caplog.records]
    assert [line for line in said if "compiling" not in line] == [f"no fused CPU kernel: {reason}"]
    assert list(fresh.iterdir()) == []


def test_a_compiler_that_knows_no_native_processor(fresh, monkeypatch):
    monkeypatch.setattr(binding, "ARCHITECTURES", (("-march=unheard-of",), ("-O1",)))
    assert cpu.unavailable(CPU, FLOAT, True) is None


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_processes_that_build_at_once(fresh):
    (fresh / ".gruland_cpu_left-by-a-killed-build.so").write_text("half a library")
    processes = []
    for _ in range(2):
        processes.append(os.fork())
        if processes[-1] == 0:
            try:
                binding.load(binding.build(("-O0",)))
                os._exit(0)
            finally:
                os._exit(1)
    assert [os.waitpid(process, 0)[1] for process in processes] == [0, 0]
    libraries = set(fresh.glob("gruland_cpu_*.so"))
    assert len(libraries) == 1
    assert {binding.build(("-O0",))} == libraries


def test_says_once_what_is_compiled(fresh, caplog):
    path = binding.build(("-O0",))
    assert binding.build(("-O0",)) == path
    (record,) = caplog.records
    assert "compiling the CPU kernel" in record.getMessage()
    assert "-O0" in record.getMessage()
