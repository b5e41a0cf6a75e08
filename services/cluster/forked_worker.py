"""What Ray starts in place of `python` for a worker: hands all that it was given to the process that workers are forked from, and ends.

Run by its path, as `python -I -S forked_worker.py ADDRESS SCRIPT [ARGUMENT ...]`, so that it starts in a few hundredths of a second. Where
nobody answers at the address, it becomes `python SCRIPT [ARGUMENT ...]`.
"""

import json
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

_PATIENCE_SECONDS = 60.0


def main() -> None:
    """Entry point of the process."""
    address, *arguments = sys.argv[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as forks:
        forks.settimeout(_PATIENCE_SECONDS)
        forks.connect(f"\0{address}")
        asked = {
            "arguments": arguments,
            "environment": dict(os.environ),
            "folder": str(Path.cwd()),
            "out_of_memory_first": Path("/proc/self/oom_score_adj").read_text(),
        }
        socket.send_fds(forks, [json.dumps(asked).encode()], [0, 1, 2])
        if forks.recv(1):
            return
    os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    main()
