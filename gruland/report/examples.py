"""A few of the perturbed reviews, with the words that changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from gruland.report.collect import place_of
from gruland.runs import Run

#: Words of a review that are shown.
WORDS = 60


class Word(NamedTuple):
    """A word as the model saw it, and the one it was made from where it changed."""

    text: str
    original: str | None


@dataclass(frozen=True)
class Example:
    """A review as written and as perturbed, each cut to :data:`WORDS` words.

    Args:
        probabilities: of the right label, as written, stripped and perturbed; empty where not recorded.
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


def examples(run: Run, key: str, count: int = 3) -> Examples | None:
    """The first reviews that typing errors were put into; None where they are absent or broken."""
    import pandas as pd  # whose reader takes a review of any length

    path = run.path / "attack" / "typing_errors" / "texts.csv"
    try:
        table = pd.read_csv(path, nrows=count, dtype=str, keep_default_na=False, encoding="utf-8")
        items = [_example({str(k): str(v) for k, v in row.items()}) for row in table.to_dict("records")]
    except (OSError, ValueError, KeyError):
        return None
    model = place_of(run).label
    caption = (
        f"The first {len(items)} of the perturbed test reviews, at most {WORDS} words of each; changed words "
        f"are marked. Probability: what {model}, seed {run.results['seed']}, gives the right label."
    )
    return Examples(key, "Perturbed reviews", caption, items) if items else None


def _example(row: dict[str, str]) -> Example:
    probabilities = [row.get(f"probability_{form}") for form in ("raw", "stripped", "perturbed")]
    shown = [f"{float(p):.3f}" for p in probabilities if p] if all(probabilities) else []
    words = _changes(row["stripped"].split(), row["perturbed"].split())
    return Example(row["id"], row["label"], _cut(row["raw"].split()), words, shown)


def _changes(before: list[str], after: list[str]) -> list[Word]:
    """Word by word: a swap neither parts nor joins words."""
    if len(before) != len(after):
        raise ValueError(f"{len(after)} perturbed words of {len(before)}: expected as many")
    words = [Word(new, None if new == old else old) for old, new in zip(before, after, strict=True)]
    return words[:WORDS] + ([Word("…", None)] if len(words) > WORDS else [])


def _cut(words: list[str]) -> str:
    return " ".join(words[:WORDS]) + (" …" if len(words) > WORDS else "")
