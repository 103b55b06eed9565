"""The examples run as they are."""

import json
import runpy
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from gruland.landscape import load_surface

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


def test_every_example_is_tried():
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == [
        "any_module.py",
        "attack_any_module.py",
        "surface_of_any_module.py",
    ]


@pytest.fixture
def run(monkeypatch, capsys):
    """``python docs/examples/any_module.py …`` in this process: what it printed."""

    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_an_lstm_and_a_cnn_go_through_the_same_functions(run, tmp_path):
    printed = run("any_module.py", tmp_path)
    assert "flat_area {'LSTM': [" in printed
    assert (tmp_path / "contours.png").exists()
    for name in ("LSTM", "CNN"):
        surfaces = [load_surface(tmp_path / f"{name}-{seed}.zarr") for seed in range(3)]
        # Trained: low at the centre, higher around; the three planes differ.
        for surface in surfaces:
            assert surface.attrs["origin_loss"] < 0.3
            assert float(surface.loss.max()) > 2 * surface.attrs["origin_loss"]
            assert float(surface.loss.sel(alpha=0.0, beta=0.0)) == surface.attrs["origin_loss"]
        assert len({float(surface.loss.max()) for surface in surfaces}) == 3


def test_without_a_folder_the_example_says_what_to_give(run):
    with pytest.raises(SystemExit) as ended:  # Python prints it and exits with 1
        run("any_module.py")
    assert ended.value.code == "give a folder for the pictures: python docs/examples/any_module.py FOLDER"


def test_the_example_s_modules_are_what_it_says(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import any_module

    torch.manual_seed(0)
    x, labels = any_module.images(8)
    losses, correct = any_module.losses(any_module.cnn().eval(), x, labels)({})
    assert losses.shape == correct.shape == (8,)
    assert float(losses.mean()) == pytest.approx(0.69, abs=0.3)  # untrained: about log 2


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # Lightning's advice on loaders
def test_a_module_of_ones_own_is_attacked(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import attack_any_module

    attack_any_module.main(tmp_path)
    said = dict(
        line.split(": accuracy ") for line in capsys.readouterr().out.splitlines() if ": accuracy " in line
    )
    (clean, few), (_, many) = (
        [int(text.split()[index].strip("%,")) for index in (0, -1)]
        for text in (said["few_errors"], said["many_errors"])
    )
    assert clean > few > many
    for name in ("few_errors", "many_errors"):
        assert (tmp_path / "attack" / name / "texts.csv").exists()
        outcome = json.loads((tmp_path / "attack" / name / "outcome.json").read_text())
        assert outcome["scores"]["perturbed"]["plain"]["count"] == 40


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_module_is_attacked_while_it_is_trained(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import attack_any_module
    import pytorch_lightning as pl

    from gruland.attack import Texts, TypingErrors
    from gruland.callbacks import AdversarialEvaluation

    class Validated(attack_any_module.Sentiment):
        asked: ClassVar[list[str]] = []

        def labelled_texts(self, split: str) -> Texts:
            self.asked.append(split)
            return super().labelled_texts(split)

        def validation_step(self, batch, index):
            self.log("val/loss", float(self.current_epoch))

        def val_dataloader(self):
            return self.test_dataloader()

    every_second = AdversarialEvaluation({"few": TypingErrors(reviews=10)}, tmp_path, every_n_epochs=2)
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", callbacks=[every_second], default_root_dir=tmp_path, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Validated())
    assert Validated.asked == ["validation"]
    assert 0 <= float(trainer.callback_metrics["attack/few/perturbed/accuracy"]) <= 1
    assert {f"attack/few/{form}/loss" for form in ("raw", "stripped", "perturbed")} <= set(
        trainer.callback_metrics
    )


def test_a_module_that_cannot_be_attacked_is_told_why():
    import pytorch_lightning as pl

    from gruland.attack.victims import of_module

    with pytest.raises(ValueError, match="it has no task, no logits, no labelled_texts"):
        of_module(pl.LightningModule(), None, "test")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # Lightning's advice on loaders
def test_a_module_of_ones_own_gets_its_surface_while_it_trains_and_is_not_disturbed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import surface_of_any_module as example

    from gruland.callbacks import LossSurface
    from gruland.surfaces import Surface

    looking = LossSurface(Surface(size=3), every_n_epochs=2, batches=2)
    watched, alone = example.main(tmp_path, looking), example.main(tmp_path)
    assert all(torch.equal(weights, alone.state_dict()[key]) for key, weights in watched.state_dict().items())
    root = tmp_path / "landscape"
    assert set(looking.surfaces) == {root / "epoch-2", root / "epoch-4", root}
    for folder, surface in looking.surfaces.items():
        assert (folder / "contour.png").exists()
        assert float(load_surface(folder / "surface.zarr").loss.max()) == float(surface.loss.max())
    losses = [looking.surfaces[root / name].attrs["origin_loss"] for name in ("epoch-2", "epoch-4")]
    assert losses[1] < losses[0]  # it learns


@pytest.mark.parametrize("wrong", [{"every_n_epochs": 0}, {"batches": 0}])
def test_a_surface_that_is_never_looked_at_is_refused(wrong):
    from gruland.callbacks import LossSurface

    with pytest.raises(ValueError, match=f"{next(iter(wrong))}=0: expected a whole number of at least 1"):
        LossSurface(**wrong)
