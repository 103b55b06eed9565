"""The kernels' shared library, compiled for this machine.

It lies in PyTorch's extensions directory (``TORCH_EXTENSIONS_DIR``) under a name that contains a hash of the
sources, the flags and the processor's features. ``CXX`` names the compiler.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from gruland.files import atomic_path

SOURCES = sorted(path for path in Path(__file__).parent.iterdir() if path.suffix in (".cpp", ".h"))
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-pthread")
#: Tried in this order; the empty one is any processor of the family.
ARCHITECTURES = (("-march=native",), ("-mcpu=native",), ())


def build(architecture: Sequence[str]) -> Path:
    """The library for these compiler flags, compiled unless it was before.

    Processes may build at the same time: each writes its own file, and the last one to finish stays.

    Raises FileNotFoundError without a compiler, CalledProcessError when it fails, OSError for the folder.
    """
    command = [*compiler(), *FLAGS, *architecture]
    units = [str(path) for path in SOURCES if path.suffix == ".cpp"]
    identity = "\n".join([*(path.read_text() for path in SOURCES), *command, _processor()])
    name = f"gruland_cpu_{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    path = _folder() / name
    if not path.exists():
        logging.getLogger(__name__).warning(
            "compiling the CPU kernel, once for this machine: %s", " ".join(command)
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            subprocess.run(
                [*command, *units, "-o", str(temporary)], check=True, capture_output=True, text=True
            )
    return path


def compiler() -> list[str]:
    """The command of the C++ compiler: CXX or the first installed one. Raises FileNotFoundError without."""
    named = shlex.split(os.environ.get("CXX", ""))
    candidates = [named] if named else [["c++"], ["g++"], ["clang++"]]
    for command in candidates:
        if shutil.which(command[0]):
            return command
    names = ", ".join(command[0] for command in candidates)
    raise FileNotFoundError(f"no C++ compiler was found ({names}): install one or name it in CXX")


def _folder() -> Path:
    """PyTorch's extensions directory."""
    cache_home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path(cache_home) / "torch_extensions").expanduser()


def _processor() -> str:
    """What decides which instructions may be used."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(
        line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))
    )


def reason_of(error: Exception) -> str:
    """One line that says why there is no library."""
    if isinstance(error, subprocess.CalledProcessError):
        said = (error.stderr or "").strip().splitlines()
        message = next((line for line in said if "error" in line), said[0] if said else "it said nothing")
        return f"{error.cmd[0]} failed with exit status {error.returncode}: {message}"
    return str(error)
