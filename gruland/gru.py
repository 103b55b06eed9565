"""A GRU with zoneout and DropConnect over sequences of different lengths.

T time steps, B sequences, I inputs, H hidden units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gruland import kernels
from gruland.kernels import Layer
from gruland.regularizers import (
    Masks,
    check_rate,
    dropconnect_mask,
    mix,
    seeded_zoneout_mask,
    zoneout_mask,
)

#: The activations between layers; all of them map zero to zero.
BETWEEN = {None: None, "tanh": torch.tanh, "relu": torch.relu}
INITIALIZATIONS = ("haste", "torch")
#: haste's names for the four weights of a layer, in the order of :class:`Layer`.
HASTE_NAMES = ("kernel", "recurrent_kernel", "bias", "recurrent_bias")
#: What the streams of keyed masks are for: they keep the two regularizers independent of each other.
ZONEOUT_STREAM, DROPCONNECT_STREAM = 0, 1


class GRU(nn.Module):
    """A stack of gated recurrent units with zoneout and DropConnect.

    The mathematics is haste's (Nanavati 2020), cuDNN's and ``torch.nn.GRU``'s: the reset gate acts after the
    matrix product. Without regularization the module equals ``torch.nn.GRU`` to float rounding, and the two
    exchange state_dicts: the parameters' names, shapes and gate order are the same.

    **Zoneout** (Krueger et al. 2017): in training each unit keeps its previous value with probability ``zoneout``,
    drawn for every (time, sequence, unit); in evaluation the state is the expectation of that,
    p h_{t-1} + (1 - p) GRU(x_t, h_{t-1}).

    **DropConnect** (Wan et al. 2013) on the hidden-to-hidden matrices: one mask a forward pass and layer, shared by
    the batch and by all time steps, its rest scaled by 1 / (1 - p). The paper contradicts itself here: its section
    4.2 has a mask "drawn independently for each example" with "the biases ... also masked out", and then an
    operation "performed once, before the forward and backward pass" on the hidden-to-hidden matrices. haste, with
    which its experiments were made, does the latter and keeps the biases, and so does this module.

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: how many layers lie on each other.
        between: the activation between two layers: None, ``"tanh"`` (the paper's figure 1) or ``"relu"``.
        zoneout: its rate, in [0, 1].
        dropconnect: its rate, in [0, 1].
        batch_first: x and output are [B, T, ...] rather than [T, B, ...].
        backend: ``auto``, ``cpu``, ``torch`` or ``haste``: see :mod:`gruland.kernels`.
        init: ``haste`` (Xavier-uniform kernels and orthogonal recurrent kernels gate by gate, zero biases) or
            ``torch`` (all uniform in +-1 / sqrt(H)).

    Attributes:
        dropout_at_test: keep drawing masks in evaluation; see :func:`test_time_dropout`.
        generator: where masks are drawn from, on the device of x; None = torch's default generator.

    Raises:
        ValueError: a size below 1, a rate outside [0, 1], an unknown activation, backend or initialization.
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
        batch_first: bool = True,
        backend: str = "auto",
        init: str = "haste",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, size in (
            ("input_size", input_size),
            ("hidden_size", hidden_size),
            ("num_layers", num_layers),
        ):
            if size < 1:
                raise ValueError(f"{name} is {size}: expected at least 1")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.between = _one_of("between", between, tuple(BETWEEN))
        self.zoneout, self.dropconnect = (
            check_rate("zoneout", zoneout),
            check_rate("dropconnect", dropconnect),
        )
        self.batch_first = batch_first
        self.backend = kernels.check_name(backend)
        self.init = _one_of("init", init, INITIALIZATIONS)
        self.dropout_at_test = False
        self.generator: torch.Generator | None = None
        for layer in range(num_layers):
            for name, shape in self._shapes(layer).items():
                self.register_parameter(name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))
        self.reset_parameters()

    def _shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        gates = 3 * self.hidden_size
        inputs = self.input_size if layer == 0 else self.hidden_size
        shapes = ((gates, inputs), (gates, self.hidden_size), (gates,), (gates,))
        return {f"{field}_l{layer}": shape for field, shape in zip(Layer._fields, shapes, strict=True)}

    def layer(self, index: int) -> Layer:
        """The parameters of one layer."""
        return Layer(*(getattr(self, f"{field}_l{index}") for field in Layer._fields))

    def reset_parameters(self) -> None:
        """Draw new weights from torch's default generator, as ``init`` says."""
        for index in range(self.num_layers):
            layer = self.layer(index)
            if self.init == "torch":
                for parameter in layer:
                    nn.init.uniform_(parameter, -(self.hidden_size**-0.5), self.hidden_size**-0.5)
                continue
            for gate in range(3):
                rows = slice(gate * self.hidden_size, (gate + 1) * self.hidden_size)
                nn.init.xavier_uniform_(layer.weight_ih[rows])
                nn.init.orthogonal_(layer.weight_hh[rows])
            nn.init.zeros_(layer.bias_ih)
            nn.init.zeros_(layer.bias_hh)

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        state: Tensor | None = None,
        *,
        masks: Sequence[Masks] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run the sequences through all layers.

        Args:
            x: [B, T, I] ([T, B, I] without ``batch_first``), in the weights' dtype and on their device.
            lengths: [B] steps of each sequence, 1 to T, in any order; None = T for all.
            state: the initial states [num_layers, B, H]; None = zeros.
            masks: one :class:`Masks` a layer, used as they are in training and in evaluation. None = drawn from
                the generator in training (in evaluation if ``dropout_at_test``), else the expectation.

        Returns:
            The last layer's states [B, T, H] (zero beyond a sequence's length), and each layer's state after each
            sequence's last step [num_layers, B, H].

        Raises:
            ValueError: shapes, lengths, dtype or device that don't fit.
        """
        x_TBI = self._time_major(x)
        lengths_B = _check_lengths(lengths, *x_TBI.shape[:2])
        state_LBH = self._check_state(state, x_TBI)
        steps = int(lengths_B.max())
        if masks is None and (self.training or self.dropout_at_test):
            masks = self.draw_masks((steps, len(lengths_B)), generator=self.generator)
        masks = self._check_masks(masks, steps, len(lengths_B))
        order = _falling(lengths_B)
        with torch.autocast(x.device.type, enabled=False):
            h_TBH, last_LBH = self._run(x_TBI[:steps], lengths_B, state_LBH, masks, order)
        h_TBH = F.pad(h_TBH, (0, 0, 0, 0, 0, len(x_TBI) - steps)) if steps < len(x_TBI) else h_TBH
        return (h_TBH.transpose(0, 1) if self.batch_first else h_TBH), last_LBH

    def _run(
        self,
        x_TBI: Tensor,
        lengths_B: Tensor,
        state_LBH: Tensor,
        masks: Sequence[Masks],
        order: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """All layers over sequences sorted by falling length on the way in, and sorted back on the way out."""
        x_TBI, state_LBH = _reorder(x_TBI, 1, order), _reorder(state_LBH, 1, order)
        lengths_B = _reorder(lengths_B, 0, order)
        active = (lengths_B > torch.arange(len(x_TBI)).unsqueeze(1)).sum(1)
        final = (lengths_B - 1).to(x_TBI.device), torch.arange(len(lengths_B), device=x_TBI.device)
        wants_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in (x_TBI, *self.parameters()))
        kernel = kernels.choose(self.backend, x_TBI.device, x_TBI.dtype, wants_gradient)
        last: list[Tensor] = []
        for index, mask in enumerate(masks):
            layer, keep = self.layer(index), mask.zoneout
            if mask.recurrent is not None:
                layer = layer._replace(weight_hh=layer.weight_hh * mask.recurrent.to(layer.weight_hh))
            if keep is not None:
                keep = _reorder(keep[:, : len(x_TBI)].transpose(0, 1), 1, order).to(x_TBI)
            if index > 0 and (activation := BETWEEN[self.between]):
                x_TBI = activation(x_TBI)
            x_TBI = kernel.run_layer(x_TBI, state_LBH[index], layer, active, keep, self.zoneout)
            last.append(x_TBI[final])
        back = None if order is None else order.argsort()
        return _reorder(x_TBI, 1, back), _reorder(torch.stack(last), 1, back)

    def draw_masks(
        self,
        lengths: Tensor | Sequence[int] | torch.Size,
        generator: torch.Generator | None = None,
        *,
        keys: Tensor | Sequence[int] | None = None,
        seed: int | None = None,
    ) -> list[Masks]:
        """Masks for one forward pass, one :class:`Masks` a layer, on the weights' device; None at a rate of 0.

        Args:
            lengths: [B] steps of each sequence, as a tensor or list; or the tuple (T, B).
            generator: where they are drawn from; None = torch's default generator of the weights' device.
            keys: [B] an integer that identifies each sequence. With it the masks come from no generator: zoneout's
                are a function of (seed, layer, key, time, unit), DropConnect's of (seed, layer), so that a
                sequence meets the same masks in every batch and on every device.
            seed: goes with ``keys``.

        Raises:
            ValueError: keys without a seed or of another number than the sequences.
        """
        if (keys is None) != (seed is None) or (keys is not None and generator is not None):
            raise ValueError("masks come from a generator or from keys with a seed: give one of the two")
        sizes = (
            [lengths[0]] * lengths[1] if isinstance(lengths, tuple) else [int(length) for length in lengths]
        )
        numbers = None if keys is None else [int(key) for key in keys]
        return [self._draw(index, sizes, generator, numbers, seed or 0) for index in range(self.num_layers)]

    def _draw(
        self,
        index: int,
        sizes: list[int],
        generator: torch.Generator | None,
        keys: list[int] | None,
        seed: int,
    ) -> Masks:
        like: dict[str, Any] = {"device": self.weight_hh_l0.device, "dtype": self.weight_hh_l0.dtype}
        keep = recurrent = None
        if self.zoneout > 0 and keys is None:
            keep = zoneout_mask(max(sizes), len(sizes), self.hidden_size, self.zoneout, generator, **like)
        elif self.zoneout > 0 and keys is not None:
            streams = [mix(seed, index, ZONEOUT_STREAM, key) for key in keys]
            keep = seeded_zoneout_mask(sizes, streams, self.hidden_size, self.zoneout).to(**like)
        if self.dropconnect > 0:
            if keys is not None:
                generator = torch.Generator().manual_seed(mix(seed, index, DROPCONNECT_STREAM))
            recurrent = dropconnect_mask(self.hidden_size, self.dropconnect, generator, like["device"])
        return Masks(keep, None if recurrent is None else recurrent.to(**like))

    def load_torch(self, *modules: nn.GRU) -> GRU:
        """Take over the weights of one ``torch.nn.GRU``, or of a one-layer one for each layer; returns self.

        Only weights: a dropout between its layers, or its lack of an activation there, is not taken over.

        Raises:
            ValueError: sizes that don't fit, a bidirectional module, projections.
        """
        layers = [layer for module in modules for layer in _torch_layers(module)]
        self._load(layers)
        return self

    def to_torch(self) -> nn.GRU:
        """A ``torch.nn.GRU`` with the same weights, which computes what this module does without regularization.

        Raises:
            ValueError: layers with an activation between them, which ``torch.nn.GRU`` doesn't have: use
                :meth:`to_torch_layers`.
        """
        if self.between is not None and self.num_layers > 1:
            raise ValueError(
                f"torch.nn.GRU has no between={self.between!r}: to_torch_layers() gives layer by layer"
            )
        return self._to_torch(self.input_size, self.num_layers, self.state_dict())

    def to_torch_layers(self) -> list[nn.GRU]:
        """A one-layer ``torch.nn.GRU`` for each layer, with the same weights."""
        states = [
            {f"{name}_l0": w.detach() for name, w in self.layer(k)._asdict().items()}
            for k in range(self.num_layers)
        ]
        return [self._to_torch(state["weight_ih_l0"].shape[1], 1, state) for state in states]

    def _to_torch(self, input_size: int, num_layers: int, state: Mapping[str, Tensor]) -> nn.GRU:
        like: dict[str, Any] = {"device": self.weight_hh_l0.device, "dtype": self.weight_hh_l0.dtype}
        module = nn.GRU(input_size, self.hidden_size, num_layers, batch_first=self.batch_first, **like)
        module.load_state_dict(state)
        return module.train(self.training)

    def load_haste(self, *layers: nn.Module | Mapping[str, Tensor]) -> GRU:
        """Take over haste's weights, a ``haste_pytorch.GRU`` or its state_dict for each layer; returns self.

        haste's layout: ``kernel`` [I, 3H], ``recurrent_kernel`` [H, 3H], ``bias`` and ``recurrent_bias`` [3H], gates
        in the order z, r, n.

        Raises:
            ValueError: another number of layers, or sizes that don't fit.
        """
        states = [layer.state_dict() if isinstance(layer, nn.Module) else layer for layer in layers]
        self._load([Layer(*(swap_gates(state[name].t()) for name in HASTE_NAMES)) for state in states])
        return self

    def to_haste(self) -> list[dict[str, Tensor]]:
        """A state_dict of ``haste_pytorch.GRU`` for each layer; see :meth:`load_haste`."""
        weights = [map(swap_gates, self.layer(index)) for index in range(self.num_layers)]
        return [
            {n: w.detach().t().contiguous() for n, w in zip(HASTE_NAMES, layer, strict=True)}
            for layer in weights
        ]

    def _load(self, layers: list[Layer]) -> None:
        if len(layers) != self.num_layers:
            raise ValueError(f"got the weights of {len(layers)} layers: expected {self.num_layers}")
        pairs = [
            (f"{name}_l{index}", weight)
            for index, layer in enumerate(layers)
            for name, weight in layer._asdict().items()
        ]
        for name, weight in pairs:
            if weight.shape != (expected := getattr(self, name).shape):
                raise ValueError(f"{name} has the shape {list(weight.shape)}: expected {list(expected)}")
        with torch.no_grad():
            for name, weight in pairs:
                getattr(self, name).copy_(weight)

    def _time_major(self, x: Tensor) -> Tensor:
        if x.dim() != 3 or x.shape[2] != self.input_size or 0 in x.shape:
            expected = "[B, T, " if self.batch_first else "[T, B, "
            raise ValueError(
                f"x has the shape {list(x.shape)}: expected {expected}{self.input_size}], none of them 0"
            )
        weight = self.weight_ih_l0
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(weight.dtype)
        if (x.dtype, x.device) != (weight.dtype, weight.device):
            raise ValueError(
                f"x is {x.dtype} on {x.device}: expected the weights' {weight.dtype} on {weight.device}"
            )
        return x.transpose(0, 1) if self.batch_first else x

    def _check_state(self, state: Tensor | None, x_TBI: Tensor) -> Tensor:
        shape = (self.num_layers, x_TBI.shape[1], self.hidden_size)
        if state is None:
            return x_TBI.new_zeros(shape)
        if state.shape != shape:
            raise ValueError(f"state has the shape {list(state.shape)}: expected {list(shape)}")
        return state.to(x_TBI)

    def _check_masks(self, masks: Sequence[Masks] | None, steps: int, sequences: int) -> Sequence[Masks]:
        if masks is None:
            return [Masks()] * self.num_layers
        if len(masks) != self.num_layers:
            raise ValueError(f"got masks for {len(masks)} layers: expected {self.num_layers}")
        for keep, recurrent in masks:
            if keep is not None and (
                keep.shape[::2] != (sequences, self.hidden_size) or keep.shape[1] < steps
            ):
                expected = f"[{sequences}, at least {steps}, {self.hidden_size}]"
                raise ValueError(f"a zoneout mask has the shape {list(keep.shape)}: expected {expected}")
            if recurrent is not None and recurrent.shape != self.weight_hh_l0.shape:
                expected = list(self.weight_hh_l0.shape)
                raise ValueError(
                    f"a recurrent mask has the shape {list(recurrent.shape)}: expected {expected}"
                )
        return masks

    def extra_repr(self) -> str:
        rates = f"zoneout={self.zoneout}, dropconnect={self.dropconnect}"
        return f"{self.input_size}, {self.hidden_size}, {self.num_layers}, between={self.between!r}, {rates}"


@contextmanager
def test_time_dropout(module: nn.Module, *, seed: int | None = None) -> Iterator[nn.Module]:
    """Keep zoneout and DropConnect of all :class:`GRU` in ``module`` on in evaluation (Wang et al. 2018).

    Args:
        seed: draw the masks inside the block from generators seeded by it; None = each GRU's own.
    """
    grus = [m for m in module.modules() if isinstance(m, GRU)]
    before = [(gru.dropout_at_test, gru.generator) for gru in grus]
    try:
        for index, gru in enumerate(grus):
            gru.dropout_at_test = True
            if seed is not None:
                gru.generator = torch.Generator(gru.weight_hh_l0.device).manual_seed(mix(seed, index))
        yield module
    finally:
        for gru, (gru.dropout_at_test, gru.generator) in zip(grus, before, strict=True):
            pass


# pytest would collect the name where a test imports it.
test_time_dropout.__test__ = False  # type: ignore[attr-defined]


def swap_gates(weight: Tensor) -> Tensor:
    """Gates r, z, n [3H, ...] in haste's order z, r, n, and back."""
    first, second, candidate = weight.chunk(3)
    return torch.cat([second, first, candidate])


def _torch_layers(module: nn.GRU) -> list[Layer]:
    if module.bidirectional or module.proj_size:
        raise ValueError(f"cannot take over {module}: expected one direction and no projections")
    layers = []
    for index in range(module.num_layers):
        weight_ih, weight_hh = (getattr(module, f"{name}_l{index}") for name in ("weight_ih", "weight_hh"))
        zeros = weight_hh.new_zeros(len(weight_hh))
        biases = (getattr(module, f"{name}_l{index}", zeros) for name in ("bias_ih", "bias_hh"))
        layers.append(Layer(weight_ih, weight_hh, *biases))
    return layers


def _check_lengths(lengths: Tensor | Sequence[int] | None, time_steps: int, sequences: int) -> Tensor:
    """int64 [B] on the CPU."""
    if lengths is None:
        return torch.full((sequences,), time_steps)
    lengths_B = torch.as_tensor(lengths).to("cpu")
    if lengths_B.shape != (sequences,) or lengths_B.is_floating_point():
        raise ValueError(
            f"lengths is {lengths_B.dtype} {list(lengths_B.shape)}: expected integers [{sequences}]"
        )
    shortest, longest = int(lengths_B.min()), int(lengths_B.max())
    if shortest < 1 or longest > time_steps:
        raise ValueError(
            f"lengths go from {shortest} to {longest}: expected 1 to {time_steps}, x's time steps"
        )
    return lengths_B.long()


def _falling(lengths_B: Tensor) -> Tensor | None:
    """The stable order of falling length; None if the sequences have it."""
    if bool((lengths_B[:-1] >= lengths_B[1:]).all()):
        return None
    return lengths_B.argsort(descending=True, stable=True)


def _reorder(x: Tensor, dim: int, order: Tensor | None) -> Tensor:
    return x if order is None else x.index_select(dim, order.to(x.device))


def _one_of(name: str, value: Any, expected: Sequence[Any]) -> Any:
    if value not in expected:
        raise ValueError(f"{name} is {value!r}: expected one of {', '.join(map(str, expected))}")
    return value
