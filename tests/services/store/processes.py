"""What each of several processes does to one database at the same time; imports little, so that they start soon."""

from services.store import events, jobs
from services.store.database import Database
from services.store.jobs import Lease


def migrate(number: int, url: str) -> None:
    """Bring the schema up to date."""
    Database(url).migrate()


def keep_writing(number: int, url: str, lease: Lease, times: int) -> None:
    """Append events to a job, in transactions that read first and write then."""
    database = Database(url)
    for _ in range(times):
        with jobs.fenced(database, lease) as (session, job):
            events.append(session, job.id, "note", {"writer": number})
    database.dispose()
