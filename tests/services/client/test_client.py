"""The Python client against a real server: requests, refusals, event streams that break, and verified downloads."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from services.client import Client, ServiceError
from services.client import client as client_module
from services.settings import Settings
from services.store.blobs import BlobStore
from services.store.database import Database
from tests.services.api import stock
from tests.services.api.listening import Listening, unused_url
from tests.services.client.faults import Answers, Counting, Cuts, Stingy


@pytest.fixture
def client(server: Listening) -> Client:
    return Client(server.url)


@pytest.fixture
def finished(database: Database, blobs: BlobStore, tmp_path: Path) -> str:
    """A succeeded job with a checkpoint of three files."""
    return stock.add_finished(database, blobs, tmp_path / "made")


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def test_submitted_job_comes_back_queued_and_can_be_looked_at(client: Client, data: Path, backbone: str) -> None:
    job = client.submit(stock.body(data, budget="1k"))

    assert (job["state"], job["request"]["budget"]) == ("queued", 1000)
    assert client.job(job["id"]) == job


def test_refused_field_is_named_in_the_error(client: Client, data: Path, backbone: str) -> None:
    with pytest.raises(ServiceError) as refusal:
        client.submit(stock.body(data, budget="plenty"))

    assert refusal.value.status == 422
    assert str(refusal.value).startswith("budget: 'plenty' is not a number of parameters")


def test_every_refused_field_is_named_in_a_line_of_its_own(client: Client, data: Path) -> None:
    with pytest.raises(ServiceError) as refusal:
        client.submit(stock.body(data, seed=-1, search={"population": 0}))

    assert sorted(line.partition(":")[0] for line in str(refusal.value).splitlines()) == ["search.population", "seed"]


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda client: client.job("j000"), id="job"),
        pytest.param(lambda client: client.cancel("j000"), id="cancel"),
        pytest.param(lambda client: client.artifacts("j000"), id="artifacts"),
        pytest.param(lambda client: list(client.events("j000")), id="events"),
        pytest.param(lambda client: client.download("j000", Path("out")), id="download"),
    ],
)
def test_unknown_job_is_an_error_that_names_it(call: Callable[[Client], Any], client: Client) -> None:
    with pytest.raises(ServiceError, match="no job 'j000'") as refusal:
        call(client)

    assert refusal.value.status == 404


def test_jobs_are_listed_newest_first_and_by_state(client: Client, database: Database) -> None:
    lease = stock.add_running(database)
    queued = [stock.add_job(database) for _ in range(2)]

    assert [job["id"] for job in client.jobs()] == [queued[1], queued[0], lease.job_id]
    assert [job["id"] for job in client.jobs(limit=1)] == [queued[1]]
    assert [job["id"] for job in client.jobs("running")] == [lease.job_id]


def test_cancelled_job_cannot_be_cancelled_again(client: Client, database: Database) -> None:
    job_id = stock.add_job(database)

    assert client.cancel(job_id)["state"] == "cancelled"
    with pytest.raises(ServiceError, match="cancelled already") as refusal:
        client.cancel(job_id)

    assert refusal.value.status == 409


def test_nobody_listening_is_explained() -> None:
    url = unused_url()

    with pytest.raises(ServiceError, match="start one with `glora serve`") as refusal:
        Client(url).jobs()

    assert refusal.value.status == 0
    assert url in str(refusal.value)


def test_address_without_a_scheme_is_an_error_that_says_so() -> None:
    with pytest.raises(ServiceError, match="unsupported protocol 'localhost://'"):
        Client("localhost:8000").jobs()


def test_answer_of_something_in_between_is_shown() -> None:
    with Listening(Answers(502, "bad gateway", "text/plain")) as gateway, pytest.raises(ServiceError, match="bad gateway") as refusal:
        Client(gateway.url).jobs()

    assert refusal.value.status == 502


class TestToken:
    """A service that asks for a token."""

    @pytest.fixture
    def settings(self, isolated: None, tmp_path: Path) -> Settings:
        return Settings(home=tmp_path / "home", token="secret")

    def test_client_with_the_token_is_let_in(self, server: Listening) -> None:
        assert Client(server.url, "secret").jobs() == []

    @pytest.mark.parametrize("token", [None, "", "wrong"])
    def test_client_without_it_is_told_what_to_send(self, token: str | None, server: Listening) -> None:
        with pytest.raises(ServiceError, match="send the token") as refusal:
            Client(server.url, token).jobs()

        assert refusal.value.status == 401


def test_events_of_a_finished_job_end_with_how_it_ended(client: Client, finished: str) -> None:
    events = list(client.events(finished))

    assert [event["kind"] for event in events] == ["queued", "started", "succeeded"]
    assert [event["sequence"] for event in events] == [1, 2, 3]


def test_events_go_on_after_a_number(client: Client, finished: str) -> None:
    assert [event["sequence"] for event in client.events(finished, after=2)] == [3]


def test_events_arrive_while_the_job_runs(client: Client, database: Database) -> None:
    lease = stock.add_running(database)
    seen = []

    for event in client.events(lease.job_id):
        seen.append(event["kind"])
        if event["kind"] == "started":
            stock.succeed(database, lease)

    assert seen == ["queued", "started", "succeeded"]


@pytest.mark.parametrize("cuts", [[0], [1], [2], [1, 1], [0, 2]])
def test_broken_stream_is_taken_up_where_it_broke(cuts: list[int], app: FastAPI, finished: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.client.client._RECONNECT_SECONDS", 0.01)
    faulty = Cuts(app, "/events", list(cuts))

    with Listening(faulty) as server:
        events = list(Client(server.url).events(finished))

    assert [event["sequence"] for event in events] == [1, 2, 3]
    assert len(faulty.queries) == len(cuts) + 1


def test_broken_stream_is_not_asked_for_what_has_arrived(app: FastAPI, finished: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.client.client._RECONNECT_SECONDS", 0.01)
    faulty = Cuts(app, "/events", [2])

    with Listening(faulty) as server:
        list(Client(server.url).events(finished))

    assert faulty.queries == ["after=0", "after=2"]


def test_stream_survives_a_service_that_is_started_again(app: FastAPI, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.client.client._RECONNECT_SECONDS", 0.01)
    lease = stock.add_running(database)
    running = [Listening(app)]
    seen = []

    for event in Client(running[0].url).events(lease.job_id):
        seen.append(event["kind"])
        if event["kind"] == "started":
            running[-1].stop()
            running.append(Listening(app, running[0].port))
            stock.succeed(database, lease)
    running[-1].stop()

    assert seen == ["queued", "started", "succeeded"]


def test_stream_of_a_service_that_stays_away_is_an_error(app: FastAPI, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.client.client._RECONNECT_SECONDS", 0.01)
    lease = stock.add_running(database)
    server = Listening(app)
    events = Client(server.url).events(lease.job_id, patience_seconds=0.1)
    next(events), next(events)
    server.stop()

    with pytest.raises(ServiceError, match="out of reach"):
        next(events)


def test_downloaded_folder_holds_the_checkpoint_and_nothing_else(client: Client, finished: str, tmp_path: Path) -> None:
    counted: list[int] = []

    folder = client.download(finished, tmp_path / "deep" / "out", counted.append)

    assert files(folder) == dict(stock.CHECKPOINT.values())
    assert sum(counted) == sum(len(content) for _, content in stock.CHECKPOINT.values())


def test_download_replaces_an_older_one(client: Client, finished: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").write_bytes(b"older")

    client.download(finished, tmp_path / "out")

    assert files(tmp_path / "out")["model.safetensors"] == stock.CHECKPOINT["merged"][1]


@pytest.mark.parametrize("name", ["../escaped.json", "/tmp/escaped.json", "a/../../escaped.json"])
def test_file_name_of_the_service_cannot_leave_the_folder(
    name: str, client: Client, finished: str, tmp_path: Path, database: Database
) -> None:
    with database.write() as session:
        artifact = next(row for row in stock.artifacts.of_job(session, finished) if row.kind == "manifest")
        artifact.name = name

    client.download(finished, tmp_path / "out")

    assert "escaped.json" in files(tmp_path / "out")
    assert not (tmp_path / "escaped.json").exists() and not Path("/tmp/escaped.json").exists()


@pytest.fixture
def weights_blob(finished: str, database: Database, settings: Settings) -> Path:
    """Where the finished job's weights lie in the store."""
    with database.read() as session:
        artifact = next(row for row in stock.artifacts.of_job(session, finished) if row.kind == "merged")
    return stock.blob_path(settings.home, artifact.sha256)


def test_damaged_weights_are_refused_and_not_left_behind(client: Client, finished: str, tmp_path: Path, weights_blob: Path) -> None:
    content = bytearray(weights_blob.read_bytes())
    content[100] ^= 1
    weights_blob.write_bytes(content)

    with pytest.raises(ServiceError, match=r"model\.safetensors: the connection breaks"):
        client.download(finished, tmp_path / "out")

    assert files(tmp_path / "out") == {}


def test_damaged_weights_do_not_replace_an_older_download(client: Client, finished: str, tmp_path: Path, weights_blob: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").write_bytes(b"older")
    weights_blob.write_bytes(b"x" * len(stock.CHECKPOINT["merged"][1]))

    with pytest.raises(ServiceError):
        client.download(finished, tmp_path / "out")

    assert files(tmp_path / "out") == {"model.safetensors": b"older"}


@pytest.mark.parametrize("state", ["queued", "running", "failed"])
def test_download_of_a_job_without_a_checkpoint_is_refused(state: str, client: Client, database: Database, tmp_path: Path) -> None:
    if state == "queued":
        job_id = stock.add_job(database)
    else:
        lease = stock.add_running(database)
        job_id = lease.job_id
        if state == "failed":
            stock.fail(database, lease)

    with pytest.raises(ServiceError, match=f"is {state}; only a succeeded job") as refusal:
        client.download(job_id, tmp_path / "out")

    assert refusal.value.status == 409
    assert not (tmp_path / "out").exists()


def test_missing_weights_are_an_error_and_leave_nothing(client: Client, finished: str, tmp_path: Path, weights_blob: Path) -> None:
    weights_blob.unlink()

    with pytest.raises(ServiceError, match="not in the store"):
        client.download(finished, tmp_path / "out")

    assert files(tmp_path / "out") == {}


def test_truncated_weights_are_an_error_and_leave_nothing(client: Client, finished: str, tmp_path: Path, weights_blob: Path) -> None:
    weights_blob.write_bytes(weights_blob.read_bytes()[:100])

    with pytest.raises(ServiceError):
        client.download(finished, tmp_path / "out")

    assert files(tmp_path / "out") == {}


def test_download_over_a_connection_that_breaks_is_an_error_and_leaves_nothing(app: FastAPI, finished: str, tmp_path: Path) -> None:
    with Listening(Cuts(app, "/content", [0] * 9)) as server, pytest.raises(ServiceError):
        Client(server.url).download(finished, tmp_path / "out")

    assert files(tmp_path / "out") == {}


def test_answer_of_another_web_server_is_an_error() -> None:
    with Listening(Answers(200, "<h1>Welcome</h1>", "text/html")) as other, pytest.raises(ServiceError):
        Client(other.url).jobs()


@pytest.mark.parametrize("content", ["[]", '"no"', "null"])
def test_refusal_of_another_web_server_in_json_is_an_error(content: str) -> None:
    with Listening(Answers(500, content, "application/json")) as other, pytest.raises(ServiceError):
        Client(other.url).jobs()


def test_address_that_is_none_is_an_error() -> None:
    with pytest.raises(ServiceError):
        Client("http://127.0.0.1:port").jobs()


def test_token_that_no_header_can_carry_is_an_error(server: Listening) -> None:
    with pytest.raises(ServiceError):
        Client(server.url, "日本").jobs()


def test_events_after_the_last_one_of_a_finished_job_end(app: FastAPI, finished: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.client.client._RECONNECT_SECONDS", 0.01)
    with Listening(Stingy(app, allowed=3)) as server:
        assert list(Client(server.url).events(finished, after=3)) == []


def test_stream_survives_a_service_that_is_away_for_two_seconds(app: FastAPI, database: Database) -> None:
    lease = stock.add_running(database)
    first = Listening(app)
    later: list[Listening] = []
    seen = []

    def restart() -> None:
        later.append(Listening(app, first.port))
        stock.succeed(database, lease)

    timer = threading.Timer(2.0, restart)
    try:
        for event in Client(first.url).events(lease.job_id):
            seen.append(event["kind"])
            if event["kind"] == "started":
                first.stop()
                timer.start()
    finally:
        timer.cancel()
        for server in later:
            server.stop()

    assert seen == ["queued", "started", "succeeded"]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_event_with_an_unusual_line_separator_arrives_whole(separator: str, client: Client, database: Database) -> None:
    lease = stock.add_running(database)
    stock.fail(database, lease, f"one{separator}two")

    assert [event["data"].get("message") for event in client.events(lease.job_id)][-1] == f"one{separator}two"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_RECONNECT_SECONDS", 0.01)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("cuts", [1, 3])
def test_submission_whose_answer_is_lost_is_sent_again_and_becomes_one_job(
    app: FastAPI, data: Path, backbone: str, database: Database, cuts: int
) -> None:
    with Listening(Cuts(app, "/v1/jobs", after=[0] * cuts)) as listening:
        job = Client(listening.url).submit(stock.body(data))

    assert job["state"] == "queued"
    assert stock.counts(database) == (1, 1)


@pytest.mark.usefixtures("impatient")
def test_submission_is_not_sent_for_ever(app: FastAPI, data: Path, backbone: str, database: Database) -> None:
    with Listening(Cuts(app, "/v1/jobs", after=[0] * 9)) as listening, pytest.raises(ServiceError) as refusal:
        Client(listening.url).submit(stock.body(data))

    assert refusal.value.status == 0
    assert stock.counts(database) == (1, 1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("status", "problem", "sent"),
    [(503, "database-unavailable", 4), (504, "", 4), (503, "no-scheduler", 1), (422, "data-invalid", 1), (500, "internal-error", 1)],
)
def test_only_what_may_pass_is_sent_again(status: int, problem: str, sent: int) -> None:
    answers = Counting(Answers(status, f'{{"type": "urn:glora:problem:{problem}"}}', "application/problem+json"))
    with Listening(answers) as listening, pytest.raises(ServiceError) as refusal:
        Client(listening.url).submit({})

    assert (answers.asked, refusal.value.status, refusal.value.kind) == (sent, status, problem)


def test_own_key_makes_a_later_call_the_same_submission(client: Client, data: Path, backbone: str, database: Database) -> None:
    first = client.submit(stock.body(data), "mine")

    assert client.submit(stock.body(data), "mine")["id"] == first["id"]
    assert client.submit(stock.body(data))["id"] != first["id"]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("status", [502, 503, 504])
def test_events_are_taken_up_again_after_a_restart_behind_a_proxy(status: int, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = iter([ServiceError("", status), [{"sequence": 1, "kind": "succeeded", "data": {}}]])

    def stream(client: Client, job_id: str, after: int) -> Iterator[dict[str, Any]]:
        found = next(streams)
        if isinstance(found, ServiceError):
            raise found
        yield from found

    monkeypatch.setattr(Client, "_stream", stream)

    assert [event["kind"] for event in client.events("j1")] == ["succeeded"]
