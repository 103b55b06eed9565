"""Attacks that see a model's answers alone: TextAttack's recipes by a search of our own over many reviews at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ClassVar

import numpy as np

from gruland.arguments import check_whole
from gruland.attack.answers import ReusedStates, unavailable
from gruland.attack.base import Outcome, Texts, Victim
from gruland.attack.edits import Candidate
from gruland.attack.neighbours import (
    FileNeighbours,
    MeanVectors,
    Neighbours,
    VectorNeighbours,
    neighbours_file,
)
from gruland.attack.search import Answer, Found, Recipe, search, side_by_side
from gruland.attack.threat import Effort, Threat
from gruland.attack.verdict import curve
from gruland.attack.victims import ClassifierVictim
from gruland.files import file_hash
from gruland.perturbation.streams import Stream
from gruland.progress import Progress
from gruland.regularizers import draws_of
from gruland.workers import Workers, check_workers

#: Reviews that are searched side by side: enough rows for the kernel, few enough for the memory of their states.
WIDTH = 64
#: Reviews of a task of several workers, at most; less than all that one has where that leaves others without.
CHUNK = 32


@dataclass(frozen=True)
class QueryAttack(Threat, ABC):
    """A recipe of TextAttack's, searched within a budget of queries.

    The goal is TextAttack's ``UntargetedClassification``: another class than the label becomes the likeliest.

    Args:
        budget: texts that the model may be asked of a review, the unchanged one included.
        workers: tasks that are at work at a time; the results do not depend on it.
        engine: where they are: ``local``, processes of this machine, or ``ray``, a cluster.

    Raises:
        ValueError: a value that cannot work, or a multilabel task.
        ImportError: TextAttack is not installed.
    """

    budget: int = 5000
    workers: int = field(default=1, compare=False)
    engine: str = field(default="local", compare=False)

    knowledge: ClassVar[str] = "queries"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("budget", self.budget, 1)
        check_workers(self.workers, self.engine)

    @abstractmethod
    def recipe(self, victim: Victim) -> Recipe:
        """What the attack is made of."""

    def __call__(self, victim: Victim, texts: Texts) -> Outcome:
        """Search each review.

        Returns:
            Besides what every attack reports: ``budget``, the share of reviews on which it ran out (``exhausted``),
            what stood in for a download (``stand_ins``), and how the model was asked (``asked``).
        """
        if victim.task.kind == "multilabel":
            raise ValueError(
                "the goal of this attack is another class: expected a task of one label for each text"
            )
        sample, recipe = self.sample(texts), self.recipe(victim)
        found = self.search(victim, sample, recipe)
        forms = {"raw": sample.texts, "attacked": [one.text for one in found]}
        effort = Effort(
            queries=[one.queries for one in found],
            changed=[one.replaced for one in found],
            words=[len(recipe.cut(text)) for text in sample.texts],
        )
        # What a smaller budget would have done: inside a step, the first best candidate so far that succeeds decides.
        needed = [one.queries if one.enough is None else one.enough for one in found]
        judged = self.judge(victim, sample, forms, effort, columns={"queries_needed": needed})
        if (spent := judged.results["curves"].get("queries")) is not None:
            attacked, raw = (np.array(judged.columns[f"right_{form}"]) for form in ("attacked", "raw"))
            rights = [np.where(np.array(needed) <= budget, attacked, raw) for budget in spent["at"]]
            judged.results["curves"]["queries"] = curve(spent["at"], rights)
        about = {
            "budget": self.budget,
            "exhausted": float(np.mean([one.queries >= self.budget and not one.succeeded for one in found])),
            "stand_ins": dict(recipe.stand_ins),
            "asked": self.why_asked_anew(victim) or "states before a change are reused",
        }
        return Outcome(judged.results | about, judged.columns)

    def search(self, victim: Victim, sample: Texts, recipe: Recipe) -> list[Found]:
        """What became of each review."""
        # The longest first: no worker is left with a long review at the end.
        order = sorted(range(len(sample.ids)), key=lambda place: -len(sample.texts[place]))
        found: list[Found | None] = [None] * len(order)
        searches = Searches(self, victim, sample, recipe)
        with (
            Progress(len(order), type(self).__name__) as progress,
            Workers(searches, self.workers, self.engine, fork=True) as workers,
        ):
            pairs: Iterable[tuple[int, Found]]
            if workers.alone:
                pairs = self.run(victim, sample, recipe, order)
            else:
                # Each task has long reviews and short ones, about as much work as the others.
                tasks = -(-len(order) // min(CHUNK, max(1, len(order) // (4 * self.workers))))
                chunks = [order[first::tasks] for first in range(tasks)]
                pairs = chain.from_iterable(done.result for done in workers.map(chunks))
            for place, result in pairs:
                found[place] = result
                progress.advance()
        return [one for one in found if one is not None]

    def run(
        self, victim: Victim, sample: Texts, recipe: Recipe, places: Sequence[int]
    ) -> Iterator[tuple[int, Found]]:
        """The reviews at some places, as they end."""
        taken: list[int] = []

        def searches() -> Iterator[Any]:
            for place in places:
                taken.append(place)
                stream = Stream((self.seed, int(sample.ids[place])))
                label = int(sample.labels[place])
                yield search(
                    recipe, sample.texts[place], label, task=victim.task, budget=self.budget, stream=stream
                )

        # Fewer where each has the states of several draws, or a step the candidates of all words.
        width = WIDTH // (4 if self.random(victim) else 1) // (8 if recipe.ranking is None else 1)
        for number, result in side_by_side(searches(), self.answer(victim, sample, taken), width):
            yield taken[number], result

    def why_asked_anew(self, victim: Victim) -> str | None:
        """None where the states before a change are reused, else one line that says why not."""
        if not isinstance(victim, ClassifierVictim):
            return "every text is asked whole: the victim is no classifier of this package"
        reason = unavailable(victim, self.random(victim))
        return None if reason is None else f"every text is asked whole: {reason}"

    def answer(self, victim: Victim, sample: Texts, taken: Sequence[int]) -> Answer:
        """How candidates are asked; ``taken`` are the places in the sample of the reviews that are searched."""
        if isinstance(victim, ClassifierVictim) and self.why_asked_anew(victim) is None:
            draws = draws_of(self.attack_seed, self.draws) if self.random(victim) else ()
            return ReusedStates(victim, lambda number: int(sample.ids[taken[number]]), draws)

        def ask(asked: Sequence[Sequence[Candidate]], numbers: Sequence[int]) -> list[np.ndarray]:
            texts = [candidate.text for candidates in asked for candidate in candidates]
            sizes = [len(candidates) for candidates in asked]
            keys = np.repeat([int(sample.ids[taken[number]]) for number in numbers], sizes)
            return np.split(self.ask(victim, texts, keys).numpy(), np.cumsum(sizes)[:-1])

        return ask


class Searches:
    """The searches of the reviews at some places of a sample, by whoever is asked for them."""

    def __init__(self, attack: QueryAttack, victim: Victim, sample: Texts, recipe: Recipe) -> None:
        self._attack, self._victim, self._sample = attack, victim, sample
        self._recipe: Recipe | None = recipe

    def __getstate__(self) -> dict[str, Any]:
        # TextAttack's parts and their caches stay: another process makes its own.
        return vars(self) | {"_recipe": None}

    def __call__(self, places: Sequence[int]) -> list[tuple[int, Found]]:
        if self._recipe is None:
            self._recipe = self._attack.recipe(self._victim)
        return list(self._attack.run(self._victim, self._sample, self._recipe, places))


def neighbours_of(victim: Victim, path: str | None) -> Neighbours:
    """Near words from a file, or by the vectors of a classifier of this package.

    Raises:
        ValueError: neither is there.
        FileNotFoundError: no such file.
    """
    if path is not None:
        return FileNeighbours(path)
    if not isinstance(victim, ClassifierVictim):
        raise ValueError(
            "neighbours=null takes the run's word vectors, and this model has none: give neighbours=FILE"
        )
    return VectorNeighbours(victim.data.vocabulary)


def hashes(neighbours: str | None) -> dict[str, str]:
    """The checksum of a file of near words, for what an attack's outcome follows from.

    Raises:
        FileNotFoundError: no such file.
    """
    return {} if neighbours is None else {"neighbours": file_hash(neighbours_file(neighbours))}


def meaning_of(victim: Victim) -> MeanVectors:
    """What texts mean by the vectors of a classifier of this package.

    Raises:
        ValueError: another model.
    """
    if not isinstance(victim, ClassifierVictim):
        raise ValueError(
            "texts are compared by the run's word vectors, and this model has none: take another attack"
        )
    return MeanVectors.of(victim)
