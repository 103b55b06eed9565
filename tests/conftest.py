import os
import shutil

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
