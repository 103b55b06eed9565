"""Attacks beside TextAttack's own, on the same reviews and the same model, in turns in one process.

TextAttack asks the model by ``torch.nn.GRU`` on one core, up to 32 texts at a time. A trained run (``--run``) is what
says something: the model of a moment gives in too soon.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.clock import Candidate, Timings, threads
from benchmarks.subject import Context
from benchmarks.table import Row, ratio
from gruland.attack import PWWS, DeepWordBug, Texts
from gruland.attack.queries import QueryAttack
from gruland.attack.search import Found
from gruland.attack.victims import ClassifierVictim, texts_of
from gruland.perturbation import swaps
from gruland.perturbation.perturb import perturb_more, strip
from gruland.perturbation.streams import Stream

TITLE = "Attacks: TextAttack"
PEER = "TextAttack's Attacker, the same model by torch.nn.GRU"
#: The recipe of TextAttack that each attack is, and how many times faster ours is to be.
RECIPES: dict[str, tuple[QueryAttack, str, float]] = {
    "DeepWordBug": (DeepWordBug(), "DeepWordBugGao2018", 20),
    "PWWS": (PWWS(), "PWWSRen2019", 15),
}
RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
ROUNDS = 3  # at most: a round of TextAttack's takes minutes


def measure(context: Context) -> Iterator[Row]:
    """Noise, two query attacks on one core, and several workers."""
    swaps.load()
    victim = ClassifierVictim(context.model, context.data)
    sample = texts_of(context.data).sample(context.settings.attacked, 0)
    if not context.settings.full:
        sample = Texts(sample.ids, [" ".join(text.split()[:12]) for text in sample.texts], sample.labels)
    few = sample.sample(context.settings.attacked_by_peers, 0)
    with threads(1):
        yield from _noise(context, sample)
        for name in RECIPES:
            yield from _queries(context, name, victim, few)
        yield _workers(context, victim, sample)


def _noise(context: Context, sample: Texts) -> Iterator[Row]:
    """Three mixtures of errors at seven rates; what the model makes of them is part of no attack."""
    texts = [strip(text) for text in sample.texts]
    shortest = min(texts, key=len)
    makers = {"gruland": lambda: _perturbed(texts), "TextAttack": lambda: _augmenter(shortest)}
    timings = context.alternate(makers, min(ROUNDS, context.settings.repetitions))
    setting = f"{len(texts)} whole reviews, 3 mixtures at 7 rates"
    note = ""
    if timings.seconds.get("TextAttack"):
        note = f"one Augmenter on one review of {len(shortest.split())} words: {timings.median('TextAttack'):.2f} s"
    ours = timings.median("gruland") if "gruland" in timings.seconds else None
    error = timings.errors.get("gruland", "")
    yield Row("noise", "TextAttack's Augmenter", setting, ours, "s", 5, False, timings.seconds, note, error)


def _perturbed(texts: Sequence[str]) -> Candidate:
    def run(_: int) -> None:
        for names in (("delete", "qwerty"), ("delete",), ("qwerty",)):
            for key, text in enumerate(texts):
                perturb_more(text, RATES, names, seed=(key,))

    return Candidate(run)


def _augmenter(text: str) -> Candidate:
    """The same two swaps at a rate of 0.3."""
    from textattack.augmentation import Augmenter
    from textattack.transformations import CompositeTransformation

    loaded = swaps.load()
    both = CompositeTransformation([loaded.delete, loaded.qwerty])
    return Candidate(lambda _: Augmenter(both, constraints=[], pct_words_to_swap=0.3).augment(text))


def _queries(context: Context, name: str, victim: ClassifierVictim, sample: Texts) -> Iterator[Row]:
    attack, recipe, target = RECIPES[name]
    attack = replace(attack, budget=10**9)
    kept: dict[str, list[Found]] = {}
    makers: dict[str, Callable[[], Candidate]] = {
        "gruland": lambda: _ours(attack, victim, sample, kept),
        "TextAttack": lambda: _theirs(recipe, victim, sample, kept),
    }
    timings = context.alternate(makers, min(ROUNDS, context.settings.repetitions))
    queries = {who: np.mean([one.queries for one in found]) for who, found in kept.items()}
    successes = {who: np.mean([one.succeeded for one in found]) for who, found in kept.items()}
    said = [f"{who}: {queries[who]:.0f} queries a review, {successes[who]:.0%} succeed" for who in kept]
    words = np.mean([len(text.split()) for text in sample.texts])
    setting = (
        f"{len(sample.ids)} whole reviews of {words:.0f} words, 2x{context.model.gru.hidden_size}, one core"
    )
    yield ratio(name, PEER, setting, timings, "gruland", "TextAttack", target, "; ".join(said))


def _ours(attack: QueryAttack, victim: ClassifierVictim, sample: Texts, kept: dict[str, Any]) -> Candidate:
    def run(_: int) -> None:
        kept["gruland"] = attack.search(victim, sample, attack.recipe(victim))

    return Candidate(run)


def _theirs(recipe: str, victim: ClassifierVictim, sample: Texts, kept: dict[str, Any]) -> Candidate:
    from textattack import attack_recipes
    from textattack.models.wrappers import ModelWrapper

    layers = victim.model.gru.to_torch_layers()

    class Wrapped(ModelWrapper):  # type: ignore[misc]  # TextAttack has no types
        model = None

        def __call__(self, texts: Sequence[str]) -> Tensor:
            return _answers(victim, layers, texts)

    if recipe == "PWWSRen2019":
        swaps.wordnet()  # says what is missing
    attack = _offline(getattr(attack_recipes, recipe).build, Wrapped())

    def run(_: int) -> None:
        found = []
        for key, text, label in zip(sample.ids, sample.texts, sample.labels, strict=True):
            with Stream((0, int(key))):
                result = attack.attack(text, int(label))
            succeeded = type(result).__name__ == "SuccessfulAttackResult"
            found.append(Found(result.perturbed_text(), result.num_queries, 0, succeeded))
        kept["TextAttack"] = found

    return Candidate(run)


def _offline(build: Callable[..., Any], *arguments: Any) -> Any:
    """A recipe without NLTK's downloads."""
    import nltk

    download, nltk.download = nltk.download, lambda *_, **__: True
    try:
        return build(*arguments)
    finally:
        nltk.download = download


@torch.no_grad()
def _answers(victim: ClassifierVictim, layers: Sequence[torch.nn.GRU], texts: Sequence[str]) -> Tensor:
    """Class probabilities [N, C] by ``torch.nn.GRU`` on padded texts."""
    tokens_BT, lengths_B = victim.data.encode(list(texts)).padded()
    x_BTI = torch.nn.functional.embedding(tokens_BT, victim.model.vectors)
    for index, layer in enumerate(layers):
        x_BTI, _ = layer(torch.tanh(x_BTI) if index else x_BTI)
    last_BH = x_BTI[torch.arange(len(texts)), lengths_B - 1]
    return victim.task.probabilities(victim.model.head(last_BH).double())


def _workers(context: Context, victim: ClassifierVictim, sample: Texts) -> Row:
    attack, _, _ = RECIPES["PWWS"]

    def run(workers: int, _: int) -> None:
        many = replace(attack, workers=workers)
        many.search(victim, sample, many.recipe(victim))

    makers = {
        f"{workers} workers": lambda workers=workers: Candidate(functools.partial(run, workers))
        for workers in (1, 2)
    }
    timings: Timings = context.alternate(makers, min(ROUNDS, context.settings.repetitions))
    setting = f"PWWS, {len(sample.ids)} whole reviews"
    return ratio("2 workers", "1 worker", setting, timings, "2 workers", "1 workers", 1.8)
