"""Random directions in weight space, scaled so that networks of different weights can be compared.

A direction is drawn from a Gaussian and scaled group by group to the norm of the weights' own group (section 4.3 of the
paper; Li et al. 2018, section 4). The second is made orthogonal to the first within every group before it is scaled, so
that the norms and the orthogonality both hold.

A *block* is a weight tensor as a matrix, its first axis the rows, with its bias as a further column where that moves
with its row. G gates, H units: the rows of a recurrent layer's tensors are G gates of H rows each.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gruland.arguments import check_whole
from gruland.files import atomic_path
from gruland.landscape.objective import named_tensors

#: The groups of numbers that are scaled, and made orthogonal, together:
#: a row (a unit's weights of one gate) | a unit's rows of all gates | a gate's rows | a tensor | all that moves.
NORMALIZATIONS = ("filter", "unit", "gate", "tensor", "model")
#: What becomes of parameters with fewer than two axes (biases):
#: they stay | each is a group of its own | each number joins its row of the weights.
VECTORS = ("ignore", "tensor", "with_row")
#: The gates' names in the order of PyTorch's rows, by their number.
GATES = {3: ("reset", "update", "new"), 4: ("input", "forget", "cell", "output")}

#: A recurrent layer's parameter as PyTorch names it, also under ``weight_norm`` (its g and v, or original0 and 1).
_STACKED = re.compile(
    r"(?P<module>(?:.*\.)??)(?:parametrizations\.)?"
    r"(?P<kind>weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)(?P<layer>(?:_l\d+)?(?:_reverse)?)(?:_[gv]|\.original\d*)?"
)


def random_directions(
    parameters: Mapping[str, Tensor],
    seed: int,
    normalization: str = "filter",
    *,
    vectors: str = "ignore",
    gates: Mapping[str, int] | None = None,
    only: str | Sequence[str] = "*",
    gate: str | int | None = None,
    count: int = 2,
) -> list[dict[str, Tensor]]:
    """Gaussian directions delta, eta, ... through ``parameters`` (section 4.3 of the paper).

    Args:
        parameters: the trained parameters by name; what is not among them does not move.
        seed: of the draw; the same seed and parameters give the same directions on every device.
        normalization: the groups that get the norm of the same group of the weights: ``"filter"`` (a row of a weight
            tensor: one gate of one unit; Li et al. 2018), ``"unit"`` (the rows of all gates of a unit), ``"gate"``
            (the rows of a gate), ``"tensor"`` (the paper's d <- d / ||d|| * ||w|| read literally) or ``"model"``.
            A tensor that is no stack of gates is one gate.
        vectors: what becomes of parameters with fewer than two axes: ``"ignore"`` (they stay, as in Li et al.),
            ``"tensor"`` (a group each) or ``"with_row"`` (each number belongs to its row of the weights of the same
            name with ``bias`` in place of ``weight``; without such weights it stays).
        gates: how many gates are stacked in a parameter's rows, as :func:`gates_of` gives it; needed by ``"unit"``,
            ``"gate"`` and ``gate``.
        only: patterns of names (``"gru.weight_hh_*"``); a parameter that matches none stays.
        gate: a gate's number or name (:data:`GATES`): only its rows move, and nothing that is no stack of gates.
        count: how many directions; each is orthogonal to all before it in every group that has enough numbers for
            that. (A group of one number has a sign and no more.)

    Returns:
        Mappings from name to a tensor of the parameter's shape, dtype and device; zeros for what stays, and for groups
        of zeros.

    Raises:
        ValueError: an unknown normalization, treatment of vectors or gate; a seed that is no whole number of at least
            0; patterns that match nothing; missing ``gates``.
    """
    check_draw(seed, normalization, vectors)
    parameters = named_tensors(parameters)
    by_gate = gate is not None or normalization in ("unit", "gate")
    if gates is None and by_gate:
        raise ValueError("groups by gate or unit need gates=gates_of(module)")
    # What moves: a block for each matrix, with the vectors that count as part of its rows.
    blocks = _blocks(parameters, vectors, gates or {}, [only] if isinstance(only, str) else only, gate)
    if by_gate and all(block.gates == 1 for block in blocks):
        asked = f"gate={gate!r}" if gate is not None else f"normalization={normalization!r}"
        raise ValueError(
            f"{asked}: there is no stack of gates among {', '.join(block.name for block in blocks)}, expected the "
            "parameters of a GRU or LSTM by PyTorch's names, or normalization='filter'"
        )
    # The weights and each draw as groups [groups, members] of a block: its rows, units, gates or all of it. Within a
    # group the draw is made orthogonal to the directions before it and as long as the weights.
    weights = _grouped(blocks, [block.of(parameters) for block in blocks], normalization)
    directions: list[list[Tensor]] = []
    for index in range(count):
        noise = _gaussian(parameters, seed, index, vectors)
        drawn = _grouped(blocks, [block.of(noise) for block in blocks], normalization)
        before = [[direction[n] for direction in directions] for n in range(len(drawn))]
        directions.append([_scaled(*groups) for groups in zip(drawn, before, weights, strict=True)])
    # Back to the parameters' names, shapes, dtypes and devices; what does not move is zero.
    return [_ungrouped(parameters, blocks, direction, normalization) for direction in directions]


def check_draw(seed: int, normalization: str, vectors: str = "ignore") -> None:
    """Raise ValueError for a seed, normalization or treatment of vectors that :func:`random_directions` cannot take."""
    check_whole("seed", seed, 0)
    for key, value, known in (
        ("normalization", normalization, NORMALIZATIONS),
        ("vectors", vectors, VECTORS),
    ):
        if value not in known:
            raise ValueError(f"{key}={value!r}: expected {', '.join(known[:-1])} or {known[-1]}")


def gates_of(module: nn.Module) -> dict[str, int]:
    """How many gates are stacked in the rows of a module's parameters: 3 of a GRU's, 4 of an LSTM's.

    A stack is recognized by its parameters' names (``weight_hh_l0``, ``weight_hh``) and shapes: a cell, a subclass,
    a layer under ``weight_norm``, this package's own. The names that are not listed are of no stack.
    """
    stacks: dict[str, dict[str, tuple[str, Tensor]]] = {}
    for name, parameter in module.named_parameters():
        if found := _STACKED.fullmatch(name):
            place = found["module"] + found["layer"]
            stacks.setdefault(place, {})[name] = (found["kind"], parameter)
    gates = {}
    for stack in stacks.values():
        units = _hidden_units(stack.values())
        for name, (kind, tensor) in stack.items():
            count, rest = divmod(len(tensor), units) if units else (0, 1)
            if kind != "weight_hr" and rest == 0 and count in GATES:
                gates[name] = count
    return gates


def _hidden_units(stack: Iterable[tuple[str, Tensor]]) -> int:
    """What a layer's recurrent matrix reads, or the projection of an LSTM; 0 where there is neither."""
    columns = {"weight_hr": 0, "weight_hh": 0}
    for kind, tensor in stack:
        if kind in columns and tensor.dim() == 2:
            columns[kind] = max(columns[kind], tensor.shape[1])  # weight_norm's g has one column, its v all
    return columns["weight_hr"] or columns["weight_hh"]


def gate_number(gate: str | int, gates: int) -> int:
    """A gate's number from its number or name.

    Raises:
        ValueError: there is no such gate among so many.
    """
    names = GATES.get(gates, ())
    if gate in names:
        return names.index(str(gate))
    if isinstance(gate, bool) or not isinstance(gate, int) or not 0 <= gate < gates:
        raise ValueError(f"gate {gate!r}: expected {', '.join(names)} or 0 to {gates - 1}")
    return gate


@dataclass(frozen=True)
class _Block:
    """What moves of a tensor and its bias. ``rows`` is None where all rows do."""

    name: str
    shape: tuple[int, ...]
    bias: str | None
    gates: int
    rows: slice | None

    def of(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The block as float64 [rows, members] on the CPU, zero where nothing moves."""
        matrix = _matrix(tensors[self.name], self.shape)
        if self.bias is not None:
            matrix = torch.cat([matrix, _matrix(tensors[self.bias], (len(matrix), 1))], 1)
        if self.rows is None:
            return matrix
        moving = torch.zeros_like(matrix)
        moving[self.rows] = matrix[self.rows]
        return moving

    def split(self, matrix: Tensor) -> dict[str, Tensor]:
        """The inverse of :meth:`of`."""
        if self.bias is None:
            return {self.name: matrix}
        return {self.name: matrix[:, :-1], self.bias: matrix[:, -1]}

    def grouped(self, matrix: Tensor, normalization: str) -> Tensor:
        """The block's groups [groups, members]."""
        gates_GHM = matrix.reshape(self.gates, -1, matrix.shape[1])
        if len(self.shape) < 2 or normalization == "tensor":
            return matrix.reshape(1, -1)
        if normalization == "unit":
            return gates_GHM.transpose(0, 1).reshape(gates_GHM.shape[1], -1)
        return gates_GHM.reshape(self.gates, -1) if normalization == "gate" else matrix

    def ungrouped(self, groups: Tensor, normalization: str) -> Tensor:
        """The inverse of :meth:`grouped`."""
        rows = self.shape[0] if len(self.shape) > 1 else 1
        if normalization == "unit" and len(self.shape) > 1:
            units = rows // self.gates
            return groups.reshape(units, self.gates, -1).transpose(0, 1).reshape(rows, -1)
        return groups.reshape(rows, -1)


def _matrix(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    return tensor.detach().to("cpu", torch.float64).reshape(shape[0] if len(shape) > 1 else 1, -1)


def _blocks(
    parameters: Mapping[str, Tensor],
    vectors: str,
    gates: Mapping[str, int],
    only: Sequence[str],
    gate: str | int | None,
) -> list[_Block]:
    chosen = [
        name
        for name, tensor in parameters.items()
        if tensor.is_floating_point() and any(fnmatchcase(name, pattern) for pattern in only)
    ]
    joined = _biases(parameters, chosen) if vectors == "with_row" else {}
    blocks = []
    for name in chosen:
        shape, stacked = tuple(parameters[name].shape), gates.get(name, 1)
        if (len(shape) < 2 and vectors != "tensor") or (gate is not None and name not in gates):
            continue
        rows = None
        if gate is not None:
            number, units = gate_number(gate, stacked), shape[0] // stacked
            rows = slice(number * units, (number + 1) * units)
            if len(shape) < 2:  # a bias is one row of all its numbers here
                raise ValueError("gate= with vectors='tensor': expected vectors='with_row' or 'ignore'")
        blocks.append(_Block(name, shape, joined.get(name), stacked, rows))
    if not blocks:
        where = "" if gate is None else f", gate {gate!r}"
        raise ValueError(f"nothing moves (only={list(only)}{where}): expected one of {', '.join(parameters)}")
    return blocks


def _biases(parameters: Mapping[str, Tensor], chosen: Sequence[str]) -> dict[str, str]:
    """From the name of weights to that of the bias that has a number for each of their rows."""
    pairs = {}
    for name in chosen:
        module, _, own = name.rpartition(".")
        weights = f"{module}.{own.replace('bias', 'weight')}".removeprefix(".")
        if parameters[name].dim() == 1 and weights != name and weights in chosen:
            matrix = parameters[weights]
            if matrix.dim() > 1 and len(matrix) == len(parameters[name]):
                pairs[weights] = name
    return pairs


def _gaussian(parameters: Mapping[str, Tensor], seed: int, index: int, vectors: str) -> dict[str, Tensor]:
    """A standard normal draw of every tensor, in float64 on the CPU: no device or dtype changes it."""
    # Vectors have a generator of their own: whether they move changes nothing else.
    sources = [_generator(seed, index), _generator(seed, index, 1)]
    noise = {}
    for name, weights in parameters.items():
        if weights.is_floating_point() and (weights.dim() > 1 or vectors != "ignore"):
            source = sources[weights.dim() < 2]
            noise[name] = torch.randn(weights.shape, generator=source, dtype=torch.float64)
    return noise


def _generator(*entropy: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))


def _grouped(blocks: Sequence[_Block], matrices: Sequence[Tensor], normalization: str) -> list[Tensor]:
    """The groups [groups, members] of each block; of ``model`` a single group."""
    if normalization == "model":
        return [torch.cat([matrix.reshape(-1) for matrix in matrices]).unsqueeze(0)]
    return [block.grouped(matrix, normalization) for block, matrix in zip(blocks, matrices, strict=True)]


def _scaled(noise: Tensor, before: Sequence[Tensor], weights: Tensor) -> Tensor:
    """The noise, orthogonal to the directions ``before`` within each group, with the norm of the weights' group."""
    # Twice, since the first projection leaves a rounding error. Where next to nothing is left of the noise the group
    # has too few numbers for another orthogonal direction.
    rest = noise
    for _ in range(2):
        for direction in before:
            unit = _normalized(direction)
            rest = rest - (rest * unit).sum(1, keepdim=True) * unit
    possible = rest.norm(dim=1, keepdim=True) > 1e-6 * noise.norm(dim=1, keepdim=True)
    return _normalized(torch.where(possible, rest, noise)) * weights.norm(dim=1, keepdim=True)


def _normalized(groups: Tensor) -> Tensor:
    """Each group divided by its norm; zeros stay."""
    norm = groups.norm(dim=1, keepdim=True)
    return groups / torch.where(norm > 0, norm, 1.0)


def _ungrouped(
    parameters: Mapping[str, Tensor], blocks: Sequence[_Block], groups: Sequence[Tensor], normalization: str
) -> dict[str, Tensor]:
    if normalization == "model":
        sizes = [block.of(parameters).numel() for block in blocks]
        groups = groups[0].reshape(-1).split(sizes)
    moved: dict[str, Tensor] = {}
    for block, group in zip(blocks, groups, strict=True):
        moved |= block.split(block.ungrouped(group, normalization))
    return {
        name: moved[name].reshape(w.shape).to(w) if name in moved else torch.zeros_like(w.detach())
        for name, w in parameters.items()
    }


def describe_directions(
    parameters: Mapping[str, Tensor], directions: Sequence[Mapping[str, Tensor]]
) -> dict[str, Any]:
    """How long directions are and how they lie to each other, as plain data.

    Returns:
        ``cosine``: the largest absolute cosine of two directions; ``norms``: of each direction; ``weights_norm``;
        ``norm_ratios``: of each direction to the weights; ``moved``: how many numbers move; ``tensors``: the same of
        every tensor that moves.
    """
    vectors = {name: [_flat(part[name]) for part in (parameters, *directions)] for name in parameters}
    whole = [torch.cat(parts) for parts in zip(*vectors.values(), strict=True)]
    moving = {name: _described(*parts) for name, parts in vectors.items() if any(p.any() for p in parts[1:])}
    return {**_described(*whole), "tensors": moving}


def _described(weights: Tensor, *directions: Tensor) -> dict[str, Any]:
    norms = [float(direction.norm()) for direction in directions]
    size = float(weights.norm())
    pairs = [(i, j) for j in range(len(directions)) for i in range(j) if norms[i] and norms[j]]
    cosines = [abs(float(directions[i] @ directions[j]) / norms[i] / norms[j]) for i, j in pairs]
    return {
        "cosine": max(cosines, default=0.0),
        "norms": norms,
        "weights_norm": size,
        "norm_ratios": [norm / size if size else 0.0 for norm in norms],
        "moved": int(torch.stack([d != 0 for d in directions]).any(0).sum()),
    }


def _flat(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64).reshape(-1)


def save_directions(path: str | Path, directions: Sequence[Mapping[str, Tensor]], **about: Any) -> None:
    """Write directions, and JSON-able facts ``about`` them, to an .npz file (arrays ``0/name``, ``1/name``, ...).

    Those in bfloat16, which numpy does not know, are written as float32.
    """
    arrays: dict[str, Any] = {
        f"{index}/{name}": (tensor.float() if tensor.dtype is torch.bfloat16 else tensor)
        .detach()
        .cpu()
        .numpy()
        for index, direction in enumerate(directions)
        for name, tensor in direction.items()
    }
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, about=np.array(json.dumps(about)), **arrays)


def load_directions(path: str | Path) -> tuple[list[dict[str, Tensor]], dict[str, Any]]:
    """The directions of :func:`save_directions` and what was said about them.

    Raises:
        FileNotFoundError, ValueError: no such file; a file of another kind.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} does not exist: expected a file of save_directions")
    try:
        with open(path, "rb") as opened, np.load(opened) as file:
            about = json.loads(str(file["about"]))
            names = [name for name in file.files if name != "about"]
            directions: list[dict[str, Tensor]] = [{} for _ in {name.split("/")[0] for name in names}]
            for key in names:
                index, _, name = key.partition("/")
                directions[int(index)][name] = torch.from_numpy(file[key])
    except Exception as error:  # numpy raises many types for a broken file, each naming its own internals
        raise ValueError(f"{path} holds no directions ({type(error).__name__}): make them again") from error
    return directions, about


def displace(
    parameters: Mapping[str, Tensor], directions: Sequence[Mapping[str, Tensor]], steps: Sequence[float]
) -> dict[str, Tensor]:
    """New tensors w + sum of step * direction; at the origin the very tensors of ``parameters``."""
    if not any(steps):
        return dict(parameters)
    moved = {name: weights.detach().clone() for name, weights in parameters.items()}
    for step, direction in zip(steps, directions, strict=True):
        for name, weights in moved.items():
            if weights.is_floating_point():  # a counter stays
                weights.add_(direction[name], alpha=step)
    return moved


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names, shapes, dtypes and every bit of the values, whatever their order or device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        # A view of one number keeps the stride of its origin, with which it has no bytes to view.
        values = tensor.detach().cpu().reshape(-1).clone(memory_format=torch.contiguous_format)
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
