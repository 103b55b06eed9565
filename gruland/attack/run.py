"""Attacks on a run's checkpoint, their results and texts in its folder."""

from __future__ import annotations

import csv
import hashlib
import inspect
import json
import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from gruland.attack import flags
from gruland.attack.base import Attack, Outcome
from gruland.attack.victims import texts_of, victim_of
from gruland.config import instantiate
from gruland.errors import one_line
from gruland.files import atomic_path, file_hash, write_json

if TYPE_CHECKING:
    import pandas as pd

    from gruland.classifier import Classifier
    from gruland.data import TextDataModule
    from gruland.runs import Run

logger = logging.getLogger(__name__)


def build(config: DictConfig) -> dict[str, Attack]:
    """The attacks of an ``attack`` configuration, ``{name: {_target_: ..., settings}}``, by name.

    Raises:
        ValueError: a node that describes no attack, or settings that it refuses.
    """
    attacks: dict[str, Any] = {}
    for name, node in zip(map(str, config), config.values(), strict=True):
        if not re.fullmatch(r"\w[\w-]*", name) or not isinstance(node, Mapping) or not node.get("_target_"):
            raise ValueError(
                f"attack.{name}: expected attacks by name, each with a _target_, as conf/attack/typing_errors.yaml has"
            )
        attack = instantiate(node)
        if not callable(attack) or not is_dataclass(attack) or isinstance(attack, type):
            raise ValueError(
                f"attack.{name}._target_={node['_target_']}: expected a dataclass that can be called with a victim "
                "and texts, see gruland.attack.Attack"
            )
        attacks[name] = attack
    return attacks


def evaluate_run(
    run: Run,
    attacks: Mapping[str, Attack],
    *,
    model: Classifier | None = None,
    data: TextDataModule | None = None,
    which: str = "best",
) -> dict[str, dict[str, Any]]:
    """Attack a run's checkpoint; write attack/<name>/texts.csv and ``attacks[<name>]`` of results.json.

    An attack whose results and texts lie there already, of these settings and this checkpoint, is left out. Of another
    checkpoint than the best they lie under ``<name>-last`` or ``<name>-epoch-3``, beside those of the best.

    Args:
        run: its folder holds the checkpoint; it need not be finished.
        attacks: by the names that their results are to have.
        model: with the weights of the checkpoint, on the device where it is to run; None: loaded, on the CPU.
        data: the run's; None: loaded.
        which: the checkpoint, ``best``, ``last`` or ``epoch-N``.

    Returns:
        The entry of each attack.

    Raises:
        ImportError, ValueError: what an attack needs is not installed; attacks that cannot work.
    """
    entries = {}
    for name, attack in attacks.items():
        name = name if which == "best" else f"{name}-{which}"
        if is_done(run, name, attack, which):
            logger.info("%s: the attack %s is done already", run.path.name, name)
            entries[name] = run.results["attacks"][name]
            continue
        model, data = model or run.load_model(which), data or run.data
        # Before the search, during which its files may be edited.
        made_by, start = _identity(attack), time.monotonic()
        outcome = attack(victim_of(model, data, run.path.resolve()), texts_of(data))
        write_texts(outcome.columns, texts_path(run, name))
        entries[name] = {
            **made_by,
            **outcome.results,
            "checkpoint": _digest(run.checkpoint(which)),
            "texts": _digest(texts_path(run, name)),
            "seconds": round(time.monotonic() - start, 3),
        }
        every = flag_beaten({**run.results.get("attacks", {}), name: entries[name]}, run)
        run.update_results(attacks=every, wrote=f"attack/{name}")
    return {name: run.results["attacks"][name] for name in entries}


def is_done(run: Run, name: str, attack: Attack, which: str = "best") -> bool:
    """Whether the run's folder holds what this attack on its checkpoint gives, whole."""
    now = {
        **_identity(attack),
        "checkpoint": _digest(run.checkpoint(which)),
        "texts": _digest(texts_path(run, name)),
    }
    before = run.results.get("attacks", {}).get(name, {})
    return None not in now.values() and now.items() <= before.items()


def is_outdated(run: Run, name: str, attack: Attack) -> bool:
    """Whether the results of this attack were made by its code, or from its files, as they were before an edit."""
    made_by, before = _identity(attack), run.results.get("attacks", {}).get(name, {})
    same = all(before.get(key) == made_by[key] for key in ("class", "settings"))
    return same and not made_by.items() <= before.items()


def flag_beaten(entries: Mapping[str, dict[str, Any]], run: Run) -> dict[str, dict[str, Any]]:
    """The entries of a run's attacks, flagged where one by gradients is beaten by one that only asks."""
    rights = {}
    for name, entry in entries.items():
        if "knowledge" in entry:
            try:
                if _digest(texts_path(run, name)) != entry["texts"]:
                    raise ValueError(f"{texts_path(run, name)} is not what the attack wrote")
                rights[name] = read_rights(run, name)
            except (OSError, ValueError, KeyError, IndexError) as error:
                logger.warning(
                    "the attack %s is not compared, its texts cannot be read: %s", name, one_line(error)
                )
    found: dict[str, dict[str, Any]] = {}
    for which in {entry.get("checkpoint") for entry in entries.values()}:
        same = {name: entry for name, entry in entries.items() if entry.get("checkpoint") == which}
        beaten = flags.beaten_by_black_box(same, rights)
        for name, entry in same.items():
            raised = {
                key: text for key, text in entry.get("flags", {}).items() if key != "beaten_by_black_box"
            }
            if name in beaten:
                raised["beaten_by_black_box"] = beaten[name]
            found[name] = {**entry, "flags": raised} if "flags" in entry else entry
    return {name: found[name] for name in entries}


def read_rights(run: Run, name: str, form: int = -1) -> pd.Series[float]:
    """From a review's id to the share of draws in which the model is right about one of its forms in texts.csv.

    Args:
        form: -1 for the attacked one, 0 for the original.
    """
    import pandas as pd

    table = pd.read_csv(texts_path(run, name), usecols=lambda key: key == "id" or key.startswith("right_"))
    column = [key for key in table.columns if key != "id"][form]
    return table.set_index("id")[column].astype(float)


def texts_path(run: Run, name: str) -> Path:
    """Where the texts of an attack lie."""
    return run.path / "attack" / name / "texts.csv"


def write_outcome(outcome: Outcome, attack: Attack, folder: Path) -> None:
    """Write texts.csv and outcome.json, for a folder that is no run's."""
    write_texts(outcome.columns, folder / "texts.csv")
    write_json(folder / "outcome.json", {**_identity(attack), **outcome.results})


def write_texts(columns: Mapping[str, Sequence[Any]], path: Path) -> None:
    """Write a CSV file, whole or not at all."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _identity(attack: Attack) -> dict[str, Any]:
    """What an attack's outcome follows from, besides the run: the class, its settings, the files that it reads.

    An attack from elsewhere counts by its code, too.
    """
    kind: Any = type(attack)
    fields: Any = attack
    compared = {
        one.name for one in dataclass_fields(fields) if one.compare
    }  # a number of processes changes nothing
    own = {name: value for name, value in asdict(fields).items() if name in compared}
    settings = json.loads(json.dumps(own))  # as results.json holds them: lists for tuples
    read = {"inputs": fields.inputs()} if hasattr(fields, "inputs") else {}
    revised = {"revision": kind.revision} if hasattr(kind, "revision") else {}
    called = f"{kind.__module__}.{kind.__qualname__}"
    return {"class": called, "settings": settings, **revised, **read, **_code(kind)}


def _code(kind: type) -> dict[str, str]:
    """The checksum of the file that a class of the user's own lies in: it may be edited between two commands."""
    if kind.__module__.partition(".")[0] == "gruland":
        return {}
    try:
        return {"code": file_hash(Path(inspect.getfile(kind)))}
    except (OSError, TypeError):  # defined on the spot, as in a notebook
        return {}


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else None
