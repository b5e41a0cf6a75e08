"""Ray's workers, forked from a process that has loaded torch and timm, and so at work much sooner (docs/benchmarks.md).

A raylet starts a worker as a command. On the service's own machine that command is `forked_worker.py`, whose arguments, environment and
streams a fork of this process takes on. Ray is loaded after the fork alone, since its core reads the environment once. The address is
one that no file stands for, so nothing is left behind, and only processes of the same user are answered.
"""

import gc
import importlib
import json
import os
import runpy
import secrets
import selectors
import shlex
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path

from setproctitle import setproctitle

from services import processes
from services.cluster import forked_worker

_ADDRESS = "GLORA_WORKERS_FROM"
_MAX_MESSAGE_BYTES = 2**18
_PATIENCE_SECONDS = 5.0


def worker_command() -> str | None:
    """What Ray is to start in place of `python`, in a shell's words; None where no process forks workers for this one."""
    address = os.environ.get(_ADDRESS)
    return shlex.join([sys.executable, "-I", "-S", str(Path(forked_worker.__file__)), address]) if address else None


def fork_workers(preloaded: str) -> None:
    """Load a module, then fork workers for as long as a child lives, as which this returns; `worker_command` names them from there on.

    Linux only. Must be called before Ray is loaded, and as long as there is one thread.
    """
    address = f"glora-workers-{secrets.token_hex(16)}"
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(f"\0{address}")
    listening.listen(128)
    importlib.import_module(preloaded)
    gc.freeze()  # what is loaded stays shared with the workers, of which no collection need look at it
    child = os.fork()
    if child == 0:
        processes.die_with_parent()
        listening.close()
        os.environ[_ADDRESS] = address
        return
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # what the child reads from is its own alone, so that the other side sees it end
    os.close(nothing)
    over = os.pidfd_open(child)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for workers: the raylet sees theirs end by itself
    _fork_until(over, listening)
    sys.exit()


def _fork_until(over: int, listening: socket.socket) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(over, selectors.EVENT_READ)
        selector.register(listening, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj == over:
                    return
                with suppress(OSError, ValueError), listening.accept()[0] as asking:
                    _answer(asking)


def _answer(asking: socket.socket) -> None:
    """Fork a worker; there is no answer where what is asked is not understood. Raises OSError and ValueError.

    Answered first: who waited in vain is gone by now, and has started the worker by himself.
    """
    asking.settimeout(_PATIENCE_SECONDS)
    _, user, _ = struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    if user != os.getuid():
        return
    message, streams, _, _ = socket.recv_fds(asking, _MAX_MESSAGE_BYTES, 3)
    try:
        asked = json.loads(message)
        asking.send(b"1")
        if os.fork() == 0:
            processes.become(lambda: _work(streams=streams, **asked))
    finally:
        for stream in streams:
            os.close(stream)


def _work(arguments: list[str], environment: dict[str, str], folder: str, out_of_memory_first: str, streams: list[int]) -> None:
    """Be what `python` with these arguments would be, begun in this environment and folder, with these streams."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for handle in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if handle >= len(streams):
            with suppress(OSError):
                os.close(handle)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(out_of_memory_first)
    if "torch" in sys.modules:  # which has read the environment as it was
        sys.modules["torch"].set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    setproctitle(shlex.join(["python", *arguments]))
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")
