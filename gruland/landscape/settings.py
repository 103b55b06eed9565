"""The settings of a run's surface (conf/landscape/default.yaml): which values can work."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gruland.data.splits import NAMES as SPLITS
from gruland.landscape import DEFAULTS
from gruland.landscape.directions import GATES, check_draw
from gruland.landscape.objective import PRECISIONS

OBJECTIVES = ("evaluation", "training")
#: Planes that a run has by itself; any other word is the path of another run.
PLANES = ("random", "initial", "final", "trajectory", "hessian")
#: What random planes alone can be asked for, as it is with others.
OF_RANDOM_PLANES: dict[str, Any] = {
    "normalization": "filter",
    "vectors": "ignore",
    "only": None,
    "gate": None,
}
#: What one or two of make a plane through weights, besides paths.
CHECKPOINTS = ("initial", "final")


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as plain data, with the keys that configurations of earlier versions lack."""
    return {**DEFAULTS, **{key: _plain(value) for key, value in settings.items()}}


def _plain(value: Any) -> Any:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return [_plain(item) for item in value] if is_list else value


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for settings that cannot work, before anything is read or trained."""
    settings = completed(settings)
    _check_size(settings["size"])
    _check_extent(settings["extent"])
    check_draw(settings["seed"], settings["normalization"], settings["vectors"])
    _check_moving(settings)
    for key, known in (("split", SPLITS), ("objective", OBJECTIVES), ("precision", PRECISIONS)):
        if settings[key] not in known:
            raise ValueError(f"landscape.{key}={settings[key]}: expected one of {', '.join(known)}")
    if settings["reviews"] != "all" and not _whole(settings["reviews"], 1):
        raise ValueError(
            f"landscape.reviews={settings['reviews']}: expected a whole number of at least 1, or all"
        )
    if not _whole(settings["draws"], 1):
        raise ValueError(f"landscape.draws={settings['draws']}: expected a whole number of at least 1")
    if settings["reviews_seed"] is not None and not _whole(settings["reviews_seed"], 0):
        raise ValueError(
            f"landscape.reviews_seed={settings['reviews_seed']}: expected a whole number of at least 0, or null"
        )
    for key in ("tolerance", "interpolation"):
        share = settings[key]
        if share is not None and not (_number(share) and 0 < share < 1):
            raise ValueError(
                f"landscape.{key}={share}: expected a share of the loss range in (0, 1), or null"
            )
    seconds = settings["max_seconds"]
    if seconds is not None and not (_number(seconds) and seconds > 0):
        raise ValueError(f"landscape.max_seconds={seconds}: expected a positive number, or null")
    _check_plane(settings["plane"])
    _check_random(settings)


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_size(size: Any) -> None:
    if _whole(size, 1) or (_pair(size) and all(_whole(cells, 1) for cells in size)):
        return
    raise ValueError(
        f"landscape.size={size}: expected a whole number of at least 1, or [alpha, beta] of them"
    )


def _check_extent(extent: Any) -> None:
    if extent is None or _reaches(extent) or (_pair(extent) and all(map(_reaches, extent))):
        return
    if _pair(extent) and all(
        _pair(ends) and all(map(_number, ends)) and ends[0] < ends[1] for ends in extent
    ):
        return
    raise ValueError(
        f"landscape.extent={extent}: expected a positive number, [alpha, beta] of them, "
        "[[low, high], [low, high]], or null"
    )


def _pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _reaches(value: Any) -> bool:
    return _number(value) and value > 0


def _check_moving(settings: Mapping[str, Any]) -> None:
    only, gate = settings["only"], settings["gate"]
    patterns = [only] if isinstance(only, str) else only
    if patterns is not None and not (
        isinstance(patterns, list) and patterns and all(isinstance(pattern, str) for pattern in patterns)
    ):
        raise ValueError(
            f"landscape.only={only}: expected a pattern of parameters' names, a list of them, or null"
        )
    names = GATES[3]  # of a GRU
    if gate is not None and gate not in names and not (_whole(gate, 0) and gate < len(names)):
        raise ValueError(
            f"landscape.gate={gate}: expected {', '.join(names)}, a number below {len(names)}, or null"
        )
    if gate is not None and settings["vectors"] == "tensor":
        raise ValueError(
            f"landscape.gate={gate} with landscape.vectors=tensor: expected vectors=with_row or ignore"
        )


def _check_random(settings: Mapping[str, Any]) -> None:
    """What only random directions take is refused with others, which would leave it aside."""
    for key, usual in OF_RANDOM_PLANES.items():
        if settings["plane"] != "random" and settings[key] != usual:
            raise ValueError(
                f"landscape.{key}={settings[key]}: expected {'null' if usual is None else usual} with landscape.plane={settings['plane']}, "
                "it is for random planes"
            )


def _check_plane(plane: Any) -> None:
    words = [plane] if isinstance(plane, str) else plane
    if not (isinstance(words, list) and 1 <= len(words) <= 2 and all(isinstance(w, str) for w in words)):
        raise ValueError(
            f"landscape.plane={plane}: expected {_expected(PLANES)}, or two of {_expected(CHECKPOINTS)}"
        )
    known = PLANES if isinstance(plane, str) else CHECKPOINTS
    for word in words:
        if word not in known and not Path(word).is_dir():
            raise ValueError(f"landscape.plane={word}: expected {_expected(known)}")


def _expected(words: Sequence[str]) -> str:
    return f"{', '.join(words)} or the path of another run"
