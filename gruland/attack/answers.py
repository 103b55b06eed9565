"""What a model says of the candidates of many reviews, computed as cheaply as it can be.

A GRU reads from left to right. So a candidate costs only what follows its change: the states before it are those of
the text that it was made from. :class:`ReusedStates` keeps these, encodes anew only the words around a change, looks
each word's input projection up in a table, and computes two candidates with the same words once. Its numbers are a
function of the text, bit for bit: of neither the other candidates nor the text that a candidate was made from.

D numbers of a word vector, H hidden units, L layers, K outputs, C classes, T words of a text.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import accumulate, groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gruland.attack.edits import Candidate, EditedText
from gruland.attack.victims import ClassifierVictim
from gruland.classifier import Classifier
from gruland.data import TextDataModule
from gruland.data.encoded import CLEANING, Encoded, words_of
from gruland.embedding import UNKNOWN
from gruland.gru import STEP, WEIGHTS
from gruland.kernels import cpu
from gruland.regularizers import Bernoulli, Draw
from gruland.task import Task

_CPU = torch.device("cpu")
#: Words that one call of the kernel reads: bounds the memory.
WORDS = 2**20
#: Words whose input projections are computed at once; a word is always among the same ones.
BLOCK = 64
_CHUNK = re.compile(r"\S+")
_BEGUN_BREAK = re.compile(r"<(b(r\s*/?)?)?", re.IGNORECASE)


class Encoder:
    """Word ids of texts, which are looked up by the chunks between white space: no word of the tokenizer spans two.

    Args:
        data: whose cleaning, tokenizer, vocabulary and ``max_length`` it has.
    """

    def __init__(self, data: TextDataModule) -> None:
        self.settings, self._vocabulary = data.settings, data.vocabulary
        self._ids: dict[str, np.ndarray] = {}

    def ids(self, chunk: str) -> np.ndarray:
        """int32 ids of the words of a chunk."""
        found = self._ids.get(chunk)
        if found is None:
            words = words_of(chunk, max_length=None)
            found = self._vocabulary.ids(words) if words else np.empty(0, np.int32)
            self._ids[chunk] = found
        return found

    def cleaned(self, text: str) -> str:
        """The text with spaces in the place of what is cleaned away, every other character where it was."""
        pattern = CLEANING[self.settings.clean]
        return (
            text if pattern is None or "<" not in text else pattern.sub(lambda m: " " * len(m.group()), text)
        )

    def encode(self, text: str) -> np.ndarray:
        """int32 ids of all words of a text, before it is cut at ``max_length``; a text without a word is unknown."""
        parts = [self.ids(chunk) for chunk in self.cleaned(text).split()]
        ids = np.concatenate(parts) if parts else np.empty(0, np.int32)
        return ids if len(ids) else np.array([UNKNOWN], np.int32)


@dataclass(frozen=True, eq=False)
class EncodedText:
    """A text and where its words are: what a change of it leaves as it is."""

    text: str
    encoder: Encoder

    @cached_property
    def _chunks(self) -> tuple[list[int], list[int], list[np.ndarray]]:
        """Where each chunk begins and ends in the text, and the ids of its words."""
        cleaned = self.encoder.cleaned(self.text)
        spans = [match.span() for match in _CHUNK.finditer(cleaned)]
        parts = [self.encoder.ids(cleaned[begin:end]) for begin, end in spans]
        return [begin for begin, _ in spans], [end for _, end in spans], parts

    @cached_property
    def _firsts(self) -> list[int]:
        """Which word is each chunk's first; at the end how many there are."""
        return [0, *accumulate(map(len, self._chunks[2]))]

    @cached_property
    def ids(self) -> np.ndarray:
        """All words, int32 [T]."""
        parts = self._chunks[2]
        ids = np.concatenate(parts) if parts else np.empty(0, np.int32)
        return ids if len(ids) else np.array([UNKNOWN], np.int32)

    def changed(self, candidate: Candidate) -> tuple[int, np.ndarray]:
        """How many first words a candidate has in common with this text, and the ids of its others, at least one."""
        ids, most = self.ids, self.encoder.settings.max_length
        before, middle, after = self._splice(candidate)
        rest = np.concatenate([middle, ids[after:]])
        if before + len(rest) == 0:
            rest = np.array([UNKNOWN], np.int32)
        # What the change leaves as it was is no part of it.
        shared = min(len(middle) + 1, len(ids) - before, len(rest))
        differs = (ids[before : before + shared] != rest[:shared]).tolist()
        same = differs.index(True) if True in differs else shared
        before, rest = before + same, rest[same:]
        if most is not None and before + len(rest) > most:
            rest = rest[: max(0, most - before)]
            before = min(before, most)
        if not len(rest):
            # The last word is read again.
            return before - 1, ids[before - 1 : before]
        return before, rest

    def _splice(self, candidate: Candidate) -> tuple[int, np.ndarray, int]:
        """The first words that stay, the ids that come after them, and the first of the last words that stay."""
        start, end = candidate.start, candidate.end
        if self._touches_a_break(candidate):
            return 0, self.encoder.encode(candidate.text), len(self.ids)
        begins, ends, _ = self._chunks
        if not self._firsts[-1]:
            return 0, self.encoder.encode(candidate.text), len(self.ids)
        # The chunks that the change touches, even those that only border on it: they may have become one.
        first, last = bisect_left(ends, start), bisect_right(begins, end) - 1
        low = min(start, begins[first]) if first <= last else start
        high = max(end, ends[last]) if first <= last else end
        region = f"{self.text[low:start]}{candidate.replacement}{self.text[end:high]}"
        parts = [self.encoder.ids(chunk) for chunk in region.split()]
        middle = np.concatenate(parts) if parts else np.empty(0, np.int32)
        return self._firsts[first], middle, self._firsts[max(first, last + 1)]

    def _touches_a_break(self, candidate: Candidate) -> bool:
        """Whether a ``<br />`` that is cleaned away, in this text or in the candidate, may reach into the change."""
        if self.encoder.settings.clean == "none":
            return False
        if "<" in candidate.replacement or "<" in self.text[candidate.start : candidate.end]:
            return True
        begun = self.text.rfind("<", 0, candidate.start)
        return begun >= 0 and _BEGUN_BREAK.fullmatch(self.text, begun, candidate.start) is not None


class Projections:
    """What the first layer makes of each word, W_ih x + b_ih, computed for the words that are asked for.

    A word's numbers do not depend on the others: words come in blocks of neighbours in the vocabulary.

    Attributes:
        table: [V, 3H], a row for each word id; the rows of a word that no one asked for are memory that no one touched.
    """

    def __init__(self, vectors: Tensor, weight: Tensor, bias: Tensor) -> None:
        self._vectors, self._weight, self._bias = vectors, weight.detach(), bias.detach()
        self._computed = np.zeros(-(-len(vectors) // BLOCK), bool)  # of each block
        self.table = torch.empty(len(self._computed) * BLOCK, len(weight))

    @torch.no_grad()
    def compute(self, ids: np.ndarray) -> None:
        """Have the rows of these word ids in :attr:`table`."""
        blocks = ids // BLOCK
        with _one_thread():
            for block in np.unique(blocks[~self._computed[blocks]]).tolist():
                self._compute_block(block)

    def _compute_block(self, block: int) -> None:
        rows = slice(block * BLOCK, (block + 1) * BLOCK)
        vectors = torch.zeros(BLOCK, self._vectors.shape[1])
        own = self._vectors[rows]
        vectors[: len(own)] = own
        self.table[rows] = F.linear(vectors, self._weight, self._bias)
        self._computed[block] = True


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Pass:
    """The model under one draw of its masks, or in evaluation.

    Args:
        model: its word vectors have no masks, nor what lies between its layers.
        draw: of one review; None: the masks' expectation.
    """

    def __init__(self, model: Classifier, draw: Draw | None) -> None:
        gru, self._regularizer, self._draw = model.gru, model.regularizer, draw
        layers = [type(layer)(*(weight.detach() for weight in layer)) for layer in gru.layers()]
        if draw is not None:
            whole = draw.of_batch(1, _CPU)
            layers = [gru.regularizer.weights(layer, whole.at(WEIGHTS, i)) for i, layer in enumerate(layers)]
        self.layers, self._hidden = layers, gru.hidden_size
        kept = gru.regularizer.kept if draw is None else 0.0
        self._between, self._kept, self._precision = gru.between, kept, gru.precision

    def run(
        self,
        kernel: Callable[..., Tensor],
        table: Tensor,
        tokens: np.ndarray | Tensor,
        offsets: np.ndarray | Tensor,
        **more: Any,
    ) -> Tensor:
        """What :func:`gruland.kernels.cpu.states` or ``final_states`` gives for some sequences."""
        options = {**more, "between": self._between, "precision": self._precision}
        return kernel(table, tokens, offsets, self.layers, zoneout=self._kept, **options)

    def masks(self, key: int, steps: int) -> Tensor | None:
        """Which units keep their states [T, L, H] in a review of so many words; None: no masks."""
        if self._draw is None:
            return None
        draw = replace(self._draw, keys=[key]).of_batch(1, _CPU)
        keeps = [
            self._regularizer.step(steps, self._hidden, draw.at(STEP, index)).keep
            for index in range(len(self.layers))
        ]
        tensors = [keep.tensor() if isinstance(keep, Bernoulli) else keep for keep in keeps]
        given = [keep.bool() for keep in tensors if keep is not None]
        return torch.cat(given, 1) if given else None  # [T, 1, H] of each layer


@dataclass
class _Memory:
    """A text that candidates are made from, with the states before each of its words and after the last."""

    encoded: EncodedText
    base: EditedText
    states: list[Tensor]  # of each pass, [T + 1, L, H]; the first ones are zero
    masks: list[Tensor | None]  # of each pass, [at least T, L, H]

    def masks_for(self, passes: Sequence[Pass], key: int, steps: int) -> None:
        """Have masks for so many words: more masks begin with the fewer ones."""
        for index, (one, masks) in enumerate(zip(passes, self.masks, strict=True)):
            if masks is not None and len(masks) < steps:
                self.masks[index] = one.masks(key, steps + steps // 4)


class _Sequence(NamedTuple):
    """Words that go on from a remembered text's states."""

    memory: _Memory
    before: int  # words of that text which stand before them
    ids: np.ndarray


class ReusedStates:
    """Class probabilities of candidates by the fused kernel, in float64.

    Args:
        victim: one that :func:`unavailable` has no reason against.
        key: of a review, by its place among the searches: it decides which masks the review meets.
        draws: whose mean the probabilities are; none: those without dropout.
    """

    def __init__(
        self, victim: ClassifierVictim, key: Callable[[int], int], draws: Sequence[Draw] = ()
    ) -> None:
        model = victim.model
        self._task, self._key, self._encoder = victim.task, key, Encoder(victim.data)
        self._most = victim.data.settings.max_length
        self._projections = Projections(model.vectors.detach(), *model.gru.layer(0)[::2])
        given: Sequence[Draw | None] = draws or (None,)
        self._passes = [Pass(model, draw) for draw in given]
        weight, bias = model.head.weight.detach(), model.head.bias.detach()
        self._head = weight.double(), bias.double()
        self._memories: dict[int, _Memory] = {}

    def __call__(self, asked: Sequence[Sequence[Candidate]], places: Sequence[int]) -> list[np.ndarray]:
        """[N, C] for the candidates of each review; ``places`` tell the reviews apart."""
        self._remember([candidates[0].base for candidates in asked], places)
        sequences: list[_Sequence] = []
        which = []  # of each candidate, its sequence
        for candidates, place in zip(asked, places, strict=True):
            memory = self._memories[place]
            same: dict[tuple[int, bytes], int] = {}
            longest = 0
            for candidate in candidates:
                before, ids = memory.encoded.changed(candidate)
                key = before, ids.tobytes()
                if key not in same:
                    same[key] = len(sequences)
                    sequences.append(_Sequence(memory, before, ids))
                    longest = max(longest, before + len(ids))
                which.append(same[key])
            memory.masks_for(self._passes, self._key(place), longest)
        p_NC = self._probabilities(sequences)[np.array(which)]
        return np.split(p_NC, np.cumsum([len(candidates) for candidates in asked])[:-1])

    def _remember(self, bases: Sequence[EditedText], places: Sequence[int]) -> None:
        """Have the states of the texts that candidates are made from, and of no others."""
        new: dict[int, _Memory] = {}
        missing: list[tuple[int, EncodedText, _Sequence]] = []
        for base, place in zip(bases, places, strict=True):
            memory = self._memories.get(place)
            if memory is not None and memory.base is base:
                new[place] = memory
                continue
            encoded = EncodedText(base.text, self._encoder)
            if memory is not None and base.origin is not None and base.origin.base is memory.base:
                sequence = _Sequence(memory, *memory.encoded.changed(base.origin))
            else:
                sequence = self._beginning(base, encoded, place)
            missing.append((place, encoded, sequence))
        if missing:
            sequences = [sequence for _, _, sequence in missing]
            for place, _, sequence in missing:
                sequence.memory.masks_for(self._passes, self._key(place), sequence.before + len(sequence.ids))
            traces = [list(self._run(index, sequences, trace=True)) for index in range(len(self._passes))]
            for number, (place, encoded, (memory, before, _)) in enumerate(missing):
                states = [
                    torch.cat([old[: before + 1], trace[number]])
                    for old, trace in zip(memory.states, traces, strict=True)
                ]
                base = bases[places.index(place)]
                new[place] = _Memory(encoded, base, states, memory.masks)
        self._memories = new

    def _beginning(self, base: EditedText, encoded: EncodedText, place: int) -> _Sequence:
        """A whole text, from zero states."""
        ids = encoded.ids[: self._most]
        first = self._passes[0]
        zero = torch.zeros(1, len(first.layers), first.layers[0].weight_hh.shape[1])
        masks = [one.masks(self._key(place), len(ids)) for one in self._passes]
        return _Sequence(_Memory(encoded, base, [zero] * len(masks), masks), 0, ids)

    def _run(self, index: int, sequences: Sequence[_Sequence], trace: bool = False) -> Iterator[Tensor]:
        """The states of one pass after the last word [B, H] of some sequences; or after each word, of each sequence."""
        one = self._passes[index]
        for part in _parts(sequences):
            ids = np.concatenate([sequence.ids for sequence in part])
            self._projections.compute(ids)
            offsets = np.cumsum([0, *(len(sequence.ids) for sequence in part)])
            of_memory = [(memory, list(group)) for memory, group in groupby(part, lambda s: id(s.memory))]
            initial = torch.cat(
                [group[0].memory.states[index][[s.before for s in group]] for _, group in of_memory]
            )
            keep = _keep([group for _, group in of_memory], index)
            given = self._projections.table, ids, offsets
            states = one.run(
                cpu.states if trace else cpu.final_states, *given, initial_BLH=initial, keep=keep
            )
            yield from states.split(np.diff(offsets).tolist()) if trace else [states]

    def _probabilities(self, sequences: Sequence[_Sequence]) -> np.ndarray:
        """Their mean over the passes [B, C]."""
        found = []
        for index in range(len(self._passes)):
            logits_BK = _linear(torch.cat(list(self._run(index, sequences))).double(), *self._head)
            found.append(probabilities(self._task, logits_BK.numpy()))
        return np.asarray(reduce(np.add, found) / len(found))


class WholeTexts:
    """Outputs of encoded texts by the fused kernel, without dropout: no padding, and a table of input projections.

    Args:
        model: of a victim that :func:`unavailable` has no reason against.
    """

    def __init__(self, model: Classifier) -> None:
        self._projections = Projections(model.vectors.detach(), *model.gru.layer(0)[::2])
        self._pass = Pass(model, None)
        self._head = model.head.weight.detach().double(), model.head.bias.detach().double()

    def __call__(self, encoded: Encoded) -> Tensor:
        """Logits [N, K] in float64, each a function of its text bit for bit."""
        self._projections.compute(encoded.tokens)
        given = self._projections.table, encoded.tokens, encoded.offsets
        states_NH = self._pass.run(cpu.final_states, *given)
        return _linear(states_NH.double(), *self._head)


def unavailable(victim: ClassifierVictim, draws: bool) -> str | None:
    """None if the fused kernel can answer for this victim, else one line that says why not."""
    model, regularizer = victim.model, victim.model.regularizer
    if model.gru.backend not in ("auto", "cpu"):
        return f"the model's backend is {model.gru.backend}"
    if "gates" in regularizer.hooks:
        return f"{regularizer.name} has a cell of its own"
    if draws and not regularizer.hooks.isdisjoint({"words", "between"}):
        return f"{regularizer.name} has masks outside the layers"
    if draws and "step" in regularizer.hooks:
        draw = Draw(0).of_batch(1, _CPU)
        if regularizer.step(1, 1, draw.at(STEP, 0)).candidate is not None:
            return f"{regularizer.name} has masks of the candidate"
    return cpu.unavailable(model.device, model.head.weight.dtype, False, model.gru.precision)


def probabilities(task: Task, logits_NK: np.ndarray) -> np.ndarray:
    """Class probabilities [N, C] of float64 logits, each a function of its own logits bit for bit.

    Vectorized exponentials need not be: the last few numbers of an array may get another program.
    """
    if task.kind == "binary":
        positive = np.array([1 / (1 + math.exp(-x)) for x in logits_NK[:, 0].clip(-700, 700).tolist()])
        return np.stack([1 - positive, positive], 1)
    centred = logits_NK - logits_NK.max(1, keepdims=True)
    exponentials = np.array([[math.exp(x) for x in row] for row in centred.tolist()])
    return exponentials / exponentials.sum(1, keepdims=True)


def _linear(h_NH: Tensor, weight_KH: Tensor, bias_K: Tensor) -> Tensor:
    """[N, K], summed in an order that does not depend on N."""
    products = h_NH.unsqueeze(1) * weight_KH  # [N, K, H]
    while (size := products.shape[2]) > 1:
        half = size // 2
        rest = products[..., 2 * half :]
        products = torch.cat([products[..., :half] + products[..., half : 2 * half], rest], 2)
    return products[..., 0] + bias_K


def _keep(groups: Sequence[Sequence[_Sequence]], index: int) -> cpu.Keep | None:
    """The masks of sequences, one after the other those of each remembered text."""
    masks = [group[0].memory.masks[index] for group in groups]
    given = [mask for mask in masks if mask is not None]
    if not given:
        return None
    starts = np.cumsum([0, *(len(mask) for mask in given)])[:-1]
    rows = [start + s.before for start, group in zip(starts.tolist(), groups, strict=True) for s in group]
    return cpu.Keep(torch.cat(given), np.array(rows, np.int64))


def _parts(sequences: Sequence[_Sequence]) -> Iterator[Sequence[_Sequence]]:
    """Some of them at a time, of not many more than ``WORDS`` words."""
    start = words = 0
    for end, sequence in enumerate(sequences, 1):
        words += len(sequence.ids)
        if words >= WORDS or end == len(sequences):
            yield sequences[start:end]
            start, words = end, 0
