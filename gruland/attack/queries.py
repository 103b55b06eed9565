"""Attacks that see a model's answers alone: TextAttack's recipes by a search of our own over many reviews at once."""

from __future__ import annotations

import multiprocessing
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, ClassVar

import numpy as np
import torch

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
from gruland.orphans import end_with
from gruland.perturbation.streams import Stream
from gruland.progress import Progress
from gruland.regularizers import draws_of

#: Reviews that are searched side by side: enough rows for the kernel, few enough for the memory of their states.
WIDTH = 64


@dataclass(frozen=True)
class QueryAttack(Threat, ABC):
    """A recipe of TextAttack's, searched within a budget of queries.

    The goal is TextAttack's ``UntargetedClassification``: another class than the label becomes the likeliest.

    Args:
        budget: texts that the model may be asked of a review, the unchanged one included.
        workers: processes that search; the results do not depend on it.

    Raises:
        ValueError: a value that cannot work, or a multilabel task.
        ImportError: TextAttack is not installed.
    """

    budget: int = 5000
    workers: int = field(default=1, compare=False)

    knowledge: ClassVar[str] = "queries"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("budget", self.budget, 1)
        check_whole("workers", self.workers, 1)

    @abstractmethod
    def recipe(self, victim: Victim) -> Recipe:
        """What the attack is made of."""

    def __call__(self, victim: Victim, texts: Texts) -> Outcome:
        """Search each review.

        Returns:
            Besides what every attack reports: ``budget``, the share of reviews on which it ran out (``exhausted``),
            what stood in for a download (``stand_ins``), and how the answers were computed (``engine``).
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
            "engine": self.why_asked_anew(victim) or "states before a change are reused",
        }
        return Outcome(judged.results | about, judged.columns)

    def search(self, victim: Victim, sample: Texts, recipe: Recipe) -> list[Found]:
        """What became of each review."""
        # The longest first: no process is left with a long review at the end.
        order = sorted(range(len(sample.ids)), key=lambda place: -len(sample.texts[place]))
        found: list[Found | None] = [None] * len(order)
        with Progress(len(order), type(self).__name__) as progress:
            if self.workers == 1:
                pairs = self._run(victim, sample, recipe, order)
            else:
                pairs = _in_processes(
                    self.workers, lambda some: self._run(victim, sample, recipe, some), order
                )
            for place, result in pairs:
                found[place] = result
                progress.advance()
        return [one for one in found if one is not None]

    def _run(
        self, victim: Victim, sample: Texts, recipe: Recipe, places: Sequence[int] | Iterator[int]
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


def _in_processes(
    workers: int, run: Callable[[Iterator[int]], Iterator[tuple[int, Found]]], order: Sequence[int]
) -> Iterator[tuple[int, Found]]:
    """Forked processes that take the next review when they have room: a fresh one would import for seconds.

    Raises:
        ValueError: this system has no fork, or the model lies on a GPU.
        ChildProcessError: a process was killed.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        raise ValueError(f"workers={workers}: this system cannot fork processes, expected workers=1")
    if torch.cuda.is_initialized():
        raise ValueError(f"workers={workers}: a forked process cannot use the GPU, expected workers=1")
    context, parent = multiprocessing.get_context("fork"), os.getpid()
    counter: Any = context.Value("q", 0)

    def next_place() -> Iterator[int]:
        while True:
            with counter:
                number, counter.value = counter.value, counter.value + 1
            if number >= len(order):
                return
            yield order[number]

    def work(end: Connection) -> None:
        end_with(parent)
        torch.set_num_threads(1)
        try:
            for pair in run(next_place()):
                end.send(pair)
        except Exception as error:  # for the parent to raise
            end.send(error)
        end.close()

    ends, processes, left = [], [], len(order)
    try:
        for _ in range(workers):
            end, theirs = context.Pipe(duplex=False)
            process = context.Process(target=work, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            ends.append(end)
            processes.append(process)
        while ends:
            for ready in wait(ends):
                end = next(one for one in ends if one is ready)
                try:
                    got = end.recv()
                except EOFError:
                    ends.remove(end)
                    continue
                if isinstance(got, Exception):
                    raise got
                left -= 1
                yield got
        if left:
            raise ChildProcessError(
                f"a process was killed, {left} reviews are left: expected memory for {workers}"
            )
    finally:
        for process in processes:
            process.terminate()
            process.join()
