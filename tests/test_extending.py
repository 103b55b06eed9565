"""What docs/extending.md shows works as it stands there: its files are written, its commands typed."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import gruland
from gruland import config, runs
from gruland.attack import build
from gruland.attack.__main__ import _attacks
from gruland.surfaces import Surface

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))


def files(section: str) -> dict[str, str]:
    """From the name that stands in a block's first line to what the file holds."""
    blocks = re.findall(r"```(?:python|yaml)\n(# (\S+)\n.*?)```", section, flags=re.DOTALL)
    assert len(blocks) == len(re.findall(r"```(?:python|yaml)", section)), "a file without a name"
    return {name: code for code, name in blocks}


Type = Callable[..., str]


@pytest.fixture
def here(typed: Any, undrawn: None) -> Iterator[Type]:
    """Commands in this process."""

    def run(module: str, *words: str) -> str:
        one_by_one = ["hydra/launcher=basic"] if "-m" in words else []
        done = typed(module, *words[:-1], *one_by_one, *words[-1:])
        assert done.status == 0, f"{module} {words}\n{done.err}"
        return str(done.out)

    yield run
    for name in files(PAGE):
        sys.modules.pop(name.removesuffix(".py"), None)


@pytest.fixture
def elsewhere(installed: Any) -> Type:
    """Commands as they are typed, of the installed wheel."""

    def run(module: str, *words: str) -> str:
        done = installed("-m", module, *words)
        assert done.returncode == 0, f"{module} {words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture(params=["here", pytest.param("elsewhere", marks=pytest.mark.slow)])
def follow(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], dict[str, str]]:
    """Do what a section says in an empty folder; what each command printed."""
    run: Type = request.getfixturevalue(request.param)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def follow(title: str) -> dict[str, str]:
        for name, code in files(SECTIONS[title]).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code)
        said = {}
        for block in re.findall(r"```sh\n(.*?)```", SECTIONS[title], flags=re.DOTALL):
            for line in block.splitlines():
                first, *words = shlex.split(line)
                if first == "export":
                    monkeypatch.setenv(*words[0].split("=", 1))
                    continue
                assert (first, words[0]) == ("python", "-m"), line
                said[line] = run(*words[1:])
        return said

    return follow


@pytest.mark.parametrize("title", SECTIONS)
def test_a_section_is_short(title: str) -> None:
    for code in re.findall(r"```python\n(.*?)```", SECTIONS[title], flags=re.DOTALL):
        assert len([line for line in code.splitlines() if line.strip()]) < 20


def test_an_attack_of_ones_own(follow: Any, tmp_path: Path) -> None:
    said = follow("An attack")
    (path,) = tmp_path.glob("outputs/smoke/none-*")
    attacks = json.loads((path / "results.json").read_text())["attacks"]
    assert list(attacks) == ["typing_errors", "backwards"]
    assert attacks["backwards"]["class"] == "backwards.Backwards"
    assert attacks["backwards"]["settings"] == {"reviews": 10}
    forms = attacks["backwards"]["scores"]
    assert forms["raw"]["plain"]["count"] == 10
    assert forms["raw"]["plain"]["loss"] != forms["backwards"]["plain"]["loss"]
    assert len((path / "attack" / "typing_errors" / "texts.csv").read_text().splitlines()) == 9
    assert any("backwards: 10 test reviews" in text for text in said.values())
    report = (tmp_path / "outputs" / "smoke" / "report.md").read_text()
    assert re.search(r"\| *backwards *\| *backwards *\|", report)


def test_a_regularizer_of_ones_own(follow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follow("A regularizer")
    results = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/smoke/blanks-*/results.json")]
    assert sorted(result["model"]["rate"] for result in results) == [0.1, 0.3]
    for result in results:
        assert result["model"]["title"] == "Blanks"
        assert result["landscape"]["center_loss"] != result["metrics"]["best"]["train"]["loss"]
        assert result["attacks"]["typing_errors"]["scores"]["raw"]["dropout"]["draws"] > 1
    (path, *_) = tmp_path.glob("outputs/smoke/blanks-*")
    monkeypatch.delenv("GRULAND_ALLOW")
    with pytest.raises(ValueError, match=r"regularizer\._target_=blanks\.Blanks is not among the classes"):
        runs.load(path)
    assert "Blanks" in (tmp_path / "outputs" / "smoke" / "report.md").read_text()


def test_a_defence_of_ones_own(follow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follow("A defence")
    names = sorted(path.parent.name[:-9] for path in tmp_path.glob("outputs/smoke/*/results.json"))
    assert names == [
        "none-h8-s0",
        "none-vector_noise-h8-s0",
        "zoneout-0.1-h8-s0",
        "zoneout-0.1-vector_noise-h8-s0",
    ]
    (path,) = tmp_path.glob("outputs/smoke/none-vector_noise-*")
    monkeypatch.delenv("GRULAND_ALLOW")
    with pytest.raises(ValueError, match=r"defence\._target_=noise\.VectorNoise is not among the classes"):
        runs.load(path)
    report = (tmp_path / "outputs" / "smoke" / "report.md").read_text()
    assert re.search(r"\| *Test accuracy, vector.?_noise *\|", report)


def test_a_callback_of_ones_own(follow: Any, tmp_path: Path) -> None:
    follow("A callback")
    (path,) = tmp_path.glob("outputs/smoke/none-*")
    lines = (path / "norms.txt").read_text().split("\n")
    assert re.fullmatch(r"1 \d+\.\d{1,4}", lines[0])
    assert re.fullmatch(r"2 \d+\.\d{1,4}", lines[1])


def test_a_data_source_of_ones_own(follow: Any, tmp_path: Path) -> None:
    paragraphs = [f"{['love', 'work', 'pay'][i % 3]}: dear film and letter {i}" for i in range(240)]
    (tmp_path / "letters.txt").write_text("\n\n".join(paragraphs))
    follow("A data source")
    (path,) = tmp_path.glob("outputs/smoke/none-*")
    results = json.loads((path / "results.json").read_text())
    assert results["data"]["source"] == "letters"
    assert list(results["data"]["class_counts"]["train"]) == ["love", "pay", "work"]
    assert results["landscape"]["settings"]["size"] in (3, [3, 3])
    assert results["attacks"]["typing_errors"]["scores"]["raw"]["plain"]["count"] == 8
    assert "letters" in (tmp_path / "outputs" / "smoke" / "report.md").read_text()


def test_groups_of_an_installed_package_are_found_by_hydras_search_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package with a conf/ of its own: every command takes its options beside those that are here."""
    package = tmp_path / "own_groups"
    for file, text in {
        "__init__.py": "",
        "conf/__init__.py": "",
        "conf/regularizer/light.yaml": "_target_: gruland.regularizers.Zoneout\nrate: 0.01\n",
        "conf/attack/few.yaml": "few:\n  _target_: gruland.attack.TypingErrors\n  reviews: 3\n",
        "conf/landscape/fine.yaml": "defaults:\n  - default\nsize: 51\n",
    }.items():
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        (package / file).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    cfg = gruland.compose(
        "hydra.searchpath=[pkg://own_groups.conf]",
        "regularizer=light",
        "attack=[smoke,few]",
        "attack.few.rate=0.2",
    )
    assert config.instantiate(cfg.regularizer).rate == 0.01
    attacks = build(cfg.attack)
    assert {name: attack.reviews for name, attack in attacks.items()} == {"typing_errors": 8, "few": 3}
    where = config.searching(str(package / "conf"))  # --config-dir
    assert _attacks(cfg.attack, [*where, "attack=few", "rate=0.5"]) == {
        "few": replace(attacks["few"], rate=0.5)
    }
    surface = Surface.of(config.over(cfg.landscape, [*where, "landscape=fine", "seed=3"], "landscape"))
    assert (surface.size, surface.seed) == (51, 3)
    with pytest.raises(ValueError, match=r"^regularizer=light is unknown"):
        gruland.compose("regularizer=light")
