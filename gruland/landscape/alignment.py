"""Symmetries of hidden units, and the barrier between two networks on the straight line between their weights.

The units of a layer can be put in any order without changing what the network computes, if the rows that make them
(of all gates), the columns that read them (the layer's own and the next one's) and the biases go along. Two trained
networks are therefore aligned before the line between them says anything (Entezari et al. 2022, "The Role of
Permutation Invariance in Linear Mode Connectivity of Neural Networks"; Ainsworth et al. 2023, "Git Re-Basin: Merging
Models modulo Permutation Symmetries"). A unit of a GRU or LSTM, whose state is odd in its candidate, can change its
sign, too (Sussmann 1992 for feed-forward tanh networks), if the row of the candidate gate and the columns that read it
do.

H units of a layer, G gates, S steps of all sequences, N examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gruland.landscape.planes import Weights, check_weights
from gruland.landscape.sample import standard_error
from gruland.landscape.surface import Evaluate

if TYPE_CHECKING:
    import xarray

    from gruland.classifier import Classifier
    from gruland.data import Encoded

METHODS = ("weights", "activations")

#: A gain in cosine below which a step of the matching is rounding.
_GAIN = 1e-12

#: From weights by name to the hidden states [S, H] of each layer over the same steps.
States = Callable[[Weights], Sequence[Tensor]]

#: The gates whose rows change sign with the unit: a GRU's reset, update, new; an LSTM's input, forget, cell, output.
_GRU, _LSTM = (False, False, True), (False, False, True, False)


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


def random_arrangement(size: int, seed: int, *, signs: bool = False) -> Arrangement:
    """A random order, and with ``signs`` random signs."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(size, generator=generator)
    drawn = 2 * torch.randint(2, (size,), generator=generator) - 1
    return Arrangement(order, drawn if signs else torch.ones_like(drawn))


def hidden_units(module: nn.Module, readers: Sequence[str] | None = None) -> list[Units]:
    """The hidden layers of a recurrent stack: :class:`gruland.GRU`, ``torch.nn.GRU`` or ``torch.nn.LSTM``.

    Args:
        module: the stack, or a module with one stack in it, such as a :class:`gruland.classifier.Classifier`.
        readers: names of the matrices [K, H] whose columns read the last layer's states; none = the last layer's units
            are the module's outputs, they stay and are not listed. None = a Classifier's head, else none.

    Raises:
        ValueError: no or several stacks, one of two directions or with projections, a reader that is no such matrix.
    """
    from gruland.classifier import Classifier

    prefix, stack = _stack(module)
    if readers is None:
        readers = ("head.weight",) if isinstance(module, Classifier) else ()
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    for reader in readers:
        if len(shapes.get(reader, ())) != 2 or shapes[reader][1] != stack.hidden_size:
            raise ValueError(
                f"readers={reader}: its shape is {shapes.get(reader)}, expected (any, {stack.hidden_size})"
            )
    layers = stack.num_layers if readers else stack.num_layers - 1
    return [_layer(prefix, stack, index, readers, shapes) for index in range(layers)]


def _stack(module: nn.Module) -> tuple[str, Any]:
    from gruland.gru import GRU

    found = [
        (name, part) for name, part in module.named_modules() if isinstance(part, (GRU, nn.GRU, nn.LSTM))
    ]
    if len(found) != 1:
        raise ValueError(f"{type(module).__name__} has {len(found)} GRUs or LSTMs in it: expected one")
    name, stack = found[0]
    if getattr(stack, "bidirectional", False) or getattr(stack, "proj_size", 0):
        raise ValueError(f"cannot permute the units of {stack}: expected one direction and no projections")
    return f"{name}." if name else "", stack


def _layer(
    prefix: str, stack: Any, index: int, readers: Sequence[str], shapes: Mapping[str, tuple[int, ...]]
) -> Units:
    gates, last = _LSTM if isinstance(stack, nn.LSTM) else _GRU, index == stack.num_layers - 1
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    rows = [Place(f"{prefix}{name}_l{index}", 0, gates) for name in names]
    columns = [f"{prefix}weight_hh_l{index}", *(readers if last else [f"{prefix}weight_ih_l{index + 1}"])]
    places = [place for place in rows if place.name in shapes] + [Place(name, 1) for name in columns]
    # relu lies between the layers and is not odd; the head reads the states themselves.
    return Units(stack.hidden_size, tuple(places), last or getattr(stack, "between", None) != "relu")


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
            raise ValueError(f"layer {index}: its units cannot change sign, relu follows them")


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
        score: how well the units agree now: the cosine between the weights in which units stand and the reference's
            (``"weights"``), or the mean correlation of matched units' states (``"activations"``).
        before: the same before the alignment; ``score`` is never below it.
    """

    parameters: dict[str, Tensor]
    arrangements: list[Arrangement]
    score: float
    before: float


def align(
    parameters: Weights,
    reference: Weights,
    units: Sequence[Units],
    *,
    method: str = "weights",
    states: States | None = None,
    signs: bool = False,
    seed: int = 0,
) -> Alignment:
    """Rearrange the hidden units of ``parameters`` so that they agree with those of ``reference``.

    Args:
        parameters, reference: two networks of one architecture, by name.
        units: where their hidden units stand, see :func:`hidden_units`.
        method: ``"weights"``: :func:`match_weights`; ``"activations"``: :func:`match_activations`.
        states: the networks' hidden states over the same inputs, for ``"activations"``; :func:`hidden_states` gives
            those of a Classifier over reviews.
        signs: match a unit with the negative of another where that agrees better and its sign can change.
        seed: of the order in which the layers are matched by weights.

    Raises:
        ValueError: weights of other names or shapes; an unknown method, or one without what it needs.
    """
    check_weights("the network to align", parameters, reference)
    if method not in METHODS:
        raise ValueError(f"method={method!r}: expected {' or '.join(METHODS)}")
    still = [identity(layer.size) for layer in units]
    _check(parameters, units, still)
    if method == "weights":
        found = match_weights(parameters, reference, units, signs=signs, seed=seed)
        score = _cosine(reference, units)
        return _alignment(parameters, units, found, lambda a: score(permute_units(parameters, units, a)))
    if states is None:
        raise ValueError(
            "method='activations' needs states=, the networks' hidden states over the same inputs"
        )
    correlations = [
        correlation(one, other) for one, other in zip(states(reference), states(parameters), strict=True)
    ]
    found = match_activations(correlations, units, signs=signs)
    return _alignment(parameters, units, found, lambda a: _mean_correlation(correlations[: len(units)], a))


def _alignment(
    parameters: Weights,
    units: Sequence[Units],
    found: list[Arrangement],
    score: Callable[[Sequence[Arrangement]], float],
) -> Alignment:
    still = [identity(layer.size) for layer in units]
    return Alignment(permute_units(parameters, units, found), found, score(found), score(still))


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


def match_activations(
    correlations: Sequence[Tensor], units: Sequence[Units], *, signs: bool = False
) -> list[Arrangement]:
    """Activation matching: the sum of the correlations of matched units is the largest there is, layer by layer.

    Li et al. 2016, "Convergent Learning"; Ainsworth et al. 2023, section 3.1.

    Args:
        correlations: [H, H] for each layer, of the reference's units with the network's, see :func:`correlation`.
    """
    # The whole similarity is odd: the state of a unit that changes its sign does.
    return [
        _matched((torch.zeros_like(matrix), matrix), layer, signs)
        for matrix, layer in zip(correlations, units, strict=False)
    ]


def correlation(states: Tensor, others: Tensor) -> Tensor:
    """Pearson's correlation [H, H] of the columns of two matrices [S, H]; 0 for a column that is constant."""
    one, other = (nn.functional.normalize(s.double() - s.double().mean(0), dim=0) for s in (states, others))
    return one.T @ other


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


def _mean_correlation(correlations: Sequence[Tensor], arrangements: Sequence[Arrangement]) -> float:
    pairs = zip(correlations, arrangements, strict=True)
    matched = [c.gather(1, order[:, None])[:, 0] * signs for c, (order, signs) in pairs]
    return float(torch.cat(matched).mean())


def hidden_states(model: Classifier, encoded: Encoded) -> States:
    """The hidden states of a classifier in evaluation mode at every word of ``encoded``.

    Returns:
        A function from parameters by name to the states [S, H] of each layer, S the number of words.
    """
    from gruland.evaluation import length_sorted_batches

    batches = [encoded.take(rows).padded() for rows in length_sorted_batches(encoded.lengths)]

    @torch.no_grad()
    def states(parameters: Weights) -> list[Tensor]:
        return [
            torch.cat([_layer_states(model, parameters, layers, *batch) for batch in batches])
            for layers in range(1, model.gru.num_layers + 1)
        ]

    return states


def _layer_states(
    model: Classifier, parameters: Weights, layers: int, tokens: Tensor, lengths: Tensor
) -> Tensor:
    """The states [S, H] of the last of the first ``layers`` layers."""
    from gruland.gru import GRU

    whole = model.gru
    options: dict[str, Any] = {
        "between": whole.between,
        "regularizer": whole.regularizer,
        "precision": whole.precision,
    }
    part = GRU(
        whole.input_size, whole.hidden_size, layers, backend=whole.backend, **options, device="meta"
    ).eval()
    own = {name: parameters[f"gru.{name}"] for name, _ in part.named_parameters()}
    words = nn.functional.embedding(tokens.to(model.device), parameters.get("vectors", model.vectors))
    h_BTH, _ = torch.func.functional_call(part, own, (words,), {"lengths": lengths})
    return h_BTH.cpu()[torch.arange(tokens.shape[1]) < lengths[:, None]]


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
    evaluate: Evaluate, a: Weights, b: Weights, *, points: int = 21, resamples: int = 1000, seed: int = 0
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
    t = np.linspace(0, 1, points)
    measured = [evaluate(_between(a, b, float(step))) for step in t]
    loss, correct = (np.stack([_numpy(values) for values in pair]) for pair in zip(*measured, strict=True))
    excess = np.stack([over_chord(loss, t), over_chord(1 - correct, t)])
    strata = getattr(evaluate, "strata", None)
    heights = _heights(excess, _resampled(loss.shape[1], strata, resamples, seed))
    return Barrier(heights[0], heights[1], _curve(t, loss, correct, excess, strata))


def _between(a: Weights, b: Weights, t: float) -> dict[str, Tensor]:
    if t in (0.0, 1.0):
        return dict(b if t else a)
    return {name: torch.lerp(w.detach(), b[name].detach().to(w), t) for name, w in a.items()}


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
