"""Generations, written whole or not at all, and the reading of what a search has done."""

from collections.abc import Sequence

import pytest
from sqlalchemy.exc import IntegrityError

from services.protocol import protocol
from services.store import jobs, search_state
from services.store.database import Database
from services.store.errors import LeaseLost
from services.store.jobs import Lease
from services.store.models import Candidate, Evaluation
from tests.services.store.rows import (
    add_running_job,
    add_supernet,
    change_job,
    contents,
    evaluation,
    events_of,
    generation,
    job_of,
    population,
)


@pytest.fixture
def lease(database: Database) -> Lease:
    """The lease of a job that searches a stored supernet."""
    lease = add_running_job(database)
    with database.write() as session:
        add_supernet(session)
        add_supernet(session, "other")
    change_job(database, lease.job_id, supernet_key="supernet")
    return lease


def test_generation_is_stored_with_candidates_evaluations_and_event(database: Database, lease: Lease) -> None:
    _commit(database, lease, 0, ["a", "b", "a"], fresh=["a", "b"])

    with database.read() as session:
        assert [row.number for row in search_state.generations(session, lease.job_id)] == [0]
        assert [(row.position, row.config_hash) for row in search_state.candidates(session, lease.job_id)] == [(0, "a"), (1, "b"), (2, "a")]
        assert search_state.known(session, "supernet", "val", evaluation("a").protocol, "accuracy", ["a", "b"]).keys() == {"a", "b"}
    last = events_of(database, lease.job_id)[-1]
    assert (last.kind, last.data["generation"], last.data["evaluated"], last.data["from_cache"]) == ("generation", 0, 2, 1)


def test_generation_starts_the_count_of_attempts_anew(database: Database, lease: Lease) -> None:
    change_job(database, lease.job_id, attempts=2)

    _commit(database, lease, 0, ["a"], fresh=["a"])

    assert job_of(database, lease.job_id).attempts == 0


def test_nothing_of_a_generation_is_stored_when_its_transaction_breaks_off(database: Database, lease: Lease) -> None:
    change_job(database, lease.job_id, attempts=1)
    before = contents(database)

    with pytest.raises(RuntimeError, match="power cut"), jobs.fenced(database, lease) as (session, job):
        search_state.add_evaluations(session, [evaluation("a")])
        search_state.commit_generation(session, job, generation(job.id, 0), population(job.id, 0, ["a"]))
        session.flush()
        raise RuntimeError("power cut")

    assert contents(database) == before


def test_nothing_of_a_generation_is_stored_when_one_of_its_rows_is_refused(database: Database, lease: Lease) -> None:
    before = contents(database)
    candidates = population(lease.job_id, 0, ["a"]) + population(lease.job_id, 7, ["b"])

    with pytest.raises(IntegrityError), jobs.fenced(database, lease) as (session, job):
        search_state.add_evaluations(session, [evaluation("a")])
        search_state.commit_generation(session, job, generation(job.id, 0), candidates)

    assert contents(database) == before


def test_nothing_of_a_generation_is_stored_after_the_lease_was_lost(database: Database, lease: Lease) -> None:
    change_job(database, lease.job_id, lease_epoch=2)
    before = contents(database)

    with pytest.raises(LeaseLost):
        _commit(database, lease, 0, ["a"], fresh=["a"])

    assert contents(database) == before


def test_generation_is_stored_only_once(database: Database, lease: Lease) -> None:
    _commit(database, lease, 0, ["a"], fresh=["a"])
    before = contents(database)

    with pytest.raises(IntegrityError):
        _commit(database, lease, 0, ["b"], fresh=["b"])

    assert contents(database) == before


def test_generations_come_in_order_after_a_number_and_at_most_as_many_as_asked_for(database: Database, lease: Lease) -> None:
    for number in (2, 0, 3, 1):
        _commit(database, lease, number, [], fresh=[])

    with database.read() as session:
        everything = [row.number for row in search_state.generations(session, lease.job_id)]
        later = [row.number for row in search_state.generations(session, lease.job_id, after=0, limit=2)]

    assert everything == [0, 1, 2, 3]
    assert later == [1, 2]


def test_last_generation_is_the_one_with_the_highest_number(database: Database, lease: Lease) -> None:
    for number in (1, 11, 2):
        _commit(database, lease, number, [], fresh=[])

    with database.read() as session:
        last = search_state.last_generation(session, lease.job_id)

    assert last is not None and last.number == 11


def test_job_without_generations_has_no_last_one(database: Database, lease: Lease) -> None:
    with database.read() as session:
        assert search_state.last_generation(session, lease.job_id) is None
        assert search_state.generations(session, lease.job_id) == []
        assert search_state.candidates(session, lease.job_id) == []


def test_candidates_of_one_generation_come_by_position(database: Database, lease: Lease) -> None:
    _commit(database, lease, 0, ["a", "b"], fresh=["a", "b"])
    _commit(database, lease, 1, ["c", "a"], fresh=["c"])

    with database.read() as session:
        found = search_state.candidates(session, lease.job_id, generation=1)
        count = search_state.count_candidates(session, lease.job_id)

    assert [row.config_hash for row in found] == ["c", "a"]
    assert count == 4


def test_candidate_keeps_its_parents_and_operator(database: Database, lease: Lease) -> None:
    child = population(lease.job_id, 0, ["a"])[0]
    child.operator, child.parents = "crossover", ["x", "y"]

    with jobs.fenced(database, lease) as (session, job):
        search_state.add_evaluations(session, [])
        search_state.commit_generation(session, job, generation(job.id, 0), [child])

    with database.read() as session:
        stored = search_state.candidates(session, lease.job_id)[0]
    assert (stored.operator, stored.parents) == ("crossover", ["x", "y"])


def test_config_that_comes_up_in_several_generations_has_its_fitness_in_each(database: Database, lease: Lease) -> None:
    _commit(database, lease, 0, ["a", "b"], fresh=["a", "b"])
    _commit(database, lease, 1, ["a", "c", "a"], fresh=["c"])

    found = _evaluated(database, lease)

    assert [_place(row) for row in found] == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    assert [evaluation.config_hash for _, evaluation in found] == ["a", "b", "a", "c", "a"]
    assert len({e.id for _, e in found}) == 3


def test_pages_of_evaluated_candidates_hold_each_place_once(database: Database, lease: Lease) -> None:
    _commit(database, lease, 0, ["a", "b", "a"], fresh=["a", "b"])
    _commit(database, lease, 1, ["b", "a", "c"], fresh=["c"])
    _commit(database, lease, 2, ["a"], fresh=[])

    first = _evaluated(database, lease, limit=2)
    second = _evaluated(database, lease, after=_place(first[-1]), limit=3)
    third = _evaluated(database, lease, after=_place(second[-1]), limit=3)

    assert [_place(row) for row in first] == [(0, 0), (0, 1)]
    assert [_place(row) for row in second] == [(0, 2), (1, 0), (1, 1)]
    assert [_place(row) for row in third] == [(1, 2), (2, 0)]
    assert _evaluated(database, lease, after=(2, 0)) == []


def test_evaluated_candidates_of_one_generation_are_paged_too(database: Database, lease: Lease) -> None:
    _commit(database, lease, 0, ["a", "b"], fresh=["a", "b"])
    _commit(database, lease, 1, ["a", "b", "a"], fresh=[])

    found = _evaluated(database, lease, after=(1, 0), limit=1, generation=1)

    assert [_place(row) for row in found] == [(1, 1)]


@pytest.mark.parametrize(
    "foreign",
    [
        pytest.param({"supernet_key": "other"}, id="another supernet"),
        pytest.param({"split": "test"}, id="another split"),
        pytest.param({"protocol": "accuracy/float16"}, id="another protocol"),
        pytest.param({"metric": "MulticlassF1Score"}, id="another metric"),
    ],
)
def test_fitness_measured_otherwise_is_no_fitness_of_a_candidate(database: Database, lease: Lease, foreign: dict[str, str]) -> None:
    _commit(database, lease, 0, ["a", "b"], fresh=["a"])
    with database.write() as session:
        search_state.add_evaluations(session, [evaluation("a", 0.9, **foreign)])
        search_state.add_evaluations(session, [evaluation("b", 0.9, **foreign)])

    found = _evaluated(database, lease)

    assert [(c.config_hash, e.accuracy) for c, e in found] == [("a", 0.5)]


def test_candidates_of_a_job_have_the_fitness_by_the_metric_that_it_asks_for(database: Database, lease: Lease) -> None:
    change_job(database, lease.job_id, request={"search": {"metric": "MulticlassF1Score"}})
    _commit(database, lease, 0, ["a"], fresh=["a"])
    with database.write() as session:
        search_state.add_evaluations(session, [evaluation("a", 0.9, metric="MulticlassF1Score")])

    assert [(e.metric, e.fitness) for _, e in _evaluated(database, lease)] == [("MulticlassF1Score", 0.9)]


def test_candidates_of_a_job_have_the_fitness_in_the_precision_that_it_asks_for(database: Database, lease: Lease) -> None:
    change_job(database, lease.job_id, request={"search": {"precision": "bfloat16"}})
    _commit(database, lease, 0, ["a"], fresh=["a"])
    with database.write() as session:
        search_state.add_evaluations(session, [evaluation("a", 0.9, protocol=protocol("bfloat16"))])

    assert [(e.protocol, e.accuracy) for _, e in _evaluated(database, lease)] == [(protocol("bfloat16"), 0.9)]
    assert protocol("bfloat16") != protocol("float32")


def test_jobs_that_share_a_supernet_share_evaluations_but_not_candidates(database: Database, lease: Lease) -> None:
    _commit(database, lease, 0, ["a", "b"], fresh=["a", "b"])
    with jobs.fenced(database, lease) as (session, job):
        jobs.succeed(session, job, {})
    second = add_running_job(database)
    change_job(database, second.job_id, supernet_key="supernet")

    _commit(database, second, 0, ["b"], fresh=[])

    assert [(c.job_id, e.config_hash) for c, e in _evaluated(database, second)] == [(second.job_id, "b")]


def test_trained_supernet_is_found_by_its_key(database: Database, lease: Lease) -> None:
    with database.read() as session:
        found, missing = search_state.supernet(session, "supernet"), search_state.supernet(session, "nobody")

    assert found is not None and found.artifact_id == "a-supernet"
    assert missing is None


def _commit(database: Database, lease: Lease, number: int, hashes: Sequence[str], fresh: Sequence[str]) -> None:
    with jobs.fenced(database, lease) as (session, job):
        rows = [evaluation(config_hash) for config_hash in fresh]
        search_state.add_evaluations(session, rows)
        search_state.commit_generation(session, job, generation(job.id, number), population(job.id, number, hashes))


def _evaluated(
    database: Database, lease: Lease, after: tuple[int, int] = (-1, -1), limit: int | None = None, generation: int | None = None
) -> list[tuple[Candidate, Evaluation]]:
    with database.read() as session:
        return search_state.evaluated_candidates(session, jobs.get(session, lease.job_id), after, limit, generation)


def _place(row: tuple[Candidate, Evaluation]) -> tuple[int, int]:
    return row[0].generation, row[0].position


def test_history_is_every_measured_candidate_in_order_across_pages(
    database: Database, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_state, "_PAGE_ROWS", 2)
    _commit(database, lease, 0, ["b", "a", "c"], fresh=["a", "b", "c"])
    _commit(database, lease, 1, ["d", "a"], fresh=["d"])

    with database.read() as session:
        found = list(search_state.history(session, jobs.get(session, lease.job_id)))

    assert [(number, row.config) for number, row in found] == [
        (0, "config b"),
        (0, "config a"),
        (0, "config c"),
        (1, "config d"),
        (1, "config a"),
    ]
    assert {(row.metric, row.fitness, row.accuracy, row.macro_accuracy, row.loss, row.parameters) for _, row in found} == {
        ("accuracy", 0.5, 0.5, 0.25, 1.0, 7)
    }
