"""`python -m services.scheduler`: a scheduler process. Migrates the database, then works until it is stopped."""

import logging
import signal
import sys
from types import FrameType

from services.scheduler.supervisor import Supervisor
from services.settings import get_settings
from services.store.blobs import BlobStore
from services.store.database import Database


def main() -> None:
    """Entry point of the process."""
    settings = get_settings()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    database = Database(settings.resolved_database_url)
    database.migrate()
    blobs = BlobStore(settings.resolved_artifacts_url, settings.artifacts_endpoint)
    supervisor = Supervisor(settings, database, blobs, settings.home)
    signal.signal(signal.SIGTERM, _exit)
    try:
        supervisor.run()
    except KeyboardInterrupt:
        pass
    finally:
        supervisor.shut_down()


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
