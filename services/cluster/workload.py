"""What a job's Ray workers need, put into the object store once, so that each node receives it once."""

import logging
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from glora_core.configs import decode
from glora_core.data.split import Split
from glora_core.space import SearchSpace
from glora_core.supernet import Supernet
from glora_core.training import TrainingSettings
from services.cluster.resources import Share
from services.protocol import THREADS

log = logging.getLogger("glora.workload")


@dataclass(frozen=True)
class Second:
    """What a second objective is measured on: examples, and the labels that answers are chosen from; `key` names it in SQL."""

    examples: Split
    among: tuple[int, ...]
    key: str


@dataclass(frozen=True)
class Workload:
    """A backbone with a head of the right size, the space over it, the splits that workers train and score on, and by what metric."""

    plain: nn.Module
    space: SearchSpace
    train: Split
    val: Split
    metric: str
    second: Second | None = None

    def for_evaluation(self) -> "Workload":
        """The same without training examples, which evaluators would only carry about."""
        none = torch.arange(0, device=self.train.labels.device)
        return replace(self, train=self.train.part(none))  # rows picked by number are copied; a view would bring all along

    def supernet(self, settings: TrainingSettings, state: Mapping[str, Tensor] | None = None) -> Supernet:
        """A supernet of its own over a copy of the backbone, with a trained state if one is given.

        A fixed subnet gets a supernet that has it alone.
        """
        space = self.space if settings.fixed is None else self.space.covering(decode(settings.fixed))
        supernet = Supernet(deepcopy(self.plain), space, settings.entanglement, settings.seed)
        if state is not None:
            supernet.load_trainable_state(state)
        return supernet


def settle(share: Share) -> torch.device:
    """Prepare this process for deterministic work in true float32; returns the device to use.

    A process that holds a part of a GPU can allocate no more than that part of its memory, which leaves its neighbours theirs; what CUDA
    itself takes for each process comes on top. One that holds a GPU which torch does not find computes on the CPU; `speed` ends a
    job on such a node before it trains.
    """
    torch.set_num_threads(THREADS)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if share.use_gpu and not torch.cuda.is_available():
        log.warning("torch %s finds no GPU, though this process holds %s: it computes on the CPU", torch.__version__, share)
        return torch.device("cpu")
    if 0 < share.gpus < 1:
        torch.cuda.set_per_process_memory_fraction(share.gpus)
    return torch.device("cuda" if share.use_gpu else "cpu")
