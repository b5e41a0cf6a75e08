"""A process that workers are forked from, for the tests of that; and, run as a script, what is forked."""

import json
import os
import signal
import sys
import time
from pathlib import Path


def forks(tell: Path) -> None:
    """Fork workers until killed, or until the child is; tells the command and the child's process id."""
    from services.cluster.worker_forks import fork_workers, worker_command

    os.environ["ONLY_HERE"] = "1"
    fork_workers("fractions")
    tell.write_text(json.dumps({"command": worker_command(), "child": os.getpid(), "forks": os.getppid()}))
    signal.pause()


def main() -> None:
    """Tell of itself; then do as the first argument says."""
    own = ("HERE", "ONLY_HERE")
    told = {
        "arguments": sys.argv[1:],
        "environment": {name: os.environ.get(name) for name in own},
        "folder": str(Path.cwd()),
        "handles": sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1,
        "loaded": "fractions" in sys.modules,
        "main": __name__,
        "out_of_memory_first": Path("/proc/self/oom_score_adj").read_text().strip(),
        "parent": os.getppid(),
        "process": os.getpid(),
        "read": sys.stdin.read(),
        "session": os.getsid(0),
        "waits": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
    }
    print(json.dumps(told), flush=True)
    if sys.argv[1] == "stay":
        time.sleep(1000)
    if sys.argv[1] == "fail":
        raise ValueError("it fails")


if __name__ == "__main__":
    main()
