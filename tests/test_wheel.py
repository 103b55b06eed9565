"""The wheel carries the configuration and runs from an empty folder, in an environment of its own."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_runs_the_smoke_experiment_from_an_empty_folder(tmp_path):
    pytest.importorskip("build", reason="the build package is not installed: pip install build")
    pytest.importorskip("hatchling", reason="hatchling is not installed: pip install hatchling")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    venv.create(tmp_path / "clean", with_pip=True)
    python = tmp_path / "clean" / "bin" / "python"
    # The dependencies are gigabytes: they come from the environment that runs the tests, gruland from the wheel.
    site = Path(run(python, "-c", "import site; print(site.getsitepackages()[0])").strip())
    run(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel)
    here = next(p for p in sys.path if p.endswith("site-packages"))
    (site / "dependencies.pth").write_text(f"{here}\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    where = run(python, "-c", "import gruland; print(gruland.__file__)", cwd=empty).strip()
    assert Path(where).is_relative_to(tmp_path / "clean")
    out = run(python, "-m", "gruland.train", "experiment=smoke", "attack.typing_errors.reviews=2", cwd=empty)
    assert "validation loss" in out
    assert list(empty.glob("outputs/smoke/*/results.json"))
