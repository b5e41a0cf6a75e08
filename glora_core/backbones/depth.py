"""The residual branches of a timm model that may be left out at random: where its code applies `drop_path`.

Most of timm's blocks have a module of that name, which does nothing unless the model was made for stochastic depth (Huang et al., "Deep
Networks with Stochastic Depth", ECCV 2016); ResNets have None in its place. Says where; `glora_core.training.drop_path` leaves out.
"""

from dataclasses import dataclass

import numpy as np
from timm.layers import DropPath
from torch import nn

_NAME = "drop_path"


@dataclass(frozen=True)
class Branch:
    """One residual branch.

    Attributes:
        block: the module that has it.
        name: of the attribute that its output goes through: a module that leaves it as it is, or None.
        depth: of its block among all that have one, from 0 for the first to 1 for the last.
    """

    block: nn.Module
    name: str
    depth: float


def residual_branches(model: nn.Module) -> list[Branch]:
    """The branches of a model, in order; none of a model that knows no stochastic depth, such as a language model.

    A block that has nothing beside its branch, since it changes the size, has none: without it an image would be gone. Depth counts
    the blocks that timm counts, which are neither MobileOne's stem nor CSPNeXt's blocks without a shortcut.
    """
    found = [(block, _names(block)) for path, block in model.named_modules() if path != "stem"]
    blocks = [(block, names) for block, names in found if names and getattr(block, "add_identity", True)]
    depths = np.linspace(0.0, 1.0, len(blocks))  # as timm's calculate_drop_path_rates spreads a rate over blocks
    return [
        Branch(block, name, float(depth))
        for (block, names), depth in zip(blocks, depths, strict=True)
        if getattr(block, "has_skip", True) and getattr(block, "identity", block) is not None
        for name in names
    ]


def _names(block: nn.Module) -> list[str]:
    """The attributes of a module by whose name timm applies stochastic depth."""
    modules = [name for name, child in block.named_children() if isinstance(child, DropPath | nn.Identity)]
    absent = [name for name, value in vars(block).items() if value is None]
    return [name for name in (*modules, *absent) if name.rstrip("0123456789") == _NAME]
