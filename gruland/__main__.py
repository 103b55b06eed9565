"""One way in: ``gruland COMMAND …`` is ``python -m gruland.COMMAND …``."""

from __future__ import annotations

import importlib
import sys

#: From a command to the module whose ``main`` it is, and what it does.
COMMANDS = {
    "train": ("gruland.train.__main__", "train one model, or a grid with -m"),
    "study": ("gruland.study", "grids, the choice, more seeds, surfaces, attacks, the report"),
    "landscape": ("gruland.landscape.__main__", "loss surfaces of finished runs"),
    "attack": ("gruland.attack.__main__", "attacks on finished runs"),
    "report": ("gruland.report.__main__", "report.html and report.md of finished runs"),
    "predict": ("gruland.predict", "the sentiment of reviews"),
    "export": ("gruland.export", "a finished run as an ONNX model"),
    "best": ("gruland.best", "the best run of each regularizer"),
    "validate": ("gruland.__main__", "say whether gruland train with the same words would start"),
}


def main() -> None:
    """The command: its first word says which one."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("usage: gruland COMMAND ...\n")
        for command, (_, what) in COMMANDS.items():
            print(f"  {command:10} {what}")
        raise SystemExit(0)
    if name not in COMMANDS:
        print(f"gruland: {name} is no command, expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        raise SystemExit(1)
    sys.argv = [f"gruland {name}", *sys.argv[2:]]
    from gruland.exits import one_line_errors

    with one_line_errors():
        if name == "validate":
            return _validate(sys.argv[1:])
        raise SystemExit(importlib.import_module(COMMANDS[name][0]).main())


def _validate(words: list[str]) -> None:
    from gruland import experiment

    experiment.validate(*(word for word in words if word not in ("-m", "--multirun")))
    print("gruland train would start with this")


if __name__ == "__main__":
    main()
