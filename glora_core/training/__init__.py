"""Training a supernet: which subnets a step trains (`policy`), the step and the loop (`trainer`), how (`settings`)."""

from glora_core.training.settings import Progress, TrainingSettings
from glora_core.training.trainer import Trainer

__all__ = ["Progress", "Trainer", "TrainingSettings"]
