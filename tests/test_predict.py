import subprocess
import sys

import pytest

from gruland.predict import predict


def test_labels_and_confidences(smoke_run):
    found = predict(smoke_run, ["A fine film.", "", "qqqq zzzzzzzz"])
    assert len(found) == 3
    for label, confidence in found:
        assert label in smoke_run.data.task.classes
        assert 0.5 <= confidence <= 1


def test_a_review_is_judged_alike_alone_and_among_others(smoke_run):
    reviews = ["A fine film with a good story.", "Dull.", "The plot was thin and I left early."]
    together = predict(smoke_run, reviews)
    for review, (label, confidence) in zip(reviews, together, strict=True):
        alone = predict(smoke_run, [review])[0]
        assert alone[0] == label
        assert alone[1] == pytest.approx(confidence, abs=1e-6)


def run(*arguments, text=None):
    command = [sys.executable, "-m", "gruland.predict", *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, text=True)


def test_the_command_reads_standard_input(smoke_run):
    done = run(smoke_run.path, text="A fine film.\n\nDull.\n")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2
    assert "%" in done.stdout


@pytest.mark.parametrize(("path", "message"), [("nowhere", "no run folder"), (None, "no reviews")])
def test_wrong_input(smoke_run, path, message):
    done = run(path or smoke_run.path, text="")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
