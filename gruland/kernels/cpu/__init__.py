"""Fused kernels for the CPU, compiled for this machine when they are first wanted.

``run_layer`` runs one layer, with gradients (``layer.cpp``: layout and equations); ``final_states`` and ``states``
evaluate a stack of layers in one call (``stack.cpp``). ``GRULAND_CPU_KERNEL=off`` switches them off. Any number of
Python threads may call them at once.
"""

from gruland.kernels.cpu.binding import precisions, unavailable
from gruland.kernels.cpu.layer import run_layer, run_layers
from gruland.kernels.cpu.stack import Keep, final_states, states

#: Which masks of a step ``run_layer`` takes.
FUSES = frozenset({"keep", "candidate"})

__all__ = ["FUSES", "Keep", "final_states", "precisions", "run_layer", "run_layers", "states", "unavailable"]
