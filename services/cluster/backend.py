"""How the workers of a training talk to each other.

Apart from the training itself, since Ray Train's controller loads this module, and would load every backbone library with it.
"""

from dataclasses import replace
from typing import Any

import torch
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback

from services.cluster.pulse import beat, beat_in


class Beating(ControllerCallback, WorkerGroupCallback):  # type: ignore[misc]
    """Lets all processes of a training beat, and not only those that train: what one of them waits for, all do."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Called by Ray Train's controller as it begins."""
        beat()

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Called by Ray Train's controller once the workers have started, and before they are set up."""
        worker_group.execute_async(beat)
        beat_in(worker_group.get_worker_group_state().sync_actor)


class Torch(TorchConfig):  # type: ignore[misc]
    """Workers talk by NCCL where they have GPUs, as with Ray Train's own, unless torch finds none: NCCL would not start."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """What Ray Train sets the workers up with."""
        return _Backend


class _Backend(_TorchBackend):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        """Called by Ray Train's controller once the workers have started."""
        if not all(worker_group.execute(torch.cuda.is_available)):
            backend_config = replace(backend_config, backend="gloo")
        super().on_start(worker_group, backend_config)
