"""The README's commands work as they are typed there, on smoke-sized runs."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gruland
from gruland import config, experiment
from gruland.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


DOCS = sorted((ROOT / "docs").glob("*.md"))


def blocks(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def typed(text):
    """The lines of the text's shell blocks, those that end in a backslash joined."""
    joined = [block.replace("\\\n", " ") for block in blocks("sh", text)]
    return [line.split(" #")[0].strip() for block in joined for line in block.splitlines() if line.strip()]


def commands():
    return [*typed(README), *re.findall(r"^\| `(python [^`]+)`", README, flags=re.MULTILINE)]


@pytest.mark.parametrize("command", ["landscape", "landscape compare", "attack", "report", "best", "predict"])
def test_an_error_under_the_one_command_is_a_line(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gruland", *command.split(), str(tmp_path / "missing")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("gruland: ")
    assert said.count("\n") == 1


def test_every_make_target_of_the_readme_exists():
    makefile = (ROOT / "Makefile").read_text()
    targets = {
        word
        for line in commands()
        if line.startswith("make ")
        for word in line.split()[1:]
        if "=" not in word
    }
    assert {"study", "test", "paper"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_hands_names_with_spaces_on_whole():
    given = ["paper", "DATA=IMDB Dataset.csv", "GLOVE=my vectors.txt", "OUT=my runs"]
    # Under `make test` a make of ours would be make's child and end with a word about folders.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    call = ["make", "-n", "--no-print-directory", *given]
    said = subprocess.run(call, cwd=ROOT, env=outside, capture_output=True, text=True, check=True).stdout
    words = shlex.split(said.splitlines()[-1])
    assert {"data.path=IMDB Dataset.csv", "embedding.path=my vectors.txt", "output_dir=my runs"} <= set(words)


@pytest.mark.parametrize("line", [c for c in commands() if c.startswith("python -m gruland.train")])
def test_every_train_command_would_start(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides = [word for word in shlex.split(line)[3:] if word not in ("-m", "--help")]
    fixed = [word for word in overrides if "," not in word]
    make_files(overrides)
    experiment.check(gruland.compose(*fixed))


def make_files(overrides):
    """The files that the commands name, so that nothing but their existence is asked of them."""
    for word in overrides:
        key, _, value = word.partition("=")
        if key.endswith(".path"):
            Path(value).write_text("")


#: In place of [key=value …]: the same with less to do.
FEW = {
    "attack": ["reviews=2"],
    "compare": ["directions=1", "size=5", "reviews=8", "curvature=4"],
}


@pytest.mark.usefixtures("undrawn")
def test_the_commands_on_finished_runs(smoke_run, typed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = shutil.copytree(smoke_run.path, tmp_path / smoke_run.path.name)
    for line in commands():
        if not line.startswith(("python -m gruland.", "python -c ")):
            continue
        if "gruland.train" in line or "gruland.study" in line:  # minutes; test_study.py and CI run a study
            continue
        _, option, what, *words = shlex.split(line.replace("[key=value …]", "KEYS"))
        few = next((FEW[key] for key in FEW if key in (what.split(".")[-1], *words)), [])
        words = [str(run) if word in ("PATH", "PATH…") else word for word in words if word != "KEYS"] + few
        if option == "-c":
            exec(what, {})
            assert capsys.readouterr().out.strip(), line
        else:
            done = typed(what, *words)
            assert done.status == 0, f"{line}: {done.err}"
            assert done.out.strip(), line


def test_every_command_is_a_process(tmp_path):
    """What it does is tested without one; ``--help`` answers without what takes long to import."""
    for module, _ in COMMANDS.values():
        done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True)
        assert done.returncode == 0, f"{module}: {done.stderr}"
        assert "gruland" in done.stdout, module


@pytest.mark.parametrize("code", blocks("python"))
def test_the_notebook_cells(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("page", [ROOT / "README.md", *DOCS], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


#: Those of extending.md are typed as they stand there, by test_extending.py.
@pytest.mark.parametrize(
    "page", [page for page in DOCS if page.name != "extending.md"], ids=lambda page: page.name
)
def test_the_commands_of_the_other_pages_are_understood(page, tmp_path, monkeypatch):
    """They take hours and data that is not here: what can be checked is that every word of them means something."""
    monkeypatch.chdir(tmp_path)
    from gruland.attack.__main__ import _attacks
    from gruland.report.landscapes import compare
    from gruland.surfaces import Surface

    for line in typed(page.read_text()):
        if not line.startswith("python -m gruland."):
            continue
        _, _, module, *words = shlex.split(line)
        overrides = [word for word in words if "=" in word]
        if module == "gruland.train":
            parsed = config.parse(config.typed(overrides))
            several = [word for word, o in zip(overrides, parsed, strict=True) if o.is_sweep_override()]
            make_files(overrides)
            assert ("-m" in words) == bool(several), line
            experiment.check(
                gruland.compose(*(word.split(",")[0] if word in several else word for word in overrides))
            )
        elif module == "gruland.landscape" and words[0] == "compare":
            compare._check(config.over(compare.SETTINGS, overrides, "comparison"))
        elif module == "gruland.attack":
            _attacks({}, [word for word in overrides if not word.startswith(("gate.", "checkpoint="))])
        elif module == "gruland.landscape":
            Surface.of(config.over(Surface().to_dict(), overrides, "landscape"))


def test_the_group_table_is_the_configuration():
    rows = dict(re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)+) \|", README, flags=re.MULTILINE))
    groups = {
        p.name: {f.stem for f in p.glob("*.yaml")}
        for p in config.CONF.iterdir()
        if p.is_dir() and p.name != "hydra"
    }
    assert {group: set(re.findall(r"`(\w+)`", options)) for group, options in rows.items()} == groups
