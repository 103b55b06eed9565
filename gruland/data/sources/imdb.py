"""All 50,000 labelled reviews of IMDB, from the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gruland.cache import cached
from gruland.data.corpus import Corpus
from gruland.data.sources import parquet
from gruland.data.sources.file import KINDS
from gruland.data.sources.table import Columns

HUB = "stanfordnlp/imdb"


class Imdb:
    """``stanfordnlp/imdb``: 25,000 reviews for training, 25,000 for test; fetched once."""

    name = "imdb"

    def files(self, cache: Path) -> list[Path]:
        """The hub's data as one Parquet file in the cache; the network is asked once.

        Raises:
            OSError: nothing can be fetched.
        """

        def read(entry: Path) -> list[Path]:
            return [entry / "imdb.parquet"]

        return cached(cache / HUB.replace("/", "-"), read, lambda entry: _download(entry / "imdb.parquet"))

    def read(self, files: list[Path]) -> Corpus:
        """Its reviews with their splits."""
        return parquet.read(files[0]).corpus(Columns())


def _download(path: Path) -> None:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Without a network the hub's library retries for 23 seconds, unless the user has told it to be offline.
    if not datasets.config.HF_HUB_OFFLINE:
        _reach(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        parts = datasets.load_dataset(HUB)
    except Exception as error:  # the hub's libraries raise errors of many kinds
        raise _unfetched(error) from error
    columns: dict[str, list[Any]] = {
        name: [value for split in ("train", "test") for value in parts[split][name]]
        for name in ("text", "label")
    }
    columns["split"] = [split for split in ("train", "test") for _ in range(parts[split].num_rows)]
    pq.write_table(pa.table(columns), path)


def _reach(url: str) -> None:
    """Find out within seconds that nothing answers at ``url``."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    try:
        urlopen(Request(url, method="HEAD"), timeout=5).close()
    except HTTPError:
        return  # an answer, too
    except OSError as error:
        raise _unfetched(error) from error


def _unfetched(error: Exception) -> OSError:
    reason = getattr(error, "reason", error)
    return OSError(
        f"the data set {HUB} cannot be fetched ({reason}): go online once, or give data.path=FILE "
        f"({KINDS}), or take the packaged reviews with data=reviews"
    )
