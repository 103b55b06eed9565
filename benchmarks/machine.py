"""On what machine the numbers were measured, and whether it had other work to do."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from gruland import kernels
from gruland.config import cores

#: The instruction sets that the kernels and the peers differ by, as Linux names them.
FEATURES = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")
PACKAGES = (
    "torch", "numpy", "pytorch-lightning", "haste-pytorch-cpu", "onnxruntime", "openvino",
    "loss-landscapes", "landscaper", "loss-landscape-3d",
)  # fmt: skip


def describe() -> dict[str, Any]:
    """What does not change between two runs on the same machine."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    described: dict[str, Any] = {
        "processor": info.get("model name") or platform.processor() or platform.machine(),
        "cores": cores(),
        "instruction sets": [name for name in FEATURES if name in flags],
        "backends": kernels.describe().splitlines(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "packages": {name: found for name in PACKAGES if (found := installed(name))},
    }
    if torch.cuda.is_available():
        described["GPU"] = torch.cuda.get_device_name()
    return described


def installed(package: str) -> str | None:
    """The version of a package, None where it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def load() -> float | None:
    """Runnable processes, averaged over the last minute; None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def commit() -> str:
    """The commit that is measured, with a + where the code differs from it; empty outside a repository."""
    where: Any = {"cwd": Path(__file__).parents[1], "capture_output": True, "text": True, "check": True}
    try:
        name = subprocess.run(["git", "rev-parse", "--short", "HEAD"], **where).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "gruland", "benchmarks", "conf"], **where
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{name}+" if changed else name


class OtherWork:
    """The share of this machine's processor time that went to others since this object was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), _own(), _busy()

    def share(self) -> float | None:
        """In [0, 1], of all cores; None where the system does not tell."""
        wall, own, busy = self._start
        now = _busy()
        if busy is None or now is None:
            return None
        elapsed = (time.perf_counter() - wall) * (os.cpu_count() or 1)
        return min(1.0, max(0.0, (now - busy) - (_own() - own)) / elapsed)


def _own() -> float:
    """Processor seconds of this process and of the children that it waited for."""
    return sum(os.times()[:4])


def _busy() -> float | None:
    """Processor seconds of everybody since the machine started, time that a hypervisor took included."""
    try:
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    except (OSError, ValueError):
        return None
    user, nice, system, _, _, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
