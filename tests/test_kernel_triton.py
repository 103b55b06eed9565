"""The Triton backend: on a GPU where there is one, else in Triton's interpreter.

T time steps, B sequences, I inputs, H hidden units; P weight sets, K tables, V words.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gruland import GRU, kernels
from gruland.kernels import Layer, philox
from gruland.kernels import eager as reference
from gruland.regularizers import Draw, by_rates

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)
ROOT = Path(__file__).parents[1]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
from gruland.kernels import triton as backend_module  # noqa: E402
from gruland.kernels.triton import layer as layer_module  # noqa: E402
from gruland.kernels.triton import stack_kernel  # noqa: E402, F401

if (reason := backend_module.unavailable(DEVICE, torch.float32, True)) is not None:
    pytest.skip(f"the Triton backend cannot run: {reason}", allow_module_level=True)

# The suite of all backends, with this file's fixture.
from test_kernels import (  # noqa: E402
    LENGTHS,
    ZONEOUT,
    Backend,
    Problem,
    check_hidden_size,
    check_only_gradient,
    check_padding,
    check_textbook,
    check_without_gradients,
    gradients,
    problem,
    scaled,
    test_inputs_are_left_alone,  # noqa: F401
    test_two_backward_passes_agree,  # noqa: F401
    textbook,
)


class Triton(Backend):
    def run(self, *arguments: Any, **options: Any) -> Tensor:
        def to(value: Any) -> Any:
            if isinstance(value, Layer):
                return Layer(*map(to, value))
            return value.to(DEVICE) if isinstance(value, Tensor) and value.is_floating_point() else value

        moved = {"precision": self.precision, **{name: to(value) for name, value in options.items()}}
        return backend_module.run_layer(*map(to, arguments), **moved).cpu()


#: Weights streamed, as float32 products have them; kept on chip, as bfloat16 ones do; and those.
KINDS = ["streamed", "on chip", "bfloat16"]
in_float32 = pytest.mark.parametrize("backend", KINDS[:2], indirect=True)


def some(cases: Iterable[Any], quick: Collection[Any]) -> list[Any]:
    """All cases, those that are not among the quick ones marked slow: the interpreter takes a second for one."""
    seldom = {False: pytest.mark.slow, True: ()}
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=seldom[case in quick])
        for case in cases
    ]


@pytest.fixture(params=KINDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    if request.param == "on chip":
        tiles = layer_module._tiles

        def weights_on_chip(hidden: int, sequences: int, precision: str, device: torch.device) -> Any:
            return tiles(hidden, sequences, "bfloat16", device)._replace(PRODUCTS="ieee")

        monkeypatch.setattr(layer_module, "_tiles", weights_on_chip)
    return Triton("triton", torch.float32, "bfloat16" if request.param == "bfloat16" else "float32")


#: Each shape and each way of zoneout once.
QUICK = {
    ("equal", "plain"), ("ragged", "expectation"), ("ragged", "mask"), ("alone", "always"), ("one step", "mask"),
    ("one", "plain"),
}  # fmt: skip


@pytest.mark.parametrize(("lengths", "zoneout"), some(product(LENGTHS, ZONEOUT), QUICK))
def test_outputs_and_gradients_are_the_textbooks(backend: Backend, lengths: str, zoneout: str) -> None:
    check_textbook(backend, LENGTHS[lengths], zoneout)


@pytest.mark.parametrize("hidden", some([1, 8, 19, 64], [19]))
def test_any_hidden_size(backend: Backend, hidden: int) -> None:
    check_hidden_size(backend, hidden)


@pytest.mark.parametrize(
    ("backend", "wanted"),
    some(product(KINDS, range(6)), [(KINDS[0], wanted) for wanted in range(6)]),
    indirect=["backend"],
)
def test_each_input_may_want_the_only_gradient(backend: Backend, wanted: int) -> None:
    check_only_gradient(backend, wanted)


@pytest.mark.parametrize("zoneout", some(["plain", "expectation", "mask"], ["mask"]))
def test_without_gradients(backend: Backend, zoneout: str) -> None:
    check_without_gradients(backend, zoneout)


def run(backend: Backend, p: Problem, **options: Any) -> Tensor:
    return backend.run(*p.inputs[:2], Layer(*p.inputs[2:]), p.active, **{**p.options, **options})


@in_float32
@pytest.mark.parametrize(
    ("hidden", "steps", "sequences"),
    some(
        product([1, 3, 16, 20], [1, 4], [1, 2]),
        [(1, 4, 2), (3, 1, 1), (3, 1, 2), (16, 4, 1), (20, 4, 2)],
    ),
)
def test_without_regularization_it_is_torchs_gru(
    backend: Backend, hidden: int, steps: int, sequences: int
) -> None:
    p = problem([steps] * sequences, "plain", torch.float32, hidden)
    gru = torch.nn.GRU(5, hidden)
    gru.load_state_dict({f"{n}_l0": w for n, w in zip(Layer._fields, p.inputs[2:], strict=True)})
    h0 = p.inputs[1].detach().requires_grad_()
    expected, _ = gru(p.inputs[0], h0.unsqueeze(0))
    actual = run(backend, p)
    backend.close(actual, expected)
    wanted = gradients(expected, [p.inputs[0], h0, *gru.parameters()], p.weights_TBH)
    backend.close(gradients(actual, p.inputs, p.weights_TBH), wanted)


def mask(seed: int, steps: int, sequences: int, hidden: int, rate: float) -> Tensor:
    return philox.bernoulli(seed, rate, steps, torch.arange(sequences, device=DEVICE), hidden).float()


@pytest.mark.parametrize(
    ("lengths", "rate"),
    some(
        product([(18, 18), (11, 9, 2, 1)], [0.0, 0.3, 1.0]),
        [((18, 18), 0.3), ((11, 9, 2, 1), 0.0), ((11, 9, 2, 1), 1.0)],
    ),
)
def test_a_mask_drawn_within_is_the_explicit_one(
    backend: Backend, lengths: tuple[int, ...], rate: float
) -> None:
    p, seed = problem(list(lengths), "plain", torch.float32, 5), 2**63 + 12345
    keep_TBH = mask(seed, lengths[0], len(lengths), 5, rate)
    drawn = run(backend, p, keep_seed=seed, zoneout=rate)
    given = run(backend, p, keep_TBH=keep_TBH)
    torch.testing.assert_close(drawn, given, rtol=0, atol=0)
    grads = (gradients(states, p.inputs, p.weights_TBH) for states in (drawn, given))
    torch.testing.assert_close(*grads, rtol=0, atol=0)


def test_panels_fit_together(backend: Backend) -> None:
    """Several panels of units, several programs."""
    p = problem([3] * 20 + [2] * 16 + [1], "plain", torch.float32, 70)
    with torch.no_grad():
        p.inputs[3].div_(70**0.5)
    keep_TBH = mask(1, 3, 37, 70, 0.3)
    exact = [t.detach().double().requires_grad_() for t in p.inputs]
    layer, precision = Layer(*exact[2:]), backend.precision
    expected = reference.run_layer(*exact[:2], layer, p.active, keep_TBH.double(), precision=precision)
    actual = run(backend, p, keep_seed=1, zoneout=0.3)
    backend.close(actual, expected)
    expected_gradients = gradients(expected, exact, p.weights_TBH.double())
    backend.close(gradients(actual, p.inputs, p.weights_TBH), expected_gradients)


@pytest.mark.parametrize("zoneout", ZONEOUT)
def test_bfloat16_weights_that_are_streamed(zoneout: str) -> None:
    backend = Triton("triton", torch.float32, "bfloat16")
    p = scaled(problem([3, 2], zoneout, torch.float32, 136))
    exact = [t.detach().double().requires_grad_() for t in p.inputs]
    options = {k: v.double() if isinstance(v, Tensor) else v for k, v in p.options.items()}
    expected = textbook(exact, p.active, **options, precision="bfloat16")
    actual = run(backend, p)
    backend.close(actual, expected)
    expected_gradients = gradients(expected, exact, p.weights_TBH.double())
    backend.close(gradients(actual, p.inputs, p.weights_TBH), expected_gradients)


def test_padding_is_neither_read_nor_given_a_gradient(backend: Backend) -> None:
    check_padding(backend)


def test_running_sequences_may_end_in_zeros(backend: Backend) -> None:
    p = problem([3, 2], "plain", torch.float32)
    longer = torch.cat([p.inputs[0], torch.ones(2, 2, 5)])
    h_TBH = backend.run(longer, p.inputs[1], Layer(*p.inputs[2:]), [*p.active, 0, 0])
    torch.testing.assert_close(h_TBH[:3], run(backend, p))
    assert not h_TBH[3:].any()


def test_what_does_not_fit_is_refused(backend: Backend) -> None:
    p = problem([3, 2], "mask", torch.float32)
    with pytest.raises(ValueError, match="at most one"):
        run(backend, p, keep_seed=1)
    h0, layer = p.inputs[1], Layer(*p.inputs[2:])
    with pytest.raises(ValueError, match=r"weight_ih has shape \[20, 5\]: expected \[21, 5\]"):
        backend.run(p.inputs[0], h0, layer._replace(weight_ih=layer.weight_ih[:20]), p.active)
    with pytest.raises(ValueError, match=r"h0 is torch.float64 on .*: expected float32"):
        backend_module.run_layer(p.inputs[0], h0.double(), layer, p.active)
    with pytest.raises(ValueError, match=r"active is \[1, 2, 2\]: expected 3 falling numbers from 2 on"):
        backend.run(p.inputs[0], h0, layer, [1, 2, 2])


@pytest.mark.parametrize("seed", [None, 5])
def test_a_second_derivative_is_the_eager_backends(seed: int | None) -> None:
    p = problem([3, 2], "plain", torch.float32)
    drawn = mask(5, 3, 2, 7, 0.4)
    results = []
    for kernel, options in (
        (backend_module, {"zoneout": 0.4, "keep_seed": seed}),
        (reference, {"zoneout": 0.4, "keep_TBH": None if seed is None else drawn}),
    ):
        inputs = [tensor.detach().to(DEVICE).requires_grad_() for tensor in p.inputs]
        h_TBH = kernel.run_layer(*inputs[:2], Layer(*inputs[2:]), p.active, **options)
        first = torch.autograd.grad((h_TBH**2).sum(), inputs, create_graph=True)
        results.append(torch.autograd.grad(sum((g**2).sum() for g in first), inputs))
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("seed", "counters", "words"),
    [
        (0, [0] * 4, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (2**64 - 1, [2**32 - 1] * 4, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            0x299F31D0A4093822,
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_its_authors_known_answers(seed: int, counters: list[int], words: list[int]) -> None:
    assert [int(word) for word in philox.philox(seed, *torch.tensor(counters))] == words


def test_a_mask_is_a_function_of_its_counter() -> None:
    whole = mask(3, 40, 30, 20, 0.1)
    assert abs(float(whole.mean()) - 0.1) < 4 * (0.09 / whole.numel()) ** 0.5
    for axis in range(3):  # entries next to each other are independent
        one, other = whole.narrow(axis, 1, 19), whole.narrow(axis, 0, 19)
        assert abs(float((one * other).mean()) - 0.01) < 4 * (0.01 / one.numel()) ** 0.5
    torch.testing.assert_close(mask(3, 9, 3, 7, 0.1), whole[:9, :3, :7], rtol=0, atol=0)
    assert not mask(4, 40, 30, 20, 0.1).equal(whole)
    assert not mask(3, 2, 2, 2, 0.0).any()
    assert mask(3, 2, 2, 2, 1.0).all()


class Stack:
    """Weight sets on a plane, and sequences in no order of length."""

    def __init__(self, hidden: int, layers: int = 2, points: int = 3) -> None:
        generator = torch.Generator().manual_seed(hidden)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(DEVICE)

        self.lengths = [2, 5, 1, 4, 4, 3, 7, 1, 2, 6, 3]
        self.offsets = torch.tensor([0, *self.lengths]).cumsum(0)
        self.tokens = torch.randint(11, (sum(self.lengths),), generator=generator).int()
        self.tables_KV3H = normal(3, 11, 3 * hidden)
        self.factors_PK = torch.stack([normal(points) ** 0, normal(points), normal(points)], 1)
        matrix, vector = (points, 3 * hidden, hidden), (points, 3 * hidden)
        self.layers = [
            Layer(
                normal(*matrix) / hidden**0.5, normal(*matrix) / hidden**0.5, normal(*vector), normal(*vector)
            )
            for _ in range(layers)
        ]

    def point(self, index: int) -> tuple[Tensor, list[Layer]]:
        table_V3H = torch.einsum("k,kvg->vg", self.factors_PK[index], self.tables_KV3H)
        return table_V3H, [Layer(*(tensor[index] for tensor in layer)) for layer in self.layers]

    def expected(self, index: int, between: Any, zoneout: float) -> Tensor:
        """By the eager backend in float64, one sequence after the other."""
        table_V3H, layers = self.point(index)
        gates = table_V3H.shape[1]
        first = (
            torch.eye(gates, device=DEVICE),
            layers[0].weight_hh,
            table_V3H.new_zeros(gates),
            layers[0].bias_hh,
        )
        last = []
        for tokens in self.tokens.split(self.lengths):
            h_TBH = table_V3H[tokens.long()].unsqueeze(1).double()
            for depth, layer in enumerate([Layer(*first), *layers[1:]]):
                h_TBH = between(h_TBH) if depth else h_TBH
                state = h_TBH.new_zeros(1, gates // 3)
                weights = Layer(*(tensor.double() for tensor in layer))
                h_TBH = reference.run_layer(h_TBH, state, weights, [1] * len(tokens), None, zoneout)
            last.append(h_TBH[-1, 0])
        return torch.stack(last)


@pytest.mark.parametrize(
    ("hidden", "layers", "between", "zoneout"),
    [(1, 2, "tanh", 0.0), (3, 1, None, 0.3), (20, 2, "tanh", 0.1), (16, 3, "relu", 0.0), (70, 1, None, 0.0)],
)
def test_many_weight_sets_are_each_of_them(
    hidden: int, layers: int, between: str | None, zoneout: float
) -> None:
    s = Stack(hidden, layers)
    options: Any = {"between": between, "zoneout": zoneout}
    h_PBH = backend_module.final_states_many(
        s.tables_KV3H, s.factors_PK, s.tokens, s.offsets, s.layers, **options
    )
    activation = {None: lambda x: x, "tanh": torch.tanh, "relu": torch.relu}[between]
    for index, h_BH in enumerate(h_PBH):
        table_V3H, weights = s.point(index)
        expected = s.expected(index, activation, zoneout).float()
        torch.testing.assert_close(h_BH, expected, rtol=1e-4, atol=1e-5)
        if index == 1:
            single = backend_module.final_states(table_V3H, s.tokens, s.offsets, weights, **options)
            torch.testing.assert_close(single, expected, rtol=1e-4, atol=1e-5)


def test_many_weight_sets_in_bfloat16_are_near() -> None:
    s = Stack(20)
    for tables in (s.tables_KV3H, s.tables_KV3H.bfloat16()):
        h_PBH = backend_module.final_states_many(
            tables, s.factors_PK, s.tokens.numpy(), s.offsets.numpy(), s.layers, precision="bfloat16"
        )
        for index, h_BH in enumerate(h_PBH):
            error = (h_BH - s.expected(index, torch.tanh, 0.0)).abs().max()
            assert 1e-5 < error < 0.02


def test_more_points_than_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    from gruland.kernels.triton import stack as stack_module

    s = Stack(3, points=5)
    arguments = s.tables_KV3H, s.factors_PK, s.tokens, s.offsets, s.layers
    expected = backend_module.final_states_many(*arguments)
    monkeypatch.setattr(stack_module, "GROUP", 2)
    torch.testing.assert_close(backend_module.final_states_many(*arguments), expected, rtol=0, atol=0)


def test_stacks_that_do_not_fit_are_refused() -> None:
    s = Stack(3)
    many = backend_module.final_states_many
    with pytest.raises(ValueError, match="2 factors a point for 3 tables"):
        many(s.tables_KV3H, s.factors_PK[:, :2], s.tokens, s.offsets, s.layers)
    layers = [s.layers[0], Layer(*(tensor[:2] for tensor in s.layers[1]))]
    with pytest.raises(ValueError, match=r"weight_hh of layer 1 has shape \[2, 9, 3\]: expected \[3, 9, 3\]"):
        many(s.tables_KV3H, s.factors_PK, s.tokens, s.offsets, layers)
    with pytest.raises(ValueError, match="between is 'gelu'"):
        many(s.tables_KV3H, s.factors_PK, s.tokens, s.offsets, s.layers, between="gelu")


@pytest.fixture
def fresh_check() -> Iterator[None]:
    backend_module.failed_check.cache_clear()
    yield
    backend_module.failed_check.cache_clear()


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_the_self_check_passes(precision: str, fresh_check: None) -> None:
    with torch.inference_mode():  # where an evaluation may first ask for a backend
        assert backend_module.failed_check(0, precision) is None


def nan(*arguments: Any, **options: Any) -> Tensor:
    return layer_module.run_layer(*arguments, **options) * float("nan")


def tenth_off(*arguments: Any, **options: Any) -> Tensor:
    return layer_module.run_layer(*arguments, **options) * 1.1


class _WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h_TBH: Tensor) -> Tensor:
        return h_TBH.clone()

    @staticmethod
    def backward(ctx: Any, grad_TBH: Tensor) -> Tensor:
        return grad_TBH.roll(1, 0)


def wrong_gradient(*arguments: Any, **options: Any) -> Tensor:
    return _WrongGradient.apply(layer_module.run_layer(*arguments, **options))


def raises(*arguments: Any, **options: Any) -> Tensor:
    raise RuntimeError("out of resources: shared memory\nRequired: too much")


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        (nan, "states with 20 units in float32 is off by nan of its largest value"),
        (tenth_off, "states with 20 units in float32 is off by 1.0e-01"),
        (wrong_gradient, "the gradient of x with 20 units"),
        (raises, "RuntimeError: out of resources: shared memory"),
    ],
)
def test_a_broken_kernel_is_refused_with_a_line_and_torch_serves(
    broken: Any,
    line: str,
    fresh_check: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(backend_module, "run_layer", broken)
    reason = str(backend_module.failed_check(0, "float32"))
    assert reason.startswith(line)
    assert "\n" not in reason
    assert [record.getMessage() for record in caplog.records] == [f"no Triton kernels: {reason}"]
    # As on a GPU, whose answer is remembered.
    monkeypatch.setattr(backend_module, "_interpreted", lambda: False)
    device = torch.device("cuda", 0)
    assert kernels.choose("auto", device, torch.float32, True) is reference
    with pytest.raises(ValueError, match="backend 'triton' cannot run here"):
        kernels.choose("triton", device, torch.float32, True)
    assert len(caplog.records) == 1


def test_auto_takes_it_on_a_gpu_once_it_is_checked(
    monkeypatch: pytest.MonkeyPatch, fresh_check: None
) -> None:
    monkeypatch.setattr(backend_module, "_interpreted", lambda: False)
    monkeypatch.setattr(backend_module, "_deviation", lambda device, precision: None)
    assert kernels.choose("auto", torch.device("cuda", 0), torch.float32, True) is backend_module


@pytest.mark.skipif(DEVICE.type != "cpu", reason="the kernels are compiled for the GPU, not interpreted")
def test_the_interpreter_serves_by_name_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRULAND_CPU_KERNEL", "off")
    assert kernels.choose("triton", DEVICE, torch.float32, True) is backend_module
    assert kernels.choose("auto", DEVICE, torch.float32, True) is reference
    assert "interpreter is on" in str(kernels.why_not("triton", torch.device("cuda"), torch.float32, True))


def test_what_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "float64" in str(kernels.why_not("triton", DEVICE, torch.float64, True))
    monkeypatch.setattr(backend_module, "_interpreted", lambda: False)
    why = kernels.why_not("triton", torch.device("cpu"), torch.float32, True)
    assert why == "the device is cpu, the kernels run on cuda (on cpu with TRITON_INTERPRET=1)"
    monkeypatch.undo()
    backend_module._interpreted.cache_clear()
    monkeypatch.setitem(sys.modules, "triton", None)
    assert "Triton is missing" in str(kernels.why_not("triton", DEVICE, torch.float32, True))
    backend_module._interpreted.cache_clear()


COMPILE = """
import ast, sys
import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from gruland.kernels.triton import layer, layer_kernel, stack, stack_kernel

TYPES = {"rows": "*i64", "lengths": "*i64", "tokens": "*i32", "offsets": "*i64", "order": "*i64", "seed": "u64",
         "zoneout": "fp32", "scale": "fp32", **dict.fromkeys(("sequences", "limit", "points", "words"), "i32")}

def check(kernel, options):
    settings = {name: options[name] for name in ("num_warps", "num_stages", "enable_fp_fusion") if name in options}
    options = {name: value for name, value in options.items() if name in kernel.arg_names}
    matrices = "*bf16" if options["PRODUCTS"] == "bfloat16" else "*fp32"
    known = {**TYPES, **dict.fromkeys(("weight", "weight_ih", "weight_hh", "gate_grads"), matrices)}
    types = {name: "constexpr" if name in options else known.get(name, "*fp32") for name in kernel.arg_names}
    constants = {(kernel.arg_names.index(name),): value for name, value in options.items()}
    aligned = {(i,): [["tt.divisibility", 16]] for i, type in enumerate(types.values()) if type[0] == "*"}
    source = ASTSource(fn=kernel, signature=types, constexprs=constants, attrs=aligned)
    compiled = compile(source, target=GPUTarget("cuda", 90, 32), options=settings)
    print(kernel.__name__, compiled.metadata.shared, "wgmma" in compiled.asm["ptx"])

for precision, hidden in ast.literal_eval(sys.argv[1]):
    options = layer._tiles(hidden, 32, precision, torch.device("cpu")).options()
    check(layer_kernel.forward, {**options, "ZONEOUT": layer_kernel.DRAWN.value, "SAVE": True})
    check(layer_kernel.backward, options)
    if hidden != 136:
        options = {**stack._tiles(hidden, 99, precision), "LAYERS": 2, "TABLES": 3, "GROUP": 8, "BETWEEN": 1}
        check(stack_kernel.final_states, {**options, "ZONES_OUT": True})
"""


@pytest.mark.slow
def test_the_kernels_compile_for_hopper(tmp_path: Path) -> None:
    """The compiler takes less than the interpreter does, and needs no GPU."""
    kinds = [("float32", 20), ("bfloat16", 128), ("bfloat16", 136)]
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", COMPILE, repr(kinds)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    compiled = [line.split() for line in done.stdout.splitlines()]
    expected = [
        str(precision == "bfloat16") for precision, hidden in kinds for _ in range(2 + (hidden != 136))
    ]
    assert [wgmma for *_, wgmma in compiled] == expected
    assert all(int(shared) <= 227 * 1024 for _, shared, _ in compiled)


def test_a_gru_in_training_lets_the_kernel_draw_its_zoneout(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"num_layers": 2, "between": "tanh", "zoneout": 0.4, "dropconnect": 0.2}
    gru = GRU(3, 5, backend="triton", **options).to(DEVICE)
    x_BTI, lengths = torch.randn(3, 6, 3, device=DEVICE), [6, 4, 1]  # the kernel counts sorted sequences
    reference_gru = GRU(3, 5, backend="eager", **options).to(DEVICE)
    reference_gru.load_state_dict(gru.state_dict())
    draw, within = Draw(1), backend_module.run_layer
    seeds = []
    monkeypatch.setattr(
        backend_module,
        "run_layer",
        lambda *a, keep_seed, **o: seeds.append(keep_seed) or within(*a, keep_seed=keep_seed, **o),
    )
    got, expected = (module(x_BTI, lengths=lengths, draw=draw) for module in (gru, reference_gru))
    assert len(set(seeds)) == 2
    for mine, other in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, other)
    mine, other = (
        torch.autograd.grad(h_n.square().sum(), list(module.parameters()))
        for module, (_, h_n) in ((gru, got), (reference_gru, expected))
    )
    torch.testing.assert_close(mine, other)
    assert not torch.equal(gru(x_BTI, lengths=lengths)[0], got[0])


def test_a_broken_stack_is_refused(fresh_check: None, monkeypatch: pytest.MonkeyPatch) -> None:
    original = backend_module.final_states
    monkeypatch.setattr(backend_module, "final_states", lambda *a, **o: original(*a, **o) * 1.1)
    reason = str(backend_module.failed_check(0, "float32"))
    assert reason == "last states with 20 units in float32 are off by 1.0e-01 of their largest value"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_surface_s_reviews_go_through_the_stack(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What serves surfaces on a GPU, here in the interpreter, beside the model's own forward pass."""
    from gruland.classifier import Classifier
    from gruland.data import Encoded
    from gruland.landscape import random_directions
    from gruland.objective import projection
    from gruland.objective.evaluation import PaddedReviews
    from gruland.task import Task

    torch.manual_seed(0)
    model = (
        Classifier(
            Task("binary", ("no", "yes")),
            torch.randn(9, 6),
            hidden_size=20,
            regularizer=by_rates(zoneout=0.2),
        )
        .to(DEVICE)
        .eval()
    )
    encoded = Encoded(np.array([1, 5, 2, 8, 3, 3, 0, 7], dtype=np.int32), np.array([0, 3, 4, 8]))
    monkeypatch.setattr(projection, "kernel_of", lambda model: backend_module)
    reviews = projection.ProjectedReviews(model, encoded, precision)
    plain = PaddedReviews(model, encoded, 100)
    parameters = model.trainable()
    directions = random_directions(parameters, 0)
    at, expected = (found.plane(parameters, directions) for found in (reviews, plain))
    tolerance = {"float32": 1e-4, "bfloat16": 3e-2}[precision]
    for steps in ((0.0, 0.0), (0.5, -1.0)):
        torch.testing.assert_close(at(steps), expected(steps), rtol=0, atol=tolerance)
    assert torch.equal(at((0.0, 0.0)), reviews.logits(parameters))
