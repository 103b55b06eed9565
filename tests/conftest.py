import csv
import importlib
import logging
import os
import shutil
import subprocess
import sys
import venv
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
from filelock import FileLock

# One thread a process: the suite runs beside other work, and small sizes gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

# Triton's functions become what this says when they are imported, which any test may cause.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


# Two workers share the suite by stealing: what takes long comes first, so that short tests are left to share at its
# end, and one worker alone sets up the runs that a module's tests have in common.
LONGEST = ("test_train.py", "test_report.py", "test_extending.py", "test_comparison.py", "test_readme.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def shared(tmp_path_factory, worker_id):
    """A folder of the session's that all its workers have."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session", autouse=True)
def _cache(shared):
    """A cache of the suite's own, so that no test depends on what an earlier one left; its workers share it."""
    with mock.patch.dict(os.environ, GRULAND_CACHE=str(shared / "cache")):
        yield


@pytest.fixture(scope="session", autouse=True)
def _parsed_once():
    """Hundreds of tests compose a configuration: the files of conf/ are parsed for the first one."""
    from omegaconf import OmegaConf

    from gruland.config import CONF

    load, parsed = OmegaConf.load, {}

    def load_once(file):
        name = str(getattr(file, "name", file))
        if not name.startswith(str(CONF)):
            return load(file)
        if name not in parsed:
            parsed[name] = load(file)
        return deepcopy(parsed[name])

    with mock.patch.object(OmegaConf, "load", load_once):
        yield


@pytest.fixture(scope="session")
def smoke_run(shared):
    """A finished run of the smoke experiment with zoneout, to be read: the first worker that asks trains it."""
    import gruland
    from gruland.train import train

    with FileLock(shared / "smoke_run.lock"):
        return train(
            gruland.compose(
                "experiment=smoke", "regularizer=zoneout", f"output_dir={shared / 'runs'}", "threads=1"
            )
        )


class Said(NamedTuple):
    """What a command left on the terminal."""

    status: int
    out: str
    err: str


@pytest.fixture
def typed(monkeypatch, capsys):
    """Type a command in this process: ``typed("gruland.train", "seed=1")`` is ``python -m gruland.train seed=1``.

    A process of its own imports torch again: it is for the tests of what a process does.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    from gruland import config

    log, root = logging.getLogger("gruland"), logging.getLogger()

    def run(module, *words):
        package = importlib.import_module(module)
        main = (
            importlib.import_module(f"{module}.__main__").main
            if hasattr(package, "__path__")
            else package.main
        )
        before = [(logger, logger.level, logger.handlers[:]) for logger in (log, root)]
        threads = torch.get_num_threads()
        terminal = logging.StreamHandler(sys.stderr)
        log.addHandler(terminal)
        capsys.readouterr()
        try:
            with mock.patch.dict(os.environ, COLUMNS="200"), monkeypatch.context() as patched:
                patched.setattr(sys, "argv", [module, *map(str, words)])
                patched.setattr(config, "cores", lambda: 1)  # the suite's other workers have the rest
                GlobalHydra.instance().clear()
                status = main() or 0
        except SystemExit as ended:
            status = ended.code or 0
        finally:
            GlobalHydra.instance().clear()
            HydraConfig.instance().cfg = None
            torch.set_num_threads(threads)
            for logger, level, handlers in before:
                logger.setLevel(level)
                for handler in set(logger.handlers) - set(
                    handlers
                ):  # Hydra's: a process would close them at its end
                    handler.close()
                logger.handlers = handlers
        return Said(status, *capsys.readouterr())

    return run


@pytest.fixture
def undrawn(monkeypatch):
    """Reports, comparisons and runs write everything but their pictures, which take most of the time."""
    from gruland.report import attacks, figures

    for room in (figures, attacks):
        monkeypatch.setattr(room, "picture", lambda *words: figures.Picture(*words[:3], "<svg/>", b""))
    monkeypatch.setattr("gruland.surfaces.results.write_pictures", lambda *_: None)
    monkeypatch.setattr("gruland.landscape.pictures.write", lambda *_: None)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The package as it is published, built here."""
    folder, root = tmp_path_factory.mktemp("dist"), Path(__file__).parents[1]
    words = ["--wheel", "--no-isolation", "--outdir", folder, root]
    done = subprocess.run([sys.executable, "-m", "build", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    """Type a command of the installed wheel: ``installed("-m", "gruland.train", cwd=folder)``.

    The dependencies are gigabytes: they come from the environment that runs the tests, gruland from the wheel.
    """
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"

    def run(*words, **options):
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return subprocess.run([python, *words], capture_output=True, text=True, env=environment, **options)

    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    (site,) = folder.glob("lib/*/site-packages")
    here = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "dependencies.pth").write_text(f"{here}\n")
    code = (
        "import gruland, hydra_plugins.gruland_sweeper as sweeper; print(gruland.__file__, sweeper.__file__)"
    )
    found = run("-c", code, cwd=folder).stdout.split()
    assert [Path(path).is_relative_to(site) for path in found] == [True, True], found
    return run


REVIEW_WORDS = [
    "good",
    "bad",
    "fine",
    "dull",
    "film",
    "movie",
    "plot",
    "actor",
    "scene",
    "story",
    "never",
    "always",
]


def write_reviews(path, count):
    """A CSV of made-up reviews, every third with what `strip` takes away."""
    draw = np.random.default_rng(0)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "sentiment"])
        for k in range(count):
            text = " ".join(draw.choice(REVIEW_WORDS, draw.integers(5, 30)))
            writer.writerow(
                [f"{text}.<br />It's {k}/10" if k % 3 == 0 else text, ("negative", "positive")[k % 2]]
            )


def write_vectors(path):
    draw = np.random.default_rng(1)
    words = [*REVIEW_WORDS, "it", "'s", "its", ".", "/"]
    path.write_text("".join(f"{w} {' '.join(f'{x:.4f}' for x in draw.normal(size=6))}\n" for w in words))


@pytest.fixture(scope="module")
def make_run(tmp_path_factory):
    """Makes a finished run, its weights as drawn, in a folder of its own."""
    from gruland import compose, runs
    from gruland.weights import save_weights

    shared = tmp_path_factory.mktemp("data")
    write_reviews(shared / "reviews.csv", 120)
    write_vectors(shared / "vectors.txt")

    def make(*overrides):
        cfg = compose(
            f"data.path={shared / 'reviews.csv'}",
            f"embedding.path={shared / 'vectors.txt'}",
            f"data.cache_dir={shared / 'cache'}",
            f"embedding.cache_dir={shared / 'cache'}",
            f"output_dir={tmp_path_factory.mktemp('outputs')}",
            "data.limit=null",
            "model.hidden_size=5",
            "attack.typing_errors.reviews=20",
            "attack.typing_errors.draws=3",
            *overrides,
        )
        run = runs.prepare(cfg)
        runs.write_config(run, cfg)
        save_weights(runs.build_model(cfg, run.data).state_dict(), run.checkpoint())
        run.update_results(status="finished", data=run.data.report)
        return run

    return make


@pytest.fixture(scope="module")
def browser():
    """A context of headless Chromium that has no network."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive a browser")
    chromium = next(
        (found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None
    )
    if chromium is None:
        pytest.skip("needs Debian's chromium (apt-get install chromium) to open the page")
    options = [
        "--use-gl=angle",
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
    ]  # WebGL without a GPU
    options += ["--no-sandbox"] if os.geteuid() == 0 else []
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=options)
        context = started.new_context(offline=True, viewport={"width": 1200, "height": 900})
        context.set_default_timeout(180_000)  # software WebGL on a busy machine
        yield context
        started.close()
