"""Two processes of one group, forked from one that has loaded torch and timm already, which takes seconds each time."""

import multiprocessing
from collections.abc import Callable

import torch.multiprocessing as mp


def in_two_processes(function: Callable[..., None], *arguments: object) -> None:
    """Call `function(rank, 2, *arguments)` in each; raises what one of them raises."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["glora_core.training", "glora_core.supernet", "timm"])
    mp.start_processes(function, args=(2, *arguments), nprocs=2, start_method="forkserver")
