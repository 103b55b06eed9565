"""The GRU against torch's and haste's, and the properties that regularization must have.

T time steps, B sequences, I inputs, H hidden units, L layers.
"""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from gruland import kernels
from gruland.gru import GRU, STEP, WEIGHTS
from gruland.regularizers import Bernoulli, Draw, Zoneout

LENGTHS = [3, 7, 1, 7, 5]
BACKENDS = [("eager", torch.float64), ("cpu", torch.float32), ("haste", torch.float64)]


@pytest.fixture(autouse=True)
def _seeded() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(params=BACKENDS, ids=lambda b: b[0])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each backend in its best dtype, as options of a GRU."""
    name, dtype = request.param
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # haste's docstrings, when they are compiled
        reason = kernels.why_not(name, torch.device("cpu"), dtype, True)
        if reason is None and name == "haste":
            import haste_pytorch  # noqa: F401
    if reason is not None:
        pytest.skip(f"backend {name}: {reason}")
    return {"backend": name, "dtype": dtype}


def double(*arguments: Any, **options: Any) -> GRU:
    """A GRU with random biases in float64."""
    return GRU(*arguments, backend="eager", dtype=torch.float64, init="torch", **options)


def inputs(dtype: torch.dtype = torch.float64, sequences: int = 5, steps: int = 7) -> Tensor:
    return torch.randn(sequences, steps, 4, dtype=dtype)


def close(actual: Any, expected: Any, dtype: torch.dtype = torch.float64) -> None:
    rtol = 1e-9 if dtype == torch.float64 else 2e-4
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=rtol / 20)


def run_torch(module: nn.GRU, x: Tensor, lengths: list[int], state: Tensor) -> tuple[Tensor, Tensor]:
    packed = pack_padded_sequence(x, lengths, batch_first=module.batch_first, enforce_sorted=False)
    output, last = module(packed, state)
    return pad_packed_sequence(output, batch_first=module.batch_first)[0], last


def masks_of(gru: GRU, draw: Draw, steps: int, sequences: int) -> list[tuple[Tensor | None, Tensor]]:
    """Of each layer zoneout's mask [B, T, H], 1 = kept, and the hidden-to-hidden weights that it runs with."""
    draw, regularizer = draw.of_batch(sequences, torch.device("cpu")), gru.regularizer
    masks = []
    for k in range(gru.num_layers):
        keep = regularizer.step(steps, gru.hidden_size, draw.at(STEP, k)).keep
        drawn = keep.tensor().transpose(0, 1) if isinstance(keep, Bernoulli) else None
        masks.append((drawn, regularizer.weights(gru.layer(k), draw.at(WEIGHTS, k)).weight_hh))
    return masks


def cells(
    gru: GRU, x: Tensor, lengths: list[int], draw: Draw | None, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The whole stack by the function of ``torch.nn.GRUCell``, one sequence at a time, masks written out."""
    outputs, lasts = [], []
    plain = [(None, gru.layer(k).weight_hh) for k in range(gru.num_layers)]
    masks = plain if draw is None else masks_of(gru, draw, x.shape[1], len(x))
    expected = gru.regularizer.kept if draw is None else 0.0
    for b, length in enumerate(lengths):
        row, last = x[b, :length], []
        for k, (keep, w_hh) in enumerate(masks):
            w_ih, _, b_ih, b_hh = gru.layer(k)
            h = x.new_zeros(1, gru.hidden_size) if state is None else state[k, b : b + 1]
            states = []
            for t in range(length):
                candidate = torch.gru_cell(row[t : t + 1], h, w_ih, w_hh, b_ih, b_hh)
                kept = expected if keep is None else keep[b, t].to(x)
                h = kept * h + (1 - kept) * candidate
                states.append(h)
            last.append(h)
            row = torch.cat(states)
            if gru.between == "tanh" and k + 1 < gru.num_layers:
                row = torch.tanh(row)
        outputs.append(torch.cat([row, row.new_zeros(x.shape[1] - length, gru.hidden_size)]))
        lasts.append(torch.stack(last))
    return torch.stack(outputs), torch.cat(lasts, 1)


def scalar(output: Tensor, last: Tensor) -> Tensor:
    """A function of all outputs with no symmetry."""
    return (output * torch.linspace(-1, 2, output.numel()).view(output.shape)).sum() + (last**2).sum()


def gradients(result: tuple[Tensor, Tensor], wanted: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(scalar(*result), wanted)


# ---- equality with other implementations


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("lengths", [LENGTHS, [7] * 5, [6, 6, 4, 4, 2]], ids=["mixed", "equal", "sorted"])
def test_unregularized_it_is_torchs(
    options: dict[str, Any], batch_first: bool, num_layers: int, lengths: list[int]
) -> None:
    dtype = options["dtype"]
    gru = GRU(4, 9, num_layers, batch_first=batch_first, init="torch", **options)
    reference = gru.to_torch()
    x = inputs(dtype) if batch_first else inputs(dtype).transpose(0, 1).contiguous()
    state = torch.randn(num_layers, 5, 9, dtype=dtype)
    wanted = [x.requires_grad_(), state.requires_grad_()]
    actual, expected = gru(x, state, lengths=lengths), run_torch(reference, x, lengths, state)
    longest = max(lengths)
    output = actual[0][:, :longest] if batch_first else actual[0][:longest]
    close((output, actual[1]), expected, dtype)
    ours = gradients((output, actual[1]), [*wanted, *gru.parameters()])
    close(ours, gradients(expected, [*wanted, *reference.parameters()]), dtype)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_packed_sequences_go_in_and_come_out_as_torchs(
    options: dict[str, Any], batch_first: bool, enforce_sorted: bool
) -> None:
    dtype = options["dtype"]
    lengths = sorted(LENGTHS, reverse=True) if enforce_sorted else LENGTHS
    gru = GRU(4, 9, 2, batch_first=batch_first, init="torch", **options)
    x, h0 = inputs(dtype).requires_grad_(), torch.randn(2, 5, 9, dtype=dtype, requires_grad=True)
    results = []
    for module in (gru, gru.to_torch()):
        padded = x if batch_first else x.transpose(0, 1)
        packed = pack_padded_sequence(padded, lengths, batch_first=batch_first, enforce_sorted=enforce_sorted)
        output, last = module(packed, h0)
        results.append([*output, last, *gradients((output.data, last), [x, h0, *module.parameters()])])
    close([t for t in results[0] if t is not None], [t for t in results[1] if t is not None], dtype)


def test_the_initial_state_stands_second_as_torchs() -> None:
    gru, x, h0 = double(4, 6), inputs(), shaped(1, 5, 6) + 0.5
    close(gru(x, h0), gru.to_torch()(x, h0))


def test_a_pack_with_masks_meets_those_of_its_sequences() -> None:
    gru, x = regularized(), inputs()
    output, last = gru(x, lengths=LENGTHS, draw=Draw(7))
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    packed_output, packed_last = gru(packed, draw=Draw(7))
    assert torch.equal(pad_packed_sequence(packed_output, batch_first=True)[0], output)
    assert torch.equal(packed_last, last)


@pytest.mark.parametrize("zoneout", [0.0, 0.4])
@pytest.mark.parametrize("dropconnect", [0.0, 0.3])
def test_regularized_it_is_a_stack_of_masked_cells(
    options: dict[str, Any], zoneout: float, dropconnect: float
) -> None:
    dtype = options["dtype"]
    rates = {"zoneout": zoneout, "dropconnect": dropconnect}
    gru = GRU(4, 6, 2, between="tanh", init="torch", **rates, **options)
    x, state = inputs(dtype).requires_grad_(), torch.randn(2, 5, 6, dtype=dtype, requires_grad=True)
    draw = Draw(7)
    wanted = [x, state, *gru.parameters()]
    actual, expected = gru(x, state, lengths=LENGTHS, draw=draw), cells(gru, x, LENGTHS, draw, state)
    close(actual, expected, dtype)
    close(gradients(actual, wanted), gradients(expected, wanted), dtype)
    gru.eval()
    actual, expected = gru(x, state, lengths=LENGTHS), cells(gru, x, LENGTHS, None, state)
    close(actual, expected, dtype)
    close(gradients(actual, wanted), gradients(expected, wanted), dtype)


@pytest.mark.parametrize("zoneout", [0.0, 0.25])
def test_it_is_hastes(zoneout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    haste = pytest.importorskip("haste_pytorch")
    reference = haste.GRU(4, 6, batch_first=True, zoneout=zoneout).double()
    for bias in (reference.bias, reference.recurrent_bias):
        nn.init.normal_(bias)
    gru = double(4, 6, zoneout=zoneout).load_haste(reference)
    x = inputs()
    draw = Draw(7)
    if zoneout:
        keep_BTH, _ = masks_of(gru, draw, 7, 5)[0]
        updates_TBH = 1 - keep_BTH.transpose(0, 1).to(x)
        monkeypatch.setattr(reference, "_get_zoneout_mask", lambda _: updates_TBH)
    for mode in (True, False):
        actual = gru.train(mode)(x, draw=draw if mode else None)
        expected = reference.train(mode)(x)
        close(actual, expected)
        grads = gradients(actual, list(gru.layer(0)))
        names = ("kernel", "recurrent_kernel", "bias", "recurrent_bias")
        haste_grads = gradients(expected, [getattr(reference, name) for name in names])
        close(grads, tuple(kernels.weights.from_haste(*haste_grads)))


@pytest.mark.parametrize("dropconnect", [0.0, 0.3])
@pytest.mark.parametrize("zoneout", [0.0, 0.3])
@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
def test_gradcheck_of_the_module(zoneout: float, dropconnect: float, mode: bool) -> None:
    gru = double(4, 2, 2, between="tanh", zoneout=zoneout, dropconnect=dropconnect).train(mode)
    draw = Draw(7) if mode else None
    names = [name for name, _ in gru.named_parameters()]

    def call(x: Tensor, state: Tensor, *weights: Tensor) -> Any:
        named = dict(zip(names, weights, strict=True))
        return functional_call(gru, named, (x, state), {"lengths": [1, 3], "draw": draw})

    arguments = inputs(sequences=2, steps=3), torch.randn(2, 2, 2, dtype=torch.float64), *gru.parameters()
    assert torch.autograd.gradcheck(call, tuple(a.detach().requires_grad_() for a in arguments))


# ---- zoneout


def test_zoneout_of_one_returns_the_state(options: dict[str, Any]) -> None:
    everything = Zoneout(0.5)
    everything.rate = 1.0  # which no configuration may ask for
    gru = GRU(4, 6, 2, regularizer=everything, **options)
    x, state = inputs(options["dtype"]), torch.randn(2, 5, 6, dtype=options["dtype"])
    for mode in (True, False):
        output, last = gru.train(mode)(x, state, lengths=LENGTHS)
        torch.testing.assert_close(last, state, rtol=0, atol=0)
        runs = torch.arange(7) < torch.tensor(LENGTHS).unsqueeze(1)
        expected = torch.where(runs.unsqueeze(2), state[1].unsqueeze(1), 0)
        torch.testing.assert_close(output, expected, rtol=0, atol=0)


def test_evaluation_is_the_mean_over_masks_of_a_step() -> None:
    gru, draws = double(4, 6, zoneout=0.3), 20_000
    x, state = inputs(sequences=1, steps=1), torch.randn(1, 1, 6, dtype=torch.float64)
    _, many = gru(x.expand(draws, -1, -1), state=state.expand(-1, draws, -1))
    _, expectation = gru.eval()(x, state=state)
    error = many.std(1) / math.sqrt(draws)
    assert bool(((many.mean(1) - expectation[:, 0]).abs() <= 5 * error).all())
    assert bool((error > 0).all())


def test_training_draws_a_mask_for_every_sequence() -> None:
    gru = double(4, 6, zoneout=0.5)
    output, _ = gru(inputs(sequences=1).expand(2, -1, -1))
    assert not torch.equal(output[0], output[1])


# ---- DropConnect


def test_dropconnect_leaves_the_weights_alone() -> None:
    gru = double(4, 6, 2, dropconnect=0.5)
    before = copy.deepcopy(gru.state_dict())
    for _ in range(50):
        scalar(*gru(inputs())).backward()
    torch.testing.assert_close(dict(gru.state_dict()), dict(before), rtol=0, atol=0)


def test_dropped_weights_get_no_gradient() -> None:
    gru = double(4, 6, dropconnect=0.5)
    ((_, dropped),) = masks_of(gru, Draw(7), 7, 5)
    (grad,) = gradients(gru(inputs(), draw=Draw(7)), [gru.weight_hh_l0])
    assert torch.equal(grad != 0, dropped != 0)
    assert 0 < int((dropped == 0).sum()) < dropped.numel()


def test_dropconnect_draws_once_a_forward_pass() -> None:
    gru = double(4, 6, dropconnect=0.5)
    x = inputs(sequences=1)
    output, _ = gru(x.expand(3, -1, -1))
    close(output[0], output[1])
    assert not torch.allclose(output[0], gru(x)[0][0])


def test_evaluation_drops_nothing() -> None:
    gru = double(4, 6, dropconnect=0.5).eval()
    x = inputs()
    close(gru(x), gru.to_torch()(x))


# ---- where masks come from, and what results depend on


def regularized(**options: Any) -> GRU:
    return double(4, 6, 2, between="tanh", zoneout=0.3, dropconnect=0.2, **options)


def test_same_seed_same_masks() -> None:
    gru, x = regularized(), inputs()
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(gru(x, lengths=LENGTHS)[0])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_without_masks_nothing_is_drawn() -> None:
    plain, masked, x = double(4, 6), regularized(), inputs()
    before = torch.get_rng_state()
    plain(x)
    masked.eval()(x)
    assert torch.equal(torch.get_rng_state(), before)
    masked.train()(x)
    assert not torch.equal(torch.get_rng_state(), before)


def test_masks_follow_the_sequence_not_the_batch_and_differ_by_layer_seed_and_key() -> None:
    gru, keys = regularized(), [4, 19, 7, -2, 2**40]
    first, second = masks_of(gru, Draw(5, keys), 7, 5)
    back = [3, 1, 0]
    part = masks_of(gru, Draw(5, [keys[b] for b in back]), 4, 3)
    other = masks_of(gru, Draw(6, keys), 7, 5)
    assert torch.equal(first[0][back][:, :4], part[0][0])
    assert torch.equal(first[1], part[0][1])
    for one, another in ((first, second), (first, other[0])):
        assert not torch.equal(one[0], another[0])
        assert not torch.equal(one[1] == 0, another[1] == 0)
    assert not torch.equal(first[0][0], first[0][1])


def test_a_draw_is_where_training_s_masks_come_from() -> None:
    gru, x = regularized(), inputs()
    torch.manual_seed(4)
    drawn = gru(x, lengths=LENGTHS)[0]
    torch.manual_seed(4)
    assert torch.equal(gru(x, lengths=LENGTHS, draw=Draw.fresh())[0], drawn)


@pytest.mark.parametrize("mode", [True, False], ids=["masked", "expectation"])
def test_results_depend_on_neither_order_nor_padding_nor_company(options: dict[str, Any], mode: bool) -> None:
    dtype = options["dtype"]
    gru = GRU(4, 6, 2, between="tanh", zoneout=0.3, dropconnect=0.2, init="torch", **options).eval()
    x, keys = inputs(dtype), torch.arange(5)

    def call(x: Tensor, rows: list[int]) -> tuple[Tensor, Tensor]:
        lengths = [LENGTHS[b] for b in rows]
        return gru(x[rows], lengths=lengths, draw=Draw(9, keys[rows]) if mode else None)

    output, last = call(x, list(range(5)))
    garbage = torch.cat([x, torch.full((5, 3, 4), 1e9, dtype=dtype)], 1)
    for b, length in enumerate(LENGTHS):
        garbage[b, length:] = 1e9
    for rows in ([4, 2, 0, 1, 3], [3], [2], [1, 4]):
        permuted_output, permuted_last = call(garbage, rows)
        close(permuted_output[:, :7], output[rows], dtype)
        close(permuted_last, last[:, rows], dtype)
        assert permuted_output.shape[1] == 10
        assert not permuted_output[:, 7:].any()


def test_training_draws_do_not_depend_on_padding() -> None:
    gru, x, lengths = regularized(), inputs(), [3, 5, 1, 5, 2]
    results = []
    for steps in (7, 5):
        torch.manual_seed(1)
        results.append(gru(x[:, :steps], lengths=lengths))
    assert torch.equal(results[0][0][:, :5], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_last_states_are_those_of_the_last_steps() -> None:
    output, last = regularized()(inputs(), lengths=LENGTHS)
    for b, length in enumerate(LENGTHS):
        assert torch.equal(output[b, length - 1], last[1, b])
        assert not output[b, length:].any()


def test_lengths_of_any_kind() -> None:
    gru, x = double(4, 6), inputs()
    expected = gru(x, lengths=LENGTHS)[0]
    for lengths in (tuple(LENGTHS), torch.tensor(LENGTHS), torch.tensor(LENGTHS, dtype=torch.int32)):
        assert torch.equal(gru(x, lengths=lengths)[0], expected)
    assert torch.equal(gru(x)[0], gru(x, lengths=[7] * 5)[0])


# ---- modes


def test_a_draw_holds_in_every_mode_and_leaves_torchs_generator_alone() -> None:
    gru, x, before = regularized(), inputs(), torch.get_rng_state()
    drawn = gru(x, lengths=LENGTHS, draw=Draw(1))[0]
    assert torch.equal(gru.eval()(x, lengths=LENGTHS, draw=Draw(1))[0], drawn)
    assert not torch.equal(gru(x, lengths=LENGTHS, draw=Draw(2))[0], drawn)
    assert not torch.equal(gru(x, lengths=LENGTHS)[0], drawn)
    assert torch.equal(torch.get_rng_state(), before)


def test_inference_mode(options: dict[str, Any]) -> None:
    gru = GRU(4, 6, 2, zoneout=0.3, dropconnect=0.2, between="tanh", **options)
    x = inputs(options["dtype"])
    for mode in (True, False):
        gru.train(mode)
        draw = Draw(7) if mode else None
        with torch.inference_mode():
            output, last = gru(x, lengths=LENGTHS, draw=draw)
        expected = gru(x, lengths=LENGTHS, draw=draw)
        assert output.is_inference()
        close((output, last), expected, options["dtype"])


def test_functional_call_takes_the_given_weights(options: dict[str, Any]) -> None:
    gru = GRU(4, 6, 2, zoneout=0.3, between="tanh", **options).eval()
    moved = copy.deepcopy(gru)
    x = inputs(options["dtype"])
    plain = gru(x)[0]
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(torch.randn_like(parameter) / 10)
        called = functional_call(gru, dict(moved.named_parameters()), (x,), {"lengths": LENGTHS})
        close(called, moved(x, lengths=LENGTHS), options["dtype"])
    assert torch.equal(gru(x)[0], plain)


def test_frozen_weights_still_give_the_input_a_gradient(options: dict[str, Any]) -> None:
    gru = GRU(4, 6, 2, **options).eval()
    x = inputs(options["dtype"]).requires_grad_()
    (expected,) = gradients(gru(x, lengths=LENGTHS), [x])
    (frozen,) = gradients(gru.requires_grad_(False)(x, lengths=LENGTHS), [x])
    close(frozen, expected, options["dtype"])
    assert not gru(x.detach())[0].requires_grad


def test_autocast_leaves_the_recurrence_in_the_weights_dtype() -> None:
    gru, x = GRU(4, 6, 2, backend="eager").eval(), inputs(torch.float32)
    expected = gru(x)
    with torch.autocast("cpu", torch.bfloat16):
        close(gru(x), expected, torch.float32)
        assert gru(x.bfloat16())[0].dtype == torch.float32


def test_relu_between_layers() -> None:
    gru = double(4, 6, 2, between="relu").eval()
    x = inputs()
    lower, upper = gru.to_torch_layers()
    close(gru(x)[0], upper(lower(x)[0].relu())[0])


@pytest.mark.parametrize("between", [None, "tanh", "relu"])
def test_activations_between_layers(options: dict[str, Any], between: str | None) -> None:
    gru = GRU(4, 6, 3, between=between, init="torch", **options)
    x, state = inputs(options["dtype"]).requires_grad_(), torch.randn(3, 5, 6, dtype=options["dtype"])
    wanted, h, activation = [x, *gru.parameters()], x.transpose(0, 1), kernels.BETWEEN[between]
    kernel, last = kernels.choose("eager", x.device, x.dtype), []
    for k in range(3):
        h = activation(h) if k and activation else h
        h = kernel.run_layer(h, state[k], gru.layer(k), [5] * 7)
        last.append(h[-1])
    actual, expected = gru(x, state=state), (h.transpose(0, 1), torch.stack(last))
    close(actual, expected, options["dtype"])
    for part in (0, 1):  # a gradient by only the states, or by only the last ones
        ours, theirs = (
            torch.autograd.grad((r[part] ** 2).sum(), wanted, retain_graph=True) for r in (actual, expected)
        )
        close(ours, theirs, options["dtype"])
    close(gradients(actual, wanted), gradients(expected, wanted), options["dtype"])


@pytest.mark.parametrize("name", ["eager", "cpu"])
def test_precision_reaches_the_kernel(name: str) -> None:
    if reason := kernels.why_not(name, torch.device("cpu"), torch.float32, True, "bfloat16"):
        pytest.skip(reason)
    rounded = GRU(4, 40, 2, between="tanh", backend=name, precision="bfloat16").eval()
    exact = GRU(4, 40, 2, between="tanh", backend=name).eval()
    exact.load_state_dict(rounded.state_dict())
    x = inputs(torch.float32)
    error = (rounded(x, lengths=LENGTHS)[0] - exact(x, lengths=LENGTHS)[0]).norm() / exact(
        x, lengths=LENGTHS
    )[0].norm()
    assert 1e-4 < error < 1e-2
    assert "precision='bfloat16'" in repr(rounded)
    assert "precision" not in repr(exact)


# ---- weights


@pytest.mark.parametrize("num_layers", [1, 3])
def test_weights_to_torch_and_back_are_exact(num_layers: int) -> None:
    gru, before = double(4, 6, num_layers), torch.get_rng_state()
    module = gru.to_torch()
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(dict(module.state_dict()), dict(gru.state_dict()), rtol=0, atol=0)
    assert list(module.state_dict()) == list(gru.state_dict())
    back = double(4, 6, num_layers).load_torch(module)
    torch.testing.assert_close(dict(back.state_dict()), dict(gru.state_dict()), rtol=0, atol=0)
    nn.init.zeros_(module.weight_hh_l0)
    assert gru.weight_hh_l0.any()
    assert back.weight_hh_l0.any()


def test_state_dicts_are_torchs() -> None:
    gru, module = GRU(4, 6, 2), nn.GRU(4, 6, 2)
    gru.load_state_dict(module.state_dict())
    module.load_state_dict(gru.state_dict())


def test_weights_of_a_stack_with_activations() -> None:
    gru = double(4, 6, 2, between="tanh")
    with pytest.raises(ValueError, match="no between='tanh': use to_torch_layers"):
        gru.to_torch()
    lower, upper = gru.to_torch_layers()
    x = inputs()
    close(gru.eval()(x)[0], upper(lower(x)[0].tanh())[0])
    back = double(4, 6, 2, between="tanh").load_torch(lower, upper)
    torch.testing.assert_close(dict(back.state_dict()), dict(gru.state_dict()), rtol=0, atol=0)


def test_torchs_module_without_biases() -> None:
    module = nn.GRU(4, 6, 2, bias=False, batch_first=True, dtype=torch.float64)
    x = inputs()
    close(double(4, 6, 2).load_torch(module)(x), module(x))


def test_weights_to_haste_and_back_are_exact() -> None:
    gru = double(4, 6, 2)
    states = gru.to_haste()
    assert [tuple(w.shape) for w in states[0].values()] == [(4, 18), (6, 18), (18,), (18,)]
    back = double(4, 6, 2).load_haste(*states)
    torch.testing.assert_close(dict(back.state_dict()), dict(gru.state_dict()), rtol=0, atol=0)


def test_hastes_own_conversion_agrees() -> None:
    haste = pytest.importorskip("haste_pytorch")
    gru, module = double(4, 6), haste.GRU(4, 6).double()
    module.from_native_weights(*gru.layer(0))
    torch.testing.assert_close(gru.to_haste()[0], dict(module.state_dict()), rtol=0, atol=0)
    module.load_state_dict(gru.to_haste()[0])
    close(tuple(module.to_native_weights()), tuple(gru.layer(0)))


def test_initialization_is_hastes() -> None:
    haste = pytest.importorskip("haste_pytorch")
    gru, module = GRU(40, 60, 2), haste.GRU(40, 60)
    ours, theirs = gru.to_haste()[0], module.state_dict()
    bound = math.sqrt(6 / (40 + 60))
    for kernel in (ours["kernel"], theirs["kernel"]):
        assert 0.99 * bound < float(kernel.abs().max()) <= bound
        assert abs(float(kernel.std()) / (bound / math.sqrt(3)) - 1) < 0.03
    for kernel in (ours["recurrent_kernel"], theirs["recurrent_kernel"]):
        for gate in kernel.chunk(3, 1):
            torch.testing.assert_close(gate @ gate.T, torch.eye(60), rtol=0, atol=1e-5)
    assert float(gru.weight_ih_l1.detach().abs().max()) <= math.sqrt(6 / 120)
    assert not any(bool(state[name].any()) for state in (ours, theirs) for name in ("bias", "recurrent_bias"))


def test_initialization_as_torchs() -> None:
    for parameter in GRU(40, 25, 2, init="torch").requires_grad_(False).parameters():
        assert float(parameter.abs().max()) <= 0.2
        assert float(parameter.std()) == pytest.approx(0.2 / math.sqrt(3), rel=0.2)


@pytest.mark.parametrize("hidden", [128, 256])
def test_initialization_and_training_know_no_number_of_threads(hidden: int) -> None:
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            gru = GRU(20, hidden, 2, between="tanh", zoneout=0.1, dropconnect=0.1)
            assert torch.get_num_threads() == threads
            initial = copy.deepcopy(gru.state_dict())
            optimizer = torch.optim.Adam(gru.parameters())
            for _ in range(2):
                optimizer.zero_grad()
                gru(torch.randn(12, 30, 20))[1].square().sum().backward()
                nn.utils.clip_grad_norm_(gru.parameters(), 0.1)
                optimizer.step()
            results.append([initial, gru.state_dict()])
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(results[1:], [results[0]] * 2, rtol=0, atol=0)


@pytest.mark.parametrize("init", ["haste", "torch"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_starts_from_rounded_weights(dtype: torch.dtype, init: str) -> None:
    torch.manual_seed(0)
    exact = GRU(4, 6, 2, init=init)
    torch.manual_seed(0)
    gru = GRU(4, 6, 2, init=init, dtype=dtype)
    torch.testing.assert_close(dict(gru.state_dict()), dict(exact.to(dtype).state_dict()), rtol=0, atol=0)
    x = inputs(dtype).requires_grad_()
    output, last = gru(x, lengths=LENGTHS)
    torch.testing.assert_close(
        output.float(), exact.float()(x.float(), lengths=LENGTHS)[0], rtol=0.1, atol=0.03
    )
    assert output.dtype == last.dtype == dtype
    assert all(grad.isfinite().all() for grad in gradients((output, last), [x, *gru.parameters()]))


def test_a_copy_draws_the_same_masks() -> None:
    gru, x = regularized(), inputs()
    assert torch.equal(copy.deepcopy(gru)(x, draw=Draw(1))[0], gru(x, draw=Draw(1))[0])


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 0}, "input_size is 0: expected at least 1"),
        ({"hidden_size": -1}, "hidden_size is -1: expected at least 1"),
        ({"num_layers": 0}, "num_layers is 0: expected at least 1"),
        ({"zoneout": 1.5}, r"zoneout=1\.5: expected a number in \[0, 1\)"),
        ({"dropconnect": -0.5}, r"dropconnect=-0\.5: expected a number in \[0, 1\)"),
        ({"between": "gelu"}, "between is 'gelu': expected one of None, tanh, relu"),
        ({"init": "zeros"}, "init is 'zeros': expected one of haste, torch"),
        ({"backend": "fast"}, "backend 'fast' is unknown: expected one of auto, "),
        ({"bias": False}, "bias=False is not offered: set the biases to zero and freeze them"),
        ({"dropout": 0.5}, r"dropout=0.5 between layers is not offered: put nn.Dropout\(0.5\) between GRUs"),
        (
            {"bidirectional": True},
            "bidirectional=True is not offered: run a second GRU over the reversed sequences",
        ),
        ({"precision": "half"}, "precision 'half' is unknown: expected one of float32, bfloat16"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GRU(**{"input_size": 4, "hidden_size": 6, **options})


def shaped(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (shaped(5, 7, 3), {}, r"x has the shape \[5, 7, 3\]: expected \[B, T, 4\]"),
        (shaped(7, 4), {}, r"x has the shape \[7, 4\]"),
        (shaped(0, 7, 4), {}, "B and T above 0"),
        (shaped(5, 0, 4), {}, "B and T above 0"),
        (shaped(5, 7, 4).float(), {}, "x is torch.float32 on cpu: expected the weights' torch.float64"),
        (shaped(5, 7, 4), {"lengths": [7] * 4}, r"expected integers \[5\]"),
        (shaped(5, 7, 4), {"lengths": [7.0] * 5}, r"lengths is torch.float32 \[5\]: expected integers"),
        (shaped(5, 7, 4), {"lengths": [True] * 5}, r"lengths is torch.bool \[5\]: expected integers"),
        (shaped(5, 7, 4), {"state": [7] * 5}, r"state is list: .* lengths go by name, lengths=..."),
        (
            shaped(5, 7, 4),
            {"state": torch.ones(5).long()},
            r"state is torch.int64 \[5\]: .* lengths go by name",
        ),
        (shaped(5, 7, 4).to("meta"), {}, "x is on the device meta, which holds no numbers"),
        (
            pack_padded_sequence(shaped(5, 7, 4), [7] * 5, batch_first=True),
            {"lengths": [7] * 5},
            "knows its lengths",
        ),
        (pack_padded_sequence(shaped(5, 7, 3), [7] * 5, batch_first=True), {}, "expected .B, T, 4."),
        (shaped(5, 7, 4), {"lengths": [7, 7, 0, 7, 7]}, "lengths go from 0 to 7: expected 1 to 7"),
        (shaped(5, 7, 4), {"lengths": [7, 7, 1, 7, 8]}, "lengths go from 1 to 8: expected 1 to 7"),
        (
            shaped(5, 7, 4),
            {"state": shaped(1, 5, 6)},
            r"state has the shape \[1, 5, 6\]: expected \[2, 5, 6\]",
        ),
        (shaped(5, 7, 4), {"draw": Draw(0, [1, 2])}, r"keys has the shape \[2\]: expected \[5\]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x: Tensor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        double(4, 6, 2)(x, **options)


def test_a_backend_that_cannot_run_is_refused() -> None:
    with pytest.raises(ValueError, match="backend 'cpu' cannot run here: "):
        GRU(4, 6, backend="cpu", dtype=torch.float64)(inputs())


def test_rates_beside_a_regularizer_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one of the two"):
        GRU(4, 6, zoneout=0.1, regularizer=Zoneout(0.1))


def test_weights_that_do_not_fit_are_refused() -> None:
    gru = GRU(4, 6, 2)
    before = copy.deepcopy(gru.state_dict())
    for module, message in (
        (nn.GRU(4, 6), "weights of 1 layers: expected 2"),
        (nn.GRU(4, 5, 2), r"weight_ih_l0 has the shape \[15, 4\]: expected \[18, 4\]"),
        (nn.GRU(4, 6, 2, bidirectional=True), "expected one direction"),
    ):
        with pytest.raises(ValueError, match=message):
            gru.load_torch(module)
    state = gru.to_haste()[0]
    with pytest.raises(ValueError, match="the weights lack bias: expected kernel"):
        gru.load_haste(state, {name: w for name, w in state.items() if name != "bias"})
    torch.testing.assert_close(dict(gru.state_dict()), dict(before), rtol=0, atol=0)
