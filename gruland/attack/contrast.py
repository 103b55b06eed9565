"""Contrast sets: reviews and what people made of them, with as few changes as turn the label.

Kaushik et al. 2020, "Learning the difference that makes a difference with counterfactually-augmented data"; Gardner et
al. 2020, "Evaluating models' local decision boundaries via contrast sets", whose consistency is the accuracy of pairs.

N pairs, S draws of the masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from gruland import sampling
from gruland.attack import flags, verdict
from gruland.attack.base import Outcome, Texts, Victim, question
from gruland.attack.threat import Threat
from gruland.attack.victims import ClassifierVictim
from gruland.data.labels import is_missing
from gruland.data.overlap import letters, shared
from gruland.data.prepared import SEEN
from gruland.data.sources import delimited, parquet
from gruland.data.sources.table import Table
from gruland.sampling import plain

if TYPE_CHECKING:
    import pandas as pd

#: The settings that name columns.
COLUMNS = ("text", "label", "pair", "kind")


@dataclass(frozen=True)
class Contrast(Threat):
    """Accuracy on originals, on edits, and on both of a pair. The run's test reviews have no part in it.

    Args:
        reviews: pairs, a stratified part by the original's label; all where there are fewer.
        path: a .csv, .tsv or .parquet file, a row for each text.
        text, label, pair, kind: its columns of the texts, of their labels, of what tells pairs apart, and of which of a
            pair a text is.
        original, edited: the kinds.
    """

    path: str | None = None
    text: str = "text"
    label: str = "label"
    pair: str = "pair_id"
    kind: str = "kind"
    original: str = "orig"
    edited: str = "revised"
    knowledge: ClassVar[str] = "human"

    def inputs(self) -> dict[str, str]:
        """The checksum of the file."""
        from gruland.files import file_hash

        return {"path": file_hash(self._file())}

    def __call__(self, victim: Victim, texts: Texts) -> Outcome:
        """Scores on originals (``original``) and on edits (``edited``), each with labels of its own.

        Returns:
            Besides what every attack reports: the measure ``pair_accuracy``, of pairs both of whose texts are right.

        Raises:
            FileNotFoundError, ValueError: no such file, columns or pairs; labels of another task; a model that was
                trained on some of the texts.
        """
        if victim.task.kind == "multilabel":
            raise ValueError("a pair has one label for each text: expected a task of one label")
        pairs = self.pairs(victim.task.classes)
        numbered = pairs.index.dtype.kind in "iu"  # else the pairs have names, and masks want numbers
        ids = pairs.index.to_numpy() if numbered else np.arange(len(pairs))
        originals, edits = (
            Texts(ids, pairs[f"text_{kind}"].tolist(), pairs[f"label_{kind}"].to_numpy())
            for kind in ("original", "edited")
        )
        self._refuse_seen(victim, originals, edits)
        originals, rows = self.sample(originals), {key: row for row, key in enumerate(edits.ids.tolist())}
        chosen = [rows[key] for key in originals.ids.tolist()]
        edits = Texts(originals.ids, [edits.texts[row] for row in chosen], edits.labels[chosen])
        sides = {"original": originals, "edited": edits}
        outputs = {
            form: question(victim, side.texts, side.ids, draws=self.fresh, seed=self.dropout_seed)
            for form, side in sides.items()
        }
        names = {} if numbered else {"pair": pairs.index[originals.ids].tolist()}
        judged = self.judge_outputs(
            victim,
            originals,
            outputs,
            None,
            forms={form: side.texts for form, side in sides.items()},
            similarities=verdict.similarities(originals.texts, edits.texts),
            columns={"label_edited": [victim.task.name_of(label) for label in edits.labels], **names},
            curves={},
            flags=flags.outputs_vary(victim, originals, self.draws),
            labels={"edited": edits.labels},
        )
        rights = [
            self._answers(victim, outputs[form], torch.as_tensor(side.labels)).rights_SN
            for form, side in sides.items()
        ]
        both = ((rights[0] == 1) & (rights[1] == 1)).mean(0)
        judged.results["measures"]["pair_accuracy"] = plain(sampling.mean(both))
        return judged

    def _file(self) -> Path:
        if self.path is None:
            raise ValueError("path=null: expected a file of originals and edits, contrast.path=FILE")
        path = Path(self.path).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"path={path} does not exist: expected a file of originals and edits")
        return path

    def pairs(self, classes: Sequence[str]) -> pd.DataFrame:
        """A row for each pair: text_original, label_original, text_edited, label_edited.

        Args:
            classes: those of the model, to which the labels have to belong.

        Raises:
            FileNotFoundError, ValueError: no such file, columns or pairs, other classes.
        """
        import pandas as pd

        path, table = self._file(), self._table()
        texts, labels, ids, kinds = (table.columns[getattr(self, key)] for key in COLUMNS)
        for row, (text, label) in enumerate(zip(texts, labels, strict=True)):
            if not isinstance(text, str) or is_missing(label):
                raise ValueError(
                    f"{path}, {table.place(row)} has the text {text!r} and the label {label!r}: expected both"
                )
        numbers, task = table.numbered(labels)
        if task.classes != tuple(classes):
            raise ValueError(
                f"{path} has the classes {', '.join(task.classes)}: expected the model's {', '.join(classes)}"
            )
        names = _numbers(ids)
        sides = []
        for name, kind in (("original", self.original), ("edited", self.edited)):
            here = [row for row, found in enumerate(kinds) if found == kind]
            index = pd.Index([names[row] for row in here])
            if index.has_duplicates:
                raise ValueError(f"{path}: a pair has several texts of the kind {kind}: expected one of each")
            values = {f"text_{name}": [texts[row] for row in here], f"label_{name}": numbers[here]}
            sides.append(pd.DataFrame(values, index=index))
        pairs = sides[0].join(sides[1], how="inner")
        if pairs.empty or len(pairs) < max(map(len, sides)):
            raise ValueError(
                f"{path}: {len(sides[0])} texts of the kind {self.original}, {len(sides[1])} of {self.edited}, "
                f"{len(pairs)} pairs: expected one of each kind in every pair"
            )
        return pairs.sort_index()

    def _table(self) -> Table:
        """The file, read as strictly as one that a model is trained on."""
        path, suffix = self._file(), self._file().suffix.lower()
        if suffix in (".parquet", ".pq"):
            table = parquet.read(path, [getattr(self, key) for key in COLUMNS])
        elif suffix in (".csv", ".tsv", ".tab"):
            table = delimited.read(path)
        else:
            raise ValueError(f"path={path}: expected a file .csv, .tsv or .parquet")
        if missing := [key for key in COLUMNS if getattr(self, key) not in table.columns]:
            name = getattr(self, missing[0])
            raise ValueError(f"{path} has no column {name} ({missing[0]}=): found {', '.join(table.columns)}")
        return table

    def _refuse_seen(self, victim: Victim, *sides: Texts) -> None:
        """Refuse a model that was trained, or chosen, by some of the texts."""
        if not isinstance(victim, ClassifierVictim):
            return
        known = frozenset(letters(text) for side in sides for text in side.texts)
        seen = {name: int(shared(victim.data.splits[name].texts, known).sum()) for name in SEEN}
        if any(seen.values()):
            counts = " and ".join(f"{count} {name} reviews" for name, count in seen.items())
            raise ValueError(
                f"{counts} of the model are texts of {self.path}: it knows their answers; train without them: "
                f"data.exclude={self.path}"
            )


def _numbers(names: Sequence[Any]) -> list[int] | list[str]:
    """What tells pairs apart as whole numbers, which sort as such; as texts where one is none."""
    try:
        return [int(str(name)) for name in names]
    except ValueError:
        return [str(name) for name in names]
