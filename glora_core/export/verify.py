"""Does a merged network compute what the unmerged subnet computes?"""

import torch
from torch import nn

from glora_core.backbones import run
from glora_core.configs import SubnetConfig
from glora_core.data.split import Split
from glora_core.supernet import Supernet

BOUND = 1024 * torch.finfo(torch.float32).eps
"""Largest accepted difference of merged and unmerged logits, as a share of the largest logit: 1,024 float32 ulps."""


@torch.inference_mode()
def merge_error(supernet: Supernet, plain: nn.Module, config: SubnetConfig, check: Split, images: int = 64) -> float:
    """Largest absolute difference of merged and unmerged logits over a few images, relative to the largest logit."""
    supernet.eval()
    supernet.set_config(config)
    batch, _ = check.take(torch.arange(min(images, len(check)), device=check.labels.device))
    unmerged, merged = supernet(batch), run(plain, batch)
    return float((unmerged - merged).abs().max() / unmerged.abs().max().clamp_min(1e-12))
