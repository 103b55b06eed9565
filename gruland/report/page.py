"""The report's two pages, report.html and report.md, from one description of their content."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gruland
from gruland.files import atomic_path
from gruland.report import paper, tables
from gruland.report.chapters import Block, Chapter, chapter
from gruland.report.collect import Run, studies
from gruland.report.figures import Picture, Surfaces

#: Pictures of the Markdown page lie here, beside it.
FILES = "report_files"


def write(runs: Sequence[Run], folder: str | Path) -> Path:
    """Write report.html (one file, needs no network), report.md and its pictures.

    Args:
        runs: as :func:`gruland.report.collect.collect` gives them.
        folder: where to; made where it is missing.

    Returns:
        The path of report.html.

    Raises:
        OSError: the folder is a file or cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file: give a folder for the report with --output")
    chapters = [chapter(study) for study in studies(runs)]
    context = {
        "intro": _intro(runs, chapters),
        "version": gruland.__version__,
        "citation": paper.CITATION,
        "chapters": chapters,
        "runs": tables.all_runs(runs),
        "files": FILES,
        "has_surfaces": any(isinstance(block, Surfaces) for block in _blocks(chapters)),
    }
    _write_pictures(chapters, folder / FILES)
    _write_text(folder / "report.md", _render("report.md.jinja", context))
    return _write_text(folder / "report.html", _render("report.html.jinja", context))


def _intro(runs: Sequence[Run], chapters: Sequence[Chapter]) -> str:
    finished = sum(run.status == "finished" for run in runs)
    rest = len(runs) - finished
    text = f"{finished} finished run{'s' if finished != 1 else ''}"
    text += f", {rest} failed or unfinished (see the table of all runs)" if rest else ""
    if len(chapters) > 1:
        text += f"; {len(chapters)} settings, each a chapter of its own, not to be compared with one another"
    return text + "."


def _render(template: str, context: dict[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=template.endswith(".html.jinja"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"md": markdown, "base64": lambda data: base64.b64encode(data).decode()}
    environment.globals["plotly_js"] = _plotly_js
    return environment.get_template(template).render(context)


def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def markdown(text: str) -> str:
    """Plain text as Markdown that shows the same characters; a newline becomes ``<br>``."""
    escaped = re.sub(r"([\\`*_{}\[\]|~#$])", r"\\\1", html.escape(text, quote=False))
    return escaped.replace("\n", "<br>")


def _blocks(chapters: Iterable[Chapter]) -> Iterator[Block]:
    return (block for chapter in chapters for section in chapter.sections for block in section.blocks)


def _write_pictures(chapters: Iterable[Chapter], folder: Path) -> None:
    for block in _blocks(chapters):
        if isinstance(block, Picture):
            _write_bytes(folder / f"{block.key}.png", block.png)
        elif isinstance(block, Surfaces):
            for item in block.items:
                _write_bytes(folder / f"{item.contour.key}.png", item.contour.png)
                _write_bytes(folder / f"{item.key}.png", item.still)


def _write_bytes(path: Path, data: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _write_text(path: Path, text: str) -> Path:
    _write_bytes(path, text.encode("utf-8"))
    return path
