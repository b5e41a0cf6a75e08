"""Stochastic depth in training: residual branches of the backbone left out at random, for each example on its own.

A backbone stays in eval mode while a supernet is trained, where timm's own drop paths do nothing, and those draw from torch's global
generator. So a step's masks are drawn here from a stream of the caller's, and act through hooks that are there for that step alone: no
part of the model is exchanged, scoring and merging know nothing of it, and a resumed training leaves out the same branches.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from glora_core.backbones.depth import Branch, residual_branches
from glora_core.errors import ConfigInvalid


class DropPaths:
    """The residual branches of a backbone, and how often each is left out.

    Args:
        rate: of the last block, 0–1; those before it have less in even steps, down to 0 for the first, as in timm.

    Raises:
        ConfigInvalid: the backbone has no branch that could be left out.
    """

    def __init__(self, backbone: nn.Module, rate: float) -> None:
        self._branches = residual_branches(backbone)
        if not self._branches:
            raise ConfigInvalid(
                f"drop_path is {rate}, and {type(backbone).__name__} has no residual branches that can be left out; accepted is 0"
            )
        self._rates = np.array([rate * branch.depth for branch in self._branches])

    @contextmanager
    def dropping(self, rng: np.random.Generator, count: int, rows: slice) -> Iterator[None]:
        """Leave out branches in every forward pass while this lasts, the same in each: a teacher and its students differ in config alone.

        What is kept is divided by the share that is kept, so that its mean stays.

        Args:
            rng: of this step alone.
            count: examples of the global batch, of which `rows` are this process's, so that many processes leave out what one would.
        """
        kept = rng.random((len(self._rates), count)) >= self._rates[:, None]
        masks = torch.from_numpy((kept / (1 - self._rates[:, None]))[:, rows].astype(np.float32))
        with _through(self._branches, [_multiply(mask) for mask in masks]):
            yield


@contextmanager
def _through(branches: list[Branch], hooks: list[Callable[[nn.Module, Any, Tensor], Tensor]]) -> Iterator[None]:
    """Put what comes out of each branch through a hook."""
    absent = [branch for branch in branches if getattr(branch.block, branch.name) is None]
    for branch in absent:
        setattr(branch.block, branch.name, nn.Identity())
    handles = [getattr(b.block, b.name).register_forward_hook(hook) for b, hook in zip(branches, hooks, strict=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for branch in absent:
            delattr(branch.block, branch.name)
            setattr(branch.block, branch.name, None)


def _multiply(mask: Tensor) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    """A forward hook that multiplies each example's output by its number in `mask`, (examples,)."""

    def hook(module: nn.Module, given: Any, output: Tensor) -> Tensor:
        parts = output.shape[0] // len(mask)  # where a block sees an image's windows as examples of their own
        return output * mask.to(output).repeat_interleave(parts).view(-1, *[1] * (output.dim() - 1))

    return hook
