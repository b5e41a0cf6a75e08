"""A child for the tests of how children are started, and all that its warm process loads."""

import json
import os
import random
import signal
import sys
import time


def main() -> int:
    """Tell of itself; then end with a status, or with a signal, or not."""
    told = {"arguments": sys.argv[1:], "draw": random.random(), "session": os.getsid(0), "parent": os.getppid(), "group": os.getpgid(0)}
    print(json.dumps(told), flush=True)
    how = sys.argv[1]
    if how == "stay":
        time.sleep(1000)
    if how == "signal":
        os.kill(os.getpid(), signal.SIGKILL)
    return int(how)


if __name__ == "__main__":
    sys.exit(main())
