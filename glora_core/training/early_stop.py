"""When to stop early, and what is kept then: the numbers of the epoch whose probed subnets had the lowest loss on val."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class EarlyStop:
    """Watches the losses of a training's probes, and remembers the numbers that were best.

    Args:
        patience: epochs without a lower loss after which the next probe ends the training.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._epoch, self._loss, self._numbers = 0, math.inf, list[Tensor]()
        self.stopped = False

    def note(self, epoch: int, loss: float, numbers: Sequence[Tensor]) -> None:
        """Take in a probe: the loss after an epoch, and copies of the numbers that would be kept if it stayed the lowest."""
        if loss < self._loss:
            self._epoch, self._loss, self._numbers = epoch, loss, [value.detach().cpu().clone() for value in numbers]
        else:
            self.stopped = epoch - self._epoch >= self._patience

    @torch.no_grad()
    def restore(self, numbers: Sequence[Tensor]) -> None:
        """Put the best numbers in the place of what they are copies of."""
        for number, best in zip(numbers, self._numbers, strict=True):
            number.copy_(best)

    def state(self) -> dict[str, Any]:
        """What `load_state` needs."""
        return {"epoch": self._epoch, "loss": self._loss, "numbers": list(self._numbers), "stopped": self.stopped}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._epoch, self._loss, self.stopped = state["epoch"], state["loss"], state["stopped"]
        self._numbers = [value.clone() for value in state["numbers"]]
