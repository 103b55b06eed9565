"""The wheel carries the configuration and runs from an empty folder, in an environment of its own.

What an outsider adds to it is tested with docs/extending.md, by test_extending.py.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from gruland import config


def test_the_wheel_holds_the_configuration_and_the_sweeper(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"gruland/conf/{path.relative_to(config.CONF)}" for path in config.CONF.rglob("*.yaml")} <= names
    assert "hydra_plugins/gruland_sweeper.py" in names


@pytest.mark.slow
def test_the_wheel_starts_in_an_empty_folder(installed: Any, tmp_path: Path) -> None:
    done = installed(
        "-m", "gruland", "validate", "experiment=smoke", "regularizer=zoneout,none", cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_wheel_runs_the_smoke_experiment_from_an_empty_folder(installed: Any, tmp_path: Path) -> None:
    words = ["experiment=smoke", "attack.typing_errors.reviews=2"]
    done = installed("-m", "gruland.train", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "validation loss" in done.stdout
    assert list(tmp_path.glob("outputs/smoke/*/results.json"))
