"""A torch.nn.LSTM and a small CNN of your own on the same footing as gruland's models.

python docs/examples/any_module.py FOLDER

Both are trained on made-up data in a few seconds and evaluated over three planes each; a table of measures is printed,
and the pictures are written to FOLDER. All that a module needs is a function from its parameters to the losses of some
examples.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from gruland.landscape import compute_surface, gates_of, random_plane
from gruland.landscape.measures import MEASURES
from gruland.landscape.pictures import contour_sheet, write

Evaluate = Callable[[dict[str, Tensor]], tuple[Tensor, Tensor]]
PLANES = 3


class LastState(nn.Module):
    """An LSTM whose last state is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 16, batch_first=True)
        self.head = nn.Linear(16, 2)

    def forward(self, x_BTI: Tensor) -> Tensor:
        return self.head(self.lstm(x_BTI)[0][:, -1])


def cnn() -> nn.Module:
    """Two convolutions with batch normalization, whose running means are buffers: they never move."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2)
    )  # fmt: skip


def sequences(count: int) -> tuple[Tensor, Tensor]:
    """Noise; the label says whether the first numbers of its steps add up to more than 0."""
    x_BTI = torch.randn(count, 20, 3)
    return x_BTI, (x_BTI[:, :, 0].sum(1) > 0).long()


def images(count: int) -> tuple[Tensor, Tensor]:
    """Noise; the label says which half is brighter."""
    x_BCHW = torch.randn(count, 1, 8, 8)
    return x_BCHW, (x_BCHW[..., :4].sum((1, 2, 3)) > x_BCHW[..., 4:].sum((1, 2, 3))).long()


def trained(module: nn.Module, x: Tensor, labels: Tensor, steps: int = 150) -> nn.Module:
    """The module after some steps of Adam, in evaluation mode."""
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(module(x), labels).backward()
        optimizer.step()
    return module.eval()


def losses(module: nn.Module, x: Tensor, labels: Tensor) -> Evaluate:
    """What a landscape wants to know: from parameters to each example's loss and whether it is right."""

    @torch.no_grad()
    def evaluate(parameters: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        output = functional_call(module, parameters, x)
        return F.cross_entropy(output, labels, reduction="none"), output.argmax(1) == labels

    return evaluate


def main(folder: Path) -> None:
    """Train, look, measure."""
    torch.manual_seed(0)
    data = {"LSTM": sequences(256), "CNN": images(256)}
    modules = {"LSTM": trained(LastState(), *data["LSTM"]), "CNN": trained(cnn(), *data["CNN"])}
    surfaces = {}
    for name, module in modules.items():
        parameters = dict(module.named_parameters())
        evaluate = losses(module, *data[name])
        for seed in range(PLANES):
            # A unit's four gates are scaled together; what has no gates is scaled row by row.
            gates = gates_of(module)
            plane = random_plane(parameters, seed, normalization="unit" if gates else "filter", gates=gates)
            path = folder / f"{name}-{seed}.zarr"
            surfaces[name, seed] = compute_surface(
                evaluate, plane.origin, plane.directions, size=13, path=path
            )
    for key, measure in MEASURES.items():
        values = {name: [measure(surfaces[name, seed]) for seed in range(PLANES)] for name in modules}
        print(key, {name: [round(value, 4) for value in found] for name, found in values.items()})
    write(contour_sheet({name: surfaces[name, 0] for name in modules}), folder / "contours")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give a folder for the pictures: python docs/examples/any_module.py FOLDER")
    main(Path(sys.argv[1]))
