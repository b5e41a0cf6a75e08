"""The test's own process as a driver of Ray, as a runner is one."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest
import ray

from services import processes

_OBJECT_STORE_BYTES = 100_000_000


@contextmanager
def driving(module: str) -> Iterator[None]:
    """What a test module defines goes to Ray's processes by value, and the cluster that the block joins is left in the end.

    No tokens: Ray would ask for them wherever one lies in the home folder, and goes on asking in this process; a cluster
    without tokens, turned away by its driver, takes it for dead and ends its actors.
    """
    ray.cloudpickle.register_pickle_by_value(sys.modules[module])
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_AUTH_MODE", "disabled")
            yield
    finally:
        ray.shutdown()
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[module])


@contextmanager
def local_ray(module: str, cpus: int, gpus: int = 0, *, forked: bool = False) -> Iterator[None]:
    """Ray on this machine for a test module's block, told how many CPUs and GPUs there are; its workers forked or started alone."""
    with driving(module):
        ray.init(
            address="local",
            num_cpus=cpus,
            num_gpus=gpus,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            runtime_env={"py_executable": _forks()} if forked and sys.platform == "linux" else {},
        )
        yield


@cache
def _forks() -> str:
    """What Ray is to start in place of `python`; the process that workers are forked from ends with this one."""
    script = """
import signal
from services.cluster.worker_forks import fork_workers, worker_command
fork_workers("services.cluster.preloaded")
print(worker_command(), flush=True)
signal.pause()
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, preexec_fn=processes.die_with_parent)
    _started.append(process)
    assert process.stdout is not None
    return process.stdout.readline().strip()


_started = list["subprocess.Popen[str]"]()
