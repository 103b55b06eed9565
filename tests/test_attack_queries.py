"""Query attacks: each recipe against TextAttack's own attack, and answers that depend on nothing but the text."""

from __future__ import annotations

import functools
import os
import random
import signal
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rapidfuzz.distance import Levenshtein

from gruland.attack import PWWS, DeepWordBug, Pruthi, TextBugger, TextFooler, Texts
from gruland.attack.answers import EncodedText, Encoder, ReusedStates, WholeTexts
from gruland.attack.deepwordbug import EditDistance
from gruland.attack.edits import EditedText
from gruland.attack.neighbours import MeanVectors, VectorNeighbours, embedding_of
from gruland.attack.queries import QueryAttack
from gruland.attack.search import Found, Recipe, _Questions, search, side_by_side
from gruland.attack.victims import ClassifierVictim, victim_of
from gruland.classifier import Classifier
from gruland.data import TextDataModule
from gruland.data.tokenizer import tokenize
from gruland.embedding import Vocabulary
from gruland.perturbation import swaps
from gruland.perturbation.streams import Stream
from gruland.regularizers import DropConnect, LayerNorm, Regularizer, Zoneout
from gruland.task import Task

# TextAttack calls a method of loggers that is out of date.
pytestmark = pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning")
#: Words that are no stopwords, no two of them alike: no step has a tie.
REVIEWS = (
    "A truly wonderful film with great music and clever dialogue, although somewhat slow.",
    "Boring plot; terrible acting. Nobody should watch such awful, well-known garbage!",
    "Charming people find happiness while crazy robots destroy beautiful cities (twice).",
)
MORE = (
    "it's",
    "movie",
    "picture",
    "good",
    "bad",
    "dreadful",
    "excellent",
    "tedious",
    "splendid",
    "towns",
    "humans",
)


def nltk_data() -> Path | None:
    """Where the suite finds NLTK's corpora on a machine that has not installed them."""
    folder = Path(os.environ.get("GRULAND_DATA", "nowhere")).parent / "nltk_data"
    return folder if folder.is_dir() else None


@pytest.fixture(autouse=True, scope="module")
def textattack() -> Any:
    """TextAttack, imported quietly; with NLTK's own data where there are some."""
    import nltk

    # It stays there: NLTK's readers remember where they found their files, and read nothing outside of its path.
    if (folder := nltk_data()) is not None:
        nltk.data.path.insert(0, str(folder))
    swaps.load()
    import textattack

    return textattack


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    """Random vectors for the words of the reviews and some more."""
    folder = tmp_path_factory.mktemp("vectors")
    words = sorted({word for text in (*REVIEWS, " ".join(MORE), "[UNK] < > /") for word in tokenize(text)})
    rng = np.random.default_rng(0)
    lines = [f"{word} {' '.join(f'{x:.4f}' for x in rng.normal(size=6))}" for word in words]
    (folder / "vectors.txt").write_text("\n".join(lines))
    return Vocabulary(folder / "vectors.txt", cache_dir=folder)


@pytest.fixture(scope="module")
def victim(vocabulary: Vocabulary) -> ClassifierVictim:
    return make_victim(vocabulary)


def make_victim(
    vocabulary: Vocabulary, regularizer: Regularizer | None = None, classes: int = 2, **settings: Any
) -> Any:
    """A small classifier that listens to every word."""
    torch.manual_seed(1)
    names = tuple(f"class {index}" for index in range(classes))
    task = Task("binary" if classes == 2 else "multiclass", names)
    vectors = torch.from_numpy(np.array(vocabulary.vectors))
    model = Classifier(task, vectors, hidden_size=7, regularizer=regularizer).eval()
    with torch.no_grad():
        model.head.weight *= 6
    return victim_of(model, TextDataModule(vocabulary, **settings))


def labelled(victim: Any, texts: Sequence[str] = REVIEWS) -> Texts:
    """The texts with the labels that the model gives them."""
    p_NC = victim.task.probabilities(victim.logits(texts).double())
    return Texts(np.arange(len(texts)) + 5, list(texts), victim.task.predictions(p_NC).numpy())


# ---- each recipe is TextAttack's ----


def wrapped(textattack: Any, answer: Callable[[Sequence[str]], torch.Tensor]) -> Any:
    """A function from texts to probabilities as TextAttack takes models."""
    base = textattack.models.wrappers.ModelWrapper
    return type("Wrapped", (base,), {"model": None, "__call__": lambda _, texts: answer(texts)})()


class Whole:
    """A classifier asked a text at a time, in float64, by PyTorch's plain operations."""

    def __init__(self, victim: ClassifierVictim) -> None:
        self.model = Classifier(
            victim.task, victim.model.vectors.double(), hidden_size=7, backend="eager"
        ).double()
        self.model.load_state_dict(victim.model.double().state_dict(), strict=False)
        victim.model.float()
        self._victim = victim
        self._known: dict[str, torch.Tensor] = {}

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        for text in texts:
            if text not in self._known:
                with torch.no_grad():
                    logits = self.model.eval()(*self._victim.data.encode([text]).padded())
                self._known[text] = self._victim.task.probabilities(logits)
        return torch.cat([self._known[text] for text in texts])


def theirs(recipe: Any, model: Any, sample: Texts, seed: int, budget: float) -> list[Any]:
    """What TextAttack's attack makes of each text: text, queries, success."""
    attack = recipe.build(model)
    attack.goal_function.query_budget = budget
    found = []
    for key, text, label in zip(sample.ids, sample.texts, sample.labels, strict=True):
        with Stream((seed, int(key))):
            result = attack.attack(text, int(label))
        success = type(result).__name__ == "SuccessfulAttackResult"
        found.append((result.perturbed_text(), result.num_queries, success))
    return found


def ours(attack: QueryAttack, victim: Any, sample: Texts) -> list[Any]:
    found = attack.search(victim, sample, attack.recipe(victim))
    return [(one.text, one.queries, one.succeeded) for one in found]


def offline(
    monkeypatch: pytest.MonkeyPatch, textattack: Any, victim: ClassifierVictim, threshold: float | None = None
) -> None:
    """TextAttack's recipes with our stand-ins in the place of what they would download.

    Args:
        threshold: of the sentence encoder in the place of the recipe's.
    """
    from textattack.attack_recipes import textbugger_li_2018, textfooler_jin_2019
    from textattack.constraints.semantics import WordEmbeddingDistance
    from textattack.constraints.semantics.sentence_encoders import SentenceEncoder
    from textattack.transformations import WordSwapEmbedding

    meaning, given = MeanVectors.of(victim), threshold

    class Encoder(SentenceEncoder):  # type: ignore[misc]
        def __init__(self, threshold: float = 0.8, metric: str = "angular", **rest: Any) -> None:
            """With the defaults of TextAttack's ``UniversalSentenceEncoder``."""
            super().__init__(threshold=given or threshold, metric=metric, **rest)

        def encode(self, sentences: Sequence[str]) -> np.ndarray:
            return np.stack([meaning(sentence) for sentence in sentences])

    embedding = embedding_of(VectorNeighbours(victim.data.vocabulary))
    for module in (textbugger_li_2018, textfooler_jin_2019):
        monkeypatch.setattr(module, "UniversalSentenceEncoder", Encoder)
        monkeypatch.setattr(
            module, "WordSwapEmbedding", functools.partial(WordSwapEmbedding, embedding=embedding)
        )
    monkeypatch.setattr(
        textfooler_jin_2019,
        "WordEmbeddingDistance",
        functools.partial(WordEmbeddingDistance, embedding=embedding),
    )
    # TextAttack's wheel lacks a file that the constructor opens.
    monkeypatch.setattr(textbugger_li_2018, "WordSwapHomoglyphSwap", swaps.homoglyphs)
    monkeypatch.setattr("nltk.download", lambda *_, **__: True)


RECIPES: dict[str, Callable[..., QueryAttack]] = {
    "DeepWordBugGao2018": DeepWordBug,
    "Pruthi2019": Pruthi,
    "PWWSRen2019": PWWS,
    "TextBuggerLi2018": TextBugger,
    "TextFoolerJin2019": TextFooler,
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_textattacks(
    name: str, textattack: Any, victim: ClassifierVictim, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in ("PWWSRen2019", "TextFoolerJin2019") and nltk_data() is None:
        pytest.skip("needs NLTK's WordNet and tagger (nltk_data beside GRULAND_DATA)")
    offline(monkeypatch, textattack, victim)
    recipe, model = getattr(textattack.attack_recipes, name), wrapped(textattack, Whole(victim))
    # Pruthi's step has all words' errors; TextFooler compares 15 words around each change.
    short, long = [" ".join(review.split()[:4]) for review in REVIEWS], [" ".join(REVIEWS[1:]), REVIEWS[2]]
    sample = labelled(victim, {"Pruthi2019": short, "TextFoolerJin2019": long}.get(name, REVIEWS[1:]))
    expected = theirs(recipe, model, sample, 3, np.inf)
    assert ours(RECIPES[name](seed=3), victim, sample) == expected
    assert any(success for _, _, success in expected)
    # With less than it takes, too.
    for budget in (5, max(queries for _, queries, _ in expected) - 2):
        expected = theirs(recipe, model, sample, 3, budget)
        assert ours(RECIPES[name](seed=3, budget=budget), victim, sample) == expected


def test_meanings_are_compared_by_their_angle(
    textattack: Any, victim: ClassifierVictim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a threshold that keeps candidates out which the cosine would let through."""
    offline(monkeypatch, textattack, victim, threshold=0.9)
    recipe, model = textattack.attack_recipes.TextBuggerLi2018, wrapped(textattack, Whole(victim))
    sample = labelled(victim, REVIEWS[1:])
    expected = theirs(recipe, model, sample, 3, np.inf)
    assert ours(TextBugger(seed=3, similarity=0.9), victim, sample) == expected


def test_equals_textattack_for_several_classes(textattack: Any, vocabulary: Vocabulary) -> None:
    victim = make_victim(vocabulary, classes=3)
    sample = labelled(victim)
    recipe, model = textattack.attack_recipes.DeepWordBugGao2018, wrapped(textattack, Whole(victim))
    assert ours(DeepWordBug(seed=1), victim, sample) == theirs(recipe, model, sample, 1, np.inf)


def test_edits_are_those_of_attacked_text(textattack: Any) -> None:
    from textattack.shared import AttackedText

    rng, cut = random.Random(0), swaps.load().words
    letters = [
        "good",
        "well-known",
        "don't",
        "x",
        "co-",
        "@you",
        "50%",
        "(so)",
        "...",
        "a_b",
        "Café",
        "<br",
        "/>",
    ]
    replacements = ["", "good", "two words", "-a", "[UNK]", "е", "x", "don't-"]
    for _ in range(300):
        text = rng.choice(["", " "]) + " ".join(rng.choices(letters, k=rng.randrange(1, 9)))
        own, other = EditedText(text, cut), AttackedText(text)
        for _ in range(4):
            assert own.words == other.words
            assert own.modified == other.attack_attrs["modified_indices"]
            if not own.words:
                break
            index, replacement = rng.randrange(len(own.words)), rng.choice(replacements)
            candidate, other = (
                own.replace(index, replacement),
                other.replace_word_at_index(index, replacement),
            )
            assert candidate.text == other.text
            own = candidate.taken()


@pytest.mark.parametrize("most", [1, 3, 8])
def test_the_bound_on_the_distance_changes_no_answer(most: int) -> None:
    rng, constraint = random.Random(most), EditDistance(most)
    for _ in range(40):
        original = text = EditedText("one two three four five six", str.split)
        for _ in range(5):
            candidates = [
                text.replace(rng.randrange(6), rng.choice(["tow", "x", "three", "one", "fours"]))
                for _ in range(3)
            ]
            near = [c for c in candidates if Levenshtein.distance(original.text, c.text) <= most]
            assert constraint(candidates, original) == near
            text = candidates[0].taken()


# ---- the answers are a function of the text ----


@pytest.mark.parametrize("clean", ["none", "breaks"])
@pytest.mark.parametrize("max_length", [None, 7])
def test_a_changed_text_is_encoded_as_a_whole_one(
    vocabulary: Vocabulary, clean: str, max_length: int | None
) -> None:
    data = TextDataModule(vocabulary, clean=clean, max_length=max_length)
    encoder, rng = Encoder(data), random.Random(1)
    pieces = [
        "good",
        "bad",
        "it's",
        "don't",
        "<br />",
        "<br",
        "/>",
        "<b",
        "r>",
        ".",
        "(movie)",
        "u.s.",
        "é",
        "a<br/>b",
    ]
    joints = [" ", " ", " ", "", "\n", "\u00a0"]
    changes = ["", "film", "two words", "[UNK]", " ", "br", "'", "."]
    for _ in range(1500):
        text = "".join(rng.choice(pieces) + rng.choice(joints) for _ in range(rng.randrange(7)))
        base = EncodedText(text, encoder)
        start = rng.randrange(len(text) + 1)
        end = rng.randrange(start, min(len(text), start + 5) + 1)
        change = rng.choice(changes)
        candidate = EditedText(text, str.split).itself()
        candidate.text, candidate.start, candidate.end = text[:start] + change + text[end:], start, end
        candidate.replacement = change
        before, rest = base.changed(candidate)
        whole = np.concatenate([base.ids[:before], rest])
        assert whole.tolist() == data.encode([candidate.text]).tokens.tolist(), (text, candidate.text)
        assert len(rest) > 0


@pytest.mark.parametrize(
    ("regularizer", "draws"),
    [(None, 0), (Zoneout(0.2), 0), (Zoneout(0.2), 3), (DropConnect(0.3), 3)],
    ids=["none", "zoneout", "zoneout under draws", "dropconnect under draws"],
)
def test_reused_states_give_the_models_own_answers(
    vocabulary: Vocabulary, regularizer: Regularizer | None, draws: int
) -> None:
    victim = make_victim(vocabulary, regularizer)
    attack = DeepWordBug(draws=draws, dropout_seed=4)
    assert attack.why_asked_anew(victim) is None
    sample = labelled(victim)
    answer = attack.answer(victim, sample, [0, 1, 2])
    reference = DeepWordBug.ask
    texts = [EditedText(text, swaps.load().words) for text in sample.texts]
    for step in range(3):
        asked = [
            [
                text.itself(),
                *(text.replace(index, word) for index in (0, 2, 5) for word in ("bad", "", "no good")),
            ]
            for text in texts
        ]
        answers = answer(asked, [0, 1, 2])
        for candidates, p_NC, key in zip(asked, answers, sample.ids, strict=True):
            expected = reference(attack, victim, [c.text for c in candidates], np.full(len(candidates), key))
            np.testing.assert_allclose(p_NC, expected.numpy(), atol=3e-6)
        # Alone, and from nothing, they are the same bit for bit.
        place = step % 3
        alone = attack.answer(victim, sample, [place])([asked[place][3:4]], [0])[0]
        assert np.array_equal(alone, answers[place][3:4])
        texts = [candidates[2 + step].taken() for candidates in asked]


@pytest.mark.parametrize("regularizer", [None, Zoneout(0.2)], ids=["none", "zoneout"])
def test_whole_texts_get_the_models_own_outputs(
    vocabulary: Vocabulary, regularizer: Regularizer | None
) -> None:
    victim = make_victim(vocabulary, regularizer)
    outputs, texts = WholeTexts(victim.model), [*REVIEWS, "Bad.", "..."]
    logits_NK = outputs(victim.data.encode(texts))
    np.testing.assert_allclose(logits_NK, victim.logits(texts), atol=1e-5)
    # Alone they are the same bit for bit.
    for text, logits_K in zip(texts, logits_NK, strict=True):
        assert torch.equal(outputs(victim.data.encode([text]))[0], logits_K)


def test_a_cell_that_the_kernel_does_not_have_is_asked_whole(vocabulary: Vocabulary) -> None:
    victim = make_victim(vocabulary, LayerNorm())
    attack = DeepWordBug()
    assert attack.why_asked_anew(victim) == "every text is asked whole: layer_norm has a cell of its own"
    candidate = EditedText(REVIEWS[0], swaps.load().words).replace(1, "bad")
    p_NC = attack.answer(victim, labelled(victim), [0])([[candidate]], [0])[0]
    np.testing.assert_allclose(
        p_NC, victim.task.probabilities(victim.logits([candidate.text]).double()), atol=1e-6
    )


def test_texts_are_cut_as_textattack_cuts_them() -> None:
    from textattack.shared.utils import words_from_text

    pieces = [
        "it's",
        "'CCC'",
        "-a--b-",
        "x@y.com,",
        "é_*",
        "(1.5)",
        "``",
        "\u597d\u7535\u5f71",
        "a\u4e0db",
        "",
    ]
    rng = random.Random(0)
    for _ in range(60):
        text = "".join(rng.choice(pieces) + rng.choice([" ", "\t", "\x1c", "\u00a0", ""]) for _ in range(6))
        assert swaps.load().words(text) == words_from_text(text)


def test_results_depend_on_neither_workers_nor_neighbours(vocabulary: Vocabulary) -> None:
    victim = make_victim(vocabulary, Zoneout(0.2))
    sample = labelled(victim, [*REVIEWS, "Bad.", "..."])
    for draws, workers in ((0, 8), (2, 2)):
        attack = DeepWordBug(draws=draws)
        recipe = attack.recipe(victim)
        expected = attack.search(victim, sample, recipe)
        again = DeepWordBug(draws=draws, workers=workers)
        assert again.search(victim, sample, recipe) == expected
        for place in (0, 4):
            alone = Texts(sample.ids[[place]], [sample.texts[place]], sample.labels[[place]])
            assert attack.search(victim, alone, recipe) == [expected[place]]


def test_a_killed_worker_costs_its_task_alone(
    vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    victim = make_victim(vocabulary)
    sample, attack = labelled(victim), DeepWordBug(workers=2)
    recipe, parent, run = attack.recipe(victim), os.getpid(), DeepWordBug.run
    expected = DeepWordBug().search(victim, sample, recipe)

    def killed_once(self: DeepWordBug, *given: Any) -> Any:
        assert os.getpid() != parent
        if not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return run(self, *given)

    monkeypatch.setattr(DeepWordBug, "run", killed_once)
    assert attack.search(victim, sample, recipe) == expected
    assert (tmp_path / "killed").exists()


def test_a_cluster_gives_the_same(vocabulary: Vocabulary) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (the extra `ray`)")
    victim = make_victim(vocabulary, Zoneout(0.2))
    sample, recipe = labelled(victim), DeepWordBug().recipe(victim)
    expected = DeepWordBug().search(victim, sample, recipe)
    assert DeepWordBug(workers=2, engine="ray").search(victim, sample, recipe) == expected


def test_an_error_in_a_worker_is_the_attacks(vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = make_victim(vocabulary)
    sample, attack = labelled(victim), DeepWordBug(workers=2)
    recipe = attack.recipe(victim)
    monkeypatch.setattr(ReusedStates, "__call__", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        attack.search(victim, sample, recipe)


# ---- what is reported ----


def test_the_outcome_says_what_was_done(vocabulary: Vocabulary) -> None:
    victim = make_victim(vocabulary, Zoneout(0.2))
    sample = labelled(victim)
    sample = Texts(sample.ids, sample.texts, np.array([*sample.labels[:2], 1 - sample.labels[2]]))
    results, columns = DeepWordBug(budget=60)(victim, sample)
    assert results["budget"] == 60
    assert "words" in results["stand_ins"]["stopwords"]
    assert results["measures"]["clean_accuracy"]["estimate"] == pytest.approx(2 / 3)
    wrong = columns["id"].index(int(sample.ids[2]))
    # What the model got wrong already is left alone after one query.
    assert columns["queries"][wrong] == 1
    assert columns["attacked"][wrong] == columns["raw"][wrong]
    assert max(columns["queries"]) <= 60
    for text, attacked, changed in zip(columns["raw"], columns["attacked"], columns["changed"], strict=True):
        cut = swaps.load().words
        assert sum(a != b for a, b in zip(cut(text), cut(attacked), strict=True)) == changed


def test_a_smaller_budget_gives_what_the_curve_says(vocabulary: Vocabulary) -> None:
    victim = make_victim(vocabulary)
    sample = labelled(victim)
    whole = DeepWordBug().search(victim, sample, DeepWordBug().recipe(victim))
    succeeded = [(place, found) for place, found in enumerate(whole) if found.enough is not None]
    assert succeeded
    for place, found in succeeded:
        for budget in (found.enough - 1, found.enough):
            attack = DeepWordBug(budget=budget)
            again = attack.search(victim, sample, attack.recipe(victim))[place]
            assert again.succeeded == (budget >= found.enough)


@pytest.mark.parametrize("ranking", ["delete", None])
def test_a_search_of_three_classes_succeeds_with_what_it_needed_and_with_no_less(ranking: str | None) -> None:
    """The first candidate that is wrong has a lower score than one that is right."""

    class Swap:
        draws = False

        def _get_replacement_words(self, word: str) -> list[str]:
            return ["x", "y", "z"]

    table = {"a": (0.9, 0.05, 0.05), "x": (0.4, 0.3, 0.3), "y": (0.45, 0.5, 0.05), "z": (0.1, 0.8, 0.1)}
    recipe = Recipe(str.split, [Swap()], ranking, frozenset())

    def found(budget: int) -> Found:
        one = search(
            recipe, "a", 0, task=Task("multiclass", ("p", "q", "r")), budget=budget, stream=Stream((0,))
        )
        ((_, result),) = side_by_side(
            [one], lambda asked, _: [np.array([table.get(c.text, table["a"]) for c in cs]) for cs in asked], 1
        )
        return result

    enough = found(10).enough
    assert enough == (5 if ranking else 4)
    assert found(enough).succeeded
    assert not found(enough - 1).succeeded


def test_a_search_over_all_words_without_a_question_left_finds_nothing(vocabulary: Vocabulary) -> None:
    victim = make_victim(vocabulary)
    for found in (attack := Pruthi(budget=1)).search(victim, labelled(victim), attack.recipe(victim)):
        assert (found.succeeded, found.replaced) == (False, 0)


def test_another_model_is_asked_whole(textattack: Any) -> None:
    class Bag:
        task = Task("binary", ("no", "yes"))

        def logits(self, texts: Sequence[str]) -> torch.Tensor:
            sums = [sum(zlib.crc32(w.encode()) / 2**31 - 1 for w in text.lower().split()) for text in texts]
            return torch.tensor(sums, dtype=torch.float64).unsqueeze(1)

    victim: Any = Bag()
    sample, attack = labelled(victim), DeepWordBug()
    model = wrapped(textattack, lambda texts: victim.task.probabilities(victim.logits(texts)))
    expected = theirs(textattack.attack_recipes.DeepWordBugGao2018, model, sample, 0, np.inf)
    results, columns = attack(victim, sample)
    assert list(zip(columns["attacked"], columns["queries"], strict=True)) == [
        found[:2] for found in expected
    ]
    assert results["asked"].startswith("every text is asked whole")
    with pytest.raises(ValueError, match="this model has none: give neighbours=FILE"):
        TextBugger()(victim, sample)
    victim.task = Task("multilabel", ("no", "yes"))
    with pytest.raises(ValueError, match="expected a task of one label for each text"):
        attack(victim, sample)


def test_near_words_come_from_a_file(vocabulary: Vocabulary, tmp_path: Path) -> None:
    victim, path = make_victim(vocabulary), tmp_path / "near.json"
    path.write_text('{"wonderful": ["splendid", "excellent"], "film": ["picture", "movie"]}')
    attack = TextBugger(neighbours=str(path))
    before = attack.inputs()
    recipe = attack.recipe(victim)
    near = recipe.swaps[-1]
    assert near._get_replacement_words("Wonderful") == ["Splendid", "Excellent"]
    assert near._get_replacement_words("awful") == []
    assert recipe.stand_ins["neighbours"] == "neighbours in near.json (2 words)"
    path.write_text('{"film": ["picture"]}')
    assert attack.inputs() != before
    for wrong in ("[]", '{"good": [1]}'):
        path.write_text(wrong)
        with pytest.raises(ValueError, match=r"near\.json: expected JSON such as"):
            attack.recipe(victim)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json: no such file"):
        TextBugger(neighbours="nowhere.json").recipe(victim)
    with pytest.raises(FileNotFoundError, match=r"neighbours=nowhere\.json: no such file"):
        TextBugger(neighbours="nowhere.json").inputs()


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_a_tie_is_decided_as_the_task_decides_it(kind: str) -> None:
    task, tie = Task(kind, ("no", "yes")), np.array([[0.5, 0.5]])
    asked = _Questions(task, label=0, budget=1).ask([EditedText("a film", str.split).itself()])
    next(asked)
    with pytest.raises(StopIteration) as end:
        asked.send(tie)
    assert end.value.value[1].tolist() == (task.predictions(torch.from_numpy(tie)) != 0).tolist()
    assert end.value.value[1].tolist() == [kind == "binary"]


def test_neighbours_by_vectors_are_the_nearest_words(vocabulary: Vocabulary) -> None:
    near, vectors, words = VectorNeighbours(vocabulary), vocabulary.vectors[2:], vocabulary.words
    distances = np.linalg.norm(vectors - vectors[words.index("film")], axis=1)
    order = [words[i] for i in np.argsort(distances)]
    assert (
        near.near("film", 6) == [word for word in order if any(map(str.isalpha, word)) and word != "film"][:6]
    )
    with pytest.raises(KeyError):
        near.near("nosuch", 3)


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (lambda: DeepWordBug(budget=0), "budget=0: expected a whole number of at least 1"),
        (lambda: DeepWordBug(workers=True), "workers=True: expected a whole number of at least 1"),
        (lambda: DeepWordBug(engine="dask"), "engine=dask: expected local or ray"),
        (lambda: DeepWordBug(distance=-1), "distance=-1: expected a whole number of at least 1"),
        (lambda: Pruthi(swaps=0), "swaps=0: expected a whole number of at least 1"),
        (lambda: TextBugger(similarity=2), r"similarity=2: expected a number in \[0, 1\]"),
    ],
)
def test_refuses_settings_that_cannot_work(attack: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attack()


def test_the_number_of_processes_is_no_part_of_what_was_done() -> None:
    from gruland.attack.run import _identity

    assert _identity(DeepWordBug(workers=2)) == _identity(DeepWordBug())
    assert "workers" not in _identity(DeepWordBug())["settings"]
    assert _identity(DeepWordBug(budget=2)) != _identity(DeepWordBug())
