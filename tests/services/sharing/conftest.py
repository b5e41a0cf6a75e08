"""Every backend of the store, and runners of several jobs over it, which share nothing but the database."""

from collections.abc import Callable
from typing import Any

import pytest

from services.job_request import JobRequest
from services.scheduler.context import RunContext
from services.settings import Settings
from services.store.database import Database
from services.store.jobs import Lease
from tests.services.api import stock
from tests.services.store.conftest import *  # noqa: F403
from tests.services.store.rows import add_running_job

Runner = Callable[[], RunContext]


def context_of(database: Database, lease: Lease, **search: Any) -> RunContext:
    """What a runner has at hand, as far as nothing of Ray, data or artifacts is concerned."""
    request = JobRequest.model_validate(stock.body(search=search))
    missing: Any = None
    context = RunContext(Settings(), database, missing, lease, request, missing, {}, missing)
    context.__dict__["space"] = stock.SPACE
    return context


@pytest.fixture
def runner(connect: Callable[[], Database]) -> Runner:
    """Claims another job for an hour, with a connection of its own."""
    return lambda: context_of(database := connect(), add_running_job(database))
