"""How many candidates a job asked for, and how many of them were evaluated for it."""

from services.store import jobs, search_state
from services.store.cache_report import CacheReport, cache_report
from services.store.database import Database
from tests.services.store.rows import add_job, add_running_job, change_job, generation, job_of


def report(database: Database, job_id: str) -> CacheReport:
    with database.read() as session:
        return cache_report(session, job_of(database, job_id))


def test_job_without_a_generation_has_asked_for_nothing(database: Database) -> None:
    assert report(database, add_job(database)) == CacheReport(asked=0, from_cache=0, evaluated=0, inherited=0)


def test_own_generations_are_counted_and_inherited_ones_apart(database: Database) -> None:
    lease = add_running_job(database)
    for number in range(3):
        with jobs.fenced(database, lease) as (session, job):
            search_state.commit_generation(session, job, generation(job.id, number), [])

    assert report(database, lease.job_id) == CacheReport(asked=9, from_cache=3, evaluated=6, inherited=0)
    change_job(database, lease.job_id, inherited=2)
    assert report(database, lease.job_id) == CacheReport(asked=3, from_cache=1, evaluated=2, inherited=6)
