"""What a point of weight space costs a classifier: its loss on reviews, without masks or averaged over them."""

from gruland.objective.evaluation import EvaluationLoss
from gruland.objective.mean_loss import MeanLoss
from gruland.objective.training import MaskedLoss, TrainingLoss

__all__ = ["EvaluationLoss", "MaskedLoss", "MeanLoss", "TrainingLoss"]
