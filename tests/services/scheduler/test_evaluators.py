"""How many jobs a pool believes to share the cluster with, and how many evaluators its user may have."""

from datetime import timedelta

import pytest
from sqlalchemy.exc import OperationalError

from services.cluster import resources
from services.cluster.resources import EvaluatorLimit, Share
from services.scheduler.evaluators import JobsRunning, UsersShare
from services.store.database import Database
from tests.services.store.rows import EPOCH, add_job, add_running_job, change_job


def test_running_jobs_are_counted_and_waiting_ones_are_not(database: Database) -> None:
    add_running_job(database)
    add_running_job(database)
    add_job(database)

    assert JobsRunning(database)() == 2


def test_last_count_holds_while_the_database_is_away(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    add_running_job(database)
    add_running_job(database)
    running = JobsRunning(database)
    assert running() == 2

    def away() -> None:
        raise OperationalError("SELECT", {}, Exception("the server is starting"))

    monkeypatch.setattr(database, "read", away)

    assert running() == 2


def _search(database: Database, user: str, seconds: int, **columns: object) -> str:
    """A job that searches, so old."""
    when = {"created_at": EPOCH + timedelta(seconds=seconds)}
    return add_job(database, user_name=user, **({"state": "running", "phase": "search"} | when | columns))


@pytest.mark.parametrize(
    ("quota", "count", "shares"), [(6, 1, [6]), (6, 3, [2, 2, 2]), (7, 3, [3, 2, 2]), (2, 3, [1, 1, 1]), (1, 2, [1, 1])]
)
def test_searching_jobs_of_a_user_share_the_quota_evenly_and_each_has_one(
    database: Database, quota: int, count: int, shares: list[int]
) -> None:
    ours = [_search(database, "ada", number) for number in range(count)]
    for number, (state, phase) in enumerate([("running", "train"), ("queued", "search"), ("paused", "search"), ("succeeded", "search")]):
        _search(database, "ada", number, state=state, phase=phase)
    _search(database, "bob", 0)

    assert [UsersShare(database, job_id, quota)() for job_id in ours] == shares


def test_jobs_that_begin_and_end_to_search_change_what_is_left_for_others(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources.ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 8.0}}])
    first, second = _search(database, "ada", 0), _search(database, "ada", 1, phase="train")
    limit = EvaluatorLimit(0, Share(), lambda: 1, UsersShare(database, first, 5))
    assert limit() == 5
    change_job(database, second, phase="search")
    assert limit() == 3
    change_job(database, second, state="succeeded")
    assert limit() == 5


def test_quota_gives_no_more_than_the_cluster_has_room_for(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources.ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 3.0}}])
    job_id = _search(database, "ada", 0)

    assert EvaluatorLimit(2, Share(), lambda: 1, UsersShare(database, job_id, 50))() == 2
    assert EvaluatorLimit(0, Share(), lambda: 1, UsersShare(database, job_id, None))() == 4


def test_users_share_holds_while_the_database_is_away(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    share = UsersShare(database, _search(database, "ada", 0), 4)
    assert share() == 4

    def away() -> None:
        raise OperationalError("SELECT", {}, Exception("the server is starting"))

    monkeypatch.setattr(database, "read", away)

    assert share() == 4
