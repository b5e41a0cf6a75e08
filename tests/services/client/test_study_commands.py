"""The commands and client calls about studies, against a real server."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.client import Client
from services.client.errors import ServiceError
from services.store import jobs, study_leases, study_progress
from services.store.database import Database
from services.store.queue import Quotas
from services.store.retries import RetryRules
from services.store.study_progress import FITNESS, PROBE, Report
from tests.services.api import stock
from tests.services.api.listening import Listening
from tests.services.client.test_commands import Glora, glora

__all__ = ["glora"]


@pytest.fixture
def base(tmp_path: Path, data: Path, backbone: str) -> Path:
    """A file with a job request whose data folder is named as seen from here."""
    path = tmp_path / "base.json"
    path.write_text(json.dumps(stock.body(data.name)))
    return path


def submit(glora: Glora, server: Listening, base: Path, *options: str) -> dict[str, Any]:
    """The study that was submitted."""
    ended = glora("study", "submit", "--base", str(base), *options, "--no-watch", "--url", server.url)
    assert ended.status == 0, ended.err
    return Client(server.url).study(ended.out.split()[1])


def test_study_is_submitted_with_values_and_ranges(glora: Glora, server: Listening, base: Path) -> None:
    sweep = ["--sweep", "search.population=4,6", "--sweep", "training.weight_decay=1e-5..1e-1:log"]
    study = submit(glora, server, base, *sweep, "--samples", "2", "--name", "sizes", "--concurrency", "3", "--seed", "7")

    request = study["request"]
    assert request["sweep"] == {
        "search.population": {"values": [4, 6]},
        "training.weight_decay": {"low": 1e-5, "high": 0.1, "log": True},
    }
    assert (study["name"], study["counts"]["all"], request["concurrency"], request["seed"]) == ("sizes", 4, 3, 7)
    assert Path(request["base"]["data"]["path"]).is_absolute()


def test_values_may_be_text_and_lists(glora: Glora, server: Listening, base: Path) -> None:
    study = submit(glora, server, base, "--sweep", "search.strategy=random,evolution", "--sweep", "space.ranks=[[2], [4, 8]]")

    assert [trial["settings"] for trial in study["trials"]] == [
        {"search.strategy": strategy, "space.ranks": ranks} for strategy in ("random", "evolution") for ranks in ([2], [4, 8])
    ]


def test_study_is_submitted_from_a_file_and_options_win(glora: Glora, server: Listening, base: Path, tmp_path: Path) -> None:
    request = {"base": json.loads(base.read_text()), "sweep": {"training.learning_rate": {"values": [0.1, 0.01]}}, "name": "file"}
    (tmp_path / "study.json").write_text(json.dumps(request | {"early_stop": {"grace_epochs": 5}}))

    options = ["--early-stop", "asha", "--name", "option", "--no-watch", "--url", server.url]
    ended = glora("study", "submit", str(tmp_path / "study.json"), *options)

    study = Client(server.url).study(ended.out.split()[1])
    assert study["name"] == "option"
    assert study["request"]["early_stop"] == {"rule": "asha", "grace_epochs": 5, "reduction_factor": 3.0}


@pytest.mark.parametrize("sweep", ["search.population", "=4", "search.population=", "seed=1..5:lin", "seed=[1"])
def test_sweep_that_cannot_be_read_is_refused_here(sweep: str, glora: Glora, server: Listening, base: Path) -> None:
    refused = glora("study", "submit", "--base", str(base), "--sweep", sweep, "--url", server.url)

    assert (refused.status, "NAME=LOW..HIGH" in refused.err) == (2, True)


def test_refusal_of_the_service_names_trial_and_field(glora: Glora, server: Listening, base: Path) -> None:
    refused = glora("study", "submit", "--base", str(base), "--sweep", "search.population=4,0", "--url", server.url)

    assert refused.status == 1
    assert "sweep.search.population: trial 2 (search.population = 0)" in refused.err


def test_study_without_a_base_is_refused_here(glora: Glora) -> None:
    assert "--base" in glora("study", "submit", "--sweep", "seed=1,2").err


def _drive(database: Database, succeed: bool = True) -> None:
    """Run the first trial of the one study there is, stop the second, and end it."""
    with database.write() as session:
        lease = study_leases.claim(session, "driver", 600, RetryRules())
    assert lease is not None
    for number in (1, 2):
        with study_leases.fenced(database, lease) as (session, study):
            study_progress.submit(session, study, number, Quotas())
        runner = stock.claim(database)
        if number == 2:
            with study_leases.fenced(database, lease) as (session, study):
                study_progress.record(session, study, Report(2, PROBE, 1200, 2.5), "too slow")
            with jobs.fenced(database, runner) as (session, job):
                jobs.cancelled(session, job)
        elif succeed:
            stock.succeed(database, runner)
        else:
            stock.fail(database, runner)
    with study_leases.fenced(database, lease) as (session, study):
        study_progress.record(session, study, Report(1, FITNESS, 0, 0.5))
        assert study_progress.conclude(session, study)


def test_study_is_shown_by_its_id_as_a_table_of_its_trials(glora: Glora, server: Listening, base: Path, database: Database) -> None:
    study = submit(glora, server, base, "--sweep", "search.population=4,6")
    assert "2 waiting" in glora("study", study["id"], "--url", server.url).out
    _drive(database)

    shown = glora("study", study["id"], "--url", server.url).out

    assert "2/2" in shown and "1 succeeded, 1 stopped" in shown
    assert "search.population" in shown
    assert "1 ★" in shown and "87.5%" in shown and "81.2%" in shown and "640" in shown
    assert "stopped after epoch 1,200" in shown
    assert json.loads(glora("study", study["id"], "--json", "--url", server.url).out)["id"] == study["id"]
    assert glora("study", study["id"], "--watch", "--url", server.url).status == 0
    assert Client(server.url).study_reports(study["id"])[-1] == {"trial": 1, "kind": "fitness", "step": 0, "value": 0.5}


def test_watching_a_study_that_fails_ends_with_1_and_says_why(glora: Glora, server: Listening, base: Path, database: Database) -> None:
    study = submit(glora, server, base, "--sweep", "search.population=4,6")
    _drive(database, succeed=False)

    ended = glora("study", study["id"], "--watch", "--url", server.url)

    assert (ended.status, "none of its trials has succeeded" in " ".join(ended.out.split())) == (1, True)


def test_studies_are_listed_cancelled_and_deleted(glora: Glora, server: Listening, base: Path) -> None:
    assert "No studies yet" in glora("studies", "--url", server.url).out
    study = submit(glora, server, base, "--sweep", "search.population=4,6")

    listed = glora("studies", "--url", server.url).out
    assert study["id"] in listed and "0 of 2 done" in listed and "search.population" in listed
    assert json.loads(glora("studies", "--json", "--url", server.url).out)[0]["id"] == study["id"]
    assert glora("study", "cancel", study["id"], "--url", server.url).status == 0
    assert Client(server.url).wait_study(study["id"])["state"] == "cancelled"
    assert glora("study", "delete", study["id"], "--yes", "--url", server.url).status == 0
    with pytest.raises(ServiceError, match="no study"):
        Client(server.url).study(study["id"])


def test_unknown_study_is_a_short_message(glora: Glora, server: Listening) -> None:
    ended = glora("study", "s0", "--url", server.url)

    assert (ended.status, "no study 's0'" in ended.err) == (1, True)


def test_words_with_two_dots_that_are_no_range_are_values(glora: Glora, server: Listening, base: Path) -> None:
    refused = glora("study", "submit", "--base", str(base), "--sweep", "data.path=../a,../b", "--url", server.url)

    assert refused.status == 1
    assert str(Path("../a").resolve()) in refused.err.replace("\n", "")


def test_study_is_followed_through_a_restart_behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([ServiceError("", 502), ServiceError("", 0), {"state": "running"}, ServiceError("", 504), {"state": "succeeded"}])

    def study(client: Client, study_id: str) -> dict[str, Any]:
        answer = next(answers)
        if isinstance(answer, ServiceError):
            raise answer
        return answer

    monkeypatch.setattr(Client, "study", study)

    assert Client("http://nowhere").wait_study("s1", poll_seconds=0) == {"state": "succeeded"}
