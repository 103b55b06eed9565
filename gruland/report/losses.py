"""Losses and accuracies: the paper's Table 1, every model, the choice of the best ones, every run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gruland.report import commands, differences, paper
from gruland.report.choice import validation_loss
from gruland.report.collect import Collection, Study
from gruland.report.columns import columns
from gruland.report.differences import Quantity
from gruland.report.models import RATE, REGULARIZER, UNITS, Model, head, scores
from gruland.report.tables import (
    NOT_RUN,
    NOTHING,
    ONE_OR_MANY,
    Row,
    Table,
    mean_of,
    number,
    over_seeds,
    seeds_of,
)
from gruland.runs import Run, guessing_loss

SPLITS = ("train", "validation", "test")

CHOICE = (
    "Our best: of each regularizer the model of least validation loss, the mean over its seeds. Being chosen by it, "
    "its validation loss flatters it; the test loss had no part in the choice."
)

LOSSES = (
    (Quantity("test_loss", "test loss, best epoch", "nats", "", "worse", "better"), ("best", "test", "loss")),
    (Quantity("test_accuracy", "test accuracy, best epoch", "1", "", "better", "worse"), ("best", "test", "accuracy")),
    (Quantity("last_test_loss", "test loss, last epoch", "nats", "", "worse", "better"), ("last", "test", "loss")),
)  # fmt: skip


def table_1(study: Study) -> Table:
    """The paper's Table 1: losses of the three splits."""
    shown = columns(study)
    rows = [Row("Seeds", [seeds_of(column.runs) for column in shown])]
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


def _ours(runs: Sequence[Run], when: str, split: str) -> str:
    return over_seeds([scores(run, when, split) for run in runs]) if runs else NOT_RUN


def _counts(study: Study) -> str:
    """``train 2,000, validation 1,000, test 1,000 reviews``, as the runs counted them."""
    counts = {s: sorted({scores(run, "best", s).get("count") or 0 for run in study.runs}) for s in SPLITS}
    return ", ".join(f"{s} {' or '.join(f'{n:,}' for n in counts[s])}" for s in SPLITS) + " reviews"


def compared_losses(study: Study) -> list[differences.Row]:
    """The test losses and accuracies of models that share training seeds with what they are compared with."""
    return differences.between_models(
        study, [(quantity, lambda run, at=at: scores(run, *at[:2]).get(at[2])) for quantity, at in LOSSES]
    )


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
            mean_of(model.values("best", "test", "accuracy"), share=True),
            "; ".join(notes),
        ],
    )


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


def warn(run: Run) -> str:
    """What is wrong with a finished run's numbers; empty where nothing is."""
    loss, guess = scores(run, "best", "validation")["loss"], guessing_loss(run.results)
    if not math.isfinite(loss):
        return "warning: diverged, the validation loss is no number"
    if guess is not None and loss >= guess:
        what = "diverged" if loss > 10 * guess else "learned nothing"
        return f"warning: {what}, guessing has a loss of {guess:.3f}"
    return ""


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
