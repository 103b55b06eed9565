"""What a part of the package never reaches, read from its imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gruland"

#: From a room to what it may import of this package besides itself. A room that is not listed may import anything.
ALLOWED = {
    "landscape": {"files", "progress", "stats", "workers"},
    "objective": {"classifier", "data", "evaluation", "gru", "kernels", "landscape", "regularizers"},
    "kernels": {"files", "errors"},
}
#: Entry points: what starts a command may reach everything.
COMMANDS = {"__main__.py", "job.py"}


def sources(room: str) -> list[Path]:
    folder = PACKAGE / room
    return [path for path in sorted(folder.rglob("*.py")) if path.name not in COMMANDS]


def imported(path: Path) -> set[str]:
    """The rooms and modules of this package that a file imports anywhere, also under TYPE_CHECKING."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("gruland.")}
        elif isinstance(node, ast.ImportFrom) and node.module == "gruland":
            found |= {f"gruland.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gruland."):
            found.add(str(node.module))
    return {name.split(".")[1] for name in found}


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_reaches_no_further_than_it_may(room):
    assert sources(room)
    for path in sources(room):
        forbidden = imported(path) - ALLOWED[room] - {room}
        assert not forbidden, f"{path.relative_to(PACKAGE)} imports {', '.join(sorted(forbidden))}"


def test_nothing_reaches_a_command():
    commands = {"train", "study", "sweep", "predict"}
    callers = {"__init__.py", "train.py", "sweep.py", "study.py"}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name not in COMMANDS | callers:
            found = imported(path) & commands
            assert not found, f"{path.relative_to(PACKAGE)} imports {', '.join(sorted(found))}"


@pytest.mark.parametrize("room", ["landscape", "objective", "kernels"])
def test_a_library_neither_prints_nor_exits(room):
    for path in sources(room):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("print", "exit", "sys.exit"), (
                    f"{path.relative_to(PACKAGE)} calls {called}"
                )
