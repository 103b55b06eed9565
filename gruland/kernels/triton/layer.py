"""One GRU layer by the kernels of ``layer_kernel.py``: what PyTorch does around them.

The input's projections and the weights' gradients are large matrix products, which torch's own are best at.

T time steps, B sequences, I inputs, H hidden units; S rows of a packed batch: the running sequences of step 0,
then those of step 1, ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gruland.kernels import Layer, plain
from gruland.kernels.packing import pack, previous_states, running_rows, unpack
from gruland.kernels.philox import bernoulli, threshold
from gruland.kernels.threads import Lock

#: How float32 products are made, as ``tl.dot`` names it: "ieee" is plain float32. "tf32x3" would have tensor
#: cores make each of three products of split operands, which is nearly as exact.
FLOAT32_PRODUCTS = "ieee"
#: Bytes of a multiprocessor's shared memory that a program with weights on chip needs beside them.
_BESIDE_WEIGHTS = 16 * 1024
_LAUNCH = Lock()


def run_layer(
    x_TBI: Tensor,
    h0_BH: Tensor,
    layer: Layer,
    active: Tensor | Sequence[int],
    keep_TBH: Tensor | None = None,
    zoneout: float = 0.0,
    precision: str = "float32",
    *,
    keep_seed: int | None = None,
) -> Tensor:
    """The hidden states [T, B, H] of one layer: see :mod:`gruland.kernels`. All tensors are float32.

    Args:
        keep_seed: draw the zoneout mask of the rate ``zoneout`` within the kernel: it is
            ``philox.bernoulli(keep_seed, zoneout, T, keys, H)`` with the keys 0 to B - 1, and is stored nowhere.
            Each layer and each forward pass needs a seed of its own.

    Raises:
        ValueError: both ``keep_TBH`` and ``keep_seed``; shapes, dtypes or devices that don't fit.
    """
    if keep_TBH is not None and keep_seed is not None:
        raise ValueError(f"got keep_TBH and keep_seed={keep_seed}: expected at most one of them")
    active = torch.as_tensor(active).tolist()
    _check(x_TBI, h0_BH, layer, active, keep_TBH)
    running = tuple(n for n in active if n)
    settings = _Settings(running, zoneout, keep_seed, precision)
    tensors = x_TBI, h0_BH, *layer
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return _GRULayer.apply(*tensors, keep_TBH, settings)
    return _forward(tensors, keep_TBH, settings, save=False).output


class _Settings(NamedTuple):
    running: tuple[int, ...]  # sequences at each step, without zeros at the end
    zoneout: float
    keep_seed: int | None
    precision: str


class _Pass(NamedTuple):
    """A forward pass: its output and what the backward pass needs."""

    output: Tensor  # [T, B, H]
    x_SI: Tensor
    states_SH: Tensor  # [B + S, H], h0 first
    saved_S4H: Tensor


class _GRULayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *tensors, keep_TBH, settings = arguments
        done = _forward(tensors, keep_TBH, settings, save=True)
        ctx.save_for_backward(*tensors, keep_TBH, done.x_SI, done.states_SH, done.saved_S4H)
        ctx.zoneout = settings.zoneout if keep_TBH is None and settings.keep_seed is None else 0.0
        ctx.settings, ctx.shape = settings, tensors[0].shape[:2]
        return done.output

    @staticmethod
    def backward(ctx: Any, grad_TBH: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, keep_TBH, x_SI, states_SH, saved_S4H = ctx.saved_tensors
        weight_ih, weight_hh = tensors[2:4]
        running, zoneout, keep_seed, precision = ctx.settings
        if torch.is_grad_enabled():  # create_graph=True
            steps, sequences = ctx.shape
            if keep_seed is not None:
                keys = torch.arange(sequences, device=grad_TBH.device)
                keep_TBH = bernoulli(keep_seed, zoneout, steps, keys, weight_hh.shape[1]).to(grad_TBH)
            active = F.pad(torch.tensor(running), (0, steps - len(running)))
            options = active, keep_TBH, None, ctx.zoneout, precision
            return *plain.gradients(tensors, ctx.needs_input_grad[:6], [grad_TBH, None], *options), None, None
        packing = _packing(running, *ctx.shape, grad_TBH.device)
        grad_SH = pack(grad_TBH, packing.places).contiguous()
        grad_h0, gates_S4H = _sweep_back(
            grad_SH, states_SH, saved_S4H, weight_hh, packing, ctx.zoneout, precision
        )
        hidden = weight_hh.shape[1]
        # The gates' gradients lie in the order r, z, n, u: the input's part is the first three, the state's
        # all but n.
        inputs_S3H, bias_sums = gates_S4H[:, : 3 * hidden], gates_S4H.sum(0, dtype=torch.float32)
        grad_x = grad_weight_ih = grad_weight_hh = None
        if ctx.needs_input_grad[0]:
            grad_x = unpack(_matmul(inputs_S3H, weight_ih, precision), packing.places, *ctx.shape)
        if ctx.needs_input_grad[2]:
            grad_weight_ih = _matmul(inputs_S3H.t(), x_SI, precision)
        if ctx.needs_input_grad[3]:
            previous_SH = previous_states(states_SH, list(running))
            grad_4HH = _matmul(gates_S4H.t(), previous_SH, precision)
            grad_weight_hh = _without_n(grad_4HH)
        return (
            grad_x,
            grad_h0,
            grad_weight_ih,
            grad_weight_hh,
            bias_sums[: 3 * hidden],
            _without_n(bias_sums),
            None,
            None,
        )


@contextmanager
def launch(tensor: Tensor) -> Iterator[None]:
    """For a kernel's call: Triton launches on the current device, and its compiler and its interpreter serve one
    thread at a time."""
    with _LAUNCH, torch.cuda.device_of(tensor):
        yield


def _without_n(gates_4H: Tensor) -> Tensor:
    """r, z and u of r, z, n and u along the first axis."""
    r, z, _, u = gates_4H.chunk(4)
    return torch.cat([r, z, u])


def _forward(tensors: Sequence[Tensor], keep_TBH: Tensor | None, settings: _Settings, save: bool) -> _Pass:
    from gruland.kernels.triton import layer_kernel as kernels

    x_TBI, h0_BH, weight_ih, weight_hh, bias_ih, bias_hh = tensors
    running, zoneout, keep_seed, precision = settings
    (sequences, hidden), steps = h0_BH.shape, len(x_TBI)
    packing = _packing(running, steps, sequences, x_TBI.device)
    x_SI = pack(x_TBI, packing.places)
    inputs_S3H = _matmul(x_SI, weight_ih.t(), precision).add_(bias_ih)
    states_SH = x_TBI.new_empty(sequences + len(x_SI), hidden)
    states_SH[:sequences] = h0_BH
    saved_S4H = x_TBI.new_empty(len(x_SI) if save else 0, 4 * hidden)
    if keep_TBH is not None:
        keep_SH, mode = pack(keep_TBH, packing.places).contiguous(), kernels.GIVEN
    else:
        drawn = kernels.DRAWN if keep_seed is not None else kernels.EXPECTATION
        keep_SH, mode = x_SI, drawn if zoneout > 0 else kernels.NONE
    tiles = _tiles(hidden, sequences, precision, x_TBI.device)
    with launch(states_SH):
        kernels.forward[(-(-sequences // tiles.SEQUENCES),)](
            inputs_S3H,
            states_SH,
            saved_S4H,
            tiles.weight(weight_hh),
            bias_hh.contiguous(),
            keep_SH,
            packing.rows,
            packing.lengths,
            sequences,
            float(zoneout),
            (keep_seed or 0) % 2**64,
            threshold(zoneout),
            ZONEOUT=mode,
            SAVE=save,
            **tiles.options(),
        )
    output = unpack(states_SH[sequences:], packing.places, steps, sequences)
    return _Pass(output, x_SI, states_SH, saved_S4H)


def _sweep_back(
    grad_SH: Tensor,
    states_SH: Tensor,
    saved_S4H: Tensor,
    weight_hh: Tensor,
    packing: _Packing,
    zoneout: float,
    precision: str,
) -> tuple[Tensor, Tensor]:
    """The gradients of h0 [B, H] and of the gates' arguments [S, 4H], these in the dtype of products."""
    from gruland.kernels.triton import layer_kernel as kernels

    sequences, hidden = len(packing.lengths), weight_hh.shape[1]
    grad_h0 = grad_SH.new_zeros(sequences, hidden)
    gates_S4H = torch.empty_like(saved_S4H, dtype=torch.bfloat16 if precision == "bfloat16" else None)
    tiles = _tiles(hidden, sequences, precision, grad_SH.device)
    with launch(states_SH):
        kernels.backward[(-(-sequences // tiles.SEQUENCES),)](
            saved_S4H,
            states_SH,
            grad_SH,
            gates_S4H,
            grad_h0,
            tiles.weight(weight_hh.reshape(3, hidden, hidden).transpose(1, 2)),
            packing.rows,
            packing.lengths,
            sequences,
            float(zoneout),
            1 / (1 - zoneout) if zoneout < 1 else 1.0,
            **tiles.options(),
        )
    return grad_h0, gates_S4H


class _Packing(NamedTuple):
    """Where the steps of a batch lie in its packed form."""

    places: Tensor | None  # the packed rows of a [T * B, ...] batch; None: all
    rows: Tensor  # int64 [T + 1]: where the states before step t begin in states [B + S, H]
    lengths: Tensor  # int64 [B], falling


@lru_cache(maxsize=8)  # a batch's layers and both passes ask for the same
def _packing(running: tuple[int, ...], steps: int, sequences: int, device: torch.device) -> _Packing:
    with torch.inference_mode(False):
        places = running_rows(list(running), steps, sequences, device)
        counts = torch.tensor([0, sequences, *running[:-1]])
        lengths = (torch.tensor(running).unsqueeze(1) > torch.arange(sequences)).sum(0)
        rows, lengths = torch.cat([counts.cumsum(0), lengths]).to(device).split([len(counts), sequences])
        return _Packing(places, rows, lengths)


class _Tiles(NamedTuple):
    """The kernels' compile-time options."""

    HIDDEN: int
    UNITS: int  # of a tile
    SEQUENCES: int  # of a program
    DEPTH: int  # of a panel of weights
    RESIDENT: bool
    PRODUCTS: str
    num_warps: int

    def weight(self, weight_hh: Tensor) -> Tensor:
        """The matrices in the form in which products take them.

        Rounded in the kernel, their way to the tensor cores would lead through registers at each step.
        """
        return (weight_hh.bfloat16() if self.PRODUCTS == "bfloat16" else weight_hh).contiguous()

    def options(self) -> dict[str, Any]:
        # Fused multiply-adds are what Triton does by default; unsaid, some versions warn about it.
        return {**self._asdict(), "enable_fp_fusion": True}


def _tiles(hidden: int, sequences: int, precision: str, device: torch.device) -> _Tiles:
    """Tiles for a layer.

    As few sequences to a program as its products take well, until all multiprocessors are busy: steps follow
    each other, and the smaller a step the sooner the next. Tensor cores take 8 columns at least; float32
    products, which the other cores make, get no faster below 4, where reading the weights is what takes time.
    The upper bounds are what registers hold.
    """
    units = max(16, power_of_two(hidden))
    panel, warps = min(units, 128), 8 if units > 64 else 4
    processors, shared = processor(device)
    per_program = power_of_two(-(-sequences // processors))
    if precision == "float32":
        few = min(max(per_program, 4), 32)
        return _Tiles(hidden, panel, few, 16, False, FLOAT32_PRODUCTS, warps)
    few = min(max(per_program, 8), 16)
    # Three matrices of two bytes an entry.
    if units <= 128 and 6 * units * units + _BESIDE_WEIGHTS <= shared:
        return _Tiles(hidden, units, few, units, True, precision, warps)
    # Panels of three matrices, three steps ahead: up to 162 or 81 KB.
    return _Tiles(hidden, panel, few, 64 if shared >= 162 * 1024 else 32, False, precision, warps)


@cache
def processor(device: torch.device) -> tuple[int, int]:
    """The number of multiprocessors and the bytes of shared memory that a program may have."""
    if device.type != "cuda":
        return 1, 227 * 1024  # interpreted: one program after the other, as if on Hopper
    properties = torch.cuda.get_device_properties(device)
    shared = getattr(properties, "shared_memory_per_block_optin", 48 * 1024)  # AMD's have none
    return properties.multi_processor_count, shared


def power_of_two(n: int) -> int:
    """The smallest power of two from n on."""
    return 1 << (n - 1).bit_length()


def _matmul(a: Tensor, b: Tensor, precision: str) -> Tensor:
    """a b in float32, or of operands rounded to bfloat16 with float32 sums."""
    if precision == "float32":
        return a @ b
    a, b = a.bfloat16(), b.bfloat16()
    return torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda else a.float() @ b.float()


def _check(x_TBI: Tensor, h0_BH: Tensor, layer: Layer, active: list[int], keep_TBH: Tensor | None) -> None:
    """Raises ValueError for what would make the kernels read or write beyond their tensors."""
    (steps, sequences, inputs), hidden = x_TBI.shape, layer.weight_hh.shape[1]
    gates = 3 * hidden
    shapes = (
        (sequences, hidden),
        (gates, inputs),
        (gates, hidden),
        (gates,),
        (gates,),
        (steps, sequences, hidden),
    )
    names = "h0", *Layer._fields, "keep"
    for name, tensor, shape in zip(names, (h0_BH, *layer, keep_TBH), shapes, strict=True):
        if tensor is None:
            continue
        if tensor.shape != shape:
            raise ValueError(f"{name} has shape {list(tensor.shape)}: expected {list(shape)}")
        if tensor.dtype != torch.float32 or tensor.device != x_TBI.device:
            expected = f"float32 on {x_TBI.device}, where x is"
            raise ValueError(f"{name} is {tensor.dtype} on {tensor.device}: expected {expected}")
    if len(active) != steps or active[0] != sequences or active != sorted(active, reverse=True):
        raise ValueError(f"active is {active}: expected {steps} falling numbers from {sequences} on")
