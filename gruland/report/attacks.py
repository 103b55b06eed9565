"""What attacks did to a study's models: every one by name, with intervals, tests on the same reviews, curves and flags.

:mod:`gruland.report.tables` has the paper's own tables of typing errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

from gruland.report import differences
from gruland.report.collect import Study
from gruland.report.figures import Picture, literal, picture
from gruland.report.tables import NOTHING, Row, Table, difference_table, number, percent, run_label
from gruland.runs import Run
from gruland.stats import LEVEL, Difference, crossed_interval, holm

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: A measure of a table: its key, its head, and whether it is printed in percent.
Measure = tuple[str, str, bool]
MEASURES: Sequence[Measure] = (
    ("clean_accuracy", "Clean\naccuracy", True),
    ("accuracy_under_attack", "Accuracy\nunder attack", True),
    ("success", "Success", True),
    ("queries_median", "Queries,\nmedian", False),
    ("words_changed", "Words\nchanged", True),
    ("similarity", "Similarity", False),
    ("calibration_clean", "ECE,\nclean", False),
    ("calibration_attacked", "ECE,\nattacked", False),
)
#: Those that have no greatest value; all others lie between 0 and 1.
COUNTS = ("queries_mean", "queries_median")
#: What a curve's budget is called.
BUDGETS = {
    "queries": "queries a review",
    "words_changed": "share of the words changed",
    "radius": "radius of the ball",
    "rate": "swaps as a share of the words",
    "edits": "certified edits of words",
    "deletions": "certified deletions of words",
    "insertions": "certified insertions of words",
}
#: The budgets of certificates, which nobody spends.
EDITS = ("edits", "deletions", "insertions")
#: How the names of the curves begin that noise has of each kind of swap: they share a panel.
BY_SWAP = "rate_"
_STYLES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 4)))


def blocks(study: Study) -> list[Table | Picture]:
    """Everything about a study's attacks that reports measures; nothing where none does."""
    found = [
        measured(study),
        certified(study),
        random(study),
        compared(study),
        between_trainings(study),
        *transfers(study),
        flagged(study),
    ]
    return [*(block for block in found if block is not None), *curves(study)]


def judged(study: Study) -> Iterator[tuple[Run, str, dict[str, Any]]]:
    """Each run, attack and entry of results.json with measures, the attacks of a kind together."""
    for name, entries in study.by_attack.items():
        for run, entry in entries.items():
            if "measures" in entry:
                yield run, name, entry


def measured(study: Study) -> Table | None:
    """The measures of every attack of every run, and their means over trainings."""
    rows = _rows(study, MEASURES)
    if not rows:
        return None
    return Table(
        f"{study.key}-attacks",
        "Every attack of every run",
        ["Attack, run", "Reviews", *(head for _, head, _ in MEASURES)],
        rows,
        [
            "Value [95% interval over the reviews]: Wilson’s for shares, the bootstrap’s otherwise; of several "
            "trainings the mean [Student’s t over the seeds].",
            "Success: of the reviews that were right, those that are wrong under attack. Queries: over the reviews "
            "that were right before, a text each, however many draws of the masks. Words changed and "
            "similarity (1 less the Levenshtein distance of the characters over the longer text’s length): where the "
            "attack reached its goal; of noise, transfer and contrast, which change every text, over all reviews.",
            "ECE: expected calibration error, 15 bins. Accuracy with dropout at test time: expected over fresh draws.",
            "Another checkpoint than the best is named behind the attack.",
            *study.attacked_otherwise(),
        ],
    )


def certified(study: Study) -> Table | None:
    """The shares of the reviews that are certified for so many edits, of every run, and their means over trainings."""
    keys = {key for _, _, entry in judged(study) for key in entry["measures"] if key.startswith("certified_")}
    shown = sorted((int(edits), key) for key in keys if (edits := key.removeprefix("certified_")).isdigit())
    heads = {
        key: f"{edits} edit{'s' * (edits != 1)}" if edits else "Right and\ncertified" for edits, key in shown
    }
    rows = _rows(study, [(key, head, True) for key, head in heads.items()])
    if not rows:
        return None
    return Table(
        f"{study.key}-certified",
        "Certified accuracy",
        ["Attack, run", "Reviews", *heads.values()],
        rows,
        [
            "The share of the reviews whose vote is right and provably stays so under any so many edits of words "
            "[Wilson’s 95% interval over the reviews]; of several trainings the mean [Student’s t over the seeds].",
            "It is of the vote over texts with words deleted at random, not of the model’s own prediction; see "
            "docs/robustness.md.",
            *study.attacked_otherwise(),
        ],
    )


def _rows(study: Study, measures: Sequence[Measure]) -> list[Row]:
    """A row for each attack and run with some of the measures, and for each attack and model of several trainings."""
    has_some = [
        (run, name, entry)
        for run, name, entry in judged(study)
        if any(key in entry["measures"] for key, *_ in measures)
    ]
    rows = [
        Row(
            f"{_title(name)}\n{run_label(run, study)}",
            [
                str(entry["reviews"]),
                *(_cell(entry["measures"].get(key), share) for key, _, share in measures),
            ],
        )
        for run, name, entry in has_some
    ]
    for name in dict.fromkeys(name for _, name, _ in has_some):
        alike = study.alike(name)
        for model in study.models:
            entries = [alike[run] for run in model.runs.values() if "measures" in alike.get(run, {})]
            if len(entries) > 1:
                cells = [_over_seeds(entries, key, share) for key, _, share in measures]
                head = f"{_title(name)}\n{model.label}, mean of {len(entries)} trainings"
                rows.append(Row(head, [NOTHING, *cells]))
    return rows


def _over_seeds(entries: Sequence[Mapping[str, Any]], key: str, share: bool) -> str:
    """A measure's mean over trainings, and of how many where some lack it."""
    values = [found["estimate"] for entry in entries if (found := entry["measures"].get(key))]
    if len(values) < 2:
        return NOTHING
    found = crossed_interval([[value] for value in values]).within(0, math.inf if key in COUNTS else 1)
    text = _cell({"estimate": found.estimate, "low": found.low, "high": found.high}, share)
    return text if len(values) == len(entries) else f"{text}, of {len(values)}"


def random(study: Study) -> Table | None:
    """How models with dropout at test time stand on draws that the attack did not see."""
    keys = (
        ("accuracy", "expected"),
        ("majority", "majority vote"),
        ("worst", "right in all"),
        ("loss", "loss"),
    )
    rows = []
    for run, name, entry in judged(study):
        if not entry.get("verdict", {}).get("draws"):  # a certificate judges votes of its own
            continue
        own = entry.get("own_draws") or {}
        cells = [
            f"{_cell(entry['verdict']['clean'][key], key != 'loss')}\n→ "
            f"{_cell(entry['verdict']['attacked'][key], key != 'loss')}"
            for key, _ in keys
        ]
        rows.append(
            Row(
                f"{_title(name)}\n{run_label(run, study)}",
                [
                    f"{entry['draws']} / {entry['verdict']['draws']}",
                    *cells,
                    _cell(own.get("success"), True),
                    _cell(own.get("success_fresh"), True),
                ],
            )
        )
    if not rows:
        return None
    return Table(
        f"{study.key}-random",
        "Dropout at test time under attack",
        [
            "Attack, run",
            "Draws: attack\n/ fresh",
            *(f"{head.capitalize()},\nclean → attacked" for _, head in keys),
            "Success on\nits own draws",
            "Success on\nfresh draws",
        ],
        rows,
        [
            "The attack takes the expectation over its draws of the masks (EOT); all accuracies are on fresh ones, the "
            "same for a review and for what became of it. The last two columns judge by the mean probability.",
        ],
    )


def compared(study: Study) -> Table | None:
    """Models against their references on the same reviews, under the same attack, seed by seed."""
    found: list[tuple[str, str, int, Difference]] = []
    alike = {name: study.alike(name) for name in study.by_attack}
    for model, reference in study.references.items():
        for seed in sorted(set(model.runs) & set(reference.runs)):
            pair = model.runs[seed], reference.runs[seed]
            for name, entries in alike.items():
                difference = _difference(*pair, name, entries)
                if difference is not None:
                    heads = f"{model.label}, seed {seed}\nless {reference.label}"
                    found.append((heads, _title(name), difference[0], difference[1]))
    corrected = holm([difference for *_, difference in found])
    rows = [
        Row(
            heads,
            [
                attack,
                str(reviews),
                differences.signed(difference.interval),
                differences.p_value(difference.p),
                differences.p_value(difference.corrected),
                _verdict(difference),
            ],
        )
        for (heads, attack, reviews, _), difference in zip(found, corrected, strict=True)
    ]
    if not rows:
        return None
    return Table(
        f"{study.key}-attacks-paired",
        "Accuracy under attack on the same reviews",
        ["Models", "Attack", "Reviews", "Difference\n[95% interval]", "p", "Corrected\np", "Says"],
        rows,
        [
            "p: McNemar’s exact test, or sign flips of the reviews’ differences where dropout is on; corrected for the "
            f"{len(rows)} tests of this table after Holm. A difference is called one where the corrected p is at most "
            f"{LEVEL}. It is one between these two trained models: the table over trainings says what other "
            "seeds would do.",
            *study.attacked_otherwise(),
        ],
    )


def between_trainings(study: Study) -> Table | None:
    """How kinds of models differ under each attack, paired by training seed."""
    quantities = []
    for name in study.by_attack:
        alike = study.alike(name)
        stood = {
            run: entry["measures"]["accuracy_under_attack"]["estimate"]
            for run, entry in alike.items()
            if "accuracy_under_attack" in entry.get("measures", {}) and not _reads_its_own(entry)
        }
        # An accuracy over draws of the masks is not held against one without.
        if len({alike[run].get("verdict", {}).get("draws", 0) > 0 for run in stood}) == 1:
            title = f"accuracy under {_title(name)}"
            quantities.append((differences.Quantity(name, title, "1", "", "better", "worse"), stood.get))
    rows = differences.between_models(study, quantities)
    if not any(differences.says_something(row, label) for row in rows for label in row.differences):
        return None
    how = [
        "The tests of two trained models on the same reviews above do not say what other trainings would do.",
        *study.attacked_otherwise(),
    ]
    key, title = f"{study.key}-attacks-trainings", "Accuracy under attack, over trainings"
    return difference_table(key, title, rows, how)


def _reads_its_own(entry: Mapping[str, Any]) -> bool:
    """Whether some of the replayed texts were made against this very model: they are not the same for another."""
    return any(source.get("own") for source in entry.get("sources", {}).values())


def _difference(a: Run, b: Run, name: str, alike: Mapping[Run, Any]) -> tuple[int, Difference] | None:
    """How many reviews both were attacked on, and the difference; None where that is not the same attack.

    Args:
        alike: the entries of the runs that met the same one.
    """
    entries = [alike.get(run, {}) for run in (a, b)]
    verdicts = [entry.get("verdict") for entry in entries]
    if None in verdicts or len({verdict["draws"] > 0 for verdict in verdicts}) > 1:
        return None
    if any(map(_reads_its_own, entries)):
        return None
    from gruland import sampling
    from gruland.attack.run import read_rights

    try:
        for run in (a, b):
            run.verified(f"attack/{name}")
        rights = [read_rights(run, name) for run in (a, b)]
    except (OSError, ValueError, KeyError):
        return None
    common = rights[0].index.intersection(rights[1].index)
    if len(common) < 2:
        return None
    return len(common), sampling.compare(*(found[common].to_numpy() for found in rights))


def _verdict(difference: Difference) -> str:
    if not difference.significant:
        return "not distinguishable"
    return "better" if difference.interval.estimate > 0 else "worse"


def transfers(study: Study) -> list[Table]:
    """How often the texts that turned one model turn the others, a table for each attack that replays some."""
    by_name: dict[str, list[tuple[Run, Mapping[str, Any]]]] = {}
    for run, name, entry in judged(study):
        if "sources" in entry:
            by_name.setdefault(name, []).append((run, entry["sources"]))
    return [_transfer(study, name, targets) for name, targets in by_name.items()]


def _transfer(study: Study, attack: str, targets: Sequence[tuple[Run, Mapping[str, Any]]]) -> Table:
    """A row for each source, a column for each target."""
    names = {run.path.name: run_label(run, study) for run in study.runs}
    sources = list(dict.fromkeys(name for _, found in targets for name in found))
    rows = [
        Row(
            names.get(source, source),
            [_cell((found.get(source) or {}).get("transfer"), True) for _, found in targets],
        )
        for source in sources
    ]
    return Table(
        f"{study.key}-transfer{f'-{attack}' if attack != 'transfer' else ''}",
        f"Texts made against one model, read to another: {_title(attack)}",
        ["Made against", *(run_label(run, study).replace(", seed", "\nseed") for run, _ in targets)],
        rows,
        [
            "Of the texts that turned the model of the row, the share that turns that of the column, over reviews that "
            "the latter gets right, paired by review; [Wilson’s 95% interval]. On the diagonal a model reads its own.",
        ],
    )


def flagged(study: Study) -> Table | None:
    """What makes an attack's numbers suspect."""
    rows = [
        Row(f"{_title(name)}\n{run_label(run, study)}", [f"{flag.replace('_', ' ')}: {sentence}"])
        for run, name, entry in judged(study)
        for flag, sentence in entry.get("flags", {}).items()
    ]
    if not rows:
        return None
    return Table(
        f"{study.key}-flags", "Suspicious numbers", ["Attack, run", "Flag"], rows, ["See docs/robustness.md."]
    )


def curves(study: Study) -> list[Picture]:
    """For each attack, the accuracy against what it may spend, a panel for each kind of budget."""
    pictures = []
    for attack in dict.fromkeys(name for _, name, _ in judged(study)):
        found = {
            run_label(run, study): {
                key: c for key, c in entry["curves"].items() if key in BUDGETS or key.startswith(BY_SWAP)
            }
            for run, name, entry in judged(study)
            if name == attack
        }
        found = {label: drawn for label, drawn in found.items() if drawn}
        if found:
            caption = (
                "Accuracy against what the attack may spend on a review; band: 95% interval over the reviews. A review "
                "on which more was spent counts as it was."
            )
            if all(set(drawn) <= set(EDITS) for drawn in found.values()):
                caption = (
                    "The share of the reviews whose vote is right and provably stays so under any so many edits; band: "
                    "95% interval over the reviews."
                )
            title = f"Accuracy under {_title(attack)}"
            key = f"{study.key}-curve-{attack}"
            pictures.append(picture(key, title, caption, partial(_draw, found)))
    return pictures


def _draw(found: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> Figure:
    from matplotlib.figure import Figure

    kinds = [kind for kind in BUDGETS if any(kind in drawn for drawn in found.values())]
    swaps = list(dict.fromkeys(key for drawn in found.values() for key in drawn if key.startswith(BY_SWAP)))
    count = len(kinds) + bool(swaps)
    figure = Figure(figsize=(1 + 3.6 * count, 3.2 + 0.18 * (len(found) + len(swaps))), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False, sharey=True)[0]
    if swaps:
        _draw_by_swap(panels[-1], found, swaps)
    for axes, kind in zip(panels[: len(kinds)], kinds, strict=True):
        for number_, (label, drawn) in enumerate(found.items()):
            if kind in drawn:
                curve, colour = drawn[kind], f"C{number_ % 10}"
                axes.plot(
                    curve["at"], curve["accuracy"], ".-", color=colour, label=literal(label), linewidth=1
                )
                axes.fill_between(
                    curve["at"], curve["low"], curve["high"], color=colour, alpha=0.12, linewidth=0
                )
        if kind == "queries":
            axes.set_xscale("log", base=2)
        axes.set_xlabel(BUDGETS[kind])
        axes.set_ylim(0, 1.02)
    panels[0].set_ylabel("accuracy")
    handles = {
        text: handle
        for axes in panels
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, fontsize=8)
    return figure


def _draw_by_swap(axes: Any, found: Mapping[str, Mapping[str, Any]], swaps: Sequence[str]) -> None:
    """A colour for each run, a style of line for each kind of swap."""
    for number_, drawn in enumerate(found.values()):
        for key, style in zip(swaps, cycle(_STYLES)):
            if key in drawn:
                at, accuracy = drawn[key]["at"], drawn[key]["accuracy"]
                axes.plot(at, accuracy, color=f"C{number_ % 10}", linestyle=style, linewidth=1)
    for key, style in zip(swaps, cycle(_STYLES)):
        axes.plot([], [], color="grey", linestyle=style, label=literal(_title(key.removeprefix(BY_SWAP))))
    axes.set_xlabel("swaps of one kind as a share of the words")
    axes.set_ylim(0, 1.02)


def _title(name: str) -> str:
    return name.replace("_", " ")


def _cell(value: Mapping[str, Any] | None, share: bool) -> str:
    """``54.0% [44.2, 63.4]``, or a number with three decimals."""
    if not value:
        return NOTHING
    text = percent(value["estimate"]) if share else _short(value["estimate"])
    low, high = value.get("low"), value.get("high")
    if low is None or high is None or abs(low) == float("inf"):
        return text
    ends = f"{100 * low:.1f}, {100 * high:.1f}" if share else f"{_short(low)}, {_short(high)}"
    return f"{text} [{ends}]"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 else number(value)
