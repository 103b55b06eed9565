"""What a run's loss surface shows: the keys of conf/landscape, checked when they are read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gruland.data.splits import NAMES as SPLITS
from gruland.landscape.directions import GATES, check_draw
from gruland.objective.evaluation import PRECISIONS
from gruland.workers import ENGINES

OBJECTIVES = ("evaluation", "training")
#: The planes that a run has by itself; any other word is the path of another run.
PLANES = ("random", "initial", "final", "trajectory", "hessian")
#: The keys that change no number.
HOW_COMPUTED = ("enabled", "workers", "engine")
#: One or two of these, or of other runs' paths, make a plane through weights.
CHECKPOINTS = ("initial", "final")


@dataclass(frozen=True, kw_only=True)
class Surface:
    """What a run's loss surface shows: the keys of conf/landscape, where each is explained, with the same defaults.

    ``Surface(size=51, reviews="all")`` is the paper's; ``dataclasses.replace(surface, seed=1)`` the same over the next
    plane.

    Raises:
        ValueError: a value that cannot work, with the key's name (``landscape.size=0: expected ...``).
    """

    enabled: bool = True
    workers: int = 1
    engine: str = "local"
    size: Any = 13
    extent: Any = 1.0
    plane: Any = "random"
    normalization: str = "filter"
    vectors: str = "ignore"
    only: Any = None
    gate: str | int | None = None
    objective: str = "evaluation"
    draws: int = 8
    split: str = "train"
    reviews: int | str = 100
    seed: int = 0
    reviews_seed: int | None = None
    precision: str = "auto"
    tolerance: float | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _plain(getattr(self, field.name)))
        self._check("enabled", isinstance(self.enabled, bool), "true or false")
        self._check("workers", _whole(self.workers, 1), "a whole number of at least 1")
        self._check("engine", self.engine in ENGINES, f"one of {', '.join(ENGINES)}")
        self._check(
            "size",
            _whole(self.size, 1) or (_pair(self.size) and all(_whole(cells, 1) for cells in self.size)),
            "a whole number of at least 1, or [alpha, beta] of them",
        )
        self._check(
            "extent",
            _is_extent(self.extent),
            "a positive number, [alpha, beta] of them, [[low, high], [low, high]], or null",
        )
        with keys_named():
            check_draw(self.seed, self.normalization, self.vectors)
        for key, known in (("split", SPLITS), ("objective", OBJECTIVES), ("precision", PRECISIONS)):
            self._check(key, getattr(self, key) in known, f"one of {', '.join(known)}")
        self._check(
            "reviews",
            self.reviews == "all" or _whole(self.reviews, 1),
            "a whole number of at least 1, or all",
        )
        self._check("draws", _whole(self.draws, 1), "a whole number of at least 1")
        self._check(
            "reviews_seed",
            self.reviews_seed is None or _whole(self.reviews_seed, 0),
            "a whole number of at least 0, or null",
        )
        self._check(
            "tolerance",
            self.tolerance is None or (_positive(self.tolerance) and self.tolerance < 1),
            "a share of the loss range in (0, 1), or null",
        )
        self._check(
            "max_seconds",
            self.max_seconds is None or _positive(self.max_seconds),
            "a positive number, or null",
        )
        self._check_moving()
        self._check_plane()

    @classmethod
    def of(cls, settings: Surface | Mapping[str, Any]) -> Surface:
        """The surface that a configuration's ``landscape`` describes; keys that are not given have their defaults.

        Raises:
            ValueError: as the class does, or a key that it does not have, with the nearest one.
        """
        if isinstance(settings, Surface):
            return settings
        known = [field.name for field in fields(cls)]
        given = {str(key): value for key, value in settings.items() if key != "_target_"}
        for key in given:
            if key not in known:
                near = get_close_matches(key, known, 1)
                wanted = (
                    f"did you mean landscape.{near[0]}?" if near else f"expected one of {', '.join(known)}"
                )
                raise ValueError(f"landscape.{key}={given[key]}: there is no such key, {wanted}")
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """What determines the surface, as plain data: every key but whether and where it is computed."""
        names = [field.name for field in fields(self) if field.name not in HOW_COMPUTED]
        return {name: getattr(self, name) for name in names}

    @property
    def subset_seed(self) -> int:
        """The seed of the subset of the reviews, and of the masks."""
        return self.seed if self.reviews_seed is None else self.reviews_seed

    def on(self, plane: str) -> Surface:
        """The same over another kind of plane, without what random planes alone can be asked for."""
        return replace(self, plane=plane, **OF_RANDOM_PLANES)

    def _check(self, key: str, possible: bool, expected: str) -> None:
        if not possible:
            raise ValueError(f"landscape.{key}={getattr(self, key)}: expected {expected}")

    def _check_moving(self) -> None:
        patterns = [self.only] if isinstance(self.only, str) else self.only
        texts = isinstance(patterns, list) and patterns and all(isinstance(part, str) for part in patterns)
        self._check(
            "only", patterns is None or bool(texts), "a pattern of parameters' names, a list of them, or null"
        )
        names = GATES[3]  # of a GRU
        numbered = _whole(self.gate, 0) and int(self.gate or 0) < len(names)
        self._check(
            "gate",
            self.gate is None or self.gate in names or numbered,
            f"{', '.join(names)}, a number below {len(names)}, or null",
        )
        if self.gate is not None and self.vectors == "tensor":
            raise ValueError(
                f"landscape.gate={self.gate} with landscape.vectors=tensor: expected vectors=with_row or ignore"
            )

    def _check_plane(self) -> None:
        words = [self.plane] if isinstance(self.plane, str) else self.plane
        texts = isinstance(words, list) and all(isinstance(word, str) for word in words)
        several = f"{_or_a_run(PLANES)}, or two of {_or_a_run(CHECKPOINTS)}"
        self._check("plane", texts and 1 <= len(words) <= 2, several)
        known = PLANES if isinstance(self.plane, str) else CHECKPOINTS
        for word in words:
            if word not in known and not Path(word).is_dir():
                raise ValueError(f"landscape.plane={word}: expected {_or_a_run(known)}")
        for key, usual in OF_RANDOM_PLANES.items():
            if self.plane != "random" and getattr(self, key) != usual:
                raise ValueError(
                    f"landscape.{key}={getattr(self, key)}: expected {'null' if usual is None else usual} "
                    f"with landscape.plane={self.plane}, it is for random planes"
                )


#: What random planes alone can be asked for, with its defaults.
OF_RANDOM_PLANES: dict[str, Any] = {
    "normalization": "filter",
    "vectors": "ignore",
    "only": None,
    "gate": None,
}


@contextmanager
def keys_named() -> Iterator[None]:
    """An error of the library about an argument (``seed=-1: ...``) names the key, ``landscape.seed``."""
    try:
        yield
    except ValueError as error:
        keys = {field.name for field in fields(Surface)}
        named = str(error).partition("=")[0] in keys
        raise ValueError(f"landscape.{error}" if named else str(error)) from None


def _plain(value: Any) -> Any:
    """Lists in the place of tuples and of OmegaConf's."""
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return [_plain(item) for item in value] if is_list else value


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _is_extent(extent: Any) -> bool:
    if extent is None or _positive(extent) or (_pair(extent) and all(map(_positive, extent))):
        return True
    return _pair(extent) and all(
        _pair(ends) and all(map(_number, ends)) and ends[0] < ends[1] for ends in extent
    )


def _or_a_run(words: Sequence[str]) -> str:
    return f"{', '.join(words)} or the path of another run"
