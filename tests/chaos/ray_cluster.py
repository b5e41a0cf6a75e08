"""Ray as a cluster has it: a head that offers no CPUs, with the jobs' drivers beside it, and a node that does all the work.

The node has an address of its own on loopback, so that a driver joins the head's node and losing the other one takes only workers.
"""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services import processes
from tests.chaos import census
from tests.servers.ports import free_port

NODE_CPUS = 2
_OBJECT_STORE_BYTES = 150_000_000
_STOP_SECONDS = 3


@dataclass
class RayCluster:
    """A Ray head and one worker node.

    Args:
        root: a short path, below which Ray keeps its sockets and logs.
        env: of all its processes.
    """

    root: Path
    env: Mapping[str, str]
    port: int = field(default_factory=free_port)
    head: "subprocess.Popen[bytes] | None" = None
    node: "subprocess.Popen[bytes] | None" = None

    @property
    def address(self) -> str:
        """Where the head listens."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start what does not run. The node joins in its own time; it tries until a head is there."""
        if self.head is None:
            own = ["--head", f"--port={self.port}", f"--temp-dir={self.root / 'ray'}", "--num-cpus=0", "--include-dashboard=false"]
            self.head = self._start("127.0.0.1", *own)
        if self.node is None:
            self.node = self._start("127.0.0.2", f"--address={self.address}", f"--num-cpus={NODE_CPUS}")

    def lose_node(self) -> None:
        """Kill every process of the worker node at once."""
        self._kill(self.node)
        self.node = None

    def lose_all(self) -> None:
        """Kill every process of Ray at once."""
        self._kill(self.head, self.node)
        self.head = self.node = None

    def stop(self) -> None:
        """End both nodes."""
        for process in (self.node, self.head):
            if process is not None:
                rest = census.below(process.pid)
                processes.stop(process, _STOP_SECONDS)
                for pid in rest[1:]:
                    census.send(pid)
        self.head = self.node = None

    def _start(self, ip: str, *options: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--node-ip-address={ip}", *options]
        command += [f"--object-store-memory={_OBJECT_STORE_BYTES}", "--disable-usage-stats"]
        command += ["--min-worker-port=0", "--max-worker-port=0"]  # any free ones: both nodes are on one machine
        return processes.start(command, log=self.root / "logs" / f"ray-{ip}.log", env=self.env)

    def _kill(self, *nodes: "subprocess.Popen[bytes] | None") -> None:
        chosen = [node for node in nodes if node is not None]
        victims = [pid for node in chosen for pid in census.below(node.pid)]
        for pid in victims:
            census.send(pid)
        for node in chosen:
            node.wait()
