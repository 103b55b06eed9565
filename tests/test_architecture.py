"""What a part of the package never reaches, read from its imports."""

from __future__ import annotations

import ast
import functools
import graphlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from gruland import __main__ as entrance
from gruland.landscape import __main__ as landscape

PACKAGE = Path(__file__).parents[1] / "gruland"

#: From a room to what it may import of this package besides itself. A room that is not listed may import anything.
ALLOWED = {
    "landscape": {"arguments", "files", "lazy", "progress", "stats", "workers"},
    "objective": {"classifier", "data", "evaluation", "gru", "kernels", "landscape", "regularizers"},
    "kernels": {"files", "errors"},
    "perturbation": set(),
}
#: ``python -m gruland`` and ``python -m gruland.landscape`` hand over to commands that lie above them.
ENTRANCES = {PACKAGE / "__main__.py", PACKAGE / "landscape" / "__main__.py"}


def sources(room: str) -> list[Path]:
    return sorted(set((PACKAGE / room).rglob("*.py")) - ENTRANCES)


@functools.cache
def statements(path: Path) -> list[ast.AST]:
    """What stands in a file, at any depth."""
    return list(ast.walk(ast.parse(path.read_text())))


def imported(path: Path) -> set[str]:
    """The rooms and modules of this package that a file imports anywhere, also under TYPE_CHECKING."""
    found: set[str] = set()
    for node in statements(path):
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
    callers = {"__init__.py", "sweep.py", "study.py", "job.py"}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name not in callers:
            found = imported(path) & (commands - {path.parent.name})
            assert not found, f"{path.relative_to(PACKAGE)} imports {', '.join(sorted(found))}"


def test_an_entrance_of_a_library_hands_over_and_holds_nothing():
    """What it reaches by name are entrances that exist, and it imports no other room."""
    for command in [*(module for module, _ in entrance.COMMANDS.values()), *landscape.COMMANDS.values()]:
        assert command in files()
    assert landscape.SURFACES in files()
    for path in ENTRANCES:
        assert {name.rpartition(".")[2] for name in imports(path, files())} <= {
            "exits",
            "experiment",
        }
        assert len(path.read_text().splitlines()) <= 50


def test_no_file_reaches_itself():
    """Neither at the top, nor in a function, nor for a type alone."""
    known = files()
    reached = {name: set(imports(path, known)) - {name} for name, path in known.items()}
    try:
        graphlib.TopologicalSorter(reached).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_no_room_reaches_itself():
    """What one folder takes from another, that one does not take back."""
    reached: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path not in ENTRANCES and path != PACKAGE / "__init__.py":
            room = path.relative_to(PACKAGE).with_suffix("").parts[0]
            reached.setdefault(room, set()).update(imported(path) - {room})
    try:
        graphlib.TopologicalSorter(reached).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of rooms: {' <- '.join(error.args[1])}")


def files() -> dict[str, Path]:
    return {module(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def module(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, files: Mapping[str, Path]) -> Iterator[str]:
    """The modules of this package that a file names. A room's own files are no part of what its name stands for."""
    for node in statements(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom):
            named = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in named if name in files)
            if node.module in files and not all(name in files for name in named):
                yield str(node.module)


@pytest.mark.parametrize("room", ["landscape", "objective", "kernels"])
def test_a_library_neither_prints_nor_exits(room):
    for path in sources(room):
        for node in statements(path):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("print", "exit", "sys.exit"), (
                    f"{path.relative_to(PACKAGE)} calls {called}"
                )
