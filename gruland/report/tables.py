"""The paper's tables with our figures beside its own, and the tables behind them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gruland.cells import Cell
from gruland.report import commands, paper
from gruland.report.collect import Run, Study, landscape_setting

SPLITS = ("train", "validation", "test")
NOT_RUN = "not run"
NOTHING = "–"


@dataclass(frozen=True)
class Row:
    """One row: its head, its cells (a newline parts two lines of a cell) and whether the paper printed it."""

    head: str
    cells: Sequence[str]
    printed: bool = False


@dataclass(frozen=True)
class Table:
    """A table and how its numbers were obtained.

    Args:
        key: the anchor on the page.
        columns: the heads, that of the row heads first.
        how: sentences; ``commands``: what to type for the same numbers.
    """

    key: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    how: Sequence[str]
    commands: Sequence[str] = field(default=())
    kind: str = "table"


def number(value: Any) -> str:
    """Three decimals, or a dash where there is no number."""
    return NOTHING if value is None else f"{float(value):.3f}"


def percent(value: Any) -> str:
    """``0.8123`` -> ``81.2%``."""
    return NOTHING if value is None else f"{float(value):.1%}"


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95% interval of the mean (Student’s t) of independent values; None for fewer than three."""
    from scipy.special import stdtrit  # the quantiles of Student's t; scipy.stats takes a second to import

    n = len(values)
    if n < 3:
        return None
    mean = math.fsum(values) / n
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    half = float(stdtrit(n - 1, 0.975)) * error
    return mean - half, mean + half


def over_seeds(scores: Sequence[dict[str, Any]], key: str = "loss") -> str:
    """One run: the value ± its standard error; several: each value, the mean, from three on its interval."""
    values = [float(score[key]) for score in scores if score.get(key) is not None]
    if not values:
        return NOTHING
    if len(values) == 1:
        error = scores[0].get(f"{key}_se")
        return number(values[0]) if error is None or math.isnan(error) else f"{values[0]:.3f} ± {error:.3f}"
    bounds = interval(values)
    mean = f"mean {math.fsum(values) / len(values):.3f}"
    return (
        ", ".join(map(number, values))
        + f"\n{mean}"
        + (f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else "")
    )


ONE_OR_MANY = (
    "One run: value ± its standard error over the reviews. Several: one value per seed and their mean, from "
    "three seeds on with its 95% interval [low, high] (Student’s t over the seeds)."
)

CHOICE = (
    "Our best: of each regularizer the cell with the run of least validation loss. Being chosen by it, its "
    "validation loss flatters it; the test loss had no part in the choice."
)


def shown_cells(study: Study) -> list[Cell]:
    """The paper's three models, run or not, then each regularizer's best cell where it is another."""
    return [*paper.MODELS, *(cell for cell in study.best.values() if cell not in paper.MODELS)]


def column(cell: Cell, study: Study) -> str:
    """A cell on two lines: its regularizer; its hidden units and why it is shown."""
    best = study.best.get(cell.regularizer) == cell
    why = ["the paper’s"] * (cell in paper.MODELS) + ["our best"] * best
    return f"{cell.method}\nH={cell.hidden_size}, {', '.join(why)}"


def losses(study: Study) -> Table:
    """Table 1."""
    cells = shown_cells(study)
    rows = [Row("Seeds", [_seeds(study.cells.get(cell, ())) for cell in cells])]
    for split in SPLITS:
        printed = [paper.TABLE_1.get(cell, {}).get(split, ()) for cell in cells]
        rows.append(
            Row(
                f"{split.capitalize()}, paper",
                [", ".join(map(number, values)) or NOTHING for values in printed],
                True,
            )
        )
        for when in ("best", "last"):
            as_paper = (when == "best") == (split == "validation")
            head = f"{split.capitalize()}, ours, {when} epoch{' *' if as_paper else ''}"
            rows.append(Row(head, [_ours(study, cell, when, split) for cell in cells]))
    return Table(
        f"{study.key}-table-1",
        "Table 1: mean train, validation and test loss",
        ["", *(column(cell, study) for cell in cells)],
        rows,
        [
            "Paper: its Table 1; several values are several trainings of the same model.",
            f"Ours: mean cross-entropy per review in nats, evaluation mode, whole split ({_counts(study)}).",
            "Best epoch: that of least validation loss, whose checkpoint is kept; last epoch: the end of "
            "training.",
            "* The paper does not say of which epoch its losses are. Train losses near 0, and test losses "
            "of about twice the validation losses of reviews drawn alike, fit the last epoch for train "
            "and test and the minimum over the epochs for validation: the rows with a star are the ones "
            "to compare.",
            ONE_OR_MANY,
            CHOICE,
        ],
        commands.training(study, cells),
    )


def _ours(study: Study, cell: Cell, when: str, split: str) -> str:
    runs = study.cells.get(cell)
    return over_seeds([run.scores(when, split) for run in runs]) if runs else NOT_RUN


def _seeds(runs: Sequence[Run]) -> str:
    return ", ".join(str(run.seed) for run in runs) or NOT_RUN


def _counts(study: Study) -> str:
    """``train 2,000, validation 1,000, test 1,000 reviews``, as the runs counted them."""
    counts = {s: sorted({run.scores("best", s).get("count") or 0 for run in study.runs}) for s in SPLITS}
    return ", ".join(f"{s} {' or '.join(f'{n:,}' for n in counts[s])}" for s in SPLITS) + " reviews"


def attacked(study: Study, cell: Cell) -> list[Run]:
    """The runs of a cell whose adversarial evaluation was done."""
    return [run for run in study.cells.get(cell, ()) if run.attack]


def _perturbed(runs: Sequence[Run], dropout: str = "plain", key: str = "loss") -> str:
    scores = [(run.attack or {})["scores"]["perturbed"].get(dropout) for run in runs]
    return over_seeds([score for score in scores if score], key) if runs else NOT_RUN


def adversarial(study: Study) -> Table:
    """Table 2."""
    cells = shown_cells(study)
    rows = []
    for cell in cells:
        runs = attacked(study, cell)
        texts = [
            over_seeds([(run.attack or {})["scores"][text]["plain"] for run in runs])
            for text in ("raw", "stripped")
        ]
        rows.append(
            Row(
                column(cell, study),
                [
                    number(paper.TABLE_2.get(cell)),
                    _perturbed(runs),
                    _perturbed(runs, key="accuracy"),
                    *(texts if runs else [NOT_RUN, NOT_RUN]),
                    _seeds(runs),
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
            f"Ours: the best checkpoint, evaluation mode without dropout, {_attack_setting(study)}.",
            ONE_OR_MANY,
        ],
        commands.measuring(
            "gruland.attack", "attack", [run for cell in cells for run in attacked(study, cell)]
        ),
    )


def test_time_dropout(study: Study) -> Table:
    """Table 3."""
    cells = [cell for cell in shown_cells(study) if cell.regularizer != "none"]
    rows = []
    for key, head in (("dropout", "With dropout at test time"), ("plain", "Without dropout at test time")):
        printed = [number(paper.TABLE_3.get(cell, {}).get(key)) for cell in cells]
        rows.append(Row(f"{head}, paper", printed, True))
        rows.append(Row(f"{head}, ours", [_perturbed(attacked(study, cell), key) for cell in cells]))
    averaged = [_perturbed(attacked(study, cell), "dropout", "loss_of_mean_probability") for cell in cells]
    rows.append(Row("Loss of the probability averaged over the draws", averaged))
    draws = sorted({score["draws"] for run in study.runs if (score := _dropout(run)) and score.get("draws")})
    return Table(
        f"{study.key}-table-3",
        "Table 3: adversarial loss with and without dropout at test time",
        ["", *(column(cell, study) for cell in cells)],
        rows,
        [
            "Paper: its Table 3; it does not say how many draws of the masks it averaged.",
            "Ours with dropout: masks as in training stay on in evaluation, drawn from a seed; the loss "
            f"is the mean over {' or '.join(map(str, draws)) or 'several'} draws. "
            f"{_attack_setting(study).capitalize()}.",
            "The last row averages the probabilities of the draws first, as a user of the defence would.",
            ONE_OR_MANY,
        ],
        commands.measuring(
            "gruland.attack", "attack", [run for cell in cells for run in attacked(study, cell)]
        ),
    )


def _dropout(run: Run) -> dict[str, Any] | None:
    return (run.attack or {}).get("scores", {}).get("perturbed", {}).get("dropout")


def _attack_setting(study: Study) -> str:
    attacks = [run.attack for run in study.runs if run.attack]
    if not attacks:
        return "on perturbed test reviews (no run has been attacked yet)"
    reviews = _one_or_many(attack.get("reviews") for attack in attacks)
    rates = [attack["achieved_rate"] for attack in attacks if attack.get("achieved_rate") is not None]
    low, high = min(rates, default=math.nan), max(rates, default=math.nan)
    changed = percent(low) if percent(low) == percent(high) else f"{percent(low)} to {percent(high)}"
    settings = [attack.get("settings") or {} for attack in attacks]
    asked, mode = (_one_or_many(s.get(key) for s in settings) for key in ("rate", "mode"))
    return f"on {reviews} test reviews, swaps at rate {asked} in mode {mode}, {changed} of the words changed"


def _one_or_many(values: Iterable[Any]) -> str:
    return " or ".join(sorted({str(value) for value in values}))


def robustness(study: Study) -> Table:
    """Each form of the texts of each attack, without and with dropout at test time, for every run attacked."""
    rows = [row for run in study.runs for name in run.attacks for row in _robustness_rows(run, name)]
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
            "Typing errors: raw are the reviews as they are; stripped: without HTML, special characters and numbers; "
            "perturbed: the stripped reviews with letters deleted and replaced by neighbours on the "
            "keyboard.",
            f"Best checkpoint of each run, {_attack_setting(study)}. Loss ± its standard error over the "
            "reviews. With dropout: mean over the draws; the same masks meet all forms of a review.",
        ],
    )


def _robustness_rows(run: Run, name: str) -> list[Row]:
    attack = run.attacks[name]
    forms = attack["scores"]
    rows = []
    for form, scores in forms.items():
        plain, dropout = scores["plain"], scores.get("dropout") or {}
        attacked = form == list(forms)[-1]
        rows.append(
            Row(
                _run_label(run),
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


def _run_label(run: Run) -> str:
    return f"{run.cell.label if run.cell else run.name}, seed {run.seed}"


def landscapes(study: Study, areas: dict[Run, float]) -> Table:
    """Figure 4 in numbers."""
    rows = [_landscape_row(run, area) for run, area in areas.items()]
    return Table(
        f"{study.key}-landscapes",
        "Figure 4 in numbers",
        [
            "Run",
            "Normalization",
            "Cells",
            "Reviews",
            "Loss at the\ncentre",
            "Least loss",
            "Greatest loss",
            "Area within 0.1\nof the least loss",
        ],
        rows,
        [
            f"Best checkpoint; {landscape_setting(areas)}. Normalized as named (filter: Li et al. 2018; tensor: the "
            "paper’s formula to the letter).",
            "Area: the share of the grid’s cells whose loss is at most 0.1 nats above the least on the grid, "
            "the paper’s “area of minimum loss” as a number. It changes with the seed of the directions.",
            "Cells: where some are interpolated, those that were evaluated come first.",
        ],
        commands.measuring("gruland.landscape", "landscape", list(areas)),
    )


def _landscape_row(run: Run, area: float) -> Row:
    landscape = run.results["landscape"]
    whole = [str(landscape.get(key, NOTHING)) for key in ("normalization", "cells", "reviews")]
    if landscape.get("interpolated"):
        whole[1] = f"{landscape['evaluated']} of {landscape['cells']}"
    values = [number(landscape.get(key)) for key in ("center_loss", "min_loss", "max_loss")]
    return Row(_run_label(run), [*whole, *values, percent(area)])


def all_runs(runs: Sequence[Run]) -> Table:
    """Every run found, the failed and unfinished ones with what went wrong."""
    return Table(
        "runs",
        "All runs",
        [
            "Run",
            "Seed",
            "Best epoch",
            "Train\nloss",
            "Validation\nloss",
            "Test\nloss",
            "Test\naccuracy",
            "Test\nF1",
            "Test loss,\nlast epoch",
            "Parameters",
            "Minutes",
        ],
        [_all_row(run) for run in runs],
        [
            "Losses, accuracy and F1 at the best epoch unless said otherwise; loss ± standard error over the "
            "reviews. Minutes: of training alone. The folder of a run has its every setting in config.yaml.",
        ],
    )


def _all_row(run: Run) -> Row:
    head = f"{run.experiment}/{run.name}"
    if run.status != "finished":
        return Row(head, [f"{run.status}: {run.error}"])
    training, model, test = (
        run.results.get("training") or {},
        run.results["model"],
        run.scores("best", "test"),
    )
    seconds = training.get("seconds")
    return Row(
        head,
        [
            str(run.seed),
            f"{training.get('best_epoch', NOTHING)} of {training.get('epochs', NOTHING)}",
            *(over_seeds([run.scores("best", split)]) for split in SPLITS),
            number(test.get("accuracy")),
            number(test.get("f1")),
            over_seeds([run.scores("last", "test")]),
            f"{model['parameters']:,}" if model.get("parameters") else NOTHING,
            NOTHING if seconds is None else f"{seconds / 60:.1f}",
        ],
    )
