"""Read reviews, print their sentiment with the model's confidence.

python -m gruland.predict RUN "A fine film." "Dull from start to end."
python -m gruland.predict RUN < reviews.txt        one review a line
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gruland.exits import one_line_errors
from gruland.terminal import visible

if TYPE_CHECKING:
    from gruland.runs import Run


#: Words of a review; more, where the run reads whole reviews, are a mistake.
LONGEST = 200_000


def predict(run: Run, reviews: Sequence[str]) -> list[tuple[str, float] | None]:
    """The likeliest class of each review and its probability; None for a review without a word.

    For a multilabel task: all classes of at least 0.5, joined, and the least of their probabilities.

    Raises:
        ValueError: a review of more than :data:`LONGEST` words, where the run does not cut them.
    """
    from gruland.data import words_of

    clean, cut = run.config.data.get("clean", "none"), run.config.data.get("max_length")
    for review in reviews:
        if cut is None and review.count(" ") > LONGEST:  # a whole file in one line, say: gigabytes of states
            raise ValueError(
                f"a review of {len(review):,} characters (it begins {review[:40]!r}) has over {LONGEST:,} words: "
                "cut it into reviews"
            )
    spoken = [review for review in reviews if words_of(review, clean, 1)]
    found = iter(_predict(run, spoken) if spoken else [])
    return [next(found) if words_of(review, clean, 1) else None for review in reviews]


def _predict(run: Run, reviews: Sequence[str]) -> list[tuple[str, float]]:
    from gruland.evaluation import logits

    task = run.model.task
    probabilities = task.probabilities(logits(run.model, run.encode(reviews)))
    if task.kind != "multilabel":
        best, index = probabilities.max(1)
        return [(task.classes[int(i)], float(p)) for i, p in zip(index, best, strict=True)]
    result = []
    for row in probabilities:
        chosen = [i for i, p in enumerate(row) if p >= 0.5]
        names = ", ".join(task.classes[i] for i in chosen) or "none"
        result.append((names, float(row[chosen].min()) if chosen else float(1 - row.max())))
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m gruland.predict", description=__doc__.split("\n")[0])
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument("reviews", nargs="*", help="reviews; without any, one a line from standard input")
    options = parser.parse_args(arguments)
    with one_line_errors():
        from gruland import runs

        run = runs.load(options.run)
        reviews = options.reviews or [line.rstrip("\r\n") for line in sys.stdin]
        if not reviews:
            raise ValueError("no reviews: give them as arguments, or one a line on standard input")
        for review, prediction in zip(reviews, predict(run, reviews), strict=True):
            start = visible(" ".join(review.split()))
            said = f"{visible(prediction[0])}  {prediction[1]:.1%}" if prediction else "no words"
            print(f"{said}  {start[:100]}{'…' if len(start) > 100 else ''}".rstrip())


if __name__ == "__main__":
    main()
