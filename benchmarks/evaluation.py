"""Evaluation beside OpenVINO and onnxruntime: the same weights, 2 layers with tanh between.

B sequences, T time steps, D numbers in a word vector, H hidden units, K outputs, U distinct words of the reviews.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.clock import Candidate, Timings, Unavailable, fastest, threads
from benchmarks.engine import evaluate, precisions
from benchmarks.machine import installed
from benchmarks.subject import Context
from benchmarks.table import Row, ratio
from gruland.classifier import Classifier
from gruland.data import Encoded
from gruland.data.batches import by_length
from gruland.evaluation import logits

TITLE = "Evaluation: OpenVINO and onnxruntime"
WHAT = "evaluation of 2 layers with tanh between"
TARGET = 1.5
CLOSE = 0.05  # the largest difference of a logit that rounding to bfloat16 may make; float32 stays below a 100th of it
Inputs = list[tuple[np.ndarray, np.ndarray]]  # tokens int32 [T, B] and lengths int32 [B]


def measure(context: Context) -> Iterator[Row]:
    """Ratios for each number of threads and precision."""
    for count in context.settings.threads:
        with threads(count):
            timings = context.alternate(_makers(context, count))
        for precision in precisions():
            yield from _rows(context, timings, precision, count)


def _rows(context: Context, timings: Timings, precision: str, count: int) -> Iterator[Row]:
    sizes = f"2x{context.model.gru.hidden_size}, {precision}, {context.settings.peer_reviews} reviews"
    setting = f"{sizes}, threads: {count}"
    peers = [f"openvino {p}" for p in dict.fromkeys(("float32", precision))] + ["onnxruntime float32"]
    for peer in peers:
        package, _, theirs = peer.partition(" ")
        against = f"{package} {installed(package) or ''}, {theirs}".replace(" ,", ",")
        yield ratio(WHAT, against, setting, timings, f"gruland {precision}", peer)
    there = [peer for peer in peers if peer in timings.seconds]
    best = min(there, key=timings.median, default=peers[0])
    note = "; ".join([f"that is {best}", *[f"{p}: {e}" for p, e in timings.errors.items() if p in peers]])
    yield ratio(WHAT, "the better one of OpenVINO's and onnxruntime's GRU", setting, timings,
                f"gruland {precision}", best, TARGET, note)  # fmt: skip


def _makers(context: Context, count: int) -> dict[str, Callable[[], Candidate]]:
    makers = {f"gruland {precision}": lambda p=precision: _gruland(context, p) for precision in precisions()}
    for precision in precisions():
        makers[f"openvino {precision}"] = lambda p=precision: _openvino(context, count, p)
    return makers | {"onnxruntime float32": lambda: _onnxruntime(context, count)}


def _gruland(context: Context, precision: str) -> Candidate:
    """As the centre of a surface is evaluated, the projection of the reviews' words included."""
    encoded, labels = context.reviews(context.settings.peer_reviews)
    objective, parameters = evaluate(context.model, encoded, labels, precision), context.model.trainable()
    return Candidate(lambda _: objective(parameters))


def _onnxruntime(context: Context, count: int) -> Candidate:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = count, 1
    options.log_severity_level = 3
    _, graph = _graph(context)
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def infer(tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return session.run(None, {"tokens": tokens, "lengths": lengths})[0]

    return _best_batch_size(context, infer, "float32")


def _openvino(context: Context, count: int, precision: str) -> Candidate:
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": count,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
    }
    _, graph = _graph(context)
    compiled = core.compile_model(core.read_model(graph), "CPU", settings)
    request = compiled.create_infer_request()

    def infer(tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return request.infer({"tokens": tokens, "lengths": lengths})[compiled.output(0)]

    return _best_batch_size(context, infer, precision)


def _best_batch_size(context: Context, infer: Callable[..., np.ndarray], precision: str) -> Candidate:
    """Batches sorted by length, of the size with which the peer is fastest. Raises where its logits are others."""
    encoded, _ = context.reviews(context.settings.peer_reviews)
    rows, _ = _graph(context)
    dense = Encoded(np.searchsorted(rows, encoded.tokens).astype(np.int32), encoded.offsets)

    def run(inputs: Inputs) -> Callable[[int], object]:
        return lambda _: [infer(tokens, lengths) for tokens, lengths in inputs]

    runs = {}
    for size in context.settings.batch_sizes:
        order = by_length(np.arange(dense.size), dense.lengths, size)
        inputs = [_inputs(dense.take(indices)) for indices in order]
        _compare(context.model, encoded, order, run(inputs)(0), precision)
        runs[f"batches of {size}"] = run(inputs)
    return fastest(runs, context.settings.clock)


def _inputs(encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
    tokens, lengths = encoded.padded()
    return np.ascontiguousarray(tokens.numpy().T.astype(np.int32)), lengths.numpy().astype(np.int32)


def _compare(
    model: Classifier, encoded: Encoded, order: list[np.ndarray], found: Any, precision: str
) -> None:
    expected = logits(model, encoded).numpy()[np.concatenate(order)]
    worst = float(np.abs(np.concatenate(found) - expected).max())
    if not worst <= CLOSE * (1 if precision == "bfloat16" else 0.01) * max(1.0, np.abs(expected).max()):
        raise Unavailable(f"its logits are off by {worst:.1e}")


def _graph(context: Context) -> tuple[np.ndarray, bytes]:
    """The rows of the vectors that occur [U], sorted, and the classifier as an ONNX graph over their numbers."""
    encoded, _ = context.reviews(context.settings.peer_reviews)
    rows = np.unique(encoded.tokens)
    return rows, onnx_graph(context.model, context.model.vectors[torch.from_numpy(rows).long()].numpy())


def onnx_graph(model: Classifier, vectors_UD: np.ndarray) -> bytes:
    """From tokens [T, B] and lengths [B] to logits [B, K]; ONNX has the gates in the order z, r, n."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights = [helper.make_node("Gather", ["vectors", "tokens"], ["x0"])], {"vectors": vectors_UD}
    last = model.gru.num_layers - 1
    for index in range(model.gru.num_layers):
        layer = [_zrn(weight.detach().numpy()) for weight in model.gru.layer(index)]
        weights |= {
            f"W{index}": layer[0][None], f"R{index}": layer[1][None], f"B{index}": np.concatenate(layer[2:])[None],
        }  # fmt: skip
        inputs = [f"x{index}", f"W{index}", f"R{index}", f"B{index}", "lengths"]
        outputs = [f"y{index}", f"h{index}"]
        options = {"hidden_size": model.gru.hidden_size, "linear_before_reset": 1}
        nodes.append(helper.make_node("GRU", inputs, outputs, **options))
        if index < last:
            nodes.append(helper.make_node("Squeeze", [f"y{index}", "one"], [f"s{index}"]))
            nodes.append(helper.make_node("Tanh", [f"s{index}"], [f"x{index + 1}"]))
    head = model.head
    weights |= {"one": np.array([1]), "zero": np.array([0]), "head": head.weight.detach().numpy(),
                "bias": head.bias.detach().numpy()}  # fmt: skip
    nodes.append(helper.make_node("Squeeze", [f"h{last}", "zero"], ["state"]))
    nodes.append(helper.make_node("Gemm", ["state", "head", "bias"], ["logits"], transB=1))
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("tokens", TensorProto.INT32, ["T", "B"]),
         helper.make_tensor_value_info("lengths", TensorProto.INT32, ["B"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", model.task.num_outputs])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    return made.SerializeToString()


def _zrn(weight: np.ndarray) -> np.ndarray:
    r, z, n = np.split(weight, 3)
    return np.concatenate([z, r, n])
