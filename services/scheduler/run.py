"""The process of a runner: its heart beats before anything heavy is loaded.

Started by a scheduler as `python -m services.scheduler.run JOB OWNER EPOCH WORKDIR`. On a busy machine loading torch and ray takes
longer than a lease may last. When the lease is lost, or a cancellation is asked for, the heartbeat ends the process at once, and Ray
frees all that it held.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

from services.scheduler.heartbeat import Heartbeat
from services.settings import get_settings
from services.store.database import Database
from services.store.jobs import Lease


def main() -> int:
    """Entry point of the process; returns its exit status."""
    parser = argparse.ArgumentParser(description="Runs one claimed job; started by a scheduler.")
    parser.add_argument("job")
    parser.add_argument("owner")
    parser.add_argument("epoch", type=int)
    parser.add_argument("workdir", type=Path)
    arguments = parser.parse_args()
    settings = get_settings()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    database = Database(settings.resolved_database_url)
    lease = Lease(arguments.job, arguments.owner, arguments.epoch)
    Heartbeat(settings, database, lease).start()
    from services.scheduler.runner import attempt

    return attempt(settings, database, lease, arguments.workdir)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)
