"""A Ray cluster that grows and shrinks by Ray's own autoscaler, on this machine: every node that it adds is a raylet beside the head's.

It does what `ray.cluster_utils.AutoscalingCluster` does, which cannot be used: it reads an example that Ray's wheel leaves out, and
starts and ends with `ray stop --force`, which kills every Ray on the machine.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

from services import processes
from tests.chaos import census
from tests.servers.ports import free_port

_OBJECT_STORE_BYTES = 100_000_000
_STOP_SECONDS = 5


@dataclass
class AutoscalingRay:
    """A head that offers no CPUs, and an autoscaler that adds nodes as they are asked for.

    Args:
        root: a short path, below which Ray keeps its sockets and logs.
        node: what each added node has, e.g. `{"CPU": 2}`.
        most: nodes beside the head.
        idle_seconds: after which a node that nothing uses is removed.
    """

    root: Path
    node: dict[str, float]
    most: int
    idle_seconds: float
    port: int = field(default_factory=free_port)
    _head: "Popen[bytes] | None" = None

    @property
    def address(self) -> str:
        """Where the head listens."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the head and its autoscaler; returns at once."""
        config = self.root / "autoscaling.json"
        config.write_text(json.dumps(self._config()))
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--num-cpus=0"]
        command += [f"--port={self.port}", f"--temp-dir={self.root / 'ray'}", f"--autoscaling-config={config}", "--include-dashboard=false"]
        command += [f"--object-store-memory={_OBJECT_STORE_BYTES}", "--disable-usage-stats"]
        env = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_AUTH_MODE": "disabled"}
        self._head = processes.start(command, log=self.root / "head.log", env=env)

    def stop(self) -> None:
        """End every process of the cluster; those of the nodes descend from the autoscaler, and it from the head."""
        if self._head is not None:
            every = census.below(self._head.pid)
            processes.stop(self._head, _STOP_SECONDS)
            for pid in every[1:]:
                census.send(pid)
            self._head = None

    def _config(self) -> dict[str, Any]:
        nothing: dict[str, Any] = {"node_config": {}, "resources": {"CPU": 0}, "max_workers": 0}
        return {
            "cluster_name": "elastic",
            "max_workers": self.most,
            "upscaling_speed": 1.0,
            "idle_timeout_minutes": self.idle_seconds / 60,
            "provider": {
                "type": "fake_multinode",
                "use_node_id_as_ip": True,
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
                "gcs_address": self.address,
            },
            "auth": {},
            "available_node_types": {
                "ray.head.default": nothing,
                "worker": {
                    "node_config": {},
                    "resources": self.node | {"object_store_memory": _OBJECT_STORE_BYTES},
                    "min_workers": 0,
                    "max_workers": self.most,
                },
            },
            "head_node_type": "ray.head.default",
            "file_mounts": {},
            "cluster_synced_files": [],
            "file_mounts_sync_continuously": False,
            "rsync_exclude": [],
            "rsync_filter": [],
            "initialization_commands": [],
            "setup_commands": [],
            "head_setup_commands": [],
            "worker_setup_commands": [],
            "head_start_ray_commands": [],
            "worker_start_ray_commands": [],
        }
