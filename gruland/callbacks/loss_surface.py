"""The loss surface of a model, during its training and after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.func import functional_call

from gruland import runs
from gruland.arguments import check_whole

if TYPE_CHECKING:
    import xarray

    from gruland.surfaces import Surface


class LossSurface(pl.Callback):
    """The filter-normalized loss surface at the end of ``trainer.test`` and, where asked for, during training.

    It works in any Lightning project::

        trainer = pl.Trainer(callbacks=[LossSurface(Surface(size=13), every_n_epochs=5)])

    What a point of the surface costs is the loss that the module's ``training_step`` returns, in evaluation mode, over
    the first ``batches`` batches of the validation (after training: the test) data; each batch counts as one example.
    The module's weights, its random state and what it logs stay as they are. ``landscape/`` below the trainer's
    ``default_root_dir`` gets ``surface.zarr`` and the pictures, and during training ``landscape/epoch-5/`` and so on.
    docs/examples/surface_of_any_module.py is a whole script.

    For a run of this package the surface after training is that of :func:`gruland.surfaces.compute_run`: the best
    checkpoint over the reviews that ``surface`` names.

    Args:
        surface: what it shows; nothing is computed where it is not ``enabled``. Of another module's surface it gives
            ``size``, ``extent``, ``normalization``, ``vectors`` and ``seed``. None = the defaults.
        every_n_epochs: look after the validation of every so many epochs as well; None = not during training.
        batches: how many batches a point is evaluated over.

    Attributes:
        surfaces: by folder, what was computed (:func:`gruland.landscape.compute_surface`).

    Raises:
        ValueError: ``every_n_epochs`` or ``batches`` below 1.
    """

    def __init__(
        self, surface: Surface | None = None, every_n_epochs: int | None = None, batches: int = 8
    ) -> None:
        from gruland.surfaces import Surface

        if every_n_epochs is not None and every_n_epochs < 1:
            raise ValueError(
                f"every_n_epochs={every_n_epochs}: expected a whole number of at least 1, or None"
            )
        check_whole("batches", batches, 1)
        self.surface = Surface() if surface is None else surface
        self.every_n_epochs, self.batches = every_n_epochs, batches
        self.surfaces: dict[Path, xarray.Dataset] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        every, epoch = self.every_n_epochs, trainer.current_epoch + 1
        if every and not trainer.sanity_checking and trainer.state.fn == "fit" and not epoch % every:
            self._look(trainer, pl_module, trainer.val_dataloaders, f"epoch-{epoch}")

    @torch.inference_mode(False)  # Lightning's mode has no gradients, which a plane by the Hessian takes
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        from gruland.classifier import Classifier
        from gruland.surfaces import compute_run

        root = Path(trainer.default_root_dir)
        if not isinstance(pl_module, Classifier) or not (root / "config.yaml").exists():
            self._look(trainer, pl_module, trainer.test_dataloaders, "")
        elif self.surface.enabled:
            compute_run(runs.at(root), self.surface, device=pl_module.device)

    def _look(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loaders: Any, where: str) -> None:
        from gruland.landscape import compute_surface, gates_of, random_plane
        from gruland.landscape.pictures import write_pictures

        if not self.surface.enabled or not trainer.is_global_zero:
            return
        chosen, folder = self.surface, Path(trainer.default_root_dir) / "landscape" / where
        with _undisturbed(pl_module):
            loader = loaders[0] if isinstance(loaders, list | tuple) else loaders
            batches = [
                pl_module.transfer_batch_to_device(batch, pl_module.device, 0)
                for batch in islice(loader, self.batches)
            ]
            weights = {name: p.detach() for name, p in pl_module.named_parameters() if p.requires_grad}
            plane = random_plane(
                weights,
                chosen.seed,
                normalization=chosen.normalization,
                vectors=chosen.vectors,
                gates=gates_of(pl_module),
            )
            surface = compute_surface(
                _step_losses(pl_module, batches),
                plane.origin,
                plane.directions,
                size=chosen.size,
                extent=chosen.extent,
                path=folder / "surface.zarr",
                attributes={"normalization": chosen.normalization},
                label=" ".join(["loss surface", where]).strip(),
            )
        write_pictures(surface, folder, where)
        self.surfaces[folder] = surface


class _Step(nn.Module):
    """``training_step`` as a forward pass, which functional_call can give other weights."""

    def __init__(self, module: pl.LightningModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: Any, index: int) -> Tensor:
        returned: Any = self.module.training_step(batch, index)
        return returned["loss"] if isinstance(returned, dict) else returned


def _step_losses(
    module: pl.LightningModule, batches: list[Any]
) -> Callable[[dict[str, Tensor]], tuple[Tensor, Tensor]]:
    """From weights to each batch's loss; a step does not say what is right, so the accuracy is not a number."""
    step = _Step(module)

    @torch.no_grad()
    def evaluate(weights: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        given = {f"module.{name}": value for name, value in weights.items()}
        losses = [functional_call(step, given, (batch, i)) for i, batch in enumerate(batches)]
        return torch.stack(losses).float(), torch.full((len(losses),), torch.nan)

    return evaluate


@contextmanager
def _undisturbed(module: pl.LightningModule) -> Iterator[None]:
    """Evaluation mode, and nothing logged; afterwards every part is in its own mode and the random state as before."""
    modes = {part: part.training for part in module.modules()}
    devices = [module.device] if module.device.type == "cuda" else []
    module.eval()
    # On this object alone, beside the class's methods, until they are deleted below.
    module.log = module.log_dict = lambda *_, **__: None  # type: ignore[method-assign,assignment]  # on purpose
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        del module.log, module.log_dict
        for one, mode in modes.items():
            one.training = mode
