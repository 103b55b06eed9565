import io
import shutil

import pytest

from gruland import runs
from gruland.predict import main, predict


def test_labels_and_confidences(smoke_run):
    found = predict(smoke_run, ["A fine film.", "", "qqqq zzzzzzzz"])
    assert len(found) == 3
    assert found[1] is None, "there is no word to judge by"
    for label, confidence in (found[0], found[2]):
        assert label in smoke_run.data.task.classes
        assert 0.5 <= confidence <= 1


def test_a_review_is_judged_alike_alone_and_among_others(smoke_run):
    reviews = ["A fine film with a good story.", "Dull.", "The plot was thin and I left early."]
    together = predict(smoke_run, reviews)
    for review, (label, confidence) in zip(reviews, together, strict=True):
        alone = predict(smoke_run, [review])[0]
        assert alone[0] == label
        assert alone[1] == pytest.approx(confidence, abs=1e-6)


def run(path, text, monkeypatch, capsys):
    """What the command prints for lines on standard input, and its exit status."""
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    try:
        status = main([str(path)])
    except SystemExit as exit_:
        status = exit_.code
    return status, *capsys.readouterr()


def test_the_command_gives_a_line_for_each_line(smoke_run, monkeypatch, capsys):
    status, out, _ = run(smoke_run.path, "A fine film.\n\nDull.\n", monkeypatch, capsys)
    first, blank, last = out.splitlines()
    assert not status
    assert "%" in first
    assert blank == "no words"
    assert "%" in last


def test_a_review_without_words_is_said_to_have_none(smoke_run, capsys):
    main([str(smoke_run.path), "", " ... "])
    first, second = capsys.readouterr().out.splitlines()
    assert first == "no words"
    assert "%" in second, "punctuation has vectors, too"


def test_a_copied_run_predicts_without_its_training_data(smoke_run, tmp_path, monkeypatch):
    texts = ["A fine film.", "Dull from start to end."]
    copy = shutil.copytree(smoke_run.path, tmp_path / smoke_run.path.name)
    config = (copy / "config.yaml").read_text()
    assert "  path: null\n" in config
    changed = config.replace("  path: null\n", "  path: /gone/reviews.csv\n", 1)
    (copy / "config.yaml").write_text(changed.replace("cache_dir: null", "cache_dir: /nowhere/cache"))
    monkeypatch.setattr("gruland.data.TextDataModule.setup", None)
    assert predict(runs.load(copy), texts) == predict(smoke_run, texts)


@pytest.mark.parametrize(("path", "message"), [("nowhere", "no run folder"), (None, "no reviews")])
def test_wrong_input(smoke_run, monkeypatch, capsys, path, message):
    status, _, said = run(path or smoke_run.path, "", monkeypatch, capsys)
    assert status == 1
    assert message in said
    assert len(said.splitlines()) == 1


def test_a_file_given_as_one_review_is_refused(smoke_run, monkeypatch):
    monkeypatch.setitem(smoke_run.config.data, "max_length", None)
    with pytest.raises(ValueError, match=r"over 200,000 words: cut it into reviews") as refusal:
        predict(smoke_run, ["fine", "dull " * 300_000])
    assert len(str(refusal.value)) < 200


def test_threads_that_ask_a_run_at_once(smoke_run):
    from concurrent.futures import ThreadPoolExecutor

    run = runs.load(smoke_run.path)  # nothing of it is loaded yet
    reviews = [["A fine film."], ["Dull from start to end.", "Good."], ["Fine."], ["Dull.", "A good film."]]
    expected = [predict(smoke_run, few) for few in reviews]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda few: predict(run, few), reviews)) == expected
