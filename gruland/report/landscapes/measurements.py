"""What is computed of each run of a comparison, kept in the run's folder: nothing is computed twice.

::

    <run>/landscape/comparison/
        planes-<hash>/seed-<k>.zarr       the surface over the plane of direction seed k
        path-<hash>/surface.zarr          the surface over the plane of the training's path
        path-<hash>/path.json             where its checkpoints lie, and their true losses
        curvature-<hash>.json             eigenvalues, trace and spectral density of the Hessian, worst sharpnesses
        sharpness-<hash>.json             the mean adaptive sharpness
        barrier-<hash>-<other run>.json   the loss on the way to another seed's weights

A hash is that of the settings that matter, so that comparisons with other settings stay side by side; barriers
and the Hessian are taken over to other planes. A surface is computed by one process at a time; what is one file is
computed by whoever comes first, or twice.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gruland.errors import one_line
from gruland.files import json_hash, read_json, write_json
from gruland.landscape.directions import fingerprint
from gruland.report.models import Model, references
from gruland.runs import Run

if TYPE_CHECKING:
    import xarray

    from gruland.classifier import Classifier
    from gruland.landscape.planes import Weights
    from gruland.objective.evaluation import EvaluationLoss
    from gruland.surfaces import Surface

log = logging.getLogger(__name__)

#: The lines between two networks: to the other as it is, and with its hidden units matched.
STAGES = ("before alignment", "after alignment")
#: Points of a line, and a number that is counted up with each change of what is computed on it.
BARRIER_POINTS, BARRIER_VERSION = 13, 1
#: The settings that say which reviews, and which of them the objective depends on.
REVIEWS = ("split", "reviews_seed")
OBJECTIVE = (*REVIEWS, "reviews", "objective", "draws", "precision")


class Bench:
    """A run whose weights, reviews and objective are loaded when they are first asked for.

    Args:
        run: a finished run.
        settings: of its surfaces; ``reviews_seed`` is given, ``seed`` is the first direction seed.
        name: what progress lines call it.
    """

    def __init__(self, run: Run, settings: Surface, name: str) -> None:
        self.run, self.settings, self.name = run, settings, name
        self.folder = run.path / "landscape" / "comparison"

    @cached_property
    def model(self) -> Classifier:
        """The best checkpoint, with masks at rest."""
        return self.run.model

    @cached_property
    def evaluate(self) -> EvaluationLoss:
        """The objective, made once for everything that is measured."""
        from gruland.surfaces import objective_of

        return objective_of(self.model, self.run.data, self.settings)

    def surface(self, index: int, label: str | None = None) -> xarray.Dataset:
        """The surface over the plane of a direction seed, counted from the settings'."""
        from gruland.surfaces import surface_of

        settings = replace(self.settings, seed=self.settings.seed + index)
        path = self.folder / f"planes-{_hash(self.settings.to_dict())}" / f"seed-{settings.seed}.zarr"
        return surface_of(self.run, settings, evaluate=self.evaluate, path=path, label=label)

    def surfaces(self, directions: int) -> Iterator[xarray.Dataset]:
        """The surface over the plane of each direction seed, one after the other."""
        for index in range(directions):
            yield self.surface(index, f"{self.name}: plane {index + 1}/{directions}")

    def path(self) -> tuple[xarray.Dataset, dict[str, Any]] | None:
        """The surface over the plane of the training's path, and the path as columns; None if no epochs were kept."""
        from gruland.surfaces import plane_of, run_checkpoints, run_path, surface_of

        if len(self.run.epochs) < 3:
            return None
        folder = self.folder / f"path-{_hash(self.settings.to_dict())}"
        settings = replace(self.settings.on("trajectory"), extent=None)
        plane, label = plane_of(self.run, settings), f"{self.name}: plane of the path"
        surface = surface_of(
            self.run, settings, plane=plane, evaluate=self.evaluate, path=folder / "surface.zarr", label=label
        )
        points = [*run_checkpoints(self.run).values(), plane.origin]
        identity = [[fingerprint(parameters) for parameters in points], self.evaluate.precision]
        return surface, self._kept(
            folder / "path.json", identity, lambda: run_path(self.evaluate, self.run, plane)
        )

    def curvature(self, reviews: int) -> dict[str, Any] | None:
        """The Hessian over that many reviews and the sharpnesses, see :mod:`gruland.report.landscapes.hessians`.

        None where the model has a cell of its own, whose Hessian is not offered.
        """
        from gruland.objective.mean_loss import MeanLoss
        from gruland.report.landscapes.hessians import VERSION, curvature, mean_sharpness
        from gruland.surfaces import reviews_of

        model, seed = self.model, self.settings.subset_seed
        if "gates" in model.regularizer.hooks:
            log.warning(
                "%s: %s has a cell of its own, no Hessian and no sharpness",
                self.name,
                model.regularizer.title,
            )
            return None

        def hessian() -> dict[str, Any]:
            encoded, labels, _ = reviews_of(self.run.data, self.settings, reviews)
            return curvature(MeanLoss(model, encoded, labels), seed, self.name)

        def mean() -> dict[str, Any]:
            return mean_sharpness(self.evaluate, model, seed)

        weights = fingerprint(model.trainable())
        over_reviews = self.folder / f"curvature-{self._hash_of(REVIEWS, VERSION, reviews)}.json"
        over_objective = self.folder / f"sharpness-{self._hash_of(OBJECTIVE, VERSION)}.json"
        return {
            **self._kept(over_reviews, weights, hessian),
            **self._kept(over_objective, [weights, self.evaluate.precision], mean),
        }

    def barrier(self, other: Bench) -> dict[str, Any]:
        """The loss on the line to another network of the same architecture, before and after its units are aligned."""
        settings = self._hash_of(OBJECTIVE, BARRIER_POINTS, BARRIER_VERSION)
        path = self.folder / f"barrier-{settings}-{other.run.path.name}.json"
        both = [fingerprint(bench.model.trainable()) for bench in (self, other)]
        return self._kept(path, [both, self.evaluate.precision], lambda: self._barrier(other))

    def _barrier(self, other: Bench) -> dict[str, Any]:
        from gruland.landscape.alignment import align, barrier, hidden_units

        here, there = (dict(bench.model.trainable()) for bench in (self, other))
        aligned = align(there, here, hidden_units(self.model, ("head.weight",)), signs=True)
        log.info("%s: barrier to %s", self.name, other.run.path.name)
        others: list[Weights] = [there, aligned.parameters]
        result: dict[str, Any] = {"cosine": {"before": aligned.before, "after": aligned.score}}
        for stage, weights in zip(STAGES, others, strict=True):
            found = barrier(self.evaluate, here, weights, points=BARRIER_POINTS)
            curve = {
                str(name): found.curve[name].values.tolist() for name in ("t", "loss", "loss_se", "accuracy")
            }
            result[stage] = {"loss": list(found.loss), "error": list(found.error), "curve": curve}
        return result

    def _hash_of(self, keys: Sequence[str], *others: Any) -> str:
        return _hash([{key: getattr(self.settings, key) for key in keys}, *others])

    def _kept(self, path: Path, identity: Any, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What ``compute`` gives, from the file if it was computed of the same weights and data."""
        identity = [identity, self.evaluate.about["data"]]
        if path.exists():
            try:
                found = read_json(path)
                if found["identity"] == identity:
                    return found["values"]
            except (ValueError, KeyError, TypeError) as error:
                log.warning("%s cannot be read (%s): it is computed again", path, one_line(error))
        values = compute()
        write_json(path, {"identity": identity, "values": values})
        return values


def _hash(settings: Any) -> str:
    return json_hash(settings)[:8]


def benches(runs: Sequence[tuple[str, Run]], settings: Surface) -> Iterator[Bench]:
    """A bench for each named run, one after the other; runs on the same data share it in memory."""
    loaded: dict[str, Any] = {}
    for number, (name, run) in enumerate(runs, 1):
        fresh = Run(run.path, run.allow)  # nothing of an earlier run's model stays in memory
        key = json.dumps([dict(fresh.config.data), dict(fresh.config.embedding)], default=str, sort_keys=True)
        if key in loaded:
            fresh.check_data(loaded[key])
            fresh.data = loaded[key]
        loaded[key] = fresh.data
        yield Bench(fresh, settings, f"[{number}/{len(runs)}] {name}")


class PlaneTask(NamedTuple):
    """A run's folder and the number of one of its planes, from 0; the classes that it may name."""

    run: Path
    number: int
    allow: tuple[str, ...] = ()


class PlaneSurfaces:
    """What a worker does for a comparison: it computes a plane's surface into the run's folder.

    A worker keeps the run that it had last, with its model and its reviews.
    """

    def __init__(self, settings: Surface) -> None:
        self._settings = settings
        self._bench: Bench | None = None

    def __call__(self, task: PlaneTask) -> None:
        if self._bench is None or self._bench.run.path != task.run:
            self._bench = Bench(Run(task.run, task.allow), self._settings, task.run.name)
        self._bench.surface(task.number)


@dataclass
class Measured:
    """Everything that was measured, by model label and training seed."""

    settings: dict[str, Any]
    models: list[Model]
    surfaces: dict[str, dict[int, list[xarray.Dataset]]] = field(default_factory=dict)
    paths: dict[str, dict[int, tuple[xarray.Dataset, dict[str, Any]]]] = field(default_factory=dict)
    curvature: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    barriers: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """The models' labels."""
        return [model.label for model in self.models]

    @property
    def references(self) -> dict[str, str]:
        """From each model's label to that of the one it is compared with, :func:`gruland.report.models.references`."""
        return {model.label: other.label for model, other in references(self.models).items()}
