"""What docs/extending.md shows works as it stands there: its files are written, its commands typed."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import gruland
from gruland import config, runs
from gruland.attack import build
from gruland.attack.__main__ import _attacks
from gruland.surfaces import Surface

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))


def followed(title: str, folder: Path) -> dict[str, str]:
    """Do what a section says in a folder; return what each command printed."""
    for code in re.findall(r"```(?:python|yaml)\n(.*?)```", SECTIONS[title], flags=re.DOTALL):
        first = code.splitlines()[0]
        assert first.startswith("# "), f"{first}: expected the file's name"
        path = folder / first.removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    said = {}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for block in re.findall(r"```sh\n(.*?)```", SECTIONS[title], flags=re.DOTALL):
        for line in block.splitlines():
            first, *words = shlex.split(line)
            if first == "export":
                environment |= dict(word.split("=", 1) for word in words)
                continue
            done = subprocess.run(
                [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            said[line] = done.stdout
    return said


@pytest.mark.parametrize("title", SECTIONS)
def test_a_section_is_short(title: str) -> None:
    for code in re.findall(r"```python\n(.*?)```", SECTIONS[title], flags=re.DOTALL):
        assert len([line for line in code.splitlines() if line.strip()]) < 20


def test_an_attack_of_ones_own(tmp_path: Path) -> None:
    said = followed("An attack", tmp_path)
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


def test_a_regularizer_of_ones_own(tmp_path: Path) -> None:
    followed("A regularizer", tmp_path)
    results = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/smoke/blanks-*/results.json")]
    assert sorted(result["model"]["rate"] for result in results) == [0.1, 0.3]
    for result in results:
        assert result["model"]["title"] == "Blanks"
        assert result["landscape"]["center_loss"] != result["metrics"]["best"]["train"]["loss"]
        assert result["attacks"]["typing_errors"]["scores"]["raw"]["dropout"]["draws"] > 1
    (path, *_) = tmp_path.glob("outputs/smoke/blanks-*")
    with pytest.raises(ValueError, match=r"regularizer\._target_=blanks\.Blanks is not among the classes"):
        runs.load(path)
    assert "Blanks" in (tmp_path / "outputs" / "smoke" / "report.md").read_text()


def test_a_defence_of_ones_own(tmp_path: Path) -> None:
    followed("A defence", tmp_path)
    names = sorted(path.parent.name[:-9] for path in tmp_path.glob("outputs/smoke/*/results.json"))
    assert names == [
        "none-h8-s0",
        "none-vector_noise-h8-s0",
        "zoneout-0.1-h8-s0",
        "zoneout-0.1-vector_noise-h8-s0",
    ]
    (path,) = tmp_path.glob("outputs/smoke/none-vector_noise-*")
    with pytest.raises(ValueError, match=r"defence\._target_=noise\.VectorNoise is not among the classes"):
        runs.load(path)
    report = (tmp_path / "outputs" / "smoke" / "report.md").read_text()
    assert re.search(r"\| *Test accuracy, vector.?_noise *\|", report)


def test_a_callback_of_ones_own(tmp_path: Path) -> None:
    followed("A callback", tmp_path)
    (path,) = tmp_path.glob("outputs/smoke/none-*")
    lines = (path / "norms.txt").read_text().split("\n")
    assert re.fullmatch(r"1 \d+\.\d{1,4}", lines[0])
    assert re.fullmatch(r"2 \d+\.\d{1,4}", lines[1])


def test_a_data_source_of_ones_own(tmp_path: Path) -> None:
    paragraphs = [f"{['love', 'work', 'pay'][i % 3]}: dear film and letter {i}" for i in range(240)]
    (tmp_path / "letters.txt").write_text("\n\n".join(paragraphs))
    followed("A data source", tmp_path)
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
