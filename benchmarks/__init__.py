"""Speed beside the peers, as ratios measured side by side in one run: ``make bench`` or ``python -m benchmarks``.

A part of the table is a module with ``measure(context)``, a generator of :class:`benchmarks.table.Row`.
"""
