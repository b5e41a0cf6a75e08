"""What a job's Ray workers need, put into the object store once, so that each node receives it once."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glora_core.configs import decode
from glora_core.data.images import ImageSplit
from glora_core.space import SearchSpace
from glora_core.supernet import Supernet
from glora_core.training import TrainingSettings
from services.protocol import THREADS


@dataclass(frozen=True)
class Workload:
    """A backbone with a head of the right size, the space over it, the splits that workers train and score on, and by what metric."""

    plain: nn.Module
    space: SearchSpace
    train: ImageSplit
    val: ImageSplit
    metric: str

    def supernet(self, settings: TrainingSettings, state: Mapping[str, Tensor] | None = None) -> Supernet:
        """A supernet of its own over a copy of the backbone, with a trained state if one is given.

        A fixed subnet gets a supernet that has it alone.
        """
        space = self.space if settings.fixed is None else self.space.covering(decode(settings.fixed))
        supernet = Supernet(deepcopy(self.plain), space, settings.entanglement, settings.seed)
        if state is not None:
            supernet.load_trainable_state(state)
        return supernet


def settle(use_gpu: bool) -> torch.device:
    """Prepare this process for deterministic work in true float32; returns the device to use."""
    torch.set_num_threads(THREADS)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda" if use_gpu else "cpu")
