"""A model's weights in a file: safetensors, which holds numbers and nothing that could be called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gruland.files import atomic_path

if TYPE_CHECKING:
    from torch import Tensor


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write weights by name; the file of equal weights has equal bytes, and one that is there already stays."""
    from safetensors.torch import save

    content = save({name: part.detach().cpu().contiguous() for name, part in weights.items()})
    if path.exists() and path.read_bytes() == content:
        return
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def load_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by name, checked against names, shapes and types of ``expected``.

    Raises:
        ValueError: it is truncated, or of another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        weights = load(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a readable file of weights ({error}): run gruland.train again, it makes what is missing"
        ) from error
    described = {name: (tuple(part.shape), part.dtype) for name, part in expected.items()}
    found = {name: (tuple(part.shape), part.dtype) for name, part in weights.items()}
    if described != found:
        name = next(n for n in (*described, *found) if described.get(n) != found.get(n))
        raise ValueError(
            f"{path} is of another model: {name} is {found.get(name)}, expected {described.get(name)}"
        )
    return weights
