"""The classifier against figure 1 of the paper built from torch's own layers, and on tasks of other kinds."""

from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from gruland.classifier import Classifier
from gruland.data import Corpus, TextDataModule
from gruland.embedding import load
from gruland.evaluation import evaluate
from gruland.task import Task

BINARY = Task("binary", ("negative", "positive"))


def test_logits_are_those_of_torchs_layers():
    torch.manual_seed(0)
    vectors = torch.randn(20, 7)
    model = Classifier(BINARY, vectors, hidden_size=5).eval()
    first, second = model.gru.to_torch_layers()
    tokens, lengths = torch.randint(1, 20, (4, 9)), torch.tensor([9, 3, 1, 6])
    for i, length in enumerate(lengths):
        h, _ = first(nn.Embedding.from_pretrained(vectors)(tokens[i : i + 1, :length]))
        h, _ = second(torch.tanh(h))
        expected = model.head(h[:, -1])
        torch.testing.assert_close(model(tokens, lengths)[i : i + 1], expected)


def test_precision_is_the_grus():
    assert Classifier(BINARY, torch.randn(20, 7), hidden_size=5).gru.precision == "float32"
    model = Classifier(BINARY, torch.randn(20, 7), hidden_size=5, precision="bfloat16")
    assert model.gru.precision == "bfloat16"


def test_frozen_vectors_are_neither_trained_nor_saved():
    model = Classifier(BINARY, torch.randn(20, 7), hidden_size=5)
    assert "vectors" not in model.state_dict()
    assert "vectors" not in model.trainable()
    assert "vectors" in Classifier(BINARY, torch.randn(20, 7), hidden_size=5, freeze=False).trainable()


TEXTS = {"good": "a fine and lovely film", "bad": "a dull and awful film", "long": "a very long long film"}


def toy(task: Task, labels: np.ndarray, vectors_file) -> TextDataModule:
    texts = [f"{text} {i % 7}" for i in range(40) for text in TEXTS.values()]
    corpus = Corpus(texts, np.tile(labels, (40, 1)) if labels.ndim > 1 else np.tile(labels, 40), None, task)
    path = vectors_file.with_name("toy.txt")
    path.write_text("the reviews are made by the test")
    source = SimpleNamespace(name="toy", files=lambda cache: [path], read=lambda files: corpus)
    data = TextDataModule(load(str(vectors_file)), source, cache_dir=str(vectors_file.parent / task.kind))
    data.prepare_data()
    data.setup()
    return data


@pytest.fixture
def vectors_file(tmp_path):
    words = sorted({word for text in TEXTS.values() for word in text.split()})
    random = np.random.default_rng(0)
    lines = [f"{word} {' '.join(f'{x:.4f}' for x in random.normal(size=6))}" for word in words]
    path = tmp_path / "vectors.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        (Task("multiclass", ("good", "bad", "long")), np.array([0, 1, 2])),
        (Task("multilabel", ("clear", "kind")), np.array([[1, 1], [1, 0], [0, 0]], np.float32)),
    ],
)
def test_other_tasks_are_learned_without_a_change(task, labels, vectors_file, tmp_path):
    data = toy(task, labels, vectors_file)
    torch.manual_seed(0)
    model = Classifier(data.task, torch.from_numpy(data.vocabulary.vectors), hidden_size=8)
    assert model.head.out_features == len(task.classes)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=60,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    trainer.fit(model, data)
    test = data.splits["test"]
    scores = evaluate(model, test.encoded, test.labels)
    assert scores.accuracy > 0.95
    assert scores.f1 > 0.95
