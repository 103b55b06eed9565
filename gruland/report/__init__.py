"""Run folders become one page: the paper's tables beside ours, grids, curves and loss surfaces.

From Python: ``gruland.report.write(gruland.report.collect(["outputs"]), "outputs")``.
"""

from __future__ import annotations

from gruland.report.collect import collect
from gruland.report.page import write

__all__ = ["collect", "write"]
