"""The questions that are asked all day use indexes: shown by the plans of the very statements, on 10,000 jobs and 100,000 evaluations.

Statements are caught as the store's own functions send them, so that a question that changes is looked at as it is then.
"""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.orm import Session

from services.protocol import PROTOCOL
from services.store import backbones, claims, events, jobs, lineage, search_state
from services.store.cache_report import cache_report
from services.store.cursors import cursor_of
from services.store.database import Database
from services.store.jobs import Lease
from services.store.models import Artifact, Candidate, Claim, Evaluation, Generation, Job, JobEvent, Supernet
from services.store.retries import RetryRules
from tests.services.store.plans import caught, plan_of, undone, whole_tables
from tests.services.store.rows import EPOCH, SPEC

pytestmark = pytest.mark.slow

JOBS, EVALUATIONS, GENERATIONS, POPULATION = 10_000, 100_000, 20, 50
LARGE = {"jobs": JOBS, "job_events": 60_000, "evaluations": EVALUATIONS, "candidates": 50_000, "generations": 1_000, "claims": 20_000}
"""Tables that none of these questions may read as a whole, with their numbers of rows."""


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A database as after a year of use: filled in bulk, with statistics."""
    if request.param == "sqlite":
        yield _filled(Database(f"sqlite:///{tmp_path_factory.mktemp('plans')}/glora.db"))
        return
    with request.getfixturevalue("postgres_server").fresh_database("plans") as url:
        database = _filled(Database(url))
        yield database
        database.dispose()


def _filled(database: Database) -> Database:
    database.migrate()
    with database.write() as session:
        backbone = backbones.request(session, SPEC).key
        session.flush()
        session.execute(insert(Job), [_job(number, backbone) for number in range(JOBS)])
        session.execute(insert(JobEvent), [_event(number) for number in range(LARGE["job_events"])])
        session.execute(insert(Artifact), [_artifact(number) for number in range(20)])
        session.execute(insert(Supernet), [_supernet(number) for number in range(20)])
        session.execute(insert(Evaluation), [_evaluation(number) for number in range(EVALUATIONS)])
        session.execute(insert(Generation), [_generation(number) for number in range(LARGE["generations"])])
        session.execute(insert(Candidate), [_candidate(number) for number in range(LARGE["candidates"])])
        session.execute(
            insert(Claim), [{"key": f"k{n}", "job_id": f"j{n // 2}", "epoch": 1, "claimed_at": EPOCH} for n in range(LARGE["claims"])]
        )
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")
    return database


def _job(number: int, backbone: str) -> dict[str, Any]:
    """Most jobs are over; a few hundred wait, fifty run, of which some under a lease that has run out."""
    state = "queued" if number % 40 == 0 else "running" if number % 200 == 1 else "failed" if number % 7 == 0 else "succeeded"
    expires = datetime.now(UTC) + timedelta(hours=1 if number % 400 == 1 else -1) if state == "running" else None
    lineage_of = (
        {"parent_id": f"j{number - 1}", "parent_action": "fork"} if number % 10 == 3 else {"parent_id": None, "parent_action": None}
    )
    facts = {"id": f"j{number}", "name": f"job {number}", "state": state, "request": {"budget": 7}, "backbone_key": backbone, "data": {}}
    owner = {"user_name": f"user{number % 5}", "priority": 0}
    moment = {"created_at": EPOCH + timedelta(minutes=number), "lease_expires_at": expires, "lease_epoch": 1}
    return facts | owner | lineage_of | moment | {"supernet_key": f"s{number % 20}", "inherited": 0, "pause_requested": False}


def _event(number: int) -> dict[str, Any]:
    return {"job_id": f"j{number // 100}", "sequence": number % 100 + 1, "kind": "epoch", "data": {"epoch": number}, "at": EPOCH}


def _artifact(number: int) -> dict[str, Any]:
    named = {"id": f"a{number}", "kind": "supernet", "name": "s", "media_type": "x/y", "size": 1, "sha256": f"{number:064}"}
    return named | {"job_id": f"j{number}", "created_at": EPOCH}


def _supernet(number: int) -> dict[str, Any]:
    return {"key": f"s{number}", "recipe": {}, "history": [], "artifact_id": f"a{number}", "seconds": 1.0, "created_at": EPOCH}


def _evaluation(number: int) -> dict[str, Any]:
    key = {"supernet_key": f"s{number % 20}", "config_hash": f"c{number // 20}", "split": "val", "protocol": PROTOCOL, "metric": "accuracy"}
    measured = {"fitness": 0.5, "accuracy": 0.5, "macro_accuracy": 0.5, "loss": 1.0, "examples": 10, "parameters": 7}
    return key | measured | {"config": "c", "created_at": EPOCH}


def _generation(number: int) -> dict[str, Any]:
    best = {"best_hash": "c0", "best_accuracy": 0.5, "best_fitness": 0.5, "best_loss": 1.0, "best_parameters": 7}
    counted = {"evaluated": 40, "from_cache": 10, "seconds": 1.0, "committed_at": EPOCH}
    return {"job_id": f"j{number // GENERATIONS}", "number": number % GENERATIONS} | best | counted


def _candidate(number: int) -> dict[str, Any]:
    generation, position = divmod(number, POPULATION)
    place = {"job_id": f"j{generation // GENERATIONS}", "generation": generation % GENERATIONS, "position": position}
    return place | {"config_hash": f"c{number % 5000}", "config": "c", "parameters": 7, "operator": "random", "parents": []}


def _list_jobs(session: Session) -> None:
    assert len(jobs.page(session, limit=50)) == 50


def _list_older_jobs(session: Session) -> None:
    assert len(jobs.page(session, before=cursor_of(jobs.get(session, "j5000")), limit=50)) == 50


def _list_jobs_of_a_state(session: Session) -> None:
    assert len(jobs.page(session, state="succeeded", before=cursor_of(jobs.get(session, "j5003")), limit=50)) == 50


def _claim(session: Session) -> None:
    assert jobs.claim(session, "runner", 60, RetryRules()) is not None


def _known_evaluations(session: Session) -> None:
    assert len(search_state.known(session, "s3", "val", PROTOCOL, "accuracy", [f"c{n}" for n in range(50)])) == 50


def _evaluated_candidates(session: Session) -> None:
    job = session.get_one(Job, "j7")
    assert len(search_state.evaluated_candidates(session, job, (3, 10), 100)) == 100


def _events_after(session: Session) -> None:
    assert len(events.after(session, "j7", 50)) == 50


def _append_event(session: Session) -> None:
    assert events.append(session, "j7", "note", {}).sequence == 101


def _take_claims(session: Session) -> None:
    assert len(claims.take(session, Lease("j1", "runner", 1), [f"k{n}" for n in range(50)])) == 50


def _kin(session: Session) -> None:
    assert lineage.children(session, "j2") == [("j3", "fork")]


def _report(session: Session) -> None:
    assert cache_report(session, session.get_one(Job, "j7")).asked == GENERATIONS * POPULATION


QUESTIONS = [
    _list_jobs,
    _list_older_jobs,
    _list_jobs_of_a_state,
    _claim,
    _known_evaluations,
    _evaluated_candidates,
    _events_after,
    _append_event,
    _take_claims,
    _kin,
    _report,
]

PAGES = [_list_jobs, _list_older_jobs, _list_jobs_of_a_state]


@pytest.mark.parametrize("ask", QUESTIONS, ids=lambda ask: ask.__name__.lstrip("_"))
def test_question_reads_no_large_table_as_a_whole(ask: Callable[[Session], None], loaded: Database) -> None:
    with undone(loaded) as session, caught(loaded) as statements:
        ask(session)
        plans = [(statement, plan_of(session, statement, parameters)) for statement, parameters in list(statements)]

    assert plans
    wanted = [] if ask is not _list_jobs else ["SCAN jobs USING INDEX ix_jobs_created_at_id"]  # the newest are at its start
    assert [(statement, plan) for statement, plan in plans if whole_tables(plan, LARGE) and plan not in wanted] == []


@pytest.mark.parametrize("ask", PAGES, ids=lambda ask: ask.__name__.lstrip("_"))
def test_page_comes_in_order_from_its_index(ask: Callable[[Session], None], loaded: Database) -> None:
    with undone(loaded) as session, caught(loaded) as statements:
        ask(session)
        plans = [plan_of(session, statement, parameters) for statement, parameters in list(statements)]

    assert [plan for plan in plans if re.search(r"TEMP B-TREE FOR ORDER BY|\bSort\b", plan)] == []


def test_whole_table_would_be_noticed(loaded: Database) -> None:
    with undone(loaded) as session:
        plan = plan_of(session, "SELECT * FROM jobs WHERE name = 'job 5'", None)

    assert whole_tables(plan, LARGE) == ["jobs"]
