import csv
import os
import shutil

import numpy as np
import pytest

# One thread a process: the suite runs beside other work, and small sizes gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

# Triton's functions become what this says when they are imported, which any test may cause.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory, worker_id):
    """A cache of the suite's own, so that no test depends on what an earlier one left; its workers share it."""
    before = os.environ.get("GRULAND_CACHE")
    base = tmp_path_factory.getbasetemp()
    os.environ["GRULAND_CACHE"] = str((base if worker_id == "master" else base.parent) / "cache")
    yield
    if before is None:
        del os.environ["GRULAND_CACHE"]
    else:
        os.environ["GRULAND_CACHE"] = before


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory):
    """A finished run of the smoke experiment with zoneout."""
    import gruland
    from gruland.train import train

    folder = tmp_path_factory.mktemp("runs")
    return train(
        gruland.compose("experiment=smoke", "regularizer=zoneout", f"output_dir={folder}", "threads=1")
    )


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
