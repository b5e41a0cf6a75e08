"""How good is a subnet: its accuracy and cross-entropy on a split, at the speed of the merged model.

`SubnetScorer` writes merged weights into a plain network and runs that; nothing of GLoRA is left in the forward pass.
Deterministic: batch size and number of threads are fixed by the caller and belong to an evaluation's identity.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glora_core.backbones import run
from glora_core.configs import SubnetConfig
from glora_core.data.split import Split, answers
from glora_core.layers.adapted import bias_of
from glora_core.layers.kinds import kind_of, matrix_size
from glora_core.supernet import Supernet


@dataclass(frozen=True, slots=True)
class Score:
    """accuracy: share of right answers, 0–1. loss: mean cross-entropy in nats, the largest float if not finite. examples: of answers."""

    accuracy: float
    loss: float
    examples: int


@torch.inference_mode()
def score(model: nn.Module, split: Split, batch_size: int, among: Sequence[int] = ()) -> Score:
    """Accuracy and mean cross-entropy of a model in eval mode on a split; sums are kept in float64.

    Args:
        among: ascending labels that answers are chosen from, which the split's must be of: the other logits are left out. All if empty.
    """
    right, examples, loss = 0, 0, torch.zeros((), dtype=torch.float64)
    for inputs, wanted in split.batches(batch_size):
        logits, labels = answers(run(model, inputs), wanted)
        if among:
            columns = torch.tensor(among, device=logits.device)
            logits, labels = logits[:, columns], torch.searchsorted(columns, labels)
        right, examples = right + int((logits.argmax(-1) == labels).sum()), examples + len(labels)
        loss += F.cross_entropy(logits.double(), labels, reduction="sum").cpu()
    mean = float(loss) / examples
    return Score(right / examples, mean if math.isfinite(mean) else sys.float_info.max, examples)


class SubnetScorer:
    """Scores one subnet config after another with a plain network.

    Only layers whose config differs from the one loaded before are merged again, always from the untouched W0, so that
    a score never depends on what was scored before.

    Args:
        supernet: the trained supernet.
        plain: an unadapted network of the same architecture; its weights are overwritten. A copy of the supernet's own if absent.
    """

    def __init__(self, supernet: Supernet, plain: nn.Module | None = None) -> None:
        self.supernet, self.plain = supernet, (plain or supernet.bare()).eval()
        give_biases(self.plain, supernet.merged_state(supernet.space.extreme(largest=True)))
        self._slots: dict[str, Tensor] = dict(self.plain.state_dict(keep_vars=True))
        with torch.no_grad():
            for name, value in supernet.backbone.state_dict().items():
                if name in self._slots:
                    self._slots[name].copy_(value)
        self._loaded: list[object] = [None] * len(supernet.space.layers)

    def load(self, config: SubnetConfig) -> nn.Module:
        """The plain network with a config merged into it. Raises ConfigInvalid for a config outside the supernet's space."""
        self.supernet.check(config)
        with torch.no_grad():
            for index, layer in enumerate(config):
                if self._loaded[index] != layer:
                    merged = self.supernet.merged_layer(index, config)
                    bias = f"{self.supernet.space.layers[index].name}.bias"
                    if bias in self._slots and bias not in merged:
                        self._slots[bias].zero_()
                    for name, value in merged.items():
                        self._slots[name].copy_(value)
                    self._loaded[index] = layer
        return self.plain

    def score(self, config: SubnetConfig, split: Split, batch_size: int, among: Sequence[int] = ()) -> Score:
        """The score of a config on a split, among some labels or all."""
        return score(self.load(config), split, batch_size, among)


def give_biases(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give adaptable layers of `model` a zero bias where `state` has one and they lack it."""
    for name, module in model.named_modules():
        if kind_of(module) is not None and bias_of(module) is None and f"{name}.bias" in state:
            weight = module.get_parameter("weight")
            module.register_parameter("bias", nn.Parameter(weight.new_zeros(matrix_size(module)[0])))
