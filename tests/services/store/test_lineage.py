"""Jobs made from jobs: what an extended one takes over, what a forked one shares, and which states allow it."""

from typing import Any

import pytest
from sqlalchemy import select

from services.store import jobs, lifecycle, lineage, search_state
from services.store.database import Database
from services.store.errors import WrongState
from services.store.jobs import Lease
from services.store.models import Artifact, Evaluation, Job, Supernet
from tests.services.store.rows import (
    add_job,
    add_running_job,
    add_supernet,
    artifact,
    change_job,
    contents,
    evaluation,
    events_of,
    generation,
    job_of,
    population,
)


def searched(database: Database) -> Lease:
    """A running job with a supernet and two generations of two candidates."""
    lease = add_running_job(database)
    with jobs.fenced(database, lease) as (session, job):
        add_supernet(session)
        job.supernet_key = "supernet"
        for number, hashes in enumerate((["a", "b"], ["b", "c"])):
            search_state.add_evaluations(session, [evaluation(digest) for digest in hashes])
            search_state.commit_generation(session, job, generation(job.id, number), population(job.id, number, hashes))
    return lease


def finished(database: Database) -> str:
    lease = searched(database)
    with jobs.fenced(database, lease) as (session, job):
        jobs.succeed(session, job, {})
    return lease.job_id


def make(database: Database, action: Any, parent_id: str, name: str = "") -> Job:
    with database.write() as session:
        return action(session, jobs.get(session, parent_id), user="alice", name=name, request={"budget": 8})


def test_extended_job_starts_from_a_copy_of_its_parents_generations(database: Database) -> None:
    parent_id = finished(database)
    with database.read() as session:
        before = [
            (c.generation, c.position, e.accuracy) for c, e in search_state.evaluated_candidates(session, job_of(database, parent_id))
        ]

    child = job_of(database, make(database, lineage.extend, parent_id).id)

    with database.read() as session:
        pairs = search_state.evaluated_candidates(session, child)
        assert [(c.generation, c.position, e.accuracy) for c, e in pairs] == before
        assert [g.number for g in search_state.generations(session, child.id)] == [0, 1]
    assert (child.state, child.supernet_key, child.inherited, child.request) == ("queued", "supernet", 2, {"budget": 8})
    assert lineage.origin_of(child) == lineage.Origin(parent_id, "extend", 2)
    assert [(event.kind, event.data) for event in events_of(database, child.id)] == [
        ("queued", {"name": "toy"}),
        ("made_from", {"job": parent_id, "action": "extend"}),
    ]


def test_forked_job_shares_the_supernet_and_nothing_else(database: Database) -> None:
    lease = searched(database)

    child = make(database, lineage.fork, lease.job_id, name="other")

    with database.read() as session:
        assert (child.name, child.supernet_key, child.inherited) == ("other", "supernet", 0)
        assert search_state.last_generation(session, child.id) is None
        assert lineage.children(session, lease.job_id) == [(child.id, "fork")]


def test_job_without_a_trained_supernet_cannot_be_forked(database: Database) -> None:
    job_id = add_job(database)
    before = contents(database)

    for key in (None, "not stored"):
        change_job(database, job_id, supernet_key=key)
        with pytest.raises(WrongState, match="has no supernet yet"):
            make(database, lineage.fork, job_id)
    change_job(database, job_id, supernet_key=None)
    assert contents(database) == before


@pytest.mark.parametrize("state", ["queued", "running", "paused", "failed", "cancelled"])
def test_only_a_succeeded_job_can_be_extended(state: str, database: Database) -> None:
    job_id = finished(database)
    change_job(database, job_id, state=state)

    with pytest.raises(WrongState) as refusal:
        make(database, lineage.extend, job_id)

    assert (refusal.value.state, refusal.value.accepted) == (state, ("succeeded",))


def test_deleted_job_leaves_supernets_evaluations_and_its_children(database: Database) -> None:
    parent_id = finished(database)
    child = make(database, lineage.extend, parent_id)
    with database.write() as session:
        session.get_one(Artifact, "a-supernet").job_id = parent_id
        session.add(artifact("merged", parent_id))

    with database.write() as session:
        lifecycle.delete(session, parent_id)

    with database.read() as session:
        assert session.get(Job, parent_id) is None
        assert [(row.id, row.job_id) for row in session.scalars(select(Artifact))] == [("a-supernet", None)]
        assert len(session.scalars(select(Evaluation)).all()) == 3
        assert session.get(Supernet, "supernet") is not None
        assert search_state.count_candidates(session, child.id) == 4
    assert lineage.origin_of(job_of(database, child.id)) == lineage.Origin(parent_id, "extend", 2)


@pytest.mark.parametrize("state", ["queued", "running", "paused"])
def test_job_that_is_not_over_cannot_be_deleted(state: str, database: Database) -> None:
    job_id = add_job(database, state=state)

    with pytest.raises(WrongState) as refusal, database.write() as session:
        lifecycle.delete(session, job_id)

    assert refusal.value.accepted == ("cancelled", "failed", "succeeded")
    assert job_of(database, job_id).state == state
