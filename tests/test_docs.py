"""The pages of the site: the tutorial's cells run in their order, the reference names what exists."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def test_the_tutorials_cells_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    notebook: dict[str, object] = {}
    for number, cell in enumerate(
        re.findall(r"```python\n(.*?)```", (DOCS / "tutorial.md").read_text(), re.DOTALL)
    ):
        exec(compile(cell, f"cell {number}", "exec"), notebook)
    said = capsys.readouterr().out
    assert re.search(r"A wonderful film\. (negative|positive) 0\.\d+", said)
    assert re.search(r"^perturbed \d", said, re.MULTILINE)
    assert "at the trained weights" in said


@pytest.mark.parametrize("page", sorted((DOCS / "reference").glob("*.md")), ids=lambda page: page.stem)
def test_what_the_reference_names_exists(page: Path) -> None:
    names = re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
    assert names
    for name in names:
        try:
            import_module(name)
        except ModuleNotFoundError:
            module, _, attribute = name.rpartition(".")
            assert hasattr(import_module(module), attribute), name


def test_every_page_is_reached_from_the_navigation() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    reached = set(re.findall(r"[\w/]+\.md", str(site["nav"])))
    assert reached == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}


def test_the_marks_of_docstrings_become_markdown() -> None:
    pytest.importorskip("griffe", reason="needs the extra `docs`")
    import runpy

    markdown = runpy.run_path(str(DOCS / "roles.py"))["markdown"]
    assert (
        markdown("see :func:`gruland.train.train`, ``x``::\n\n    y")
        == "see `gruland.train.train`, `x`:\n\n    y"
    )
