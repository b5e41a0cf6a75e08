"""Studies on every backend: creation, leases with fencing, trials that become jobs once, reports, early stops, cancelling, deleting."""

import pytest

from services.store import jobs, lifecycle, studies, study_leases, study_outcomes, study_progress
from services.store.cursors import cursor_of
from services.store.database import Database
from services.store.errors import LeaseLost, NotFound, QuotaExceeded, WrongState
from services.store.idempotency import KeyTaken
from services.store.queue import Quotas
from services.store.retries import RetryRules
from services.store.study_leases import StudyLease
from services.store.study_progress import FITNESS, PROBE, Report, TrialReader
from tests.services.store.concurrency import at_once
from tests.services.store.rows import add_supernet, contents, events_of, generation, job_of
from tests.services.store.study_rows import add_study, claim_study, driven, expire_study, record, run_job, study_of, submit


def states(database: Database, study_id: str) -> list[str]:
    with database.read() as session:
        return [trial.state for trial in study_outcomes.outcomes(session, studies.get(session, study_id))]


def end_job(database: Database, job_id: str, accuracy: float = 0.5) -> None:
    with jobs.fenced(database, run_job(database, job_id)) as (session, job):
        winner = {"val_accuracy": accuracy, "parameters": 7, "test_accuracy": 0.25}
        jobs.succeed(session, job, {"winner": winner})


def test_new_study_is_queued_with_all_of_its_trials_and_no_job(database: Database) -> None:
    study_id = add_study(database, 3)

    study = study_of(database, study_id)
    assert (study.state, study.lease_epoch, study.lease_owner, study.started_at) == ("queued", 0, None, None)
    with database.read() as session:
        assert [(t.number, t.settings, t.job_id) for t in studies.trials(session, study_id)] == [(n, {"seed": n}, None) for n in (1, 2, 3)]
        assert jobs.page(session) == []
    assert states(database, study_id) == ["waiting"] * 3


def test_unknown_study_is_not_found(database: Database) -> None:
    with pytest.raises(NotFound, match="s0"), database.read() as session:
        studies.get(session, "s0")


def test_studies_are_listed_newest_first_from_a_cursor_on(database: Database) -> None:
    first, second, third = (add_study(database) for _ in range(3))

    with database.read() as session:
        assert [study.id for study in studies.page(session, limit=2)] == [third, second]
        assert [study.id for study in studies.page(session, before=cursor_of(studies.get(session, second)))] == [first]
        assert studies.page(session, state="running") == []


def test_key_stands_for_one_study_of_its_user(database: Database) -> None:
    study_id = add_study(database, key="k")

    with database.read() as session:
        found = studies.sent_before(session, "default", "k")
        assert found is not None and found.id == study_id
        assert studies.sent_before(session, "ada", "k") is None
    with pytest.raises(KeyTaken):
        add_study(database, key="k")
    assert add_study(database, key="k", user="ada") != study_id
    assert add_study(database) != add_study(database)


def test_oldest_study_is_claimed_once(database: Database) -> None:
    first, second = add_study(database), add_study(database)

    assert claim_study(database, "one") == StudyLease(first, "one", 1)
    assert claim_study(database, "two") == StudyLease(second, "two", 1)
    assert claim_study(database, "three") is None


def test_claims_at_once_give_each_study_to_one(database: Database) -> None:
    ids = {add_study(database, 1) for _ in range(4)}

    found = at_once(*(lambda n=n: claim_study(database, f"driver {n}") for n in range(8)))

    leases = [lease for lease in found if lease is not None]
    assert {lease.study_id for lease in leases} == ids
    assert len(leases) == 4


def test_study_whose_lease_ran_out_goes_to_another_and_the_first_can_write_nothing(database: Database) -> None:
    lease = driven(database)
    submit(database, lease, 1)
    expire_study(database, lease.study_id)
    with pytest.raises(LeaseLost, match="run out"):
        submit(database, lease, 2)
    claim_study(database, "other")  # counts the failed attempt, after which the study waits for a moment
    with database.write() as session:
        studies.get(session, lease.study_id).next_try_at = None

    taken = claim_study(database, "other")

    assert taken == StudyLease(lease.study_id, "other", 2)
    before = contents(database)
    for act in (lambda: submit(database, lease, 2), lambda: record(database, lease, Report(1, PROBE, 1, 0.5))):
        with pytest.raises(LeaseLost, match="epoch 1 is over"):
            act()
    with pytest.raises(LeaseLost):
        study_leases.renew(database, lease, 60)
    assert contents(database) == before


def test_study_whose_drivers_keep_dying_fails_and_leaves_its_jobs(database: Database) -> None:
    lease = driven(database)
    job_id = submit(database, lease, 1)
    with database.write() as session:
        study_leases.ended(session, lease, clean=False, rules=RetryRules(attempts=1), status=-9)

    study = study_of(database, lease.study_id)

    assert (study.state, study.failure_reason) == ("failed", "runner_lost")
    assert job_of(database, job_id).state == "queued"


def test_driver_that_is_stopped_costs_no_attempt(database: Database) -> None:
    lease = driven(database)
    with database.write() as session:
        study_leases.ended(session, lease, clean=True, rules=RetryRules(attempts=1), status=143)

    assert (study_of(database, lease.study_id).state, study_of(database, lease.study_id).attempts) == ("queued", 0)
    assert claim_study(database) == StudyLease(lease.study_id, "driver", 2)


def test_lease_is_kept_for_a_driver_that_starts_until_it_renews_it_itself(database: Database) -> None:
    lease = driven(database)
    known = study_of(database, lease.study_id).lease_expires_at

    kept = study_leases.renew(database, lease, 7200, known)
    assert kept is not None and known is not None and kept > known
    study_leases.renew(database, lease, 60)

    assert study_leases.renew(database, lease, 7200, kept) is None


def test_trial_becomes_one_job_however_often_it_is_submitted(database: Database) -> None:
    lease = driven(database)

    job_id = submit(database, lease, 2)

    assert submit(database, lease, 2) == job_id
    job = job_of(database, job_id)
    assert (job.study_id, job.study_trial, job.request, job.user_name) == (lease.study_id, 2, {"budget": 7, "seed": 2}, "default")
    assert [(event.kind, event.data) for event in events_of(database, job_id)][-1] == ("study", {"study": lease.study_id, "trial": 2})
    assert states(database, lease.study_id) == ["waiting", "queued"]


def test_trial_waits_while_its_user_has_too_much_in_the_queue(database: Database) -> None:
    lease = driven(database)
    submit(database, lease, 1)

    with pytest.raises(QuotaExceeded):
        submit(database, lease, 2, Quotas(queued_jobs=1))

    assert states(database, lease.study_id) == ["queued", "waiting"]


def test_reports_keep_the_order_in_which_they_were_recorded(database: Database) -> None:
    lease = driven(database)
    told = [Report(2, PROBE, 5, 1.5), Report(1, PROBE, 5, 1.25), Report(2, FITNESS, 0, 0.1 + 0.2)]

    for report in told:
        record(database, lease, report)

    with database.read() as session:
        assert study_progress.reports(session, lease.study_id) == told


def test_stopped_trial_ends_its_queued_job_and_is_left_out_from_then_on(database: Database) -> None:
    lease = driven(database, 3)
    ids = [submit(database, lease, number) for number in (1, 2)]

    record(database, lease, Report(2, PROBE, 8, 2.5), "2.5 is too much")

    job = job_of(database, ids[1])
    assert (job.state, job.cancel_reason) == ("cancelled", f"stopped early by study {lease.study_id}: 2.5 is too much")
    assert events_of(database, ids[1])[-1].data == {"message": job.cancel_reason}
    assert states(database, lease.study_id) == ["queued", "stopped", "waiting"]
    with database.read() as session:
        assert study_progress.unfinished(session, lease.study_id) == [1, 3]
        (trial,) = [t for t in studies.trials(session, lease.study_id) if t.number == 2]
    assert (trial.stopped_at, trial.stopped_why) == (8, "2.5 is too much")


def test_running_job_of_a_stopped_trial_ends_with_the_reason(database: Database) -> None:
    lease = driven(database)
    job_id = submit(database, lease, 1)
    runner = run_job(database, job_id)
    record(database, lease, Report(1, PROBE, 8, 2.5), "too much")
    assert job_of(database, job_id).cancel_requested

    with jobs.fenced(database, runner) as (session, job):
        jobs.cancelled(session, job)

    assert events_of(database, job_id)[-1].data == {"message": f"stopped early by study {lease.study_id}: too much"}
    assert states(database, lease.study_id)[0] == "stopped"


def test_trial_whose_job_is_over_is_not_stopped_any_more(database: Database) -> None:
    lease = driven(database)
    job_id = submit(database, lease, 1)
    end_job(database, job_id)

    record(database, lease, Report(1, PROBE, 8, 2.5), "too much")

    assert (states(database, lease.study_id)[0], job_of(database, job_id).cancel_reason) == ("succeeded", None)


def test_only_trials_that_are_not_over_are_unfinished(database: Database) -> None:
    lease = driven(database, 4)
    ids = [submit(database, lease, number) for number in (1, 2, 3)]
    end_job(database, ids[0])
    run_job(database, ids[1])

    with database.read() as session:
        assert study_progress.unfinished(session, lease.study_id) == [2, 3, 4]


def test_trial_whose_job_ended_while_nobody_followed_it_is_unfinished_until_its_reports_are_stored(database: Database) -> None:
    lease = driven(database)
    job_id = submit(database, lease, 1)
    with jobs.fenced(database, run_job(database, job_id)) as (session, job):
        session.add(generation(job.id, 0))
        jobs.succeed(session, job, {"winner": {"val_accuracy": 0.5, "parameters": 7}})

    with database.read() as session:
        assert study_progress.unfinished(session, lease.study_id) == [1, 2]
        (report,), over = study_progress.reader_of(session, lease.study_id, 1, job_id).look(session)
    assert over
    record(database, lease, report)

    with database.read() as session:
        assert study_progress.unfinished(session, lease.study_id) == [2]


def test_reader_tells_what_is_new_and_when_the_job_is_over(database: Database) -> None:
    lease = driven(database)
    job_id = submit(database, lease, 1)
    runner, reader = run_job(database, job_id), TrialReader(1, job_id)

    def look() -> tuple[list[tuple[str, int, float]], bool]:
        with database.read() as session:
            found, over = reader.look(session)
        return [(report.kind, report.step, report.value) for report in found], over

    def train(epoch: int, loss: float | None) -> None:
        with jobs.fenced(database, runner) as (session, job):
            study_progress.events.append(session, job.id, "epoch", {"epoch": epoch, "val_loss": loss})

    train(1, None)
    train(2, 1.5)
    assert look() == ([("probe", 2, 1.5)], False)
    train(2, 1.5)  # the job went on from an earlier checkpoint
    train(4, 1.25)
    assert look() == ([("probe", 4, 1.25)], False)
    with jobs.fenced(database, runner) as (session, job):
        session.add(generation(job.id, 0))
        jobs.succeed(session, job, {"winner": {"val_accuracy": 0.5, "parameters": 7}})
    assert look() == ([("fitness", 0, 0.5)], True)


def test_reader_of_a_job_that_found_its_supernet_tells_that_ones_training(database: Database) -> None:
    lease = driven(database)
    job_id = submit(database, lease, 1)
    with jobs.fenced(database, run_job(database, job_id)) as (session, job):
        add_supernet(session, "trained")
        row = study_progress.search_state.supernet(session, "trained")
        assert row is not None
        row.history = [{"epoch": 1, "val_loss": None}, {"epoch": 2, "val_loss": 1.5}, {"epoch": 4, "val_loss": 1.0}]
        job.supernet_key = "trained"

    with database.read() as session:
        found, _ = TrialReader(1, job_id, epoch=2).look(session)

    assert [(report.step, report.value) for report in found] == [(4, 1.0)]


def test_study_succeeds_with_its_first_trial_that_does(database: Database) -> None:
    lease = driven(database)
    ids = [submit(database, lease, number) for number in (1, 2)]
    with database.write() as session:
        jobs.request_cancel(session, ids[0])
    end_job(database, ids[1], 0.75)

    with study_leases.fenced(database, lease) as (session, study):
        assert study_progress.conclude(session, study)

    over = study_of(database, lease.study_id)
    assert (over.state, over.failure_reason, over.lease_owner) == ("succeeded", None, None)
    with database.read() as session:
        found = study_outcomes.outcomes(session, over)
        assert [(t.state, t.best, t.test_accuracy) for t in found] == [("cancelled", None, None), ("succeeded", 0.75, 0.25)]
        assert study_outcomes.best_of(over, found) == 2


def test_study_is_not_concluded_while_a_job_of_it_runs(database: Database) -> None:
    lease = driven(database)
    end_job(database, submit(database, lease, 1))
    job_id = submit(database, lease, 2)
    run_job(database, job_id)
    record(database, lease, Report(2, PROBE, 8, 2.5), "too much")

    with study_leases.fenced(database, lease) as (session, study):
        assert not study_progress.conclude(session, study)

    assert study_of(database, lease.study_id).state == "running"


def test_study_of_which_no_trial_succeeds_has_failed(database: Database) -> None:
    lease = driven(database, 1)
    job_id = submit(database, lease, 1)
    with jobs.fenced(database, run_job(database, job_id)) as (session, job):
        jobs.fail(session, job, "diverged", "the loss is not finite")

    with study_leases.fenced(database, lease) as (session, study):
        assert study_progress.conclude(session, study)

    over = study_of(database, lease.study_id)
    assert (over.state, over.failure_reason) == ("failed", "no_trial_succeeded")
    assert "1 failed" in (over.failure_message or "")


def test_cancelling_a_study_ends_it_at_once_with_its_jobs(database: Database) -> None:
    lease = driven(database, 3)
    ids = [submit(database, lease, number) for number in (1, 2)]
    run_job(database, ids[0])

    with database.write() as session:
        studies.cancel(session, lease.study_id)

    assert study_of(database, lease.study_id).state == "cancelled"
    assert (job_of(database, ids[0]).cancel_requested, job_of(database, ids[1]).state) == (True, "cancelled")
    assert job_of(database, ids[1]).cancel_reason == f"study {lease.study_id} was cancelled"
    assert states(database, lease.study_id) == ["running", "cancelled", "cancelled"]
    with pytest.raises(LeaseLost):
        submit(database, lease, 3)
    with pytest.raises(WrongState, match="cancelled already"), database.write() as session:
        studies.cancel(session, lease.study_id)


def test_job_of_a_study_that_is_not_over_cannot_be_deleted(database: Database) -> None:
    lease = driven(database)
    job_id = submit(database, lease, 1)
    end_job(database, job_id)
    with pytest.raises(WrongState, match=lease.study_id), database.write() as session:
        lifecycle.delete(session, job_id)
    with database.write() as session:
        studies.cancel(session, lease.study_id)

    with database.write() as session:
        lifecycle.delete(session, job_id)

    assert states(database, lease.study_id) == ["deleted", "cancelled"]


def test_deleted_study_leaves_its_jobs_by_themselves(database: Database) -> None:
    lease = driven(database)
    job_id = submit(database, lease, 1)
    record(database, lease, Report(1, PROBE, 8, 2.5))
    with pytest.raises(WrongState, match="running"), database.write() as session:
        studies.delete(session, lease.study_id)
    with database.write() as session:
        studies.cancel(session, lease.study_id)

    with database.write() as session:
        studies.delete(session, lease.study_id)

    assert (job_of(database, job_id).study_id, job_of(database, job_id).state) == (None, "cancelled")
    left = contents(database)
    assert [left[table] for table in ("studies", "study_trials", "study_reports")] == [[], [], []]


def test_trials_are_counted_by_state(database: Database) -> None:
    lease = driven(database, 3)
    submit(database, lease, 1)
    other = add_study(database, 1)

    with database.read() as session:
        found = study_outcomes.counts(session, [lease.study_id, other])

    assert found == {lease.study_id: {"queued": 1, "waiting": 2}, other: {"waiting": 1}}


def test_driver_of_a_deleted_study_has_lost_it(database: Database) -> None:
    lease = driven(database)
    with database.write() as session:
        studies.cancel(session, lease.study_id)
        studies.delete(session, lease.study_id)

    with pytest.raises(LeaseLost, match="deleted"):
        study_leases.renew(database, lease, 60)
    with pytest.raises(LeaseLost, match="deleted"), database.write() as session:
        study_leases.ended(session, lease, clean=False, rules=RetryRules(), status=1)
