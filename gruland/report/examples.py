"""A few of the attacked reviews, with the words that changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import ClassVar, NamedTuple

from gruland.report.collect import Study
from gruland.report.tables import run_label
from gruland.runs import Run

#: Words of a review that are shown, and reviews among which those to show are looked for.
WORDS, SEARCHED = 60, 200


class Word(NamedTuple):
    """A word as the model saw it, and the one it was made from where it changed."""

    text: str
    original: str | None


@dataclass(frozen=True)
class Example:
    """A review as written and as perturbed, each cut to :data:`WORDS` words.

    Args:
        probabilities: of the right label, for each form of the text, such as ``stripped 0.812``; empty where not
            recorded.
    """

    identity: str
    label: str
    raw: str
    perturbed: Sequence[Word]
    probabilities: Sequence[str]


@dataclass(frozen=True)
class Examples:
    """Reviews of one run's texts of an attack."""

    key: str
    title: str
    caption: str
    items: Sequence[Example]
    kind: ClassVar[str] = "examples"


def examples(
    run: Run, study: Study, key: str, count: int = 3, attack: str = "typing_errors"
) -> Examples | None:
    """The first reviews that an attack turned, or changed; None where its texts are absent or broken."""
    import pandas as pd  # whose reader takes a review of any length

    try:
        path = run.verified(f"attack/{attack}") / "texts.csv"
        table = pd.read_csv(path, nrows=SEARCHED, dtype=str, keep_default_na=False, encoding="utf-8")
        rows = [{str(k): str(v) for k, v in row.items()} for row in table.to_dict("records")]
        forms = [
            name.removeprefix("probability_")
            for name in map(str, table.columns)
            if name.startswith("probability_")
        ]
        forms = forms or ["raw", "stripped", "perturbed"]
        if len(forms) < 2 or not set(forms) <= set(table.columns):
            return None
        # Where right answers are recorded, those that became wrong are shown; else whatever changed.
        judged = f"right_{forms[-1]}" in table.columns
        turned = [row for row in rows if row[forms[-1]] != row[forms[-2]] and _turned(row, forms)]
        items = [_example(row, forms) for row in (turned or rows)[:count]]
    except (OSError, ValueError, KeyError):
        return None
    which = f"The first {len(items)} reviews"
    if turned:
        which += " that it turned" if judged else " that it changed"
    caption = (
        f"{which}, at most {WORDS} words of each; changed words are marked. Probability: what "
        f"{run_label(run, study)}, gives the right label."
    )
    heading = (
        "Perturbed reviews" if attack == "typing_errors" else f"Reviews under {attack.replace('_', ' ')}"
    )
    return Examples(key, heading, caption, items) if items else None


def _turned(row: dict[str, str], forms: Sequence[str]) -> bool:
    before, after = (row.get(f"right_{form}") for form in (forms[0], forms[-1]))
    return before is None or after is None or (float(before) >= 0.5 > float(after))


def _example(row: dict[str, str], forms: Sequence[str]) -> Example:
    probabilities = [(form, row.get(f"probability_{form}")) for form in forms]
    shown = [f"{'as written' if form == 'raw' else form} {float(p):.3f}" for form, p in probabilities if p]
    words = _changes(row[forms[-2]].split(), row[forms[-1]].split())
    written = _cut(row[forms[0]].split())
    return Example(row["id"], row["label"], written, words, shown if len(shown) == len(forms) else [])


def _changes(before: list[str], after: list[str]) -> list[Word]:
    """Word by word; where words were parted, joined, put in or left out, what stands in the place of what."""
    if len(before) == len(after):
        words = [Word(new, None if new == old else old) for old, new in zip(before, after, strict=True)]
    else:
        words = []
        for kind, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
            if kind == "equal":
                words += [Word(word, None) for word in after[c:d]]
            else:
                words.append(Word(" ".join(after[c:d]) or "∅", " ".join(before[a:b])))
    return words[:WORDS] + ([Word("…", None)] if len(words) > WORDS else [])


def _cut(words: list[str]) -> str:
    return " ".join(words[:WORDS]) + (" …" if len(words) > WORDS else "")
