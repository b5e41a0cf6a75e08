"""Whether a driver notices that the Ray node which it has joined is gone, and only then."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cluster.presence import watch

_NODE = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(1)
print("listening", flush=True)
first, _ = listener.accept()
first.close()
print("closed", flush=True)
second, _ = listener.accept()
print("held", flush=True)
signal = second.recv(1)
"""
"""Stands for a node: closes its first connection, holds the second, as long as it lives."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the node listens."""
    return tmp_path / "raylet"


@pytest.fixture
def node(place: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that listens there."""
    process = subprocess.Popen([sys.executable, "-c", _NODE, str(place)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    yield process
    process.kill()
    process.wait()


def test_loss_of_the_node_is_told_and_a_closed_connection_is_none(place: Path, node: "subprocess.Popen[str]") -> None:
    lost = threading.Event()
    watch(place, lost.set)
    assert node.stdout is not None
    assert [node.stdout.readline(), node.stdout.readline()] == ["closed\n", "held\n"]
    assert not lost.is_set()
    node.kill()
    assert lost.wait(60)


def test_a_stopped_node_is_not_lost(place: Path, node: "subprocess.Popen[str]") -> None:
    lost = threading.Event()
    node.send_signal(signal.SIGSTOP)
    watch(place, lost.set)
    assert not lost.wait(1.5)


def test_a_node_that_is_gone_at_the_start_is_lost_at_once(place: Path) -> None:
    lost = threading.Event()
    watch(place, lost.set)
    assert lost.wait(60)
