"""A process that hangs in the middle of a transaction, as one that was stopped does, does not keep its job from others for ever."""

from collections.abc import Iterator

import pytest
from sqlalchemy.exc import SQLAlchemyError

from services.store import database as databases
from services.store import jobs
from services.store.database import Database
from services.store.jobs import Lease
from tests.servers.postgres import PostgresServer
from tests.services.store.concurrency import Background
from tests.services.store.rows import add_running_job, claim, expire, job_of

pytestmark = pytest.mark.postgres


@pytest.fixture
def url(postgres_server: PostgresServer) -> Iterator[str]:
    """A migrated database on PostgreSQL; SQLite's locks are the file system's."""
    with postgres_server.fresh_database("hangs", template="migrated") as found:
        yield found


def test_a_job_held_by_a_transaction_that_hangs_is_claimed_by_another(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "_IDLE_MS", 500)
    hanging, other = Database(url), Database(url)
    lease = add_running_job(other)

    def take_over() -> Lease | None:
        expire(other, lease.job_id)  # waits for the job's row
        return claim(other, "successor")

    with pytest.raises(SQLAlchemyError), jobs.fenced(hanging, lease) as (_, job):
        taken = Background(take_over).result()
        job.name = "written too late"

    assert taken == Lease(lease.job_id, "successor", 2)
    assert job_of(other, lease.job_id).name == "toy"
    hanging.dispose()
    other.dispose()
