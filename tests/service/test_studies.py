"""Studies against an embedded service: trials are jobs that share what they can, poor trainings are stopped, and nothing is run twice."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from services import processes
from tests.service.conftest import Service, kill, start_service

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that runs two jobs at once."""
    running = start_service(tmp_path_factory.mktemp("home"), GLORA_MAX_RUNNING_JOBS="2", GLORA_LEASE_SECONDS="12")
    yield running
    processes.stop(running.process, 30)


def _trained(service: Service, study: dict[str, Any]) -> Counter[str]:
    """How many first epochs each supernet of a study's jobs has had."""
    found = Counter[str]()
    for trial in study["trials"]:
        first = [event for event in service.client.events(trial["job"]) if event["kind"] == "epoch" and event["data"]["epoch"] == 1]
        found[service.client.job(trial["job"])["supernet"]] += len(first)
    return found


def test_grid_over_search_settings_shares_one_supernet(pair: Service, request_body: dict[str, Any]) -> None:
    base = request_body | {"seed": 71}
    sweep = {"search.population": {"values": [4, 6]}}

    study = pair.client.wait_study(pair.client.submit_study({"name": "grid", "base": base, "sweep": sweep})["id"])

    assert (study["state"], study["counts"]["succeeded"]) == ("succeeded", 2)
    assert [trial["settings"] for trial in study["trials"]] == [{"search.population": 4}, {"search.population": 6}]
    assert [trial["asked"] for trial in study["trials"]] == [20, 30]
    assert [trial["generations"] for trial in study["trials"]] == [5, 5]
    assert list(_trained(pair, study).values()) == [1]
    job = pair.client.job(study["trials"][1]["job"])
    assert job["study"] == {"id": study["id"], "trial": 2}
    assert study["trials"][study["best"] - 1]["best"] == max(trial["best"] for trial in study["trials"])


def test_poor_training_is_stopped_early_and_says_which_study_did_it(pair: Service, request_body: dict[str, Any]) -> None:
    base = request_body | {"seed": 72}
    base["training"] = {"epochs": 800, "batch_size": 50, "policy": "random"}
    study = pair.client.submit_study(
        {
            "base": base,
            "sweep": {"training.learning_rate": {"values": [0.01, 1e-7]}},
            "concurrency": 1,
            "early_stop": {"rule": "asha", "grace_epochs": 100, "reduction_factor": 2},
        }
    )

    over = pair.client.wait_study(study["id"])

    good, poor = over["trials"]
    assert (over["state"], good["state"], poor["state"]) == ("succeeded", "succeeded", "stopped")
    assert 100 <= poor["stopped_at"] < 800
    assert 0 < poor["epochs"] < 800
    job = pair.client.job(poor["job"])
    assert job["state"] == "cancelled"
    assert f"stopped early by study {study['id']}" in job["cancel_reason"]
    assert over["best"] == 1


def test_cancelled_study_frees_everything(pair: Service, request_body: dict[str, Any]) -> None:
    base = request_body | {"seed": 73, "training": {"epochs": 5000, "batch_size": 50, "policy": "random"}}
    study = pair.client.submit_study({"base": base, "sweep": {"search.population": {"values": [4, 6, 8]}}, "concurrency": 2})
    job = _job_of(pair, study["id"])
    next(now for now in pair.client.follow_study(study["id"]) if any(trial["epochs"] for trial in now["trials"]))  # either may train

    pair.client.cancel_study(study["id"])

    trials = pair.client.wait_study(study["id"])["trials"]  # of which jobs may still be ending
    assert pair.wait(job)["cancel_reason"] == f"study {study['id']} was cancelled"
    assert {pair.wait(trial["job"])["state"] for trial in trials if trial["job"]} == {"cancelled"}
    study = pair.client.study(study["id"])
    assert study["state"] == "cancelled"
    assert study["counts"]["done"] == study["counts"]["all"] == 3


@pytest.mark.chaos
def test_study_goes_on_after_its_driver_and_its_scheduler_were_killed_and_runs_no_trial_twice(
    pair: Service, request_body: dict[str, Any]
) -> None:
    base = request_body | {"seed": 74, "search": {"population": 6, "generations": 20, "evaluators": 1}}
    study_id = pair.client.submit_study({"base": base, "sweep": {"search.seed": {"values": [1, 2]}}, "concurrency": 1})["id"]
    jobs = []
    for number, victim in enumerate(("study", "scheduler")):
        jobs.append(_job_of(pair, study_id, number))
        pair.wait_for_event(jobs[number], lambda event: event["kind"] == "generation")
        kill(pair.children()[victim])

    study = pair.client.wait_study(study_id)

    assert (study["state"], study["counts"]["succeeded"]) == ("succeeded", 2)
    assert [trial["job"] for trial in study["trials"]] == jobs
    assert sorted(row["id"] for row in pair.client.jobs(limit=500) if row["study_id"] == study_id) == sorted(jobs)
    assert list(_trained(pair, study).values()) == [1]
    reports = Counter((report["trial"], report["kind"], report["step"]) for report in pair.client.study_reports(study_id))
    assert set(reports.values()) == {1}
    assert {(trial, step) for trial, kind, step in reports if kind == "fitness"} == {(t, g) for t in (1, 2) for g in range(20)}


def _job_of(service: Service, study_id: str, place: int = 0) -> str:
    """The job of one of a study's trials, once there is one."""
    for study in service.client.follow_study(study_id):
        if study["trials"][place]["job"]:
            return str(study["trials"][place]["job"])
    raise AssertionError(service.client.study(study_id))
