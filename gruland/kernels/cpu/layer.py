"""One layer of a GRU by the compiled kernel, with gradients (``layer.cpp``: layout and equations).

T time steps, B sequences, I inputs, H hidden units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from gruland.kernels import Layer, plain
from gruland.kernels.cpu.binding import ACTIVATIONS, Batch, Keep, Rows, address, kernel, unavailable
from gruland.kernels.packing import last
from gruland.kernels.threads import Lock

_CPU = torch.device("cpu")


def run_layer(
    x_TBI: Tensor,
    h0_BH: Tensor,
    layer: Layer,
    active: Tensor | Sequence[int],
    keep_TBH: Tensor | None = None,
    zoneout: float = 0.0,
    precision: str = "float32",
    *,
    candidate_TBH: Tensor | None = None,
) -> Tensor:
    """The hidden states [T, B, H] of one layer: see :mod:`gruland.kernels`. All tensors are float32.

    ``keep_TBH`` may be bool as well. A sequence's outputs depend bit for bit on neither the other sequences nor
    the number of threads (``torch.get_num_threads()``), and no gradient depends on the number of threads.
    """
    arguments = _Arguments(x_TBI, h0_BH, *layer, _counts(active), keep_TBH, candidate_TBH, zoneout, precision)
    return _run(arguments)[0]


def run_layers(
    x_TBI: Tensor,
    state_LBH: Tensor,
    layers: Sequence[Layer],
    active: Tensor | Sequence[int],
    keeps: Sequence[Tensor | None],
    zoneout: float = 0.0,
    precision: str = "float32",
    between: str | None = None,
    *,
    candidates: Sequence[Tensor | None] | None = None,
) -> tuple[Tensor, Tensor]:
    """A stack of layers: see :func:`gruland.kernels.run_layers`, whose passes over memory between the layers and
    after the last steps the kernel makes on its way."""
    active, activation, last = _counts(active), None, []
    factors = [None] * len(layers) if candidates is None else candidates
    for layer, h0_BH, keep_TBH, candidate_TBH in zip(layers, state_LBH, keeps, factors, strict=True):
        masks = keep_TBH, candidate_TBH
        arguments = _Arguments(x_TBI, h0_BH, *layer, active, *masks, zoneout, precision, activation)
        x_TBI, last_BH = _run(arguments)
        last.append(last_BH)
        activation = between
    return x_TBI, torch.stack(last)


class _Arguments(NamedTuple):
    x_TBI: Tensor
    h0_BH: Tensor
    weight_ih: Tensor  # [3H, I]
    weight_hh: Tensor  # [3H, H]
    bias_ih: Tensor  # [3H]
    bias_hh: Tensor  # [3H]
    active: Tensor  # [T]
    keep_TBH: Tensor | None
    candidate_TBH: Tensor | None
    zoneout: float
    precision: str
    activation: str | None = None  # what x goes through before it is the layer's input

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self[:6]


def _run(arguments: _Arguments) -> tuple[Tensor, Tensor]:
    """The states [T, B, H], and [B, H] those after each sequence's last step."""
    _check(arguments)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in arguments.tensors):
        return _GRULayer.apply(*arguments)
    states_TBH = _forward(arguments, save=False).states_TBH
    return states_TBH, last(states_TBH, arguments.active)


class _GRULayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        result = _forward(_Arguments(*arguments), save=True)
        ctx.options, ctx.slopes = arguments[9:], result.slopes
        ctx.save_for_backward(*arguments[:9], result.input_TBI, result.states_TBH)
        ctx.set_materialize_grads(False)
        return result.states_TBH, last(result.states_TBH, arguments[6])

    @staticmethod
    def backward(ctx: Any, grad_TBH: Tensor | None, grad_last_BH: Tensor | None) -> tuple[Tensor | None, ...]:
        *tensors, input_TBI, states_TBH = ctx.saved_tensors
        arguments = _Arguments(*tensors, *ctx.options)
        if torch.is_grad_enabled():  # create_graph=True
            given: Any = ctx.needs_input_grad[:6], [grad_TBH, grad_last_BH], *arguments[6:]
            return *plain.gradients(arguments.tensors, *given), *[None] * 6
        # The backward pass works in the slopes' memory; with retain_graph a second one, perhaps of another thread,
        # needs them anew.
        slopes = ctx.__dict__.pop("slopes", None)
        if slopes is None:
            slopes = _forward(arguments, save=True).slopes
        result = _Result(states_TBH, input_TBI, slopes)
        grads = _backward(arguments, result, grad_TBH, grad_last_BH, ctx.needs_input_grad)
        _Slopes.give_back(slopes)
        return *grads, *[None] * 6


class _Result(NamedTuple):
    states_TBH: Tensor
    input_TBI: Tensor  # x after the activation
    slopes: Tensor | None  # what the backward pass needs, if it was to be saved


class _Slopes:
    """Memory of slopes, kept for the next step: the system's pages cost more than what is written to them.

    The largest are kept, and serve for fewer numbers too: batches of all lengths follow each other.
    """

    MOST = 4
    _lock = Lock()  # two threads must never be given the same memory
    _spare: ClassVar[list[Tensor]] = []  # by rising size

    @classmethod
    def take(cls, numbers: int) -> Tensor:
        with cls._lock:
            for index, tensor in enumerate(cls._spare):
                if numbers <= len(tensor):
                    return cls._spare.pop(index)
        return torch.empty(numbers)

    @classmethod
    def give_back(cls, slopes: Tensor) -> None:
        with cls._lock:
            cls._spare = sorted([*cls._spare, slopes], key=len)[-cls.MOST :]


def _forward(arguments: _Arguments, save: bool) -> _Result:
    x_TBI, hidden, active = arguments.x_TBI, arguments.h0_BH.shape[1], arguments.active
    steps, sequences = x_TBI.shape[:2]
    states_TBH = x_TBI.new_empty(steps, sequences, hidden)
    input_TBI = x_TBI if arguments.activation is None else torch.empty_like(x_TBI)
    slopes = _Slopes.take(int(active.sum()) * kernel().gru_saved_floats(hidden)) if save else None
    batch = _batch(arguments, input_TBI, states_TBH)
    masks = Keep.of(arguments.keep_TBH), Rows.of(arguments.candidate_TBH)
    kernel().gru_forward(batch, _bfloat16(arguments), *masks, arguments.zoneout, address(slopes))
    return _Result(states_TBH, input_TBI, slopes)


def _backward(
    arguments: _Arguments,
    result: _Result,
    grad_TBH: Tensor | None,
    grad_last_BH: Tensor | None,
    needed: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """The gradients of the six tensors, None for a matrix that needs none; the slopes are used up."""
    batch = _batch(arguments, result.input_TBI, result.states_TBH)
    optional = {"x_TBI", "weight_ih", "weight_hh"}
    grads = {
        name: tensor.new_empty(tensor.shape) if wanted or name not in optional else None
        for name, tensor, wanted in zip(_Arguments._fields, arguments.tensors, needed, strict=False)
    }
    grad_x = grads.pop("x_TBI")
    last = None if grad_last_BH is None else grad_last_BH.contiguous()
    given = Rows.of(grad_TBH), address(last), Rows.of(grad_x)
    kernel().gru_backward(
        batch, _bfloat16(arguments), address(result.slopes), *given, *map(address, grads.values())
    )
    return grad_x, *grads.values()


def _bfloat16(arguments: _Arguments) -> bool:
    return arguments.precision == "bfloat16"


def _batch(arguments: _Arguments, input_TBI: Tensor, states_TBH: Tensor) -> Batch:
    """What both passes are told; the object keeps the tensors' memory alive."""
    rows = [Rows.of(tensor) for tensor in (arguments.x_TBI, input_TBI, states_TBH)]
    active, *dense = (tensor.contiguous() for tensor in (arguments.active, *arguments[1:6]))
    sizes = (*arguments.x_TBI.shape, states_TBH.shape[2], torch.get_num_threads())
    activation = ACTIVATIONS.index(arguments.activation)
    batch = Batch(*sizes, active.data_ptr(), *rows, activation, *map(address, dense))
    batch.tensors = (rows, active, *dense)
    return batch


def _counts(active: Tensor | Sequence[int]) -> Tensor:
    return torch.as_tensor(active, dtype=torch.int64)


def _check(arguments: _Arguments) -> None:
    """Raises ValueError for what would make the kernel read or write beyond its tensors."""
    (steps, sequences, inputs), hidden = arguments.x_TBI.shape, arguments.weight_hh.shape[1]
    shapes = {
        "h0_BH": (sequences, hidden),
        "weight_ih": (3 * hidden, inputs),
        "weight_hh": (3 * hidden, hidden),
        "bias_ih": (3 * hidden,),
        "bias_hh": (3 * hidden,),
        "active": (steps,),
        "keep_TBH": (steps, sequences, hidden),
        "candidate_TBH": (steps, sequences, hidden),
    }
    for name, shape in shapes.items():
        tensor = getattr(arguments, name)
        if tensor is not None and tensor.shape != shape:
            name = name.removesuffix("_BH").removesuffix("_TBH")
            raise ValueError(f"{name} has shape {list(tensor.shape)}: expected {list(shape)}")
    keep = arguments.keep_TBH
    floats = (
        *arguments.tensors,
        arguments.candidate_TBH,
        None if keep is None or keep.dtype == torch.bool else keep,
    )
    for tensor in floats:
        if tensor is None:
            continue
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise ValueError(
                f"the CPU kernel takes float32 tensors on cpu: got {tensor.dtype} on {tensor.device}"
            )
    counts = arguments.active.tolist()
    if not counts or counts[0] != sequences or counts != sorted(counts, reverse=True) or counts[-1] < 0:
        raise ValueError(f"active is {counts}: expected {sequences} first and falling numbers of sequences")
    if why := unavailable(_CPU, torch.float32, True, arguments.precision):
        raise ValueError(f"precision {arguments.precision!r} cannot run: {why}")
