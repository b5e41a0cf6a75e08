"""Is the Ray node that this driver has joined still there? Ray does not tell its drivers, and what they wait for would never come."""

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import ray

_AGAIN_SECONDS = 1.0


def local_socket() -> Path:
    """The socket at which the node that this driver has joined listens."""
    own = ray.get_runtime_context().get_node_id()
    return next(Path(node["RayletSocketName"]) for node in ray.nodes() if node["NodeID"] == own)


def watch(node: Path, on_lost: Callable[[], None]) -> None:
    """Call `on_lost`, from a thread, once nobody listens at a node's socket any more."""

    def look() -> None:
        while _held(node):
            time.sleep(_AGAIN_SECONDS)
        on_lost()

    threading.Thread(target=look, daemon=True, name="ray-node-watch").start()


def _held(node: Path) -> bool:
    """Stay connected as long as the node does; returns at once, and false, if nobody listens there.

    The kernel ends the connection with the process at its other end, however that ends, and however busy the machine is.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(node))
            connection.recv(1)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # broken just now: whether another listens is seen at the next look
            return True
    return True
