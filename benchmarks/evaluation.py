"""Evaluation beside OpenVINO and onnxruntime: the same weights, 2 layers with tanh between.

B sequences, T time steps, D numbers in a word vector, H hidden units, K outputs, U distinct words of the reviews.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from benchmarks.clock import Candidate, Timings, Unavailable, fastest, threads
from benchmarks.engine import precisions
from benchmarks.machine import installed
from benchmarks.subject import Context
from benchmarks.table import Row, ratio
from gruland.classifier import Classifier
from gruland.data import Encoded
from gruland.data.batches import by_length
from gruland.evaluation import logits
from gruland.objective import EvaluationLoss

TITLE = "Evaluation: OpenVINO and onnxruntime"
WHAT = "evaluation of 2 layers with tanh between"
TARGET = 1.5
#: How far a logit may be off, as a share of the largest: what rounding in that precision may do.
CLOSE = {"float32": 5e-4, "bfloat16": 5e-2}
#: The graphs a peer chooses from: whether the last state is picked by its place, or the operator knows the lengths.
GRAPHS = {"last states gathered": True, "lengths given": False}

Inputs = dict[str, np.ndarray]
Infer = Callable[[Inputs], np.ndarray]


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
    objective = EvaluationLoss(context.model, encoded, labels, precision=precision)
    parameters = context.model.trainable()
    return Candidate(lambda _: objective(parameters))


def _onnxruntime(context: Context, count: int) -> Candidate:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = count, 1
    options.log_severity_level = 3

    def load(graph: bytes) -> Infer:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(None, inputs)[0]

    return _best(context, load, "float32")


def _openvino(context: Context, count: int, precision: str) -> Candidate:
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": count,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
    }

    def load(graph: bytes) -> Infer:
        compiled = core.compile_model(core.read_model(graph), "CPU", settings)
        request = compiled.create_infer_request()
        return lambda inputs: request.infer(inputs)[compiled.output(0)].copy()

    return _best(context, load, precision)


def _best(context: Context, load: Callable[[bytes], Infer], precision: str) -> Candidate:
    """Batches sorted by length, in the size and the graph with which the peer is fastest.

    Raises:
        Unavailable: its logits are others than ours in every graph.
    """
    encoded, _ = context.reviews(context.settings.peer_reviews)
    words = np.unique(encoded.tokens)
    dense = Encoded(np.searchsorted(words, encoded.tokens).astype(np.int32), encoded.offsets)
    vectors_UD = context.model.vectors[torch.from_numpy(words).long()].numpy()
    expected, runs, wrong = logits(context.model, encoded).numpy(), {}, []
    for name, ends in GRAPHS.items():
        infer = load(onnx_graph(context.model, vectors_UD, ends))
        for size in context.settings.batch_sizes:
            order = by_length(np.arange(dense.size), dense.lengths, size)
            run = _pass(infer, [_inputs(dense.take(rows), ends) for rows in order])
            error = float(np.abs(np.concatenate(run(0)) - expected[np.concatenate(order)]).max())
            if error <= CLOSE[precision] * max(1.0, float(np.abs(expected).max())):
                runs[f"batches of {size}, {name}"] = run
            else:
                wrong.append(f"logits off by {error:.1e} with {name}")
    if not runs:
        raise Unavailable("; ".join(dict.fromkeys(wrong)))
    return fastest(runs, context.settings.clock)


def _pass(infer: Infer, batches: list[Inputs]) -> Callable[[int], list[np.ndarray]]:
    return lambda _: [infer(inputs) for inputs in batches]


def _inputs(encoded: Encoded, ends: bool) -> Inputs:
    """What the graph takes: tokens [T, B], and lengths [B] or the places of the last words [B, 2]."""
    tokens, lengths = (array.numpy() for array in encoded.padded())
    inputs = {"tokens": np.ascontiguousarray(tokens.T, dtype=np.int32)}
    if ends:
        return inputs | {"ends": np.stack([lengths - 1, np.arange(len(lengths))], 1)}
    return inputs | {"lengths": lengths.astype(np.int32)}


def onnx_graph(model: Classifier, vectors_UD: np.ndarray, ends: bool) -> bytes:
    """From the inputs of :func:`_inputs` to logits [B, K]; ONNX has the gates in the order z, r, n."""
    from onnx import TensorProto, helper, numpy_helper

    node, count, lengths = helper.make_node, model.gru.num_layers, "" if ends else "lengths"
    weights = {"vectors": vectors_UD, "one": np.array([1]), "zero": np.array([0])}
    weights |= {"head": model.head.weight.detach().numpy(), "bias": model.head.bias.detach().numpy()}
    nodes = [node("Gather", ["vectors", "tokens"], ["x0"])]
    for i in range(count):
        w, r, *b = (_zrn(weight.detach().numpy()) for weight in model.gru.layer(i))
        weights |= {f"w{i}": w[None], f"r{i}": r[None], f"b{i}": np.concatenate(b)[None]}
        inputs, options = [f"x{i}", f"w{i}", f"r{i}", f"b{i}", lengths], {"linear_before_reset": 1}
        nodes.append(node("GRU", inputs, [f"y{i}", f"h{i}"], hidden_size=model.gru.hidden_size, **options))
        nodes.append(node("Squeeze", [f"y{i}", "one"], [f"s{i}"]))
        if i < count - 1:
            nodes.append(node("Tanh", [f"s{i}"], [f"x{i + 1}"]))
    last = [f"s{count - 1}", "ends"] if ends else [f"h{count - 1}", "zero"]
    nodes.append(node("GatherND" if ends else "Squeeze", last, ["state"]))
    nodes.append(node("Gemm", ["state", "head", "bias"], ["logits"], transB=1))
    value = helper.make_tensor_value_info
    where = ("ends", TensorProto.INT64, ["B", 2]) if ends else ("lengths", TensorProto.INT32, ["B"])
    graph = helper.make_graph(
        nodes,
        "classifier",
        [value("tokens", TensorProto.INT32, ["T", "B"]), value(*where)],
        [value("logits", TensorProto.FLOAT, ["B", model.task.num_outputs])],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in weights.items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    return made.SerializeToString()


def _zrn(weight: np.ndarray) -> np.ndarray:
    r, z, n = np.split(weight, 3)
    return np.concatenate([z, r, n])
