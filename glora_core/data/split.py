"""What training and scoring ask of a data split, whatever its examples are."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from glora_core.backbones import Inputs


class Split(Protocol):
    """Labelled examples in memory.

    Labels are class numbers (n,), or token ids (n, tokens) for a language model with negative numbers where none is asked for.
    """

    @property
    def labels(self) -> Tensor:
        """(n,) or (n, tokens), int64."""

    def __len__(self) -> int:
        """How many examples."""

    def take(self, indices: Tensor) -> tuple[Inputs, Tensor]:
        """What the model takes, and the labels, of the given rows."""

    def batches(self, size: int) -> Iterator[tuple[Inputs, Tensor]]:
        """All examples once, `size` at a time, always in the same order."""

    def part(self, indices: Tensor) -> "Split":
        """The given rows as a split of their own."""

    def to(self, device: torch.device) -> "Split":
        """The same split with its tensors on a device."""


def answers(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (m, classes) and labels (m,) of every answer that is asked for, whether one per example or one per token."""
    if labels.dim() == 1:
        return logits, labels
    asked = labels >= 0
    return logits[asked], labels[asked]
