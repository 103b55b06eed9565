"""Typing errors against a classifier of your own: any LightningModule that turns texts into logits.

python docs/examples/attack_any_module.py FOLDER

The module says what its classes are (``task``), what it makes of raw texts (``logits``) and which texts it is tested on
(``labelled_texts``). That is all that an attack needs.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from gruland.attack import Texts, TypingErrors
from gruland.callbacks import AdversarialEvaluation
from gruland.task import Task

GOOD, BAD = ["wonderful", "moving", "brilliant"], ["terrible", "boring", "pointless"]


def reviews(count: int, seed: int) -> Texts:
    """Made-up reviews; take your own."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    kinds = [GOOD if label else BAD for label in labels]
    texts = [f"a {draw.choice(words)} film with a {draw.choice(words)} plot" for words in kinds]
    return Texts(np.arange(count), texts, labels)


class Sentiment(pl.LightningModule):
    """An LSTM over hashed words."""

    task = Task("multiclass", ("negative", "positive"))

    def __init__(self) -> None:
        super().__init__()
        self.words, self.lstm, self.head = (
            nn.Embedding(1000, 16),
            nn.LSTM(16, 16, batch_first=True),
            nn.Linear(16, 2),
        )

    def forward(self, texts: Sequence[str]) -> Tensor:
        ids = [[zlib.crc32(word.encode()) % 1000 for word in text.split()[:8]] for text in texts]
        padded = torch.tensor([row + [0] * (8 - len(row)) for row in ids], device=self.device)
        return self.head(self.lstm(self.words(padded))[1][0][-1])

    @torch.no_grad()
    def logits(self, texts: Sequence[str]) -> Tensor:
        """What an attack asks: logits of raw texts, on the CPU."""
        return self.eval()(texts).cpu()

    def labelled_texts(self, split: str) -> Texts:
        """The texts that an attack starts from."""
        return reviews(40, seed={"validation": 1, "test": 2}[split])

    def training_step(self, batch: list[int], index: int) -> Tensor:
        texts = reviews(128, seed=0)
        chosen = [int(i) for i in batch]
        return F.cross_entropy(self([texts.texts[i] for i in chosen]), torch.as_tensor(texts.labels[chosen]))

    def test_step(self, batch: list[int], index: int) -> None:
        """Nothing is measured here but what the callback measures."""

    def train_dataloader(self) -> DataLoader:
        return DataLoader(range(128), batch_size=16)  # type: ignore[arg-type]  # numbers will do

    def test_dataloader(self) -> DataLoader:
        return DataLoader(range(40), batch_size=16)  # type: ignore[arg-type]  # numbers will do

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.02)


def main(folder: str | Path) -> None:
    """Train, test, and attack with few and with many typing errors."""
    torch.manual_seed(0)
    attacks = {"few_errors": TypingErrors(rate=0.1), "many_errors": TypingErrors(rate=0.6)}
    evaluation = AdversarialEvaluation(attacks, folder)
    trainer = pl.Trainer(
        max_epochs=4, accelerator="cpu", callbacks=[evaluation], default_root_dir=folder, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    model = Sentiment()
    trainer.fit(model)
    trainer.test(model, verbose=False)
    for name, outcome in evaluation.outcomes.items():
        clean, attacked = (
            outcome.results["scores"][form]["plain"]["accuracy"] for form in ("raw", "perturbed")
        )
        changed = outcome.results["achieved_rate"]
        print(f"{name}: accuracy {clean:.0%}, with {changed:.0%} of the words changed {attacked:.0%}")
    print(f"texts and scores: {Path(folder) / 'attack'}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give a folder for the results: python docs/examples/attack_any_module.py FOLDER")
    main(sys.argv[1])
