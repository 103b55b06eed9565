"""A run as an ONNX model: from word ids and lengths to logits, by any runtime that reads ONNX.

python -m gruland.export RUN model.onnx

The model has the inputs ``tokens`` int64 [B, T] (the ids of ``run.encode``; what lies beyond a length is not read) and
``lengths`` int64 [B], and the output ``logits`` [B, K]. Its metadata hold the task's kind and the classes. It is the
evaluation without dropout, in float32. The graph is written node by node: torch's own export of a recurrent layer
freezes the lengths of its example.

B reviews, T words, V words of the vocabulary, D numbers in a word vector, H hidden units, K outputs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gruland.exits import one_line_errors

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

    from gruland.classifier import Classifier
    from gruland.kernels import Layer
    from gruland.runs import Run

#: Reviews and words of the batches in which the exported model is compared with the run.
BATCHES = ((1, 1), (1, 40), (3, 7), (16, 120), (33, 250))
#: The largest difference of a logit that float32 explains, relative to the largest logit (at least 1).
TOLERANCE = 1e-4
_OPSET = 17


def export(run: Run, path: str | Path) -> float:
    """Write the run's model to ``path``, once its logits were seen to be the run's.

    Returns:
        The largest difference of a logit over :data:`BATCHES`, beside that of torch.

    Raises:
        ImportError: onnx or onnxruntime is missing.
        ValueError: weights of another dtype than float32, or logits that differ.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401  # missing, it is named here and not after the export
    except ImportError as error:
        raise ImportError(f"{error}: pip install 'gruland[onnx]'") from error
    from gruland.files import atomic_path

    graph = build(run.model)
    properties = {"task": run.task.kind, "classes": json.dumps(run.task.classes), "run": run.path.name}
    onnx.helper.set_model_props(graph, properties)
    with atomic_path(path) as temporary:
        onnx.save(graph, temporary)
        onnx.checker.check_model(temporary)
        difference = deviation(run.model, temporary)
        if not difference < TOLERANCE:
            raise ValueError(
                f"{run.path}: the exported model's logits are off by {difference:.1e}, expected less than {TOLERANCE}: "
                "what regularizes it acts in evaluation in a way that the export does not know; nothing was written"
            )
    return difference


def build(model: Classifier) -> onnx.ModelProto:
    """The model in evaluation as an ONNX graph.

    Raises:
        ValueError: weights of another dtype than float32.
    """
    import onnx
    import torch
    from onnx import helper as h

    gru, dtype = model.gru, model.head.weight.dtype
    if dtype != torch.float32:
        raise ValueError(f"the weights are {dtype}: expected torch.float32")
    graph = _Graph()
    # Word vectors, time first. Shapes: tokens (B, T) -> (B, T, D) -> x (T, B, D)
    graph.add("Gather", [graph.weight("vectors", model.vectors), "tokens"], "embedded")
    x = graph.add("Transpose", ["embedded"], "x", perm=[1, 0, 2])
    graph.add("Cast", ["lengths"], "lengths32", to=onnx.TensorProto.INT32)
    if gru.regularizer.kept > 0:
        _add_running(graph, gru.hidden_size)
    for k, layer in enumerate(gru.layers()):
        if k > 0 and gru.between is not None:
            x = graph.add({"tanh": "Tanh", "relu": "Relu"}[gru.between], [x], f"between{k}")
        # Every step's states x (T, B, H), which beyond a length nothing reads, and the last real step's (B, H).
        x, last = (_add_zoneout if gru.regularizer.kept > 0 else _add_gru)(
            graph, k, x, layer, gru.regularizer.kept
        )
    head = [graph.weight("head_weight", model.head.weight), graph.weight("head_bias", model.head.bias)]
    graph.add("Gemm", [last, *head], "logits", transB=1)
    integers, floats = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT
    inputs = [
        h.make_tensor_value_info("tokens", integers, ["reviews", "words"]),
        h.make_tensor_value_info("lengths", integers, ["reviews"]),
    ]
    outputs = [h.make_tensor_value_info("logits", floats, ["reviews", model.head.out_features])]
    whole = h.make_graph(graph.nodes, "gruland", inputs, outputs, graph.weights)
    # An IR version that runtimes of these years read.
    return h.make_model(
        whole, opset_imports=[h.make_opsetid("", _OPSET)], ir_version=8, producer_name="gruland"
    )


class _Graph:
    """Nodes and weights of a graph that is being written."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def add(self, kind: str, inputs: Sequence[str], outputs: str | Sequence[str], **attributes: Any) -> str:
        """A node; returns the name of its first output."""
        from onnx import helper

        outputs = [outputs] if isinstance(outputs, str) else list(outputs)
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, **attributes))
        return outputs[0]

    def weight(self, name: str, values: Any) -> str:
        """A constant: a tensor, a number or a list of integers; returns its name."""
        import numpy as np
        import torch
        from onnx import numpy_helper

        if isinstance(values, torch.Tensor):
            array = np.ascontiguousarray(values.detach().cpu().numpy())
        else:
            array = np.array(values, np.float32 if isinstance(values, float) else np.int64)
        self.weights.append(numpy_helper.from_array(array, name))
        return name


def _add_gru(graph: _Graph, k: int, x: str, layer: Layer, share: float) -> tuple[str, str]:
    """ONNX's GRU, whose gates are z, r, n, and which knows lengths."""
    import torch

    def swapped(weight: Tensor) -> Tensor:
        r, z, n = weight.chunk(3)
        return torch.cat([z, r, n])

    names = [
        graph.weight(f"weight_ih{k}", swapped(layer.weight_ih).unsqueeze(0)),
        graph.weight(f"weight_hh{k}", swapped(layer.weight_hh).unsqueeze(0)),
        graph.weight(f"bias{k}", torch.cat([swapped(layer.bias_ih), swapped(layer.bias_hh)]).unsqueeze(0)),
    ]
    hidden = layer.weight_hh.shape[1]
    inputs, outputs = [x, *names, "lengths32"], [f"all{k}", f"final{k}"]
    graph.add("GRU", inputs, outputs, hidden_size=hidden, linear_before_reset=1)
    direction = graph.weight(f"direction{k}", [1])  # (T, 1, B, H) -> (T, B, H)
    states = graph.add("Squeeze", [f"all{k}", direction], f"states{k}")
    return states, graph.add("Squeeze", [f"final{k}", graph.weight(f"first{k}", [0])], f"last{k}")


def _add_running(graph: _Graph, hidden: int) -> None:
    """``running`` (T, B, 1): whether a review has that step; ``zeros`` (B, H)."""
    graph.add("Shape", ["tokens"], "sizes")
    zero, one = graph.weight("zero", 0), graph.weight("one", 1)
    graph.add("Gather", ["sizes", one], "steps")
    graph.add("Range", [zero, "steps", one], "times")
    graph.add("Unsqueeze", ["times", graph.weight("behind", [1, 2])], "times_T11")
    graph.add("Unsqueeze", ["lengths", graph.weight("around", [0, 2])], "lengths_1B1")
    graph.add("Less", ["times_T11", "lengths_1B1"], "running")
    graph.add("Shape", ["lengths"], "reviews")
    graph.add("Concat", ["reviews", graph.weight("hidden", [hidden])], "state_shape", axis=0)
    graph.add("ConstantOfShape", ["state_shape"], "zeros")


def _add_zoneout(graph: _Graph, k: int, x: str, layer: Layer, share: float) -> tuple[str, str]:
    """A loop over the steps with zoneout's expectation, which ONNX's GRU does not have."""
    from onnx import TensorProto, helper

    # The input's part of the gates of all steps at once: (T, B, 3H)
    graph.add("MatMul", [x, graph.weight(f"weight_ih{k}", layer.weight_ih.t())], f"products{k}")
    gates = graph.add("Add", [f"products{k}", graph.weight(f"bias_ih{k}", layer.bias_ih)], f"gates{k}")
    weight_hh = graph.weight(f"weight_hh{k}", layer.weight_hh.t())
    bias_hh = graph.weight(f"bias_hh{k}", layer.bias_hh)
    kept, rest = graph.weight(f"kept{k}", float(share)), graph.weight(f"rest{k}", 1 - float(share))
    # One step, in the equations of gruland/kernels/eager.py. Shapes: h (B, H), a (B, 3H), runs (B, 1)
    step = _Graph()
    step.add("MatMul", ["h", weight_hh], "product")
    step.add("Add", ["product", bias_hh], "recurrent")
    step.add("Split", ["a"], ["a_r", "a_z", "a_n"], axis=1)
    step.add("Split", ["recurrent"], ["b_r", "b_z", "u"], axis=1)
    step.add("Sigmoid", [step.add("Add", ["a_r", "b_r"], "of_r")], "r")
    step.add("Sigmoid", [step.add("Add", ["a_z", "b_z"], "of_z")], "sigmoid_z")
    step.add("Add", [kept, step.add("Mul", [rest, "sigmoid_z"], "updated")], "z")
    step.add("Tanh", [step.add("Add", ["a_n", step.add("Mul", ["r", "u"], "reset")], "of_n")], "n")
    step.add("Mul", ["z", step.add("Sub", ["h", "n"], "change")], "carried")
    step.add("Add", ["n", "carried"], "new")
    step.add("Where", ["runs", "new", "h"], "h_next")
    step.add("Identity", ["h_next"], "h_out")
    hidden, value = layer.weight_hh.shape[1], helper.make_tensor_value_info
    inputs = [
        value("h", TensorProto.FLOAT, ["reviews", hidden]),
        value("a", TensorProto.FLOAT, ["reviews", 3 * hidden]),
        value("runs", TensorProto.BOOL, ["reviews", 1]),
    ]
    outputs = [value(name, TensorProto.FLOAT, ["reviews", hidden]) for name in ("h_next", "h_out")]
    body = helper.make_graph(step.nodes, f"step{k}", inputs, outputs)
    graph.add("Scan", ["zeros", gates, "running"], [f"last{k}", f"states{k}"], body=body, num_scan_inputs=2)
    return f"states{k}", f"last{k}"


def deviation(model: Classifier, path: str | Path) -> float:
    """The largest difference between the logits of onnxruntime and torch, relative to the largest one (at least 1)."""
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    training, precision = model.training, model.gru.precision
    model.eval().gru.precision = "float32"
    worst = 0.0
    try:
        for tokens, lengths in _batches(len(model.vectors)):
            feeds = {"tokens": tokens.numpy(), "lengths": lengths.numpy()}
            got = torch.from_numpy(session.run(None, feeds)[0])
            with torch.no_grad():
                expected = model(tokens.to(model.device), lengths).cpu()
            worst = max(worst, float((got - expected).abs().max() / expected.abs().max().clamp(min=1)))
    finally:
        model.train(training).gru.precision = precision
    return worst


def _batches(words: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Word ids [B, T] with random ones in the padding, too, and lengths [B] from 1 to T in no order."""
    import torch

    generator = torch.Generator().manual_seed(0)
    for reviews, steps in BATCHES:
        lengths = torch.randint(1, steps + 1, (reviews,), generator=generator)
        lengths[reviews // 2] = steps
        yield torch.randint(words, (reviews, steps), generator=generator), lengths


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m gruland.export", description=__doc__.split("\n")[0])
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument("path", help="the file to write, e.g. model.onnx")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="NAME",
        help="a module, class or function of your own that the run's configuration may name",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    with one_line_errors():
        from gruland import runs

        difference = export(runs.load(options.run, options.allow), options.path)
        sizes = f"{len(BATCHES)} batches of 1 to {BATCHES[-1][0]} reviews with 1 to {BATCHES[-1][1]} words"
        print(f"{options.path}: onnxruntime's logits are within {difference:.0e} of the run's over {sizes}")


if __name__ == "__main__":
    main()
