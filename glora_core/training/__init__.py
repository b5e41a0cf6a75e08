"""Training a supernet: the subnets of a step (`policy`), step and loop (`trainer`), whether it learns (`probe`), how (`settings`)."""

from glora_core.training.probe import Probe
from glora_core.training.settings import Progress, TrainingSettings
from glora_core.training.trainer import Trainer

__all__ = ["Probe", "Progress", "Trainer", "TrainingSettings"]
