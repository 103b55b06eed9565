"""The evaluation of a stack in one call: against a loop written from the equations and against torch.nn.GRU.

V rows of the table, B sequences, H hidden units, L layers.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from gruland.kernels import Layer
from gruland.kernels.cpu import Keep, binding, final_states, precisions, states

# Only that: a kernel that does not compile has to fail here.
pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
ACTIVATIONS: dict[str | None, Callable[[Tensor], Tensor]] = {
    None: lambda x: x,
    "tanh": torch.tanh,
    "relu": torch.relu,
}


@pytest.fixture(params=["float32", "bfloat16"])
def precision(request):
    if request.param not in precisions():
        pytest.skip(f"this processor has no {request.param} products")
    return request.param


@pytest.fixture
def bfloat16():
    if "bfloat16" not in precisions():
        pytest.skip("this processor has no bfloat16 products")


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


class Example(NamedTuple):
    table_V3H: Tensor
    tokens: Tensor
    offsets: Tensor
    layers: list[Layer]


def example(
    hidden: int, depth: int = 2, lengths: Sequence[int] = (3, 9, 1, 14, 6, 1, 2), seed: int = 0
) -> Example:
    g = torch.Generator().manual_seed(seed)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    tokens = torch.randint(0, 20, (int(offsets[-1]),), generator=g, dtype=torch.int32)
    table_V3H = torch.randn(20, 3 * hidden, generator=g)
    shapes = (3 * hidden, hidden), (3 * hidden, hidden), (3 * hidden,), (3 * hidden,)
    scales = 1.5 * hidden**-0.5, 1.5 * hidden**-0.5, 0.3, 0.3
    layers = [
        Layer(*(scale * torch.randn(shape, generator=g) for scale, shape in zip(scales, shapes, strict=True)))
        for _ in range(depth)
    ]
    return Example(table_V3H, tokens, offsets, layers)


def as_it_is(x: Tensor) -> Tensor:
    return x


def to_bfloat16(x: Tensor) -> Tensor:
    return x.bfloat16().to(x.dtype)


def textbook(
    example: Example,
    between: str | None = "tanh",
    zoneout: float = 0.0,
    rounded: Callable[[Tensor], Tensor] = as_it_is,
) -> Tensor:
    """The equations of torch.nn.GRU's documentation with zoneout's, a sequence and a step at a time, in float64."""
    table, layers = example.table_V3H.double(), [Layer(*(w.double() for w in la)) for la in example.layers]
    hidden, results = layers[0].weight_hh.shape[1], []
    for begin, end in zip(example.offsets[:-1].tolist(), example.offsets[1:].tolist(), strict=True):
        states = [torch.zeros(hidden, dtype=torch.float64) for _ in layers]
        for token in example.tokens[begin:end].tolist():
            projected = table[token]
            for index, layer in enumerate(layers):
                if index > 0:
                    x = ACTIVATIONS[between](states[index - 1])
                    projected = rounded(layer.weight_ih) @ rounded(x) + layer.bias_ih
                h = states[index]
                r_x, z_x, n_x = projected.chunk(3)
                r_h, z_h, n_h = (rounded(layer.weight_hh) @ rounded(h) + layer.bias_hh).chunk(3)
                r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
                candidate = (1 - z) * torch.tanh(n_x + r * n_h) + z * h
                states[index] = zoneout * h + (1 - zoneout) * candidate
        results.append(states[-1])
    return torch.stack(results)


def error(got: Tensor, expected: Tensor) -> float:
    return float((got.detach().double() - expected.detach()).abs().max())


@pytest.mark.parametrize("between", [None, "tanh", "relu"])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("hidden", [1, 3, 50, 64, 100])
def test_final_states(hidden, depth, between):
    stack = example(hidden, depth)
    for zoneout in (0.0, 0.1):
        got = final_states(*stack, between=between, zoneout=zoneout)
        assert got.shape == (7, hidden)
        assert error(got, textbook(stack, between, zoneout)) < 3e-6


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize(("depth", "between"), [(1, None), (2, None), (2, "tanh"), (2, "relu"), (3, "tanh")])
@pytest.mark.parametrize("hidden", [1, 3, 50, 64, 100])
def test_final_states_in_bfloat16(hidden, depth, between):
    stack = example(hidden, depth)
    got = final_states(*stack, between=between, zoneout=0.1, precision="bfloat16")
    loose = textbook(stack, between, 0.1)
    tight = textbook(stack, between, 0.1, to_bfloat16)
    # A state within a float32's error of a rounding boundary may go to its other side: in most sequences none does.
    assert (got - tight).abs().amax(1).median() < 1e-6
    assert error(got, tight) < 4e-3
    assert error(got, loose) < 0.02


@pytest.mark.usefixtures("bfloat16")
def test_weights_between_two_bfloat16_go_to_the_even_one():
    stack = example(20, 2)
    for layer in stack.layers:
        for weight in (layer.weight_ih, layer.weight_hh):
            weight.copy_((weight.sign() * (1 + weight.abs()) * 256).round() / 256)  # in [1, 2) half are ties
    even = [Layer(to_bfloat16(la.weight_ih), to_bfloat16(la.weight_hh), *la[2:]) for la in stack.layers]
    assert not all(torch.equal(a.weight_ih, b.weight_ih) for a, b in zip(even, stack.layers, strict=True))
    expected = final_states(*stack._replace(layers=even), precision="bfloat16")
    assert torch.equal(final_states(*stack, precision="bfloat16"), expected)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("hidden", [5, 48])
def test_agrees_with_torch(hidden, depth, precision):
    torch.manual_seed(0)
    module = torch.nn.GRU(10, hidden, depth)
    vectors, lengths = torch.randn(20, 10), (4, 11, 1, 30, 7)
    layers = [Layer(*weights) for weights in module.all_weights]
    table_V3H = vectors @ layers[0].weight_ih.t() + layers[0].bias_ih
    _, tokens, offsets, _ = example(hidden, lengths=lengths)
    packed = pack_sequence([vectors[part] for part in tokens.long().split(lengths)], enforce_sorted=False)
    got = final_states(table_V3H, tokens, offsets, layers, between=None, precision=precision)
    assert not got.requires_grad
    assert error(got, module(packed)[1][-1]) < (2e-6 if precision == "float32" else 0.02)


def test_zoneout_one_keeps_the_initial_state_exactly(precision):
    stack = example(21, 3)
    assert final_states(*stack, zoneout=1.0, precision=precision).eq(0).all()


@pytest.mark.parametrize("lengths", [(1,), (25,), (1, 1, 1), [7] * 40, [*range(1, 90)], [200, *[1] * 70]])
def test_batches(lengths, precision):
    stack = example(17, lengths=lengths)
    rounded = as_it_is if precision == "float32" else to_bfloat16
    expected = textbook(stack, rounded=rounded)
    assert error(final_states(*stack, precision=precision), expected) < (
        3e-6 if precision == "float32" else 4e-3
    )


def test_thousands_of_sequences(precision):
    lengths = torch.randint(1, 6, (3000,), generator=torch.Generator().manual_seed(3)).tolist()
    stack = example(4, lengths=lengths)
    got = final_states(*stack, precision=precision)
    some = torch.arange(0, 3000, 150)
    parts = stack.tokens.split(lengths)
    chosen = stack._replace(
        tokens=torch.cat([parts[i] for i in some]),
        offsets=torch.tensor([0, *(lengths[i] for i in some)]).cumsum(0),
    )
    rounded = as_it_is if precision == "float32" else to_bfloat16
    assert error(got[some], textbook(chosen, rounded=rounded)) < (3e-6 if precision == "float32" else 4e-3)


def test_no_sequence():
    stack = example(6)
    got = final_states(stack.table_V3H, stack.tokens[:0], torch.zeros(1, dtype=torch.int64), stack.layers)
    assert got.shape == (0, 6)


def assert_sequences_are_independent(hidden: int, precision: str, set_threads: Callable[[int], None]) -> None:
    """Bit for bit, of their order, of the others and of the threads."""
    generator = torch.Generator().manual_seed(4)
    lengths = torch.randint(1, 40, (150,), generator=generator).tolist()
    stack = example(hidden, 3, lengths)
    parts = stack.tokens.split(lengths)
    set_threads(1)
    expected = final_states(*stack, precision=precision)
    for number in (1, 2, 5):
        set_threads(number)
        assert torch.equal(final_states(*stack, precision=precision), expected)
        for chosen in (torch.randperm(150, generator=generator), torch.arange(0, 150, 9), torch.tensor([77])):
            tokens = torch.cat([parts[i] for i in chosen])
            offsets = torch.tensor([0, *(lengths[i] for i in chosen)]).cumsum(0)
            got = final_states(stack.table_V3H, tokens, offsets, stack.layers, precision=precision)
            assert torch.equal(got, expected[chosen])


@pytest.mark.parametrize("hidden", [7, 40])
def test_sequences_are_independent(hidden, precision, threads):
    assert_sequences_are_independent(hidden, precision, threads)


def assert_gate_functions_are_accurate() -> None:
    """One unit and one step from zero: the state is tanh(x), or 1 - sigmoid(x), or tanh(tanh(x)) of two layers."""
    x = torch.cat(
        [torch.linspace(-30, 30, 20001), torch.linspace(-1e-3, 1e-3, 2001), torch.tensor([-1e30, 1e30])]
    )
    tokens, offsets = torch.arange(len(x), dtype=torch.int32), torch.arange(len(x) + 1)
    small, large = torch.full_like(x, -80), torch.full_like(x, 80)
    nothing = Layer(torch.zeros(3, 1), torch.zeros(3, 1), torch.zeros(3), torch.zeros(3))
    passing = nothing._replace(
        weight_ih=torch.tensor([[0.0], [0.0], [1.0]]), bias_ih=torch.tensor([0.0, -80.0, 0.0])
    )

    def run(z: Tensor, n: Tensor, *layers: Layer) -> Tensor:
        table_V3H = torch.stack([torch.zeros_like(x), z, n], 1)
        return final_states(table_V3H, tokens, offsets, layers).flatten()

    tanh = torch.tanh(x.double())
    assert error(run(x, large, nothing), torch.sigmoid(-x.double())) < 3e-7
    assert error(run(small, x, nothing), tanh) < 3e-7
    assert run(small, x, nothing)[x == 0].eq(0).all()
    assert error(run(small, x, nothing, passing), torch.tanh(torch.tanh(tanh))) < 3e-7


def test_gate_functions_are_accurate():
    assert_gate_functions_are_accurate()


READ = [f"{name} {index}" for index in range(3) for name in Layer._fields if index or name.endswith("hh")]


@pytest.mark.parametrize("between", [None, "tanh", "relu"])
@pytest.mark.parametrize("where", ["table", *READ])
def test_nan_reaches_what_it_must(where, between, precision):
    # Unit 4's candidate: after a step the others have not seen it.
    stack = example(19, 3)
    name, _, index = where.partition(" ")
    damaged = stack.table_V3H[3] if name == "table" else getattr(stack.layers[int(index)], name)
    damaged[2 * 19 + 4] = torch.nan
    expected = textbook(stack, between).isnan()
    assert expected.any()
    # In an earlier layer it reaches all of the last one.
    assert expected.all() == (name != "table" and index != "2")
    got = final_states(*stack, between=between, precision=precision)
    assert torch.equal(got.isnan(), expected)


def test_weights_that_are_not_used():
    stack = example(8)
    expected = final_states(*stack)
    first = stack.layers[0]._replace(
        weight_ih=torch.full((3, 2), torch.nan), bias_ih=torch.full((1,), torch.nan)
    )
    assert torch.equal(final_states(*stack._replace(layers=[first, stack.layers[1]])), expected)


def test_infinite_arguments_saturate(precision):
    stack = example(18)
    for value in (torch.inf, -torch.inf, 3e38):
        table_V3H = torch.full_like(stack.table_V3H, value)
        assert final_states(table_V3H, *stack[1:], precision=precision).isfinite().all()


def test_memory_layout_and_containers_do_not_matter(precision, tmp_path):
    table_V3H, tokens, offsets, layers = example(12)
    expected = final_states(table_V3H, tokens, offsets, layers, precision=precision)
    tokens.numpy().tofile(tmp_path / "tokens")
    mapped = np.memmap(tmp_path / "tokens", np.int32, "r")
    turned = [Layer(*(w.t().contiguous().t() for w in la[:2]), *la[2:]) for la in layers]
    got = final_states(
        table_V3H.t().contiguous().t(),
        mapped,
        offsets.repeat_interleave(2)[::2],
        tuple(turned),
        precision=precision,
    )
    assert torch.equal(got, expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_parameters(mode):
    stack = example(9)
    parameters = [Layer(*map(torch.nn.Parameter, la)) for la in stack.layers]
    with mode():
        got = final_states(*stack._replace(layers=parameters))
    assert torch.equal(got, final_states(*stack))
    assert torch.equal(got, final_states(*stack._replace(layers=parameters)).detach())


INT = torch.int32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"tokens": torch.tensor([0, 1, 20], dtype=INT)},
            r"tokens go from 0 to 20: expected rows of a table of 20",
        ),
        ({"tokens": torch.tensor([0, -1, 2], dtype=INT)}, r"tokens go from -1 to 2: expected rows"),
        ({"tokens": torch.tensor([0, 1, 2])}, r"tokens is int64 \[3\]: expected int32 with one axis"),
        ({"tokens": torch.zeros(1, 3, dtype=INT)}, r"tokens is int32 \[1, 3\]: expected int32 with one axis"),
        ({"offsets": torch.tensor([0, 1, 3], dtype=INT)}, r"offsets is int32 \[3\]: expected int64"),
        (
            {"offsets": torch.tensor([0, 1, 4])},
            "offsets go from 0 to 4: expected from 0 to the number of tokens, 3",
        ),
        ({"offsets": torch.tensor([1, 3])}, "offsets go from 1 to 3"),
        ({"offsets": torch.tensor([0, 1])}, "offsets go from 0 to 1"),
        ({"offsets": torch.empty(0, dtype=torch.int64)}, "offsets are empty"),
        ({"offsets": torch.tensor([0, 1, 1, 3])}, "sequence 1 has the length 0: expected 1 or more"),
        ({"offsets": torch.tensor([0, 3, -5, 3])}, "sequence 1 has the length -8"),
        ({"table_V3H": torch.zeros(20, 17)}, r"the table has shape \[20, 17\]: expected \[20, 18\]"),
        ({"table_V3H": torch.zeros(18)}, r"the table has shape \[18\]: expected \[18, 18\]"),
        (
            {"table_V3H": torch.zeros(20, 18, dtype=torch.float64)},
            "the table is torch.float64 on cpu: expected",
        ),
        ({"table_V3H": torch.zeros(20, 18, device="meta")}, "the table is torch.float32 on meta"),
        ({"layers": []}, "there is no layer: expected one or more"),
        ({"between": "sigmoid"}, "between is 'sigmoid': expected one of None, 'tanh', 'relu'"),
        ({"zoneout": 1.5}, "zoneout is 1.5: expected a rate between 0 and 1"),
        ({"zoneout": float("nan")}, "zoneout is nan"),
        ({"precision": "float16"}, "precision is 'float16': this processor has float32"),
    ],
)
def test_wrong_arguments(change, message):
    table_V3H, _, _, layers = example(6)
    tokens, offsets = torch.tensor([0, 1, 2], dtype=INT), torch.tensor([0, 1, 3])
    arguments = {"table_V3H": table_V3H, "tokens": tokens, "offsets": offsets, "layers": layers} | change
    with pytest.raises(ValueError, match=message) as caught:
        final_states(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where", [place for place in READ if place[-1] != "2"])
def test_wrong_layers(where):
    stack = example(6)
    name, index = where.split()[0], int(where.split()[1])
    right = getattr(stack.layers[index], name)
    for wrong in (right[:-1], right.half()):
        layers = list(stack.layers)
        layers[index] = layers[index]._replace(**{name: wrong})
        with pytest.raises(ValueError, match=f"{name} of layer {index} (has shape|is torch.float16)"):
            final_states(*stack._replace(layers=layers))


@pytest.mark.parametrize("architecture", ["x86-64", pytest.param("x86-64-v3", marks=pytest.mark.slow)])
def test_other_instruction_sets(architecture, monkeypatch, tmp_path, threads):
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("needs an x86-64 processor")
    if architecture == "x86-64-v3" and not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        pytest.skip("needs AVX2")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr(binding, "ARCHITECTURES", ((f"-march={architecture}",),))
    binding.compiled.cache_clear()
    try:
        assert precisions() == ("float32",)
        for hidden, depth, between in ((3, 1, None), (50, 3, "tanh"), (64, 2, "relu")):
            stack = example(hidden, depth)
            assert error(final_states(*stack, between=between), textbook(stack, between)) < 3e-6
        assert_sequences_are_independent(19, "float32", threads)
        assert_gate_functions_are_accurate()
        with pytest.raises(ValueError, match="precision is 'bfloat16': this processor has float32"):
            final_states(*example(4), precision="bfloat16")
    finally:
        binding.compiled.cache_clear()


def test_states_after_every_word():
    stack = example(19, 3)
    got = states(*stack, zoneout=0.1)
    for index, (begin, end) in enumerate(
        zip(stack.offsets[:-1].tolist(), stack.offsets[1:].tolist(), strict=True)
    ):
        for word in (begin, end - 1):
            prefix = stack._replace(
                tokens=stack.tokens[begin : word + 1], offsets=torch.tensor([0, word + 1 - begin])
            )
            # The first layers' states are the last ones of a stack that ends with them.
            for layer in range(3):
                expected = final_states(*prefix._replace(layers=stack.layers[: layer + 1]), zoneout=0.1)
                assert torch.equal(got[word, layer], expected[0]), index


@pytest.mark.parametrize("between", [None, "tanh", "relu"])
def test_a_sequence_goes_on_from_anothers_states_bit_for_bit(between, precision, threads):
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(2, 30, (90,), generator=generator).tolist()
    stack = example(21, 2, lengths)
    options = {"between": between, "precision": precision}
    expected, trace_NLH = final_states(*stack, **options), states(*stack, **options)
    cuts = [int(torch.randint(1, n, (), generator=generator)) for n in lengths]
    begins = stack.offsets[:-1] + torch.tensor(cuts)
    rest = torch.cat([stack.tokens[b:e] for b, e in zip(begins, stack.offsets[1:], strict=True)])
    offsets = torch.tensor([0, *(n - cut for n, cut in zip(lengths, cuts, strict=True))]).cumsum(0)
    for number in (1, 2):
        threads(number)
        got = final_states(
            stack.table_V3H, rest, offsets, stack.layers, initial_BLH=trace_NLH[begins - 1], **options
        )
        assert torch.equal(got, expected)


def test_masks_of_zoneout_are_those_of_the_layers():
    hidden, lengths = 18, (4, 9, 2)
    stack = example(hidden, 2, lengths)
    keep = torch.rand(40, 2, hidden, generator=torch.Generator().manual_seed(6)) < 0.4
    rows = np.array([7, 20, 31])
    got = final_states(*stack, keep=Keep(keep, rows))
    for index, (row, length) in enumerate(zip(rows.tolist(), lengths, strict=True)):
        x = stack.table_V3H[stack.tokens[stack.offsets[index] : stack.offsets[index + 1]].long()].double()
        states_LH = torch.zeros(2, hidden, dtype=torch.float64)
        for t in range(length):
            projected = x[t]
            for number, layer in enumerate(Layer(*(w.double() for w in la)) for la in stack.layers):
                if number:
                    projected = layer.weight_ih @ torch.tanh(states_LH[0]) + layer.bias_ih
                moved = torch.nn.functional.linear(states_LH[number], layer.weight_hh, layer.bias_hh)
                r, z, n = projected.chunk(3)
                r_h, z_h, n_h = moved.chunk(3)
                z = torch.sigmoid(z + z_h)
                candidate = (1 - z) * torch.tanh(n + torch.sigmoid(r + r_h) * n_h) + z * states_LH[number]
                states_LH[number] = torch.where(keep[row + t, number], states_LH[number], candidate)
        assert error(got[index], states_LH[1]) < 3e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"initial_BLH": torch.zeros(2, 2, 6)}, r"initial_BLH has shape \[2, 2, 6\]: expected \[7, 2, 6\]"),
        ({"initial_BLH": torch.full((7, 2, 6), 1.5)}, r"states beyond 1: expected those of a GRU, in \[-1, 1\]"),
        ({"keep": Keep(torch.zeros(9, 2, 6), np.zeros(7, np.int64))}, r"keep.masks is torch.float32 \[9, 2, 6\]"),
        (
            {"keep": Keep(torch.zeros(9, 2, 6, dtype=torch.bool), np.zeros(7, np.int64))},
            "keep.rows lead from 0 to 14: expected rows of masks for 9 words",
        ),
    ],
)  # fmt: skip
def test_refuses_states_and_masks_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        final_states(*example(6), **change)
