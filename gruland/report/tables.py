"""The paper's tables with our figures beside its own, and the tables behind them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gruland.report import commands, differences, paper
from gruland.report.choice import validation_loss
from gruland.report.collect import (
    RATE,
    REGULARIZER,
    UNITS,
    Collection,
    Model,
    Place,
    Study,
    attacks,
    head,
    landscape_setting,
    method,
    scores,
    typing_errors,
)
from gruland.report.differences import Quantity
from gruland.runs import Run
from gruland.stats import Interval, crossed_interval

SPLITS = ("train", "validation", "test")
NOT_RUN = "not run"
NOTHING = "–"
#: Differences of one pair of trainings that a table lists.
MOST_UNTESTED = 3


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


def over_seeds(found: Sequence[dict[str, Any]], key: str = "loss") -> str:
    """One run: the value ± its standard error; several: each value, the mean, from three on its interval."""
    values = [float(score[key]) for score in found if score.get(key) is not None]
    if not values:
        return NOTHING
    if len(values) == 1:
        error = found[0].get(f"{key}_se")
        return number(values[0]) if error is None or math.isnan(error) else f"{values[0]:.3f} ± {error:.3f}"
    text = f"{', '.join(map(number, values))}\nmean {math.fsum(values) / len(values):.3f}"
    if len(values) < 3:
        return text
    bounds = crossed_interval([[value] for value in values])
    return f"{text} [{bounds.low:.3f}, {bounds.high:.3f}]"


ONE_OR_MANY = (
    "One run: value ± its standard error over the reviews. Several: one value per seed and their mean, from "
    "three seeds on with its 95% interval [low, high] (Student’s t over the seeds)."
)

CHOICE = (
    "Our best: of each regularizer the model of least validation loss, the mean over its seeds. Being chosen by it, "
    "its validation loss flatters it; the test loss had no part in the choice."
)


@dataclass(frozen=True)
class Column:
    """A model that the tables show: one of the paper's, trained or not, or a best one.

    Attributes:
        model: None where it was not trained.
    """

    place: Place
    model: Model | None
    best: bool

    @property
    def label(self) -> str:
        """On two lines: the regularizer; the hidden units, other settings and why it is shown."""
        why = ["the paper’s"] * (self.place in paper.MODELS) + ["our best"] * self.best
        setting = self.model.setting if self.model else f"H={self.place[2]}"
        named = self.model.method if self.model else method(*self.place[:2])
        return f"{named}\n{', '.join([setting, *why])}"

    @property
    def runs(self) -> list[Run]:
        return list(self.model.runs.values()) if self.model else []


def columns(study: Study) -> list[Column]:
    """The paper's three models, then each regularizer's best one where it is another."""
    best = study.best_models
    papers = [(place, study.at(place)) for place in paper.MODELS]
    shown = [Column(place, model, model in best) for place, model in papers]
    return shown + [
        Column(model.place, model, True) for model in best if model not in [column.model for column in shown]
    ]


def losses(study: Study) -> Table:
    """Table 1."""
    shown = columns(study)
    rows = [Row("Seeds", [_seeds(column.runs) for column in shown])]
    for split in SPLITS:
        printed = [paper.TABLE_1.get(column.place, {}).get(split, ()) for column in shown]
        values = [", ".join(map(number, values)) or NOTHING for values in printed]
        rows.append(Row(f"{split.capitalize()}, paper", values, True))
        for when in ("best", "last"):
            as_paper = (when == "best") == (split == "validation")
            first = f"{split.capitalize()}, ours, {when} epoch{' *' if as_paper else ''}"
            rows.append(Row(first, [_ours(column.runs, when, split) for column in shown]))
    return Table(
        f"{study.key}-table-1",
        "Table 1: mean train, validation and test loss",
        ["", *(column.label for column in shown)],
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
        commands.training(
            study, [column.place if column.model is None else column.model for column in shown]
        ),
    )


LOSSES = (
    (Quantity("test_loss", "test loss, best epoch", "nats", "", "worse", "better"), ("best", "test", "loss")),
    (Quantity("test_accuracy", "test accuracy, best epoch", "1", "", "better", "worse"), ("best", "test", "accuracy")),
    (Quantity("last_test_loss", "test loss, last epoch", "nats", "", "worse", "better"), ("last", "test", "loss")),
)  # fmt: skip


def compared_losses(study: Study) -> list[differences.Row]:
    """The test losses and accuracies of models that share training seeds with what they are compared with."""
    return _compared(
        study, [(quantity, lambda run, at=at: scores(run, *at[:2]).get(at[2])) for quantity, at in LOSSES]
    )


ADVERSARIAL = (
    (Quantity("adversarial_loss", "adversarial loss", "nats", "", "worse", "better"), "loss"),
    (Quantity("adversarial_accuracy", "adversarial accuracy", "1", "", "better", "worse"), "accuracy"),
)


def compared_attacks(study: Study) -> list[differences.Row]:
    """The same of the losses on adversarial reviews."""

    def score(run: Run, key: str) -> Any:
        attack = typing_errors(run)
        return attack["scores"]["perturbed"]["plain"].get(key) if attack else None

    return _compared(
        study, [(quantity, lambda run, key=key: score(run, key)) for quantity, key in ADVERSARIAL]
    )


def _compared(study: Study, quantities: Iterable[tuple[Quantity, Any]]) -> list[differences.Row]:
    """Rows of those models that share a training seed with their reference."""
    measured = []
    for quantity, read in quantities:
        found = {
            model: {
                seed: [float(value)] for seed, run in model.runs.items() if (value := read(run)) is not None
            }
            for model in study.models
        }
        measured.append((quantity, {model.label: values for model, values in found.items() if values}))
    pairs = {
        model.label: reference.label
        for model, reference in study.references.items()
        if set(model.runs) & set(reference.runs)
    }
    return differences.rows(measured, pairs)


def difference_table(key: str, title: str, rows: Sequence[differences.Row]) -> Table | None:
    """Each difference with its interval, its test and what it says; None where there is no difference.

    More than :data:`MOST_UNTESTED` models with one training in common with their reference are counted below the table:
    nothing can be said of their differences.
    """
    tests = differences.count_tests(rows)
    every = list(dict.fromkeys(label for row in rows for label in row.differences))
    told = [label for label in every if any(differences.says_something(row, label) for row in rows)]
    labels = every if len(every) - len(told) <= MOST_UNTESTED else told
    lines = [
        Row(
            f"{label}\nless {row.references[label]}" if first else "",
            [
                f"{row.quantity.title}{f', {row.quantity.unit}' if row.quantity.unit not in ('', '1') else ''}",
                differences.signed(found.interval),
                str(found.trainings),
                differences.p_value(found.p),
                differences.p_value(found.corrected),
                row.verdict(label, tests) or NOTHING,
            ],
        )
        for label in labels
        for first, (row, found) in _first(
            [(row, row.differences[label]) for row in rows if label in row.differences]
        )
    ]
    heads = [
        "Models",
        "Measure",
        "Difference\n[95% interval]",
        "Paired\ntrainings",
        "p",
        "Corrected\np",
        "Says",
    ]
    how = differences.remark(rows)
    if silent := len(every) - len(labels):
        how = [*how, f"Left out: {silent} with one training in common with what they are compared with."]
    return Table(key, title, heads, lines, how) if lines else None


def _first(items: Sequence[Any]) -> Iterable[tuple[bool, Any]]:
    return ((place == 0, item) for place, item in enumerate(items))


def all_models(study: Study) -> Table:
    """A row for each model, a column for each setting in which they differ."""
    others = list(dict.fromkeys(key for model in study.models for key in model.others))
    factors = [REGULARIZER, RATE, UNITS, *others]
    rows = [_model_row(model, others, study) for model in study.models]
    return Table(
        f"{study.key}-models",
        "Every model",
        [*(head(factor).capitalize() if factor not in others else head(factor) for factor in factors), "Seeds",
         "Validation\nloss", "Test\nloss", "Test\naccuracy", ""],
        rows,
        [
            "At the best epoch; of several seeds the mean, from three on with its 95% interval. Best: of its "
            "regularizer, by validation loss.",
        ],
    )  # fmt: skip


def _model_row(model: Model, others: Sequence[str], study: Study) -> Row:
    notes = ["best"] * (model in study.best_models) + [
        warning for warning in dict.fromkeys(map(warn, model.runs.values())) if warning
    ]
    return Row(
        model.regularizer,
        [
            f"{model.rate:g}",
            str(model.hidden_size),
            *(str(model.others.get(key, NOTHING)) for key in others),
            ", ".join(map(str, model.runs)),
            mean_of(model.values("best", "validation")),
            mean_of(model.values("best", "test")),
            mean_of(model.values("best", "test", "accuracy")),
            "; ".join(notes),
        ],
    )


def mean_of(values: dict[int, float]) -> str:
    """The mean over the seeds, from three on with its interval."""
    if not values:
        return NOTHING
    found: Interval = crossed_interval([[value] for value in values.values()])
    return (
        number(found.estimate)
        if len(values) < 3
        else f"{found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}]"
    )


def warn(run: Run) -> str:
    """What is wrong with a finished run's numbers; empty where nothing is."""
    loss, guess = scores(run, "best", "validation")["loss"], guessing_loss(run.results)
    if not math.isfinite(loss):
        return "warning: diverged, the validation loss is no number"
    if guess is not None and loss >= guess:
        what = "diverged" if loss > 10 * guess else "learned nothing"
        return f"warning: {what}, guessing has a loss of {guess:.3f}"
    return ""


def guessing_loss(results: dict[str, Any]) -> float | None:
    """The loss of who gives every class its share of the training reviews; None where that is not known.

    Two equal classes: ln 2 = 0.693.
    """
    counts = ((results.get("data") or {}).get("class_counts") or {}).get("train")
    values = list(counts.values()) if isinstance(counts, dict) else counts
    if (
        not isinstance(values, list)
        or not all(isinstance(n, int) and n >= 0 for n in values)
        or not sum(values)
    ):
        return None
    shares = [n / sum(values) for n in values if n]
    return -math.fsum(share * math.log(share) for share in shares) or None


def choices(study: Study) -> Table | None:
    """The choice of the best models repeated with each seed alone; None where no seed has two models to choose from."""
    rows = []
    for choice in study.best.values():
        if len(choice.rivals) < 2 or len(choice.by_seed) < 2:
            continue
        over = f"seeds {', '.join(map(str, choice.seeds))}"
        rows.append(
            Row(
                f"{choice.model.title}, {over}",
                [choice.model.label, number(validation_loss(choice.model, choice.seeds)), NOTHING, NOTHING],
            )
        )
        for seed, model in choice.by_seed.items():
            own = validation_loss(model, [seed])
            others = [other for other in model.runs if other != seed]
            rest = validation_loss(model, others) if others else math.nan
            gap = number(rest - own) if math.isfinite(rest - own) else NOTHING
            rows.append(
                Row(
                    f"seed {seed} alone", [model.label, number(own), number(rest) if others else NOTHING, gap]
                )
            )
    if not rows:
        return None
    return Table(
        f"{study.key}-choice",
        "The choice of the best model, seed by seed",
        ["Chosen by", "Model", "Its validation\nloss there", "On its\nother seeds", "Flattered\nby"],
        rows,
        [
            "The first line of each regularizer is the choice that counts: by the mean over the seeds. Below it, what "
            "one seed alone would have chosen, how well it looked there, and its mean on the seeds that had no part "
            "in that choice. Where it is worse there, the choice flattered it by so much.",
        ],
    )  # fmt: skip


def _ours(runs: Sequence[Run], when: str, split: str) -> str:
    return over_seeds([scores(run, when, split) for run in runs]) if runs else NOT_RUN


def _seeds(runs: Sequence[Run]) -> str:
    return ", ".join(str(run.results["seed"]) for run in runs) or NOT_RUN


def _counts(study: Study) -> str:
    """``train 2,000, validation 1,000, test 1,000 reviews``, as the runs counted them."""
    counts = {s: sorted({scores(run, "best", s).get("count") or 0 for run in study.runs}) for s in SPLITS}
    return ", ".join(f"{s} {' or '.join(f'{n:,}' for n in counts[s])}" for s in SPLITS) + " reviews"


def attacked(column: Column) -> list[Run]:
    """The runs of a model whose adversarial evaluation was done."""
    return [run for run in column.runs if typing_errors(run)]


def _perturbed(runs: Sequence[Run], dropout: str = "plain", key: str = "loss") -> str:
    found = [(typing_errors(run) or {})["scores"]["perturbed"].get(dropout) for run in runs]
    return over_seeds([score for score in found if score], key) if runs else NOT_RUN


def adversarial(study: Study) -> Table:
    """Table 2."""
    shown = columns(study)
    rows = []
    for column in shown:
        runs = attacked(column)
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
        commands.measuring("gruland.attack", "attack", [run for column in shown for run in attacked(column)]),
    )


def test_time_dropout(study: Study) -> Table:
    """Table 3."""
    shown = [column for column in columns(study) if column.place[0] != "none"]
    rows = []
    for key, row in (("dropout", "With dropout at test time"), ("plain", "Without dropout at test time")):
        printed = [number(paper.TABLE_3.get(column.place, {}).get(key)) for column in shown]
        rows.append(Row(f"{row}, paper", printed, True))
        rows.append(Row(f"{row}, ours", [_perturbed(attacked(column), key) for column in shown]))
    averaged = [_perturbed(attacked(column), "dropout", "loss_of_mean_probability") for column in shown]
    rows.append(Row("Loss of the probability averaged over the draws", averaged))
    draws = sorted({score["draws"] for run in study.runs if (score := _dropout(run)) and score.get("draws")})
    return Table(
        f"{study.key}-table-3",
        "Table 3: adversarial loss with and without dropout at test time",
        ["", *(column.label for column in shown)],
        rows,
        [
            "Paper: its Table 3; it does not say how many draws of the masks it averaged.",
            "Ours with dropout: masks as in training stay on in evaluation, drawn from a seed; the loss "
            f"is the mean over {' or '.join(map(str, draws)) or 'several'} draws. "
            f"{_attack_setting(study).capitalize()}.",
            "The last row averages the probabilities of the draws first, as a user of the defence would.",
            ONE_OR_MANY,
        ],
        commands.measuring("gruland.attack", "attack", [run for column in shown for run in attacked(column)]),
    )


def _dropout(run: Run) -> dict[str, Any] | None:
    return (typing_errors(run) or {}).get("scores", {}).get("perturbed", {}).get("dropout")


def _attack_setting(study: Study) -> str:
    found = [attack for run in study.runs if (attack := typing_errors(run))]
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


def robustness(study: Study) -> Table:
    """Each form of the texts of each attack, without and with dropout at test time, for every run attacked."""
    rows = [row for run in study.runs for name in attacks(run) for row in _robustness_rows(run, name, study)]
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


def run_label(run: Run, study: Study) -> str:
    """A run's model and seed."""
    label = next(model.label for model in study.models if run in model.runs.values())
    return f"{label}, seed {run.results['seed']}"


def landscapes(study: Study, areas: dict[Run, float | None], radius: float) -> Table:
    """Figure 4 in numbers.

    Args:
        areas: the flat area of each run's surface, see :mod:`gruland.landscape.measures.area`; None where it has none.
        radius: of the disc.
    """
    rows = [_landscape_row(run, area, study) for run, area in areas.items()]
    for model in study.models:
        own = {
            run.results["seed"]: area
            for run, area in areas.items()
            if run in model.runs.values() and area is not None
        }
        if len(own) > 1:
            interval = crossed_interval([[area] for area in own.values()])
            rows.append(Row(f"{model.label}, mean of {len(own)} trainings", [*[NOTHING] * 6, str(interval)]))
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
            "Flat area\n(0.1 nats)",
        ],
        rows,
        [
            f"Best checkpoint; {landscape_setting(areas)}. Normalized as named (filter: Li et al. 2018; tensor: the "
            "paper’s formula to the letter).",
            f"Flat area: the share of the disc of radius {radius:g} around the trained weights in which the loss is at "
            "most 0.1 nats above theirs, the paper’s “area of minimum loss” as a number. One plane of one training "
            "says little of a model: python -m gruland.landscape compare gives it an interval over trainings "
            "and planes.",
            "Cells: where some are interpolated, those that were evaluated come first.",
        ],
        commands.measuring("gruland.landscape", "landscape", list(areas)),
    )


def _landscape_row(run: Run, area: float | None, study: Study) -> Row:
    landscape = run.results["landscape"]
    whole = [str(landscape.get(key, NOTHING)) for key in ("normalization", "cells", "reviews")]
    if landscape.get("interpolated"):
        whole[1] = f"{landscape['evaluated']} of {landscape['cells']}"
    values = [number(landscape.get(key)) for key in ("center_loss", "min_loss", "max_loss")]
    return Row(run_label(run, study), [*whole, *values, number(area)])


def all_runs(collection: Collection) -> Table:
    """Every run found; those that are left out with why."""
    rows = [_all_row(run) for run in collection.runs if run.path not in collection.left_out]
    rows += [Row(f"{path.parent.name}/{path.name}", [why]) for path, why in collection.left_out.items()]
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
            "",
        ],
        sorted(rows, key=lambda row: row.head),
        [
            "Losses, accuracy and F1 at the best epoch unless said otherwise; loss ± standard error over the "
            "reviews. Minutes: of training alone. The folder of a run has its every setting in config.yaml.",
        ],
    )


def _all_row(run: Run) -> Row:
    results = run.results
    training, model, test = (
        results.get("training") or {},
        results.get("model") or {},
        scores(run, "best", "test"),
    )
    seconds = training.get("seconds")
    return Row(
        f"{results['experiment']}/{run.path.name}",
        [
            str(results["seed"]),
            f"{training.get('best_epoch', NOTHING)} of {training.get('epochs', NOTHING)}",
            *(over_seeds([scores(run, "best", split)]) for split in SPLITS),
            number(test.get("accuracy")),
            number(test.get("f1")),
            over_seeds([scores(run, "last", "test")]),
            f"{model['parameters']:,}" if model.get("parameters") else NOTHING,
            NOTHING if seconds is None else f"{seconds / 60:.1f}",
            warn(run),
        ],
    )
