"""The warm process: loads what runners need once, then forks a child for each request of its scheduler.

Started by it as `python -m services.scheduler.warm_process MODULE WORKERS`, with a socket as standard input. `WORKERS`, unless empty, is
imported first, in a process that Ray's workers are forked from as well (`services.cluster.worker_forks`), and `MODULE` then, in a fork of
it. A message is a request, of the module whose `main` a child is to run, its arguments and its log; answers are `warm`, the process id of
a new child, and the exit status of one that has ended. It runs one thread and holds no connection, so that a fork is safe.
"""

import gc
import importlib
import json
import os
import selectors
import socket
import sys
from typing import Any

from setproctitle import setproctitle

from services import processes
from services.cluster.worker_forks import fork_workers

MAX_MESSAGE_BYTES = 65536


def serve(scheduler: socket.socket) -> None:
    """Answer requests until the scheduler is gone; its children go with it."""
    scheduler.send(json.dumps({"warm": True}).encode())
    with selectors.DefaultSelector() as selector:
        selector.register(scheduler, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    answer = {"ended": key.data, "status": os.waitstatus_to_exitcode(os.waitpid(key.data, 0)[1])}
                elif request := scheduler.recv(MAX_MESSAGE_BYTES):
                    child = os.fork()
                    if child == 0:
                        selector.close()
                        processes.become(lambda: _be(**json.loads(request)))
                    selector.register(os.pidfd_open(child), selectors.EVENT_READ, child)
                    answer = {"started": child}
                else:
                    return
                scheduler.send(json.dumps(answer).encode())


def _be(module: str, arguments: list[str], log: str) -> Any:
    """Be what `python -m module arguments` would be, under its name and with its output; returns the status."""
    _print_to(log)
    setproctitle(" ".join(["python", "-m", module, *arguments]))
    sys.argv = [module, *arguments]
    return importlib.import_module(module).main()


def _print_to(log: str) -> None:
    nothing, output = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for handle, standard in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(handle, standard)
    os.close(nothing)
    os.close(output)


def main() -> None:
    """Entry point of the process."""
    preloaded, workers = sys.argv[1:]
    if workers:
        fork_workers(workers)
    importlib.import_module(preloaded)
    gc.freeze()  # what is loaded stays shared with the children, of which no collection need look at it
    with socket.socket(fileno=0) as scheduler:
        serve(scheduler)


if __name__ == "__main__":
    main()
