"""The report in Weights & Biases: a run of its own beside those that it is about, with every picture and table."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from gruland.report.chapters import Chapter
from gruland.report.examples import Example, Examples
from gruland.report.figures import Picture, Surfaces
from gruland.report.tables import Table


def publish(chapters: list[Chapter], page: Path, project: str) -> None:
    """Log the pictures and tables of all chapters, those of compared landscapes among them, and the page itself.

    Args:
        page: report.html.
        project: the W&B project; without a key or a network the run is kept on disk.

    Raises:
        ImportError: wandb is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise ImportError("--wandb needs wandb: pip install 'gruland[wandb]'") from error
    from gruland.loggers import wandb_mode

    media: dict[str, Any] = {"report/page": wandb.Html(str(page))}
    titles = [chapter.title for chapter in chapters]
    for chapter in chapters:
        # Studies of one experiment on other data have one title.
        title = chapter.title if titles.count(chapter.title) == 1 else f"{chapter.title} ({chapter.key})"
        for section in chapter.sections:
            for block in section.blocks:
                name = f"{title}/{section.title}"
                media |= {f"{name}/{key}": value for key, value in _media(block, wandb).items()}
    run = wandb.init(
        project=project,
        job_type="report",
        dir=page.parent,
        mode=wandb_mode("auto"),
        settings=wandb.Settings(silent=True, console="off"),
    )
    try:
        run.summary["answer"] = "\n".join(line for chapter in chapters for line in chapter.answer)
        run.log(media)
    finally:
        run.finish()


def _media(block: Any, wandb: Any) -> dict[str, Any]:
    """A block as W&B shows it."""
    if isinstance(block, Picture):
        return {block.title: _image(block.png, block.caption, wandb)}
    if isinstance(block, Surfaces):
        return {item.title: _image(item.still, item.title, wandb) for item in block.items}
    if isinstance(block, Table):
        width = len(block.columns)
        rows = [[row.head, *row.cells, *[""] * (width - 1 - len(row.cells))] for row in block.rows]
        columns = [head.replace("\n", " ") or f"({i})" for i, head in enumerate(block.columns)]
        unique = [head if head not in columns[:i] else f"{head} ({i})" for i, head in enumerate(columns)]
        return {block.title: wandb.Table(columns=unique, data=rows)}
    if isinstance(block, Examples):
        rows = [
            [item.identity, item.label, item.raw, wandb.Html(_marked(item), inject=False)]
            for item in block.items
        ]
        return {block.title: wandb.Table(columns=["review", "label", "as written", "changed"], data=rows)}
    return {}


def _marked(item: Example) -> str:
    """The words of a review as HTML, those that changed marked with what they were."""
    words = [
        escape(word.text)
        if word.original is None
        else f'<mark title="{escape(word.original)}">{escape(word.text)}</mark>'
        for word in item.perturbed
    ]
    return f"<p>{' '.join(words)}</p>"


def _image(png: bytes, caption: str, wandb: Any) -> Any:
    import io

    from PIL import Image

    return wandb.Image(Image.open(io.BytesIO(png)), caption=caption)
