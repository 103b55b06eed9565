"""An extension of griffe, which reads the docstrings for the site: reStructuredText's marks become Markdown's."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`~?([^`]+)`")


def markdown(text: str) -> str:
    """``:func:`gruland.train.train` `` as code; a block after ``::`` as it is, its colon single."""
    return re.sub(r"::$", ":", _ROLE.sub(r"`\1`", text).replace("``", "`"), flags=re.MULTILINE)


class Roles(griffe.Extension):
    """Called for every object that has a docstring."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)
