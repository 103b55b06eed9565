"""Landscapes of several models side by side, a chapter of the report: ``python -m gruland.landscape compare``.

``models.py``: which runs are one model. ``measurements.py``: what is computed of each run, and kept. ``curvature.py``:
of that, the Hessian. ``rows.py``, ``table.py``: means, intervals, differences. ``figures.py``, ``page.py``: what is
written. ``compare.py``: the order of it all.
"""
