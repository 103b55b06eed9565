"""A GRU with zoneout and DropConnect over sequences of different lengths.

T time steps, B sequences, I inputs, H hidden units, L layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from gruland import kernels
from gruland.kernels import BETWEEN, Layer, plain, weights
from gruland.kernels.packing import pack_as
from gruland.kernels.threads import Lock
from gruland.regularizers import Bernoulli, Draw, Regularizer, Steps, by_rates

INITIALIZATIONS = ("haste", "torch")
#: What a draw is for: it keeps the hooks' random numbers independent of each other, and of :data:`WORDS`'.
WEIGHTS, STEP, BETWEEN_LAYERS, WORDS = range(4)
_ONE_THREAD = Lock()
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class GRU(nn.Module):
    """A stack of gated recurrent units with zoneout and DropConnect.

    The mathematics is that of haste (Nanavati 2020), cuDNN and ``torch.nn.GRU``: the reset gate acts after
    the matrix product. Without regularization the module equals ``torch.nn.GRU`` to float rounding, and the
    two exchange state_dicts: names, shapes and gate order of the parameters are the same.

    **Zoneout** (Krueger et al. 2017). In training each unit keeps its previous value with probability
    ``zoneout``, drawn for every (time, sequence, unit); in evaluation the state is the expectation of that,
    p h_{t-1} + (1 - p) GRU(x_t, h_{t-1}).

    **DropConnect** (Wan et al. 2013) on the hidden-to-hidden matrices: one mask for each layer and forward
    pass, shared by the batch and by all time steps; the rest is scaled by 1 / (1 - p), the biases are kept.
    Section 4.2 of the paper contradicts itself here: it speaks of a mask "drawn independently for each
    example" with the biases "also masked out", and then of an operation "performed once, before the forward
    and backward pass" on the hidden-to-hidden matrices. haste, with which its experiments were made, does the
    latter and keeps the biases, and so does this module.

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: L, how many layers lie on each other.
        between: the activation between two layers: None, ``"tanh"`` (the paper's figure 1) or ``"relu"``.
        zoneout, dropconnect: their rates, in [0, 1): short for a regularizer.
        regularizer: an object of :mod:`gruland.regularizers`, in place of the two rates.
        batch_first: x and output are [B, T, ...] rather than [T, B, ...].
        backend: ``auto``, ``cpu``, ``triton``, ``eager`` (plain PyTorch) or ``haste``: see :mod:`gruland.kernels`.
        precision: ``float32``, or ``bfloat16``: the operands of matrix products are rounded to it, the products are
            summed in float32, and states, gates and gradients are float32.
        init: ``haste`` (gate by gate Xavier-uniform kernels and orthogonal recurrent kernels, zero biases) or
            ``torch`` (all uniform in +-1 / sqrt(H)).
        bias, dropout, bidirectional: as ``torch.nn.GRU`` has them, at their defaults alone. Dropout between layers is
            ``nn.Dropout`` between GRUs of one layer each; both directions are a second GRU over the reversed
            sequences; without biases they are zero and frozen.

    Second derivatives (``create_graph=True``), ``torch.func`` and forward mode take the plain path of
    :mod:`gruland.kernels.plain`, which is slower.

    Raises:
        ValueError: a size below 1, a rate outside [0, 1), rates beside a regularizer, an unknown activation, backend,
            precision or initialization, one of torch's arguments that is not offered.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        between: str | None = None,
        zoneout: float = 0.0,
        dropconnect: float = 0.0,
        regularizer: Regularizer | None = None,
        batch_first: bool = True,
        backend: str = "auto",
        precision: str = "float32",
        init: str = "haste",
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _refuse_what_torch_has(bias, dropout, bidirectional)
        self.input_size = _at_least_one("input_size", input_size)
        self.hidden_size = _at_least_one("hidden_size", hidden_size)
        self.num_layers = _at_least_one("num_layers", num_layers)
        self.between = _one_of("between", between, tuple(BETWEEN))
        if regularizer is not None and (zoneout or dropconnect):
            raise ValueError(f"got rates and regularizer={regularizer}: expected one of the two")
        self.regularizer = regularizer or by_rates(zoneout=zoneout, dropconnect=dropconnect)
        self.batch_first = batch_first
        self.backend = kernels.check_name(backend)
        self.precision = kernels.check_precision(precision)
        self.init = _one_of("init", init, INITIALIZATIONS)
        for index in range(num_layers):
            for name, shape in self._shapes(index).items():
                self.register_parameter(name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))
        self.reset_parameters()

    def _shapes(self, index: int) -> dict[str, tuple[int, ...]]:
        gates, inputs = 3 * self.hidden_size, self.hidden_size if index else self.input_size
        shapes = ((gates, inputs), (gates, self.hidden_size), (gates,), (gates,))
        return {f"{name}_l{index}": shape for name, shape in zip(Layer._fields, shapes, strict=True)}

    def layer(self, index: int) -> Layer:
        """The parameters of one layer."""
        return Layer(*(getattr(self, f"{name}_l{index}") for name in Layer._fields))

    def layers(self) -> list[Layer]:
        """The parameters of all layers, from the first on."""
        return [self.layer(index) for index in range(self.num_layers)]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new weights from torch's default generator, as ``init`` says.

        They depend on the number of threads in no bit. In half precision they are those of float32, rounded.
        """
        initialize = _initialize_as_haste if self.init == "haste" else _initialize_as_torch
        for index in range(self.num_layers):
            layer = self.layer(index)
            drawn = Layer(*(weight if weight.dtype.itemsize > 2 else weight.float() for weight in layer))
            initialize(drawn)
            for weight, values in zip(layer, drawn, strict=True):
                if values is not weight:
                    weight.copy_(values)

    def forward(
        self,
        x: Tensor | PackedSequence,
        state: Tensor | None = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        draw: Draw | None = None,
    ) -> tuple[Any, Tensor]:
        """Run the sequences through all layers: ``gru(x)``, ``gru(x, h0)``, ``gru(packed, h0)``, as torch's.

        Args:
            x: [B, T, I] ([T, B, I] without ``batch_first``), in the weights' dtype and on their device; or a
                ``PackedSequence``, which knows its lengths.
            state: the initial states h0 [L, B, H]; None = zeros.
            lengths: [B] steps of each sequence, 1 to T, in any order; None = T for all.
            draw: which masks of the regularizer are met, in training and in evaluation. None = in training those of
                a seed from torch's default generator, in evaluation their expectation.

        Returns:
            The last layer's states [B, T, H], zero beyond a sequence's length, packed if x is; and every layer's
            state after each sequence's last step [L, B, H].

        Raises:
            ValueError: shapes, lengths, a dtype or a device that don't fit.
        """
        if isinstance(x, PackedSequence):
            if lengths is not None:
                raise ValueError(
                    "x is a PackedSequence, which knows its lengths: expected no lengths beside it"
                )
            padded, lengths_B = pad_packed_sequence(x, self.batch_first)
            output, last_LBH = self.forward(padded, state, lengths=lengths_B, draw=draw)
            return pack_as(x, output.transpose(0, 1) if self.batch_first else output), last_LBH
        # Time first: the kernels read a step's sequences from adjacent memory. What lies beyond the longest is cut off.
        x_TBI = self._time_major(x)
        lengths_B = _check_lengths(lengths, *x_TBI.shape[:2])
        state_LBH = self._check_state(state, x_TBI)
        steps = int(lengths_B.max())
        padding = len(x_TBI) - steps
        wants_grad = torch.is_grad_enabled() and any(t.requires_grad for t in (x_TBI, *self.parameters()))
        # By falling length the sequences that go on at step t are the first ones: a batch needs no mask of its padding.
        order = _falling(lengths_B)
        back = None if order is None else order.argsort()
        # A mask belongs to a sequence, not to its place in the batch: the draw is put into the same order.
        if draw is None and self.training and self.regularizer.random:
            draw = Draw.fresh()
        if draw is not None:
            draw = draw.of_batch(len(lengths_B), x_TBI.device).take(order)
        masks = self._step_masks(steps, draw)
        # The backend: the fastest that has these masks here; a transformation of torch.func needs plain operations.
        kernel = self._kernel(x_TBI.device, x_TBI.dtype, wants_grad, masks)
        kernel = plain if plain.transformed(x_TBI, state_LBH, *self.parameters()) else kernel
        # All layers: h_TBH [T, B, H] of the last one, last_LBH [L, B, H]. The precision is the module's own affair.
        with torch.autocast(x.device.type, enabled=False):
            h_TBH, last_LBH = self._run_layers(
                kernel,
                _reorder(x_TBI[:steps], order),
                lengths_B if order is None else lengths_B[order],
                _reorder(state_LBH, order),
                masks,
                draw,
            )
        # Back to the caller's order, length and axes.
        h_TBH, last_LBH = _reorder(h_TBH, back), _reorder(last_LBH, back)
        h_TBH = F.pad(h_TBH, (0, 0, 0, 0, 0, padding)) if padding else h_TBH
        return (h_TBH.transpose(0, 1) if self.batch_first else h_TBH), last_LBH

    def kernel(self, device: torch.device, training: bool) -> ModuleType:
        """The backend that runs the layers on a device; ``training``: with masks and gradients."""
        draw = Draw(0).of_batch(1, torch.device("cpu")) if training else None
        return self._kernel(device, self._factory()["dtype"], training, self._step_masks(1, draw))

    def _kernel(
        self, device: torch.device, dtype: torch.dtype, wants_grad: bool, masks: Sequence[Steps]
    ) -> ModuleType:
        if "gates" in self.regularizer.hooks:
            if self.backend not in ("auto", "eager"):
                raise ValueError(
                    f"backend {self.backend!r} cannot run here: {self.regularizer.title} has a cell of its own; "
                    "backend='auto' takes one that can"
                )
            return plain
        named = {name for layer in masks for name, mask in layer._asdict().items() if mask is not None}
        # Every backend has the masks of which units are kept.
        return kernels.choose(self.backend, device, dtype, wants_grad, self.precision, named - {"keep"})

    def _step_masks(self, steps: int, draw: Draw | None) -> list[Steps]:
        """The masks of each layer's steps, of the sequences by falling length."""
        if draw is None:
            return [Steps()] * self.num_layers
        layers = range(self.num_layers)
        return [self.regularizer.step(steps, self.hidden_size, draw.at(STEP, index)) for index in layers]

    def _run_layers(
        self,
        kernel: ModuleType,
        x_TBI: Tensor,
        lengths_B: Tensor,
        state_LBH: Tensor,
        masks: Sequence[Steps],
        draw: Draw | None,
    ) -> tuple[Tensor, Tensor]:
        """The layers over sequences sorted by falling length."""
        active = (lengths_B > torch.arange(len(x_TBI)).unsqueeze(1)).sum(1)
        layers = [self.layer(index) for index in range(self.num_layers)]
        if draw is not None:
            layers = [
                self.regularizer.weights(layer, draw.at(WEIGHTS, index)) for index, layer in enumerate(layers)
            ]
        if draw is None or "between" not in self.regularizer.hooks:
            return self._run_stack(kernel, x_TBI, state_LBH, layers, active, masks, draw)
        # What lies between the layers is the regularizer's: a layer at a time.
        last = []
        for index, layer in enumerate(layers):
            if index > 0:
                activation = BETWEEN[self.between]
                x_TBI = x_TBI if activation is None else activation(x_TBI)
                x_TBI = self.regularizer.between(x_TBI, draw.at(BETWEEN_LAYERS, index - 1))
            here = slice(index, index + 1)
            x_TBI, h_1BH = self._run_stack(kernel, x_TBI, state_LBH[here], [layer], active, masks[here], draw)
            last.append(h_1BH)
        return x_TBI, torch.cat(last)

    def _run_stack(
        self,
        kernel: ModuleType,
        x_TBI: Tensor,
        state_LBH: Tensor,
        layers: Sequence[Layer],
        active: Tensor,
        masks: Sequence[Steps],
        draw: Draw | None,
    ) -> tuple[Tensor, Tensor]:
        keeps = [mask.keep for mask in masks]
        options: dict[str, Any] = {"precision": self.precision, "between": self.between}
        drawn = [keep for keep in keeps if isinstance(keep, Bernoulli) and keep.keys is None]
        if (
            getattr(kernel, "DRAWS_ZONEOUT", False)
            and len(drawn) == len(keeps)
            and len({keep.rate for keep in drawn}) == 1
        ):
            # The kernel draws the same masks where it needs them, and stores none.
            options |= {"keep_seeds": [keep.seed for keep in drawn], "zoneout": drawn[0].rate}
            keeps = [None] * len(layers)
        elif draw is None:
            options["zoneout"] = self.regularizer.kept
        if any(mask.candidate is not None for mask in masks):
            options["candidates"] = [
                None if mask.candidate is None else mask.candidate.to(x_TBI) for mask in masks
            ]
        if "gates" in self.regularizer.hooks:
            options["gates"] = self.regularizer.gates
        tensors = [keep.tensor() if isinstance(keep, Bernoulli) else keep for keep in keeps]
        return kernels.run_layers(kernel, x_TBI, state_LBH, layers, active, tensors, **options)

    def load_torch(self, *modules: nn.GRU) -> GRU:
        """Take over the weights of one ``torch.nn.GRU``, or of a one-layer one for each layer; returns self.

        Only the weights: what the modules do between their layers (dropout, no activation) stays theirs.

        Raises:
            ValueError: layers or sizes that don't fit, a bidirectional module, projections.
        """
        return self._load([layer for module in modules for layer in weights.from_torch(module)])

    def to_torch(self) -> nn.GRU:
        """A ``torch.nn.GRU`` with the same weights: it computes what this module does unregularized.

        Raises:
            ValueError: several layers with an activation between them, which ``torch.nn.GRU`` doesn't have;
                :meth:`to_torch_layers` gives them one by one.
        """
        if self.between is not None and self.num_layers > 1:
            raise ValueError(f"torch.nn.GRU has no between={self.between!r}: use to_torch_layers()")
        return weights.to_torch(self.layers(), self.batch_first).train(self.training)

    def to_torch_layers(self) -> list[nn.GRU]:
        """A one-layer ``torch.nn.GRU`` with the same weights for each layer."""
        return [weights.to_torch([layer], self.batch_first).train(self.training) for layer in self.layers()]

    def load_haste(self, *layers: nn.Module | Mapping[str, Tensor]) -> GRU:
        """Take over haste's weights, a ``haste_pytorch.GRU`` or its state_dict for each layer; returns self.

        Raises:
            ValueError: another number of layers, a missing weight, sizes that don't fit.
        """
        return self._load([weights.from_haste_module(layer) for layer in layers])

    def to_haste(self) -> list[dict[str, Tensor]]:
        """A state_dict of ``haste_pytorch.GRU`` for each layer."""
        return [weights.to_haste_state(layer) for layer in self.layers()]

    def _load(self, layers: Sequence[Layer]) -> GRU:
        if len(layers) != self.num_layers:
            raise ValueError(f"got the weights of {len(layers)} layers: expected {self.num_layers}")
        given = {f"{n}_l{k}": w for k, layer in enumerate(layers) for n, w in layer._asdict().items()}
        for name, weight in given.items():
            if weight.shape != (expected := getattr(self, name).shape):
                raise ValueError(f"{name} has the shape {list(weight.shape)}: expected {list(expected)}")
        with torch.no_grad():
            for name, weight in given.items():
                getattr(self, name).copy_(weight)
        return self

    def _factory(self) -> dict[str, Any]:
        weight = self.layer(0).weight_hh
        return {"device": weight.device, "dtype": weight.dtype}

    def _time_major(self, x: Tensor) -> Tensor:
        if x.device.type == "meta":
            raise ValueError(
                "x is on the device meta, which holds no numbers: put x and the GRU on a real one"
            )
        if x.dim() != 3 or x.shape[2] != self.input_size or 0 in x.shape:
            axes = "[B, T," if self.batch_first else "[T, B,"
            raise ValueError(
                f"x has the shape {list(x.shape)}: expected {axes} {self.input_size}], B and T above 0"
            )
        dtype, device = self._factory()["dtype"], self._factory()["device"]
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(dtype)
        if x.dtype != dtype or x.device != device:
            raise ValueError(f"x is {x.dtype} on {x.device}: expected the weights' {dtype} on {device}")
        return x.transpose(0, 1) if self.batch_first else x

    def _check_state(self, state: Tensor | None, x_TBI: Tensor) -> Tensor:
        shape = (self.num_layers, x_TBI.shape[1], self.hidden_size)
        if state is None:
            return x_TBI.new_zeros(shape)
        if not isinstance(state, Tensor) or not state.is_floating_point():
            kind = f"{state.dtype} {list(state.shape)}" if isinstance(state, Tensor) else type(state).__name__
            raise ValueError(
                f"state is {kind}: expected {list(shape)} floats; lengths go by name, lengths=..."
            )
        if state.shape != shape:
            raise ValueError(f"state has the shape {list(state.shape)}: expected {list(shape)}")
        return state.to(x_TBI)

    def extra_repr(self) -> str:
        precision = "" if self.precision == "float32" else f", precision={self.precision!r}"
        sizes = f"{self.input_size}, {self.hidden_size}, {self.num_layers}"
        return f"{sizes}, between={self.between!r}, {self.regularizer}{precision}"


def _initialize_as_haste(layer: Layer) -> None:
    for kernel, recurrent_kernel in zip(layer.weight_ih.chunk(3), layer.weight_hh.chunk(3), strict=True):
        nn.init.xavier_uniform_(kernel)
        with _one_thread():  # LAPACK's factorization gives other last digits with another number of threads
            nn.init.orthogonal_(recurrent_kernel)
    nn.init.zeros_(layer.bias_ih)
    nn.init.zeros_(layer.bias_hh)


def _initialize_as_torch(layer: Layer) -> None:
    bound = layer.weight_hh.shape[1] ** -0.5
    for weight in layer:
        nn.init.uniform_(weight, -bound, bound)


@contextmanager
def _one_thread() -> Iterator[None]:
    """torch computes with one thread in here, and one Python thread at a time is in here."""
    with _ONE_THREAD:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _check_lengths(lengths: Tensor | Sequence[int] | None, time_steps: int, sequences: int) -> Tensor:
    """int64 [B] on the CPU."""
    if lengths is None:
        return torch.full((sequences,), time_steps)
    lengths_B = torch.as_tensor(lengths).to("cpu")
    if lengths_B.shape != (sequences,) or lengths_B.dtype not in _INTEGERS:
        got = f"{lengths_B.dtype} {list(lengths_B.shape)}"
        raise ValueError(f"lengths is {got}: expected integers [{sequences}], one for each sequence")
    shortest, longest = int(lengths_B.min()), int(lengths_B.max())
    if shortest < 1 or longest > time_steps:
        raise ValueError(
            f"lengths go from {shortest} to {longest}: expected 1 to {time_steps}, the steps of x"
        )
    return lengths_B.long()


def _falling(lengths_B: Tensor) -> Tensor | None:
    """The stable order of falling length; None if the sequences have it."""
    if bool((lengths_B[:-1] >= lengths_B[1:]).all()):
        return None
    return lengths_B.argsort(descending=True, stable=True)


def _reorder(x: Tensor, order: Tensor | None) -> Tensor:
    """The second axis, that of the sequences, in another order; None = as it is."""
    return x if order is None else x.index_select(1, order.to(x.device))


def _refuse_what_torch_has(bias: bool, dropout: float, bidirectional: bool) -> None:
    if not bias:
        raise ValueError(
            "bias=False is not offered: set the biases to zero and freeze them (requires_grad_(False))"
        )
    if dropout:
        raise ValueError(
            f"dropout={dropout} between layers is not offered: put nn.Dropout({dropout}) between GRUs of one layer"
        )
    if bidirectional:
        raise ValueError("bidirectional=True is not offered: run a second GRU over the reversed sequences")


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} is {value}: expected at least 1")
    return value


def _one_of(name: str, value: Any, expected: Sequence[Any]) -> Any:
    if value not in expected:
        raise ValueError(f"{name} is {value!r}: expected one of {', '.join(map(str, expected))}")
    return value
