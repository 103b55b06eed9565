"""A run as an ONNX model: the same logits for every length and batch size."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gruland import export as module
from gruland.classifier import Classifier
from gruland.evaluation import logits
from gruland.regularizers import DropConnect, Zoneout
from gruland.task import Task

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def classifier(**options):
    torch.manual_seed(0)
    options = {"hidden_size": 20, "initialization": "torch", **options}
    task = options.pop("task", Task("binary", ("bad", "good")))
    return Classifier(task, torch.randn(30, 6), **options).eval()


def session(model: Classifier, path: Path) -> onnxruntime.InferenceSession:
    graph = module.build(model)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"regularizer": Zoneout(0.3)},
        {"regularizer": Zoneout(0.9)},
        {"regularizer": DropConnect(0.3)},
        {"between": None, "num_layers": 3},
        {"between": "relu", "regularizer": Zoneout(0.2), "num_layers": 1},
        {"between": "relu", "task": Task("multiclass", ("a", "b", "c"))},
    ],
    ids=["plain", "zoneout", "more-zoneout", "dropconnect", "deep", "relu", "classes"],
)
def test_logits_are_the_models_for_all_lengths_and_batch_sizes(options, tmp_path):
    model, generator = classifier(**options), np.random.default_rng(0)
    served = session(model, tmp_path / "model.onnx")
    for reviews, steps in ((1, 1), (1, 9), (4, 5), (7, 30)):
        tokens = generator.integers(0, 30, (reviews, steps))
        for lengths in (generator.integers(1, steps + 1, reviews), np.full(reviews, steps)):
            (got,) = served.run(None, {"tokens": tokens, "lengths": lengths})
            with torch.no_grad():
                expected = model(torch.from_numpy(tokens), torch.from_numpy(lengths))
            assert np.abs(got - expected.numpy()).max() < 3e-6
            assert got.shape == (reviews, model.head.out_features)


def test_the_padding_is_not_read(tmp_path):
    for index, regularizer in enumerate((None, Zoneout(0.3))):
        served = session(classifier(regularizer=regularizer), tmp_path / f"{index}.onnx")
        tokens, lengths = np.arange(12).reshape(3, 4), np.array([1, 4, 2])
        (first,) = served.run(None, {"tokens": tokens, "lengths": lengths})
        padded = np.pad(tokens, ((0, 0), (0, 3)), constant_values=29)
        padded[0, 1:] = 29
        (second,) = served.run(None, {"tokens": padded, "lengths": lengths})
        np.testing.assert_array_equal(first, second)


def test_a_run_from_the_command_line(smoke_run, tmp_path, capsys):
    path = tmp_path / "model.onnx"
    module.main([str(smoke_run.path), str(path)])
    assert "onnxruntime's logits are within" in capsys.readouterr().out
    served = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    properties = served.get_modelmeta().custom_metadata_map
    assert json.loads(properties["classes"]) == list(smoke_run.task.classes)
    encoded = smoke_run.encode(["A fine film.", "Dull from start to end, and far too long."])
    tokens, lengths = encoded.padded()
    (got,) = served.run(None, {"tokens": tokens.numpy(), "lengths": lengths.numpy()})
    np.testing.assert_allclose(got, logits(smoke_run.model, encoded).numpy(), atol=1e-5)


def test_a_model_that_differs_is_not_written(smoke_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "deviation", lambda *_: 0.5)
    with pytest.raises(SystemExit) as stop:
        module.main([str(smoke_run.path), str(tmp_path / "model.onnx")])
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "logits are off by 5.0e-01" in line
    assert os.listdir(tmp_path) == []


def test_a_deviation_is_seen(tmp_path):
    model = classifier()
    onnx.save(module.build(model), tmp_path / "model.onnx")
    assert module.deviation(model, tmp_path / "model.onnx") < 1e-6
    with torch.no_grad():
        model.gru.bias_hh_l1[-1] += 0.1
    assert module.deviation(model, tmp_path / "model.onnx") > 1e-4


def test_weights_of_another_dtype_are_refused():
    with pytest.raises(ValueError, match=r"the weights are torch.float64: expected torch.float32"):
        module.build(classifier().double())


def test_without_onnx_the_extra_is_named(smoke_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'gruland\[onnx\]'"):
        module.export(smoke_run, tmp_path / "model.onnx")
