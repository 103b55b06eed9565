"""Symmetries of hidden units, and the barrier between two networks on the straight line between their weights.

The units of a layer can be put in any order without changing what the network computes, if the rows that make them
(of all gates), the columns that read them (the layer's own and the next one's) and the biases go along. Two trained
networks are therefore aligned before the line between them says anything (Entezari et al. 2022, "The Role of
Permutation Invariance in Linear Mode Connectivity of Neural Networks"; Ainsworth et al. 2023, "Git Re-Basin: Merging
Models modulo Permutation Symmetries"). A unit of a GRU or LSTM, whose state is odd in its candidate, can change its
sign, too (Sussmann 1992 for feed-forward tanh networks), if the row of the candidate gate and the columns that read it
do.

H units of a layer, G gates, N examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gruland.landscape.objective import Objective, examples, strata
from gruland.landscape.planes import Weights, check_weights
from gruland.landscape.sample import standard_error

if TYPE_CHECKING:
    import xarray


#: A gain in cosine below which a step of the matching is rounding.
_GAIN = 1e-12

#: Whether a gate's rows change sign with the unit, by the number of gates: reset, update, new of a GRU; input, forget,
#: cell, output of an LSTM.
_ODD = {3: (False, False, True), 4: (False, False, True, False)}


class Place(NamedTuple):
    """An axis of a parameter along which a layer's units stand, in blocks of H one after the other.

    Attributes:
        odd: for each block, whether it changes sign with the unit.
    """

    name: str
    axis: int
    odd: tuple[bool, ...] = (True,)


@dataclass(frozen=True)
class Units:
    """The H units of a hidden layer, and all places in the parameters where they stand.

    Attributes:
        can_flip: whether a unit's sign can change without changing what the network computes.
    """

    size: int
    places: tuple[Place, ...]
    can_flip: bool = True


class Arrangement(NamedTuple):
    """A layer's units in another order: unit i is unit ``order[i]`` of before times ``signs[i]``; both int64 [H]."""

    order: Tensor
    signs: Tensor


def identity(size: int) -> Arrangement:
    """All units where they are."""
    return Arrangement(torch.arange(size), torch.ones(size, dtype=torch.int64))


def hidden_units(module: nn.Module, readers: Sequence[str] = ()) -> list[Units]:
    """The hidden layers of a recurrent stack, known by its parameters' names and shapes: of a GRU or LSTM of PyTorch's.

    Args:
        module: the stack, or a module with one stack in it. Where a stack has an attribute ``between`` (as this
            package's GRU) that is ``"relu"``, the units below it cannot change their sign. Nor can any unit whose
            ``regularizer`` has the hook ``gates`` (layer normalization: the mean over a layer's units would be
            another); a hook of one's own that treats units differently allows no permutation either.
        readers: names of the matrices [K, H] whose columns read the last layer's states (``"head.weight"``); none = the
            last layer's units are the module's outputs, they stay and are not listed.

    Raises:
        ValueError: no or several stacks, one of two directions or with projections, a reader that is no such matrix.
    """
    prefix, stack = _stack(module)
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    rows, size = shapes[f"{prefix}weight_hh_l0"]
    for reader in readers:
        if len(shapes.get(reader, ())) != 2 or shapes[reader][1] != size:
            raise ValueError(f"readers={reader}: its shape is {shapes.get(reader)}, expected (any, {size})")
    layers = sum(name.startswith(f"{prefix}weight_hh_l") for name in shapes)
    hooks = getattr(getattr(stack, "regularizer", None), "hooks", ())
    listed = []
    for index in range(layers if readers else layers - 1):
        last = index == layers - 1
        names = [f"{prefix}{name}_l{index}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        places = [Place(name, 0, _ODD[rows // size]) for name in names if name in shapes]
        columns = [names[1], *(readers if last else [f"{prefix}weight_ih_l{index + 1}"])]
        # relu lies between the layers and is not odd; what reads the last layer reads the states themselves.
        flips = "gates" not in hooks and (last or getattr(stack, "between", None) != "relu")
        listed.append(Units(size, (*places, *(Place(name, 1) for name in columns)), flips))
    return listed


def _stack(module: nn.Module) -> tuple[str, nn.Module]:
    """The prefix of its parameters' names, and the stack."""
    found = []
    for name, part in module.named_modules():
        own = {key: tensor.shape for key, tensor in part.named_parameters(recurse=False)}
        rows, units = own.get("weight_hh_l0", (0, 1))
        if "weight_hr_l0" in own or "weight_hh_l0_reverse" in own:
            raise ValueError(f"cannot permute the units of {part}: expected one direction and no projections")
        if rows % units == 0 and rows // units in _ODD:
            found.append((f"{name}." if name else "", part))
    if len(found) != 1:
        raise ValueError(f"{type(module).__name__} has {len(found)} GRUs or LSTMs in it: expected one")
    return found[0]


def permute_units(
    parameters: Weights, units: Sequence[Units], arrangements: Sequence[Arrangement]
) -> dict[str, Tensor]:
    """The parameters with each layer's units rearranged: the same function, to the rounding of other sums.

    Raises:
        ValueError: another number of arrangements than of layers; one that is no order of the layer's units or has
            other signs than 1 and -1, or -1 where they cannot flip; parameters that lack a place of the units.
    """
    _check(parameters, units, arrangements)
    permuted = dict(parameters)
    for layer, arrangement in zip(units, arrangements, strict=True):
        for place in layer.places:
            permuted[place.name] = _rearranged(permuted[place.name].detach(), place, arrangement)
    return permuted


def _check(parameters: Weights, units: Sequence[Units], arrangements: Sequence[Arrangement]) -> None:
    if len(units) != len(arrangements):
        raise ValueError(
            f"got {len(arrangements)} arrangements: expected one for each of {len(units)} layers"
        )
    for index, (layer, (order, signs)) in enumerate(zip(units, arrangements, strict=True)):
        if lacking := [place.name for place in layer.places if place.name not in parameters]:
            raise ValueError(f"the parameters lack {lacking[0]}, in which the units of layer {index} stand")
        if not torch.equal(order.sort().values, torch.arange(layer.size)):
            raise ValueError(f"layer {index}: expected each of its {layer.size} units once in the order")
        if signs.shape != order.shape or not bool((signs.abs() == 1).all()):
            raise ValueError(f"layer {index}: expected a sign of 1 or -1 for each of its {layer.size} units")
        if not layer.can_flip and bool((signs < 0).any()):
            raise ValueError(f"layer {index}: its units cannot change sign")


def _rearranged(tensor: Tensor, place: Place, arrangement: Arrangement) -> Tensor:
    order, signs = arrangement
    blocks = range(len(place.odd))
    index = torch.cat([order + block * len(order) for block in blocks])
    factors = torch.cat([signs if odd else torch.ones_like(signs) for odd in place.odd])
    shape = [-1 if axis == place.axis else 1 for axis in range(tensor.dim())]
    return tensor.index_select(place.axis, index.to(tensor.device)) * factors.to(tensor).view(shape)


# -- matching


@dataclass(frozen=True)
class Alignment:
    """A network's units matched to a reference's.

    Attributes:
        parameters: the permuted weights; they compute what the unpermuted ones do.
        arrangements: what was done to each layer.
        score: the cosine between the weights in which units stand and the reference's.
        before: the same before the alignment; ``score`` is never below it.
    """

    parameters: dict[str, Tensor]
    arrangements: list[Arrangement]
    score: float
    before: float


def align(
    parameters: Weights, reference: Weights, units: Sequence[Units], *, signs: bool = False, seed: int = 0
) -> Alignment:
    """Rearrange the hidden units of ``parameters`` so that they agree with those of ``reference``.

    Args:
        parameters, reference: two networks of one architecture, by name.
        units: where their hidden units stand, see :func:`hidden_units`.
        signs: match a unit with the negative of another where that agrees better and its sign can change.
        seed: of the order in which the layers are matched, see :func:`match_weights`.

    Raises:
        ValueError: weights of other names or shapes.
    """
    check_weights("the network to align", parameters, reference)
    still = [identity(layer.size) for layer in units]
    _check(parameters, units, still)
    found, score = (
        match_weights(parameters, reference, units, signs=signs, seed=seed),
        _cosine(reference, units),
    )
    permuted = permute_units(parameters, units, found)
    return Alignment(permuted, found, score(permuted), score(permute_units(parameters, units, still)))


def match_weights(
    parameters: Weights, reference: Weights, units: Sequence[Units], *, signs: bool = False, seed: int = 0
) -> list[Arrangement]:
    """Weight matching: Ainsworth et al. 2023, algorithm 1 (PermutationCoordinateDescent).

    Maximizes the inner product of the reference's weights and the rearranged ones, which minimizes their Euclidean
    distance: a layer at a time, in random order, by a linear assignment with everything else held, until no layer
    gains. A recurrent matrix holds its layer's units on both axes, so that the assignment is that of the objective's
    linearization there; a step that would not raise the objective itself is not taken. The end is a local optimum.
    """
    own, others = (
        {name: w.detach().cpu().double() for name, w in p.items()} for p in (parameters, reference)
    )
    return _Matching(own, others, units, signs).descend(seed)


@dataclass(frozen=True)
class _Matching:
    """The network's weights and the reference's, in float64, and where the units stand in them."""

    own: Weights
    reference: Weights
    units: Sequence[Units]
    signs: bool

    def score(self, arrangements: Sequence[Arrangement]) -> float:
        return _cosine(self.reference, self.units)(permute_units(self.own, self.units, arrangements))

    def descend(self, seed: int) -> list[Arrangement]:
        found = [identity(layer.size) for layer in self.units]
        random, best, gained = np.random.default_rng(seed), self.score(found), True
        # A sweep visits every layer once; without a gain in a whole sweep the end is reached.
        while gained:
            gained = False
            for index in random.permutation(len(self.units)):
                trial = list(found)
                trial[index] = _matched(self.similarity(found, index), self.units[index], self.signs)
                if (value := self.score(trial)) > best + _GAIN:
                    found, best, gained = trial, value, True
        return found

    def similarity(self, found: Sequence[Arrangement], index: int) -> tuple[Tensor, Tensor]:
        """Inner products [H, H] of the reference's units of a layer with the network's: of even and of odd blocks.

        All other axes of the network's weights are arranged as ``found`` says.
        """
        size = self.units[index].size
        even, odd = torch.zeros(2, size, size, dtype=torch.float64)
        # Where the layer's units stand, the other axes follow their own layers' arrangements; then each block [H, n] of
        # the reference meets the network's, unit by unit: [H, n] x [H, n] -> [H, H].
        for place in self.units[index].places:
            moved = self.own[place.name]
            for layer, axis in self._axes(place.name):
                if axis != place:
                    moved = _rearranged(moved, axis, found[layer])
            pair = (_blocks(weights, place, size) for weights in (self.reference[place.name], moved))
            for product, is_odd in zip(torch.einsum("bif,bjf->bij", *pair), place.odd, strict=True):
                (odd if is_odd else even).add_(product)
        return even, odd

    def _axes(self, name: str) -> Iterator[tuple[int, Place]]:
        """The layers and places that stand in a parameter."""
        return (
            (index, place)
            for index, layer in enumerate(self.units)
            for place in layer.places
            if place.name == name
        )


def _matched(similarity: tuple[Tensor, Tensor], layer: Units, signs: bool) -> Arrangement:
    """The arrangement of largest total similarity: of the part that no sign changes plus the part that it does."""
    from scipy.optimize import linear_sum_assignment

    even, odd = similarity
    flip = signs and layer.can_flip
    order = torch.from_numpy(
        linear_sum_assignment((even + (odd.abs() if flip else odd)).numpy(), maximize=True)[1]
    )
    chosen = odd.gather(1, order[:, None])[:, 0]
    return Arrangement(order, torch.where((chosen < 0) & flip, -1, 1))


def _blocks(tensor: Tensor, place: Place, size: int) -> Tensor:
    """[blocks, H, what belongs to a unit there]."""
    return tensor.movedim(place.axis, 0).reshape(len(place.odd), size, -1)


def _cosine(reference: Weights, units: Sequence[Units]) -> Callable[[Weights], float]:
    """From weights to their cosine with the reference's, over the parameters in which units stand."""
    names = sorted({place.name for layer in units for place in layer.places})

    def flat(weights: Weights) -> Tensor:
        return torch.cat([weights[name].detach().cpu().double().reshape(-1) for name in names])

    target = nn.functional.normalize(flat(reference), dim=0)
    return lambda weights: float(nn.functional.normalize(flat(weights), dim=0) @ target)


# -- barriers


class Height(NamedTuple):
    """A barrier's height, and the 95% percentile bootstrap interval over the examples."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Barrier:
    """How much higher the line between two networks lies than the chord between its ends.

    Attributes:
        loss: of the loss, in nats.
        error: of the share of wrong predictions.
        curve: a data set over ``t`` with ``loss``, ``loss_se``, ``accuracy``, and with ``excess_loss`` and
            ``excess_error`` over the chord, each with its standard error (``_se``), paired by example.
    """

    loss: Height
    error: Height
    curve: xarray.Dataset


def barrier(
    evaluate: Objective, a: Weights, b: Weights, *, points: int = 21, resamples: int = 1000, seed: int = 0
) -> Barrier:
    """max over t of L((1 - t) a + t b) - ((1 - t) L(a) + t L(b)), never below 0, on ``points`` values of t.

    Frankle et al. 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis" (with the error in place of the
    loss, and the mean of the ends in place of the chord); Entezari et al. 2022, definition 2.1. The ends are evaluated
    on the very weights of ``a`` and ``b``. Each resample of the examples (stratified as ``evaluate.strata`` says) has a
    maximum of its own: the interval knows that the highest point was searched for, and lies somewhat too high where
    several points are about equally high, as every maximum of noisy heights does.

    Args:
        evaluate: as :func:`gruland.landscape.compute_surface` takes it.
        a, b: weights by name, of one architecture.
        points: evenly spaced values of t from 0 to 1, at least 3.
        resamples: of the bootstrap.

    Returns:
        The heights and the curve. A loss that is not finite is kept in the curve and counts as infinitely high; the
        interval is infinite then.

    Raises:
        ValueError: weights of other names or shapes; fewer than 3 points; no resamples.
    """
    check_weights("b", b, a)
    if points < 3 or resamples < 1:
        raise ValueError(f"points={points}, resamples={resamples}: expected at least 3 points and 1 resample")
    # The examples' losses and correctness at each of T points of the line: [T, N].
    t = np.linspace(0, 1, points)
    measured = [examples(evaluate(_between(a, b, float(step)))) for step in t]
    loss, correct = (np.stack([_numpy(values) for values in pair]) for pair in zip(*measured, strict=True))
    # How far loss and error lie above the chord between the ends, example by example: [2, T, N]. Its maximum over t of
    # the mean over examples is the height; resampled examples have maxima of their own.
    excess = np.stack([over_chord(loss, t), over_chord(1 - correct, t)])
    groups = strata(evaluate)
    heights = _heights(excess, _resampled(loss.shape[1], groups, resamples, seed))
    return Barrier(heights[0], heights[1], _curve(t, loss, correct, excess, groups))


def _between(a: Weights, b: Weights, t: float) -> dict[str, Tensor]:
    if t in (0.0, 1.0):
        return dict(b if t else a)
    return {  # counters of batch normalization do not move
        name: torch.lerp(w.detach(), b[name].detach().to(w), t) if w.is_floating_point() else w
        for name, w in a.items()
    }


def over_chord(values: np.ndarray, t: np.ndarray) -> np.ndarray:
    """values [T, N] less the chord between the first and the last row, which is at 0 and 1; not finite = inf."""
    with np.errstate(invalid="ignore"):
        excess = values - ((1 - t)[:, None] * values[0] + t[:, None] * values[-1])
    return np.where(np.isfinite(excess), excess, np.inf)


def _resampled(count: int, strata: np.ndarray | None, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each example [N] is drawn with replacement, within its stratum, in each resample."""
    random = np.random.default_rng(seed)
    groups = (
        [np.arange(count)] if strata is None else [np.flatnonzero(strata == s) for s in np.unique(strata)]
    )
    for _ in range(resamples):
        drawn = [group[random.integers(len(group), size=len(group))] for group in groups]
        yield np.bincount(np.concatenate(drawn), minlength=count)


def _heights(excess: np.ndarray, resamples: Iterable[np.ndarray]) -> list[Height]:
    """Of values over the chord [measures, T, N]."""
    count = excess.shape[2]
    with np.errstate(invalid="ignore"):
        drawn = np.array([(excess @ weights).max(1) / count for weights in resamples])
    drawn[np.isnan(drawn)] = np.inf  # an infinite example that was not drawn: 0 * inf
    bounds = np.quantile(drawn, [0.025, 0.975], axis=0, method="inverted_cdf").T
    values = excess.mean(2).max(1)
    return [Height(float(v), float(low), float(high)) for v, (low, high) in zip(values, bounds, strict=True)]


def _curve(
    t: np.ndarray, loss: np.ndarray, correct: np.ndarray, excess: np.ndarray, strata: np.ndarray | None
) -> xarray.Dataset:
    import xarray

    measures = {
        "loss": (loss, "loss", "nats"),
        "accuracy": (correct, "accuracy", "1"),
        "excess_loss": (excess[0], "loss over the chord", "nats"),
        "excess_error": (excess[1], "share of wrong predictions over the chord", "1"),
    }
    variables: dict[str, Any] = {}
    for name, (values, text, unit) in measures.items():
        errors = np.array([standard_error(row, strata) for row in values])
        variables[name] = ("t", values.mean(1), {"long_name": text, "units": unit})
        variables[f"{name}_se"] = ("t", errors, {"long_name": f"standard error of {text}", "units": unit})
    about = {"long_name": "share of the way from a to b", "units": "1"}
    return xarray.Dataset(variables, {"t": ("t", t, about)}, {"examples": loss.shape[1]})


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().to("cpu", torch.float64).numpy()
