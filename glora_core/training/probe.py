"""A few fixed subnets scored along a training, so that a supernet that does not learn is seen early.

Imports torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from glora_core.configs import SubnetConfig
from glora_core.data.split import Split
from glora_core.errors import NotLearning
from glora_core.evaluation import Score, score
from glora_core.methods import methods_inside
from glora_core.sampling import FeasibleSampler, stream
from glora_core.supernet import Supernet

EXAMPLES = 100
RANDOM = 2
PATIENCE = 50
"""Steps that any supernet is given."""
_ROWS, _SUBNETS = 4, 5
_NO_BETTER = 0.98
"""A mean training loss above this share of what guessing costs tells nothing about the labels."""
_SIGMAS = 3.0


@dataclass(frozen=True)
class Probe:
    """Which subnets are scored, on what, and how often.

    Args:
        split: the examples.
        subnets: by the name they are shown under.
        every: epochs between two scores; the last epoch is always scored.
    """

    split: Split
    subnets: Mapping[str, SubnetConfig]
    every: int

    @staticmethod
    def of(supernet: Supernet, split: Split, epochs: int, seed: int = 0, budget: int | None = None, patience: int | None = None) -> "Probe":
        """The usual probe, eight times in a training: the smallest and the largest subnet, LoRA where the space has it within the
        budget, and two random ones within the budget, on at most 100 examples. With a patience, so often that it can end in time."""
        space = supernet.space
        rows = torch.from_numpy(stream(seed, _ROWS).permutation(len(split))[:EXAMPLES].copy())
        limit = space.maximum if budget is None else budget
        sampler = FeasibleSampler(space, limit)
        known = {name: config for name, config in methods_inside(space, limit).items() if name == "lora"}
        drawn = {f"random {i + 1}": sampler.sample(stream(seed, _SUBNETS, i)) for i in range(RANDOM)}
        ends = {name: space.extreme(largest=name == "largest") for name in ("smallest", "largest")}
        return Probe(split.part(rows), ends | known | drawn, max(1, min(epochs // 8, patience or epochs)))

    def scores(self, supernet: Supernet, batch_size: int) -> dict[str, Score]:
        """The score of each subnet inside the supernet."""
        found = {}
        for name, config in self.subnets.items():
            supernet.set_config(config)
            found[name] = score(supernet.backbone, self.split, batch_size)
        return found


def check_learning(loss: float, labels: Tensor, probe: Probe, scores: Mapping[str, float], smoothing: float, classes: int) -> None:
    """Refuse to go on with a supernet that tells its classes apart no better than guessing.

    That takes both: a mean training loss of 98 % or more of what the best constant answer costs, and no probed subnet that is
    right more often than always naming the most frequent class, by three standard deviations, or right in all.

    Args:
        loss: mean of an epoch, in nats.
        labels: of the training split; negative ones ask for no answer.
        smoothing: share of every label that the loss spreads over all classes.
        classes: how many outputs the network has.

    Raises:
        NotLearning: the message has the figures.
    """
    entropy = loss_of_guessing(labels, smoothing, classes)
    asked = probe.split.labels[probe.split.labels >= 0]
    guess = float(torch.unique(asked, return_counts=True)[1].max()) / len(asked)
    best, doubted = max(scores.values()), guess + _SIGMAS * math.sqrt(guess * (1 - guess) / len(asked))
    if loss >= _NO_BETTER * entropy and best <= doubted and best < 1:
        raise NotLearning(
            f"half the training is over and its loss is {loss:.3f} nats, where guessing costs {entropy:.3f}; the best of "
            f"{len(scores)} subnets is right in {best:.1%} of {len(asked)} validation examples, always naming one class in {guess:.1%}"
        )


def loss_of_guessing(labels: Tensor, smoothing: float, classes: int) -> float:
    """What the best constant answer costs, in nats; arguments as of `check_learning`."""
    counts = torch.bincount(labels[labels >= 0], minlength=classes).double()
    return float(torch.special.entr((1 - smoothing) * counts / counts.sum() + smoothing / classes).sum())
