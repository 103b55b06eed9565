"""A training step, forward, backward and Adam, beside ``torch.nn.GRU`` and haste."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise, product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.clock import Candidate, Timings, fastest, threads
from benchmarks.engine import check
from benchmarks.plain import Plain
from benchmarks.subject import Context
from benchmarks.table import Row, ratio
from gruland.classifier import Classifier
from gruland.data import Batch
from gruland.regularizers import DropConnect, Embedding, Locked, NoDropout, Recurrent, Regularizer, Zoneout

TITLE = "Training step"
WHAT = "training step (forward, backward, Adam), B=32, full-length bucketed reviews"
RATE = 0.1
REGULARIZERS: dict[str, Regularizer] = {
    "no regularizer": NoDropout(),
    f"zoneout {RATE}": Zoneout(RATE),
    f"DropConnect {RATE}": DropConnect(RATE),
}
#: Further masks, of which the cost alone is measured.
MASKS: dict[str, Regularizer] = {
    f"locked {RATE}": Locked(RATE),
    f"recurrent {RATE}": Recurrent(RATE),
    f"embedding {RATE}": Embedding(RATE),
}
TARGETS = {
    ("no regularizer", "float32"): 2.5, ("no regularizer", "bfloat16"): 3.5,
    (f"zoneout {RATE}", "float32"): 2.3, (f"DropConnect {RATE}", "float32"): 2.3,
}  # fmt: skip
COST = 10.0  # per cent that a regularizer may cost


def measure(context: Context) -> Iterator[Row]:
    """Ratios for each size and number of threads, the cost of regularization, then haste."""
    batches = context.batches(context.settings.batches)
    for hidden in context.settings.hidden:
        for count in context.settings.threads:
            with threads(count):
                yield from _beside_torch(context, hidden, batches, count)
    yield _beside_haste(context, batches)


def _beside_torch(context: Context, hidden: int, batches: list[Batch], count: int) -> Iterator[Row]:
    def torchs() -> Candidate:
        model = context.fresh_model(hidden_size=hidden)
        runs = {name: steps(Plain(model, packed), model, batches) for name, packed in LAYOUTS.items()}
        return fastest(runs, context.settings.clock)

    def ours(regularizer: str, precision: str) -> Candidate:
        model = _model(
            context, precision, hidden_size=hidden, regularizer=(REGULARIZERS | MASKS)[regularizer]
        )
        return Candidate(steps(model, model, batches))

    pairs = list(product(REGULARIZERS, ("float32", "bfloat16")))
    measured = [*pairs, *((name, "float32") for name in MASKS)]
    timings = context.alternate({"torch": torchs, **{f"{r}, {p}": partial(ours, r, p) for r, p in measured}})
    setting = f"H={hidden}, threads: {count}, {len(batches)} batches"
    for regularizer, precision in pairs:
        name = f"{regularizer}, {precision}"
        # One core is for comparison: the targets are those of two.
        target = TARGETS.get((regularizer, precision)) if count == max(context.settings.threads) else None
        yield ratio(f"{WHAT}, {name}", "torch.nn.GRU without any", setting, timings, name, "torch", target)
    for regularizer in [*list(REGULARIZERS)[1:], *MASKS]:
        yield _cost(timings, regularizer, setting)


def _cost(timings: Timings, regularizer: str, setting: str) -> Row:
    row = Row("cost of regularization in a training step", "no regularizer, float32", f"{regularizer}, {setting}", None,
              "%", COST, at_least=False)  # fmt: skip
    pair = f"{regularizer}, float32", "no regularizer, float32"
    row.error = "; ".join(timings.errors[name] for name in pair if name in timings.errors)
    if not row.error:
        row.value = 100 * (timings.median(pair[0]) / timings.median(pair[1]) - 1)
    return row


LAYOUTS = {"padded sequences": False, "packed sequences": True}


def _model(context: Context, precision: str, **options: object) -> Classifier:
    """A fresh model that trains in this precision."""
    check(precision)
    return context.fresh_model(precision=precision, **options)


def steps(module: nn.Module, model: Classifier, batches: list[Batch]) -> Callable[[int], None]:
    """A step on each batch."""
    module.train()
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad])

    def run(_: int) -> None:
        for batch in batches:
            optimizer.zero_grad()
            model.task.loss(module(batch.tokens, batch.lengths), batch.labels).backward()
            optimizer.step()

    return run


class Haste(nn.Module):
    """The classifier on haste's own layers."""

    def __init__(self, model: Classifier, zoneout: float) -> None:
        super().__init__()
        from haste_pytorch import GRU

        gru = model.gru
        sizes = [gru.input_size, *[gru.hidden_size] * gru.num_layers]
        self.vectors = model.vectors
        self.layers = nn.ModuleList(GRU(a, b, zoneout=zoneout) for a, b in pairwise(sizes))
        self.head = nn.Linear(gru.hidden_size, model.task.num_outputs)

    def forward(self, tokens_BT: Tensor, lengths_B: Tensor) -> Tensor:
        """Logits [B, K]."""
        x_TBD = F.embedding(tokens_BT.t(), self.vectors)
        for index, layer in enumerate(self.layers):
            x_TBD, _ = layer(x_TBD.tanh() if index else x_TBD)
        return self.head(x_TBD[lengths_B - 1, torch.arange(len(lengths_B))])


def _beside_haste(context: Context, batches: list[Batch]) -> Row:
    count, zoneout = max(context.settings.threads), REGULARIZERS[f"zoneout {RATE}"]

    def haste() -> Candidate:
        model = context.fresh_model(regularizer=zoneout)
        return Candidate(steps(Haste(model, RATE), model, batches))

    def ours() -> Candidate:
        model = _model(context, "float32", regularizer=zoneout)
        return Candidate(steps(model, model, batches))

    with threads(count):
        timings = context.alternate({"haste": haste, "gruland": ours}, min(3, context.settings.repetitions))
    setting = f"H={context.config.model.hidden_size}, threads: {count}, {len(batches)} batches"
    return ratio(
        f"{WHAT}, zoneout {RATE}, float32", "haste-pytorch-cpu", setting, timings, "gruland", "haste", 10.0,
        "haste's backward pass on a CPU costs the square of the length",
    )  # fmt: skip
