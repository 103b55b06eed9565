"""A run's folder from elsewhere: nothing in it is called, looked up or multiplied, and what was edited is noticed."""

import json
import os
import shutil

import pytest
import yaml

from gruland import config, predict, runs, sweep, trust
from gruland.attack import __main__ as attack
from gruland.files import write_json
from gruland.landscape import __main__ as landscape


@pytest.fixture
def run(smoke_run, tmp_path):
    """A copy of a finished run that a test may damage."""
    return runs.Run(shutil.copytree(smoke_run.path, tmp_path / smoke_run.path.name))


def edit(run, key, value):
    """Write another value under a dotted key of config.yaml, as an editor does."""
    file = run.path / "config.yaml"
    whole = yaml.safe_load(file.read_text())
    *groups, last = key.split(".")
    node = whole
    for group in groups:
        node = node[group]
    node[last] = value
    file.write_text(yaml.safe_dump(whole))


#: What a configuration could call that starts a program, reads a pickle or writes a file: {} is a file that must not
#: come to be.
EXPLOITS = [
    {"_target_": "setuptools._distutils.spawn.spawn", "cmd": ["touch", "{}"]},
    {"_target_": "distutils.spawn.spawn", "cmd": ["touch", "{}"]},
    {"_target_": "os.system", "command": "touch {}"},
    {"_target_": "subprocess.check_call", "args": ["touch", "{}"]},
    {"_target_": "builtins.eval", "_args_": ["open('{}', 'w')"]},
    {"_target_": "builtins.open", "file": "{}", "mode": "w"},
    {"_target_": "pathlib.Path.write_text", "_args_": [{"_target_": "pathlib.Path", "_args_": ["{}"]}, "x"]},
    {"_target_": "shutil.copyfile", "src": "/etc/hostname", "dst": "{}"},
    {"_target_": "torch.load", "f": "{}.pt", "weights_only": False},
    {"_target_": "torch.hub.load", "repo_or_dir": "{}", "model": "x", "source": "local"},
    {"_target_": "torch.utils.cpp_extension.load_inline", "name": "x", "cpp_sources": "{}"},
    {"_target_": "pandas.read_pickle", "filepath_or_buffer": "{}.pkl"},
    {"_target_": "joblib.load", "filename": "{}.pkl"},
    {"_target_": "numpy.load", "file": "{}.npy", "allow_pickle": True},
    {"_target_": "hydra.utils.instantiate", "config": {"_target_": "os.system", "command": "touch {}"}},
    {"_target_": "hydra.utils.get_method", "path": "os.system"},
    # This package's own functions that write or call, and ways round by its names.
    {"_target_": "gruland.files.write_json", "path": "{}", "value": 1},
    {"_target_": "gruland.runs.write_config", "_args_": ["{}"]},
    {"_target_": "gruland.cache.cached", "entry": "{}"},
    {"_target_": "gruland.config.instantiate", "node": {"_target_": "os.system", "command": "touch {}"}},
    {"_target_": "gruland.data.prepared.Prepared.save", "_args_": [None, "{}", None]},
    {"_target_": "gruland.data.module.cached", "entry": "{}"},
    {"_target_": "gruland.data.sources.os.mkdir", "path": "{}"},
    {"_target_": "gruland.runs.shutil.copyfile", "src": "/etc/hostname", "dst": "{}"},
    {"_target_": "gruland.embedding.np.load", "file": "{}.npy", "allow_pickle": True},
    {"_target_": "torch.optim.lr_scheduler.LambdaLR.load_state_dict", "_args_": ["{}"]},
    # A stranger's module, which to import is to run; in the folder itself, say.
    {"_target_": "shipped.evil"},
    {"_target_": ["os", "system"]},
    {"_target_": None},
]


def filled(node, path):
    if isinstance(node, dict):
        return {key: filled(value, path) for key, value in node.items()}
    if isinstance(node, list):
        return [filled(value, path) for value in node]
    return node.replace("{}", str(path)) if isinstance(node, str) else node


@pytest.mark.parametrize("place", ["embedding", "data.source", "optimizer", "model.hook"])
@pytest.mark.parametrize("exploit", EXPLOITS, ids=lambda exploit: str(exploit["_target_"]))
def test_what_a_folder_may_not_call_is_not_called(tmp_path, monkeypatch, exploit, place):
    made = tmp_path / "made"
    (tmp_path / "shipped.py").write_text(f"open({str(made)!r}, 'w')\n\ndef evil(): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    group, _, key = place.partition(".")
    node = {**filled(exploit, made), "_partial_": False, "_convert_": "all", "_recursive_": False}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({group: {"deep": [{key: node}]} if key else node}))
    with pytest.raises(ValueError, match=r"config\.yaml: .*_target_=.*(may name|names nothing)") as refusal:
        _ = runs.Run(tmp_path).config
    assert "\n" not in str(refusal.value)
    assert not made.exists()


COMMANDS = {
    "predict": lambda path: predict.main([path, "A fine film."]),
    "attack": lambda path: attack.main([path]),
    "landscape": lambda path: landscape.main([path, "size=3"]),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_in_one_line(run, capsys, command):
    made = run.path / "made"
    edit(run, "embedding", {"_target_": "setuptools._distutils.spawn.spawn", "cmd": ["touch", str(made)]})
    try:
        status = COMMANDS[command](str(run.path))
    except SystemExit as exit_:
        status = exit_.code
    said = capsys.readouterr().err
    assert status == 1
    assert len(said.splitlines()) == 1
    assert "embedding._target_=setuptools._distutils.spawn.spawn" in said
    assert not made.exists()


def test_every_option_of_the_configuration_is_allowed():
    for group in trust.GROUPS:
        for option in sorted((config.CONF / group).glob("*.yaml")):
            for place, target in trust._targets(yaml.safe_load(option.read_text()), option.stem):
                trust.resolve(target, (), place)


def test_what_the_caller_names_is_allowed_and_no_more(tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text("import os\n\nclass Mine: pass\n\ndef make(): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="may name"):
        trust.resolve("theirs.Mine")
    assert trust.resolve("theirs.Mine", ["theirs"]).__name__ == "Mine"
    assert trust.resolve("theirs.make", ["theirs.make"]).__name__ == "make"
    for target in ("theirs.os.system", "theirs.Mine"):
        with pytest.raises(ValueError, match="may name"):
            trust.resolve(target, ["theirs.make"])
    with pytest.raises(ValueError, match="may name"):
        trust.resolve("theirs.os.system", ["theirs"])
    monkeypatch.setenv("GRULAND_ALLOW", "others,theirs")
    assert trust.resolve("theirs.Mine").__name__ == "Mine"


def test_a_name_that_is_set_by_hand_does_not_help(monkeypatch):
    import gruland.data

    def disguised():
        raise AssertionError

    disguised.__module__, disguised.__qualname__ = "gruland.embedding", "Vocabulary"
    monkeypatch.setattr(gruland.data, "disguised", disguised, raising=False)
    with pytest.raises(ValueError, match="may name"):
        trust.resolve("gruland.data.disguised")


def written(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: ${oc.env:SECRET}", r"interpolation \$\{oc.env:SECRET\}"),
        ("a: x${b}${b}\nb: y", "interpolation"),
        ("a: ${b}\nb: {c: 1}\nd: 1", "interpolation"),
        ("a: ${cores:}", "interpolation"),
        ("a: ${nowhere}", "interpolation"),
        ("a: &x [1]\nb: [*x, *x]", "line 2 holds a YAML alias"),
        (f"a: {'[' * 60}{']' * 60}", "deeper than 50"),
        ("a: 1\n" * 300_000, "larger than 1,000,000 bytes"),
        ("a: !!python/object/apply:os.system [exit]", "not readable YAML"),
        ("a: [1, 2", "not readable YAML"),
        (b"a: \xff", "not readable YAML"),
        ("a: 1\na: 2", "not readable YAML"),
        ("- 1", "expected keys and values"),
    ],
)
def test_a_configuration_reaches_nothing_but_itself(tmp_path, monkeypatch, text, message):
    monkeypatch.setenv("SECRET", "never to be seen")
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=message) as refusal:
        trust.read_config(path)
    assert str(path) in str(refusal.value)
    assert "never to be seen" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_references_to_own_keys_and_numbers_are_read(tmp_path):
    assert trust.read_config(written(tmp_path, "a: ${b.c}\nb: {c: 1e-3}")) == {"a": 0.001, "b": {"c": 0.001}}


@pytest.mark.parametrize(("key", "value"), [("regularizer.rate", 0.7), ("model.between", None), ("seed", 5)])
def test_an_edited_configuration_is_held_against_the_runs_name(run, key, value):
    edit(run, key, value)
    with pytest.raises(ValueError, match=r"config\.yaml is not the run's own: it describes"):
        runs.load(run.path)


def test_a_folder_may_be_renamed_and_its_files_moved(run):
    edit(run, "data.path", "/elsewhere/reviews.csv")
    moved = run.path.rename(run.path.with_name("the-best-20261127"))
    assert runs.load(moved).results["status"] == "finished"


DAMAGES = {
    "config.yaml": lambda data: data[: len(data) // 3],
    "results.json": lambda data: b"\xff" + data,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_one_bad_run_is_named_and_the_others_are_read(run, smoke_run, name):
    file = run.path / name
    file.write_bytes(DAMAGES[name](file.read_bytes()))
    found, refused = runs.readable(smoke_run.path, run.path)
    assert [one.path for one in found] == [smoke_run.path]
    assert list(refused) == [run.path]
    assert str(file) in refused[run.path]
    assert "\n" not in refused[run.path]


@pytest.mark.parametrize("value", ["much", None, True, [1]])
def test_a_text_where_a_number_belongs_is_named(run, value):
    results = run.results
    results["metrics"]["best"]["test"]["loss"] = value
    (run.path / "results.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match=r"metrics\.best\.test\.loss is .*, expected a number"):
        runs.load(run.path)


def test_the_secret_in_a_configuration_is_not_in_the_report(run, monkeypatch):
    from gruland.report import collect

    monkeypatch.setitem(os.environ, "SECRET", "never to be seen")
    edit(run, "experiment_name", "${oc.env:SECRET}")
    with pytest.raises(ValueError, match="holds the interpolation") as refusal:
        collect([run.path])
    assert "never to be seen" not in str(refusal.value)


def test_names_and_errors_from_elsewhere_do_nothing_on_the_terminal(run, capsys, typed):
    hostile, results = "\x1b]0;owned\x07\u202e", run.results
    results["task"]["classes"] = [f"{hostile}{name}" for name in results["task"]["classes"]]
    results["model"]["regularizer"] = results["model"]["title"] = hostile
    write_json(run.path / "results.json", results)
    other = runs.Run(shutil.copytree(run.path, run.path.with_name(f"{hostile}failed")))
    other.update_results(status="failed", error=f"{hostile}what went wrong")
    said = [typed("gruland.predict", run.path, f"{hostile} fine"), typed("gruland.best", run.path.parent)]
    sweep.print_table([run.path, other.path])
    for text in (*(one.out + one.err for one in said), capsys.readouterr().out):
        assert r"\x1b]0;owned\x07\u202e" in text
        assert not {"\x1b", "\x07", "\u202e"} & set(text)


@pytest.mark.parametrize(
    "text", ["data: a text", "data: [1]", "embedding: {cache_dir: [1]}", "data: {cache_dir: 5}"]
)
def test_a_configuration_of_other_kinds_of_values_is_refused_in_a_line(tmp_path, text):
    written(tmp_path, text)
    with pytest.raises(ValueError, match=r"config\.yaml lacks "):
        runs.Run(tmp_path).check()
