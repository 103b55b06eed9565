"""Lightning callbacks: they need a trainer and a module alone, and write below the trainer's ``default_root_dir``.

``conf/callbacks`` lists those of a run; a user's own callback is one more entry there.
"""

from gruland.callbacks.checkpoints import BestWeights, EpochWeights, LastCheckpoint
from gruland.callbacks.finite_loss import FiniteLoss
from gruland.callbacks.loss_surface import LossSurface
from gruland.callbacks.metrics_file import MetricsFile
from gruland.callbacks.robustness import AdversarialEvaluation
from gruland.callbacks.scores import SplitScores
from gruland.callbacks.training_progress import TrainingProgress

__all__ = [
    "AdversarialEvaluation",
    "BestWeights",
    "EpochWeights",
    "FiniteLoss",
    "LastCheckpoint",
    "LossSurface",
    "MetricsFile",
    "SplitScores",
    "TrainingProgress",
]
