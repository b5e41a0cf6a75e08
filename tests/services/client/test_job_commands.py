"""The commands that change a job or make another from it, against a real server."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.store.database import Database
from tests.services.api import stock
from tests.services.api.listening import Listening
from tests.services.client.test_commands import Glora, glora

__all__ = ["glora"]


@pytest.fixture
def finished(database: Database) -> str:
    """A succeeded job with a supernet and a generation."""
    lease = stock.add_running(database, search={"generations": 1})
    stock.add_search(database, lease, generations=1, population=2)
    stock.succeed(database, lease)
    return lease.job_id


def job_at(server: Listening, job_id: str) -> dict[str, Any]:
    from services.client import Client

    return Client(server.url).job(job_id)


def made_by(out: str) -> str:
    """The id of the job that a command says it has queued."""
    return out.split()[1]


def test_job_is_paused_and_resumed(glora: Glora, server: Listening, database: Database) -> None:
    job_id = stock.add_job(database)

    assert "paused. Go on with: glora resume" in glora("pause", job_id, "--url", server.url).out
    assert job_at(server, job_id)["state"] == "paused"
    assert glora("resume", job_id, "--url", server.url).status == 0
    assert job_at(server, job_id)["state"] == "queued"
    refused = glora("resume", job_id, "--url", server.url)
    assert (refused.status, "only a paused job can be resumed" in refused.err) == (1, True)


def test_extended_and_forked_jobs_are_queued_and_say_what_they_were_made_from(glora: Glora, server: Listening, finished: str) -> None:
    extended = glora("extend", finished, "4", "--no-watch", "--url", server.url)
    forked = glora(
        *("fork", finished, "--budget", "0.5k", "--strategy", "random", "--seed", "3", "--name", "other", "--no-watch", "--url", server.url)
    )

    assert f"queued (extend of {finished})" in extended.out
    assert job_at(server, made_by(extended.out))["request"]["search"]["generations"] == 5
    job = job_at(server, made_by(forked.out))
    assert (job["name"], job["request"]["budget"], job["lineage"]["action"]) == ("other", 500, "fork")
    assert (job["request"]["search"]["strategy"], job["request"]["search"]["seed"]) == ("random", 3)
    assert f"extend of {finished}" in " ".join(glora("jobs", "--url", server.url).out.split())


def test_clone_takes_changes_from_options_and_a_file(glora: Glora, server: Listening, data: Path, backbone: str, tmp_path: Path) -> None:
    submitted = glora(
        *("submit", "--data", str(data), "--backbone", stock.BACKBONE, "--budget", "700", "--no-watch", "--url", server.url)
    ).out
    settings = tmp_path / "changes.json"
    settings.write_text(json.dumps({"training": {"epochs": 3, "batch_size": 8}, "baselines": True}))

    cloned = glora("clone", made_by(submitted), "--epochs", "9", "--settings", str(settings), "--no-watch", "--url", server.url)

    request = job_at(server, made_by(cloned.out))["request"]
    assert (request["training"]["epochs"], request["training"]["batch_size"], request["baselines"]) == (9, 8, True)


def test_job_is_deleted_once_that_is_confirmed(glora: Glora, server: Listening, finished: str) -> None:
    assert glora("delete", finished, "--yes", "--url", server.url).status == 0
    assert "no job" in glora("delete", finished, "--yes", "--url", server.url).err


def test_cache_report_is_a_table_or_json(glora: Glora, server: Listening, finished: str) -> None:
    assert glora("cache", finished, "--url", server.url).out.split() == ["asked", "2", "from", "cache", "0", "(0.0%)", "evaluated", "2"]
    found = json.loads(glora("cache", finished, "--json", "--url", server.url).out)
    assert found == {"asked": 2, "from_cache": 0, "evaluated": 2, "inherited": 0}
