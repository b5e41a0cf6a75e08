"""What each of several processes does when all need the same supernet."""

import time

from services.scheduler.turns import made_once
from services.store import claims, events, search_state
from services.store.database import Database
from services.store.jobs import Lease
from tests.services.sharing.conftest import context_of
from tests.services.store.rows import add_supernet


def make_in_turn(number: int, url: str, leases: list[Lease], key: str) -> None:
    """Make the supernet, which takes a while, unless another process has."""
    context = context_of(Database(url), leases[number])

    def find() -> str | None:
        with context.database.read() as session:
            return None if search_state.supernet(session, key) is None else "found"

    def make() -> str:
        time.sleep(1)
        with context.fenced() as (session, _):
            add_supernet(session, key)
            claims.drop(session, context.lease, [key])
        return "made"

    kind, _ = made_once(context, key, find, make)
    with context.fenced() as (session, job):
        events.append(session, job.id, kind, {})
