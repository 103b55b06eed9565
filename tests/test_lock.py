"""The lock file and pyproject.toml hold together: what one asks for, the other one has, with checksums."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
#: Not in the lock: torch and what brings it along have a build for each machine, Ray is for clusters.
APART = {"torch", "torchvision", "ray", "gruland"}


@pytest.fixture(scope="module")
def locked():
    """Version and number of checksums of each package in requirements.lock."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)
    entries = re.split(r"\n(?=\S)", text.strip())
    found = {}
    for entry in entries:
        pinned = re.match(r"([\w.-]+)==([\w.+!]+)( ; [^\\]+)?(?= \\)", entry)
        assert pinned, entry
        name = canonicalize_name(pinned[1])
        assert name not in found
        found[name] = Version(pinned[2]), len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry))
    return found


def wanted():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [*project["optional-dependencies"].values(), project["dependencies"]]
    return [Requirement(line) for lines in extras for line in lines]


def test_each_requirement_is_locked_at_a_version_that_it_allows(locked):
    asked = [found for found in wanted() if canonicalize_name(found.name) not in APART]
    assert len(asked) > 30
    for requirement in asked:
        version, _ = locked[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, f"{requirement} and {version} in the lock: make lock"


def test_each_version_has_its_checksums_and_torch_is_none_of_them(locked):
    assert min(count for _, count in locked.values()) >= 1
    assert not APART & set(locked)
    assert not [name for name in locked if name.startswith("nvidia")]


def test_the_torch_that_is_installed_by_version_is_allowed():
    (version,) = re.findall(r"^TORCH := torch==(.+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    (requirement,) = (found for found in wanted() if found.name == "torch")
    assert version in requirement.specifier


def test_the_floors_are_the_least_versions_that_are_allowed():
    lines = (ROOT / "floors.txt").read_text().splitlines()
    floors = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    least = {
        canonicalize_name(found.name): {
            part.version for part in found.specifier if part.operator in (">=", "==")
        }
        for found in wanted()
    }
    for name, version in floors.items():
        if canonicalize_name(name) in least:  # the others are what these need in turn
            (floor,) = least[canonicalize_name(name)]
            assert Version(version) == Version(floor), name
