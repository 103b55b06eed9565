"""Losses on reviews with typing errors: the paper's Tables 2 and 3, and every run's."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from typing import Any

from gruland.report import commands, differences, paper
from gruland.report.collect import TYPING_ERRORS, Study, attacks, typing_errors
from gruland.report.columns import Column, columns
from gruland.report.differences import Quantity
from gruland.report.tables import (
    NOT_RUN,
    NOTHING,
    ONE_OR_MANY,
    Row,
    Table,
    number,
    over_seeds,
    percent,
    run_label,
    seeds_of,
)
from gruland.runs import Run

ADVERSARIAL = (
    (Quantity("adversarial_loss", "adversarial loss", "nats", "", "worse", "better"), "loss"),
    (Quantity("adversarial_accuracy", "adversarial accuracy", "1", "", "better", "worse"), "accuracy"),
)


def table_2(study: Study) -> Table:
    """The paper's Table 2: losses on adversarial reviews."""
    shown, alike = columns(study), study.alike(TYPING_ERRORS)
    rows = []
    for column in shown:
        runs = attacked(column, alike)
        texts = [
            over_seeds([(typing_errors(run) or {})["scores"][text]["plain"] for run in runs])
            for text in ("raw", "stripped")
        ]
        rows.append(
            Row(
                column.label,
                [
                    number(paper.TABLE_2.get(column.place)),
                    _perturbed(runs),
                    _perturbed(runs, key="accuracy"),
                    *(texts if runs else [NOT_RUN, NOT_RUN]),
                    seeds_of(runs),
                ],
            )
        )
    return Table(
        f"{study.key}-table-2",
        "Table 2: mean loss on adversarial reviews",
        ["", "Paper", "Ours", "Ours,\naccuracy", "Ours,\nraw reviews", "Ours,\nstripped reviews", "Seeds"],
        rows,
        [
            "Paper: its Table 2, which names no number of hidden units; taken to be the models of Table 1.",
            f"Ours: the best checkpoint, evaluation mode without dropout, {_setting(alike.values())}.",
            *study.attacked_otherwise(TYPING_ERRORS),
            ONE_OR_MANY,
        ],
        _commands(shown, alike),
    )


def table_3(study: Study) -> Table:
    """The paper's Table 3: the same with dropout at test time."""
    shown, alike = (
        [column for column in columns(study) if column.place[0] != "none"],
        study.alike(TYPING_ERRORS),
    )
    rows = []
    for key, row in (("dropout", "With dropout at test time"), ("plain", "Without dropout at test time")):
        printed = [number(paper.TABLE_3.get(column.place, {}).get(key)) for column in shown]
        rows.append(Row(f"{row}, paper", printed, True))
        rows.append(Row(f"{row}, ours", [_perturbed(attacked(column, alike), key) for column in shown]))
    averaged = [
        _perturbed(attacked(column, alike), "dropout", "loss_of_mean_probability") for column in shown
    ]
    rows.append(Row("Loss of the probability averaged over the draws", averaged))
    draws = sorted({score["draws"] for run in alike if (score := _dropout(run)) and score.get("draws")})
    return Table(
        f"{study.key}-table-3",
        "Table 3: adversarial loss with and without dropout at test time",
        ["", *(column.label for column in shown)],
        rows,
        [
            "Paper: its Table 3; it does not say how many draws of the masks it averaged.",
            "Ours with dropout: masks as in training stay on in evaluation, drawn from a seed; the loss "
            f"is the mean over {' or '.join(map(str, draws)) or 'several'} draws. "
            f"{_setting(alike.values()).capitalize()}.",
            "The last row averages the probabilities of the draws first, as a user of the defence would.",
            *study.attacked_otherwise(TYPING_ERRORS),
            ONE_OR_MANY,
        ],
        _commands(shown, alike),
    )


def robustness(study: Study) -> Table:
    """Each form of the texts of each attack, without and with dropout at test time, for every run attacked."""
    rows = [row for run in study.runs for name in attacks(run) for row in _robustness_rows(run, name, study)]
    of_typing_errors = [
        "Typing errors: raw are the reviews as they are; stripped: without HTML, special characters and numbers; "
        "perturbed: the stripped reviews with letters deleted and replaced by neighbours on the keyboard, "
        f"{_setting(entry for run in study.runs if (entry := typing_errors(run)))}.",
    ]
    return Table(
        f"{study.key}-robustness",
        "Robustness of every run",
        [
            "Run",
            "Attack",
            "Reviews",
            "Words\nchanged",
            "Loss",
            "Accuracy",
            "Loss with\ndropout",
            "Accuracy with\ndropout",
            "Loss of mean\nprobability",
        ],
        rows,
        [
            *(of_typing_errors if any(map(typing_errors, study.runs)) else []),
            "Loss ± its standard error over the reviews. With dropout: mean over the draws; the same masks meet all "
            "forms of a review. Another checkpoint than the best is named behind the attack.",
        ],
    )


def _robustness_rows(run: Run, name: str, study: Study) -> list[Row]:
    attack = attacks(run)[name]
    forms = attack["scores"]
    rows = []
    for form, measured in forms.items():
        plain, dropout = measured["plain"], measured.get("dropout") or {}
        attacked = form == list(forms)[-1]
        rows.append(
            Row(
                run_label(run, study),
                [
                    name.replace("_", " "),
                    form,
                    percent(attack.get("achieved_rate")) if attacked else NOTHING,
                    over_seeds([plain]),
                    number(plain.get("accuracy")),
                    over_seeds([dropout]),
                    number(dropout.get("accuracy")),
                    number(dropout.get("loss_of_mean_probability")),
                ],
            )
        )
    return rows


def attacked(column: Column, alike: Container[Run]) -> list[Run]:
    """The runs of a model that met the paper's attack, of those that met the same."""
    return [run for run in column.runs if run in alike]


def _commands(shown: Iterable[Column], alike: Container[Run]) -> list[str]:
    runs = [run for column in shown for run in attacked(column, alike)]
    return commands.measuring("gruland.attack", "attack", runs)


def compared_attacks(study: Study) -> list[differences.Row]:
    """The same of the losses on adversarial reviews, of the runs that met the same attack."""
    alike = study.alike(TYPING_ERRORS)

    def score(run: Run, key: str) -> Any:
        return alike[run]["scores"]["perturbed"]["plain"].get(key) if run in alike else None

    return differences.between_models(
        study, [(quantity, lambda run, key=key: score(run, key)) for quantity, key in ADVERSARIAL]
    )


def _perturbed(runs: Sequence[Run], dropout: str = "plain", key: str = "loss") -> str:
    found = [(typing_errors(run) or {})["scores"]["perturbed"].get(dropout) for run in runs]
    return over_seeds([score for score in found if score], key) if runs else NOT_RUN


def _dropout(run: Run) -> dict[str, Any] | None:
    return (typing_errors(run) or {}).get("scores", {}).get("perturbed", {}).get("dropout")


def _setting(entries: Iterable[dict[str, Any]]) -> str:
    found = list(entries)
    if not found:
        return "on perturbed test reviews (no run has been attacked yet)"
    reviews = _one_or_many(attack.get("reviews") for attack in found)
    rates = [attack["achieved_rate"] for attack in found if attack.get("achieved_rate") is not None]
    low, high = min(rates, default=math.nan), max(rates, default=math.nan)
    changed = percent(low) if percent(low) == percent(high) else f"{percent(low)} to {percent(high)}"
    settings = [attack.get("settings") or {} for attack in found]
    asked, mode = (_one_or_many(s.get(key) for s in settings) for key in ("rate", "mode"))
    return f"on {reviews} test reviews, swaps at rate {asked} in mode {mode}, {changed} of the words changed"


def _one_or_many(values: Iterable[Any]) -> str:
    return " or ".join(sorted({str(value) for value in values}))
