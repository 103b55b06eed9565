"""The report's two pages, report.html and report.md, from one description of their content."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gruland
from gruland.errors import one_line
from gruland.files import atomic_path, remove_abandoned
from gruland.report import losses, paper
from gruland.report.chapters import MOST_SURFACES, Block, Chapter, chapter
from gruland.report.collect import Collection, Study, studies
from gruland.report.figures import Picture, Surfaces
from gruland.report.landscapes.chapter import read_chapter

#: Pictures of the Markdown page lie here, beside it.
FILES = "report_files"


def write(collection: Collection, folder: str | Path, wandb: str | None = None) -> Path:
    """Write report.html (one file, needs no network), report.md and its pictures.

    Args:
        collection: as :func:`gruland.report.collect.collect` gives it.
        folder: where to; made where it is missing.
        wandb: a Weights & Biases project that gets the pictures, tables and the page, too.

    Returns:
        The path of report.html.

    Raises:
        OSError: the folder is a file or cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file: give a folder for the report with --output")
    remove_abandoned(folder)
    chapters = _chapters(studies(collection))
    chapters += _comparisons(collection)
    title = "Dropout for GRU: the paper’s tables and figures beside ours"
    about = {"intro": _intro(collection, chapters), "runs": losses.all_runs(collection)}
    _write_pictures(chapters, folder / FILES)
    _render_all(title, chapters, folder, "report", FILES, about)
    if wandb:
        from gruland.report.dashboard import publish

        publish(chapters, folder / "report.html", wandb)
    return folder / "report.html"


def write_chapters(title: str, chapters: Sequence[Chapter], folder: Path, name: str) -> Path:
    """Write ``name``.html and ``name``.md of chapters whose pictures lie in the folder; returns the latter's path."""
    _render_all(title, chapters, folder, name, ".", {"intro": "", "runs": None})
    return folder / f"{name}.md"


def _render_all(
    title: str, chapters: Sequence[Chapter], folder: Path, name: str, files: str, about: dict[str, Any]
) -> None:
    context = {
        **about,
        "title": title,
        "version": gruland.__version__,
        "citation": paper.CITATION,
        "chapters": chapters,
        "files": files,
        "has_surfaces": any(isinstance(block, Surfaces) for block in _blocks(chapters)),
    }
    for suffix in ("md", "html"):
        _write_text(folder / f"{name}.{suffix}", _render(f"report.{suffix}.jinja", context))


def _comparisons(collection: Collection) -> list[Chapter]:
    """A chapter for each comparison of landscapes below the paths; one that cannot be read is left out with a line."""
    chapters = []
    for number, file in enumerate(collection.comparisons, 1):
        try:
            chapters.append(read_chapter(file, f"c{number}"))
        except (OSError, ValueError) as error:
            collection.left_out[file] = one_line(error)
    return chapters


def _chapters(found: Sequence[Study]) -> list[Chapter]:
    """A chapter for each study; a page has few WebGL drawings, which the first ones get."""
    chapters, left = [], MOST_SURFACES
    for study in found:
        chapters.append(chapter(study, left))
        left -= sum(len(block.items) for block in _blocks(chapters[-1:]) if isinstance(block, Surfaces))
    return chapters


def _intro(collection: Collection, chapters: Sequence[Chapter]) -> str:
    finished = len([run for run in collection.runs if run.path not in collection.left_out])
    rest = len(collection.left_out)
    text = f"{finished} finished run{'s' if finished != 1 else ''}"
    text += f", {rest} left out (failed, unfinished or unreadable: see the table of all runs)" if rest else ""
    if len(chapters) > 1:
        text += (
            f"; {len(chapters)} experiments or sets of reviews, each a chapter of its own, for their losses do not "
            "compare"
        )
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
