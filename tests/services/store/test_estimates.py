"""What jobs were expected to take, and whose speed another job may use."""

from typing import Any

from services.store import estimates, events
from services.store.database import Database
from tests.services.api import stock


def tell(database: Database, job_id: str, key: str = "k", **data: Any) -> None:
    with database.write() as session:
        events.append(session, job_id, "estimate", {"speed_key": key, "speed": {"step": 1.0}} | data)


def test_the_first_and_the_last_of_a_jobs_estimates_are_found(database: Database) -> None:
    stock.add_backbone(database)
    job = stock.add_job(database)
    with database.read() as session:
        assert estimates.first(session, job) is estimates.last(session, job) is None
    for number in range(3):
        tell(database, job, number=number)
    with database.read() as session:
        assert [found["number"] for found in (estimates.first(session, job), estimates.last(session, job)) if found] == [0, 2]


def test_a_speed_is_that_of_the_job_itself_or_of_another_of_its_backbone_under_the_same_key(database: Database) -> None:
    stock.add_backbone(database)
    stock.add_backbone(database, "other_vit")
    job, sibling = stock.add_job(database), stock.add_job(database)
    stranger = stock.add_job(database, backbone={"name": "other_vit"})
    tell(database, sibling, speed={"step": 2.0})
    with database.read() as session:
        assert estimates.speed(session, job, "k") == {"step": 2.0}
        assert estimates.speed(session, job, "another") is None
        assert estimates.speed(session, stranger, "k") is None
    tell(database, job, speed={"step": 3.0})
    with database.read() as session:
        assert estimates.speed(session, job, "k") == {"step": 3.0}
