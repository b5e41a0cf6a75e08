"""The `glora` command line, run through its entry point against a real server."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from glora_core.effort import EFFORTS
from services import cli
from services.client import request_parts
from services.settings import Settings
from services.store import events, job_logs, jobs
from services.store.blobs import BlobStore
from services.store.database import Database
from tests.services.api import stock
from tests.services.api.listening import Listening, unused_url

COMMANDS = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


Glora = Callable[..., Ended]


@pytest.fixture
def glora(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Glora:
    """Run `glora` with arguments, in a wide terminal without colours."""
    monkeypatch.setattr("services.client.commands.console.width", 220)
    monkeypatch.setenv("TERMINAL_WIDTH", "220")

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr("sys.argv", ["glora", *arguments])
        status: Any = 0
        try:
            cli.main()
        except SystemExit as end:
            status = end.code or 0
        captured = capsys.readouterr()
        return Ended(status, captured.out, captured.err)

    return run


@pytest.fixture
def submit(glora: Glora, server: Listening, data: Path, backbone: str) -> Glora:
    """Run `glora submit` with what it needs, and further options."""
    needed = ["--data", str(data), "--backbone", stock.BACKBONE, "--no-watch", "--url", server.url]
    return lambda *options: glora("submit", *needed, *(() if "--budget" in options else ("--budget", "1k")), *options)


def stored_request(database: Database) -> dict[str, Any]:
    """The request of the newest job."""
    with database.read() as session:
        return jobs.page(session, limit=1)[0].request


def test_help_lists_every_command(glora: Glora) -> None:
    ended = glora("--help")

    assert ended.status == 0
    made = {"pause", "resume", "extend", "fork", "clone", "delete", "cache", "admin", "study", "studies"}
    assert set(COMMANDS) == {"serve", "submit", "watch", "jobs", "logs", "cancel", "download"} | made
    assert [name for name in COMMANDS if name not in ended.out] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_describes_it_and_each_of_its_options(name: str, glora: Glora) -> None:
    ended = glora(name, "--help")

    shown = " ".join(ended.out.replace("│", " ").split())
    assert ended.status == 0
    assert COMMANDS[name].help.split(".")[0] in shown
    assert [parameter.name for parameter in COMMANDS[name].params if not parameter.help or parameter.help[:20] not in shown] == []


@pytest.mark.parametrize("arguments", [["fly"], ["submit"], ["watch"], ["jobs", "--limit", "0"], ["serve", "--port", "70000"]])
def test_unusable_arguments_are_a_usage_error(arguments: list[str], glora: Glora) -> None:
    ended = glora(*arguments)

    assert ended.status == 2
    assert "Traceback" not in ended.err


def test_list_of_no_jobs_says_how_to_submit_one(glora: Glora, server: Listening) -> None:
    ended = glora("jobs", "--url", server.url)

    assert ended.status == 0
    assert "No jobs yet. Submit one with: glora submit" in ended.out


def test_list_shows_each_job_with_its_state_and_why_it_failed(glora: Glora, server: Listening, database: Database) -> None:
    lease = stock.add_running(database, "tulips")
    stock.fail(database, lease)
    queued = stock.add_job(database, "roses")

    ended = glora("jobs", "--url", server.url)

    lines = {line.split()[1]: line for line in ended.out.splitlines() if " j" in line}
    assert "tulips" in lines[lease.job_id] and "failed (data_invalid)" in lines[lease.job_id]
    assert "roses" in lines[queued] and "queued" in lines[queued]


def test_list_shows_a_waiting_job_with_its_place_and_why_it_waits(glora: Glora, server: Listening, database: Database) -> None:
    stock.add_job(database, priority=3)

    assert "1 of 1: no scheduler is running" in glora("jobs", "--url", server.url).out


def test_submission_says_where_in_the_queue_it_is(submit: Glora, database: Database) -> None:
    ended = submit("--priority", "-3", "--max-hours", "2.5")

    assert "Place in the queue: 1 of 1, no scheduler is running" in ended.out
    request = stored_request(database)
    assert (request["priority"], request["max_hours"]) == (-3, 2.5)


def test_list_as_json_is_json(glora: Glora, server: Listening, database: Database) -> None:
    ids = [stock.add_job(database) for _ in range(3)]

    ended = glora("jobs", "--json", "--limit", "2", "--url", server.url)

    assert [job["id"] for job in json.loads(ended.out)] == ids[:0:-1]


def test_list_can_be_narrowed_to_a_state(glora: Glora, server: Listening, database: Database) -> None:
    lease = stock.add_running(database)
    stock.add_job(database)

    ended = glora("jobs", "--json", "--state", "running", "--url", server.url)

    assert [job["id"] for job in json.loads(ended.out)] == [lease.job_id]


def test_unknown_state_is_an_error_that_names_the_accepted_ones(glora: Glora, server: Listening) -> None:
    ended = glora("jobs", "--state", "stuck", "--url", server.url)

    assert ended.status == 1
    assert "Error: state:" in ended.err and "'running'" in ended.err


def test_no_service_running_is_explained(glora: Glora) -> None:
    ended = glora("jobs", "--url", unused_url())

    assert ended.status == 1
    assert "glora serve" in ended.err and "Traceback" not in ended.err


def test_submitted_job_is_named_with_its_page(submit: Glora, server: Listening, database: Database) -> None:
    ended = submit("--name", "roses")

    with database.read() as session:
        (job,) = jobs.page(session)
    assert ended.status == 0
    assert f"Job {job.id} queued" in ended.out and f"{server.url}/jobs/{job.id}" in ended.out
    assert job.name == "roses"


def test_what_the_data_set_is_warned_of_is_told_at_once(submit: Glora, server: Listening, data: Path) -> None:
    (data / "val" / "daisy" / "0.png").write_bytes((data / "train" / "daisy" / "1.png").read_bytes())
    for image in (data / "val" / "tulip").iterdir():
        image.unlink()

    ended = submit()

    assert "Warning: 2 val images are in train too, byte for byte, such as 'val/daisy/0.png'" in ended.out
    assert "Warning: val has no images of 1 of 2 classes: tulip" in ended.out


def test_every_option_reaches_the_request(submit: Glora, database: Database, tmp_path: Path) -> None:
    options = {
        "--budget": "1.5M",
        "--rank": "2",
        "--epochs": "7",
        "--learning-rate": "0.01",
        "--policy": "random",
        "--metric": "MulticlassF1Score",
        "--population": "9",
        "--generations": "8",
        "--finals": "winner",
        "--finalists": "2",
        "--workers": "2",
        "--shots": "1",
        "--seed": "5",
    }

    ended = submit(*(word for option in options.items() for word in option), "--rank", "4", "--gpu", "--baselines")

    request = stored_request(database)
    assert ended.status == 0, ended.err
    assert (request["budget"], request["seed"], request["baselines"], request["space"]["ranks"]) == (1_500_000, 5, True, [2, 4])
    training = {name: request["training"][name] for name in ("epochs", "learning_rate", "policy", "workers", "use_gpu")}
    assert training == {"epochs": 7, "learning_rate": 0.01, "policy": "random", "workers": 2, "use_gpu": True}
    assert [request["search"][name] for name in ("metric", "population", "generations")] == ["MulticlassF1Score", 9, 8]
    assert (request["finals"]["mode"], request["finals"]["candidates"], request["data"]["shots"]) == ("winner", 2, 1)


def test_further_test_sets_reach_the_request_as_the_folders_they_are_here(
    submit: Glora, data: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)

    ended = submit("--also-test", "sketch=val", "--also-test", f"again={data / 'train'}")

    assert ended.status == 0, ended.err
    assert stored_request(database)["data"]["also_test"] == {"sketch": str(data / "val"), "again": str(data / "train")}


@pytest.mark.parametrize("written", [["sketch"], ["=val"], ["sketch="], ["sketch=val", "sketch=train"]])
def test_further_test_set_that_is_not_named_is_a_usage_error(written: list[str], submit: Glora) -> None:
    ended = submit(*(word for name in written for word in ("--also-test", name)))

    assert ended.status == 2
    assert "is not NAME=DIR" in ended.err


def test_option_that_is_not_given_leaves_the_services_default(submit: Glora, database: Database) -> None:
    submit()

    request = stored_request(database)
    effort = EFFORTS["standard"]
    found = request["training"]["epochs"], request["search"]["population"], request["finals"]["candidates"]
    assert found == (effort.epochs, effort.population, effort.candidates)
    assert (request["seed"], request["baselines"], request["training"]["use_gpu"]) == (0, False, False)


def test_trained_baselines_and_training_on_val_are_passed_on(submit: Glora, database: Database) -> None:
    submit("--trained-baselines", "--train-on-val")

    request = stored_request(database)
    assert (request["baselines"], request["train_on_val"]) == ("trained", True)


def test_training_on_val_without_finals_is_refused(submit: Glora, database: Database) -> None:
    ended = submit("--train-on-val", "--finals", "off")

    assert ended.status == 1
    assert "train_on_val: without finals nothing is trained alone" in " ".join(ended.err.split())
    assert stock.counts(database) == (0, 0)


def test_an_effort_is_passed_on_and_options_override_it(submit: Glora, database: Database) -> None:
    submit("--effort", "quick", "--generations", "3")

    request = stored_request(database)
    assert (request["effort"], request["training"]["epochs"], request["search"]["generations"]) == ("quick", EFFORTS["quick"].epochs, 3)


@pytest.mark.parametrize(("written", "parameters"), [("700", 700), ("100k", 100_000), ("1.5M", 1_500_000)])
def test_budget_is_passed_on_as_it_was_written(written: str, parameters: int, submit: Glora, database: Database) -> None:
    submit("--budget", written)

    assert stored_request(database)["budget"] == parameters


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--budget", "plenty"], "budget: 'plenty'"),
        (["--population", "0"], "search.population"),
        (["--policy", "greedy"], "training.policy"),
        (["--effort", "heroic"], "effort"),
    ],
)
def test_refused_submission_names_the_field_and_exits_with_1(options: list[str], told: str, submit: Glora, database: Database) -> None:
    ended = submit(*options)

    assert ended.status == 1
    assert told in ended.err and "Traceback" not in ended.err
    assert stock.counts(database) == (0, 0)


def test_relative_data_folder_is_sent_as_the_folder_it_is_here(
    glora: Glora, server: Listening, data: Path, backbone: str, database: Database
) -> None:
    ended = glora("submit", "--data", "flowers", "--backbone", stock.BACKBONE, "--budget", "1k", "--no-watch", "--url", server.url)

    assert ended.status == 0
    assert stored_request(database)["data"]["path"] == str(data.resolve())


def test_settings_file_fills_in_what_options_do_not_say(submit: Glora, database: Database, tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    content = {
        "name": "from the file",
        "baselines": True,
        "training": {"epochs": 3, "batch_size": 10},
        "search": {"population": 6, "mutation_probability": 0.5},
    }
    settings.write_text(json.dumps(content))

    ended = submit("--settings", str(settings), "--epochs", "4", "--population", "8")

    request = stored_request(database)
    assert ended.status == 0, ended.err
    assert (request["name"], request["baselines"]) == ("from the file", True)
    assert (request["training"]["epochs"], request["training"]["batch_size"]) == (4, 10)
    assert (request["search"]["population"], request["search"]["mutation_probability"]) == (8, 0.5)


def test_training_options_are_sent_together(submit: Glora, database: Database) -> None:
    ended = submit("--epochs", "40", "--warmup-epochs", "4", "--drop-path", "0.1", "--patience", "8")

    training = stored_request(database)["training"]
    assert ended.status == 0, ended.err
    assert [training[name] for name in ("epochs", "warmup_epochs", "drop_path", "patience")] == [40, 4, 0.1, 8]


def test_unknown_field_in_the_settings_file_is_refused(submit: Glora, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"search": {"populations": 6}}')

    ended = submit("--settings", str(tmp_path / "settings.json"))

    assert ended.status == 1
    assert "search.populations: unknown field" in ended.err


def test_watching_a_finished_job_shows_what_came_out(
    glora: Glora, server: Listening, database: Database, blobs: BlobStore, tmp_path: Path
) -> None:
    job_id = stock.add_finished(database, blobs, tmp_path / "made")

    ended = glora("watch", job_id, "--url", server.url)

    assert ended.status == 0, ended.err
    assert "87.5%" in ended.out and "81.2%" in ended.out and "640" in ended.out
    assert "sketch" in ended.out and ended.out.count("43.8%") == 2
    assert f"glora download {job_id}" in ended.out


def test_watching_a_whole_job_goes_through_its_phases(glora: Glora, server: Listening, database: Database) -> None:
    lease = stock.add_running(database)
    for phase in ("prepare", "train", "search", "finals", "export"):
        stock.emit(database, lease, phase)
    with jobs.fenced(database, lease) as (session, job):
        events.append(session, job.id, "room_awaited", {"message": "no room"})
        events.append(session, job.id, "room_found", {})
    stock.add_search(database, lease, generations=2, population=2)
    stock.add_finals(database, lease)
    stock.succeed(database, lease)

    ended = glora("watch", lease.job_id, "--url", server.url)

    assert ended.status == 0, ended.err
    assert "search" in ended.out and f"2/{EFFORTS['standard'].generations}" in ended.out
    assert "lora diverged at rate 0.003" in ended.out and "2/3" in ended.out
    assert "candidate #1 of the search, trained alone from the supernet for 45 epochs at rate 0.003" in " ".join(ended.out.split())


def test_watching_a_search_for_another_metric_shows_it_beside_accuracy(glora: Glora, server: Listening, database: Database) -> None:
    lease = stock.add_running(database, search={"metric": "MulticlassF1Score"})
    stock.add_search(database, lease, generations=2, population=3, metric="MulticlassF1Score")
    stock.succeed(database, lease, stock.F1_RESULT)

    ended = glora("watch", lease.job_id, "--url", server.url)

    assert ended.status == 0
    for told in ("fitness 0.02", "87.5%", "62.5%", "0.7188", "81.2%", "56.2%", "0.6562", "MulticlassF1Score", "sketch", "43.8%"):
        assert told in ended.out


def test_watching_tells_the_members_of_a_soup_and_the_sum_of_their_parameters(
    glora: Glora, database: Database, server: Listening, backbone: str
) -> None:
    lease = stock.add_running(database)
    stock.succeed(database, lease, stock.SOUP_RESULT)

    ended = glora("watch", lease.job_id, "--url", server.url)

    told = " ".join(ended.out.split())
    assert "the soup of 2 finalists, each within the budget, 1,240 parameters in all" in told
    assert "candidate #1 of the search" in told and "candidate #2 of the search" in told


def test_watching_one_trained_on_val_too_tells_both_figures_on_test(glora: Glora, database: Database, server: Listening) -> None:
    lease = stock.add_running(database)
    stock.succeed(database, lease, stock.AGAIN_RESULT)

    ended = glora("watch", lease.job_id, "--url", server.url)

    told = " ".join(ended.out.split())
    assert "the same on train+val" in told
    assert "81.2%" in told and "84.4%" in told


def test_watching_a_failed_job_tells_why_and_exits_with_1(glora: Glora, server: Listening, database: Database) -> None:
    lease = stock.add_running(database)
    stock.fail(database, lease, "image 'x.png' cannot be decoded")

    ended = glora("watch", lease.job_id, "--url", server.url)

    assert ended.status == 1
    assert "failed (data_invalid): image 'x.png' cannot be decoded" in ended.out


def test_watching_a_cancelled_job_exits_with_1(glora: Glora, server: Listening, database: Database) -> None:
    job_id = stock.add_job(database)
    assert glora("cancel", job_id, "--url", server.url).status == 0

    ended = glora("watch", job_id, "--url", server.url)

    assert (ended.status, "cancelled" in ended.out) == (1, True)


def test_log_of_a_job_is_printed_as_it_is(glora: Glora, server: Listening, database: Database) -> None:
    lease = stock.add_running(database)
    assert glora("logs", lease.job_id, "--url", server.url).out == f"Job {lease.job_id} has printed nothing yet.\n"
    line = "[red] :warning: a.py:100: " + "x" * 300
    with database.write() as session:
        job_logs.keep(session, lease, f"first\n{line}\n", 400)

    ended = glora("logs", lease.job_id, "--tail", "1", "--url", server.url)

    assert (ended.status, ended.out) == (0, f"{line}\n")


def test_job_that_is_over_is_not_cancelled(glora: Glora, server: Listening, database: Database, blobs: BlobStore, tmp_path: Path) -> None:
    job_id = stock.add_finished(database, blobs, tmp_path / "made")

    ended = glora("cancel", job_id, "--url", server.url)

    assert ended.status == 1
    assert "has succeeded already" in ended.err


@pytest.mark.parametrize("command", ["watch", "logs", "cancel", "download"])
def test_unknown_job_is_an_error(command: str, glora: Glora, server: Listening) -> None:
    ended = glora(command, "j000", "--url", server.url)

    assert ended.status == 1
    assert "no job 'j000'" in ended.err and "Traceback" not in ended.err


def test_checkpoint_is_downloaded_with_the_line_that_loads_it(
    glora: Glora, server: Listening, database: Database, blobs: BlobStore, tmp_path: Path
) -> None:
    job_id = stock.add_finished(database, blobs, tmp_path / "made")

    ended = glora("download", job_id, "--output", "out", "--url", server.url)

    assert ended.status == 0, ended.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {name for name, _ in stock.CHECKPOINT.values()}
    assert 'timm.create_model("local-dir:out", pretrained=True)' in ended.out


def test_checkpoint_goes_into_a_folder_named_after_the_job_by_default(
    glora: Glora, server: Listening, database: Database, blobs: BlobStore, tmp_path: Path
) -> None:
    job_id = stock.add_finished(database, blobs, tmp_path / "made")

    glora("download", job_id, "--url", server.url)

    assert (tmp_path / job_id / "model.safetensors").exists()


def test_unfinished_job_is_not_downloaded(glora: Glora, server: Listening, database: Database) -> None:
    job_id = stock.add_job(database)

    ended = glora("download", job_id, "--url", server.url)

    assert ended.status == 1
    assert f"Error: job {job_id} is queued" in ended.err
    assert not Path(job_id).exists()


class TestServerStartedHere:
    """A server that runs from the home folder leaves its address and token there."""

    @pytest.fixture
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("GLORA_HOME", str(tmp_path / "here"))
        (tmp_path / "here").mkdir()
        return tmp_path / "here"

    @pytest.fixture
    def settings(self, isolated: None, tmp_path: Path) -> Settings:
        return Settings(home=tmp_path / "home", token="secret")

    def test_its_address_and_token_are_found(self, home: Path, glora: Glora, server: Listening) -> None:
        (home / "server.json").write_text(json.dumps({"url": server.url, "token": "secret"}))

        assert glora("jobs").status == 0
        assert glora("jobs", "--url", f"{server.url}/").status == 0

    def test_its_token_is_not_sent_to_another_address(self, home: Path, glora: Glora, server: Listening) -> None:
        (home / "server.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "token": "secret"}))

        ended = glora("jobs", "--url", server.url)

        assert (ended.status, "send the token" in ended.err) == (1, True)

    def test_token_that_was_given_wins_at_the_address_that_was_given(self, home: Path, glora: Glora, server: Listening) -> None:
        (home / "server.json").write_text(json.dumps({"url": server.url, "token": "old"}))

        assert glora("jobs", "--url", server.url).status == 1
        assert glora("jobs", "--url", server.url, "--token", "secret").status == 0

    def test_token_that_was_given_is_not_sent_to_an_address_that_was_only_found(
        self, home: Path, glora: Glora, server: Listening, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (home / "server.json").write_text(json.dumps({"url": server.url, "token": "planted"}))
        monkeypatch.setenv("GLORA_TOKEN", "secret")

        ended = glora("jobs")

        assert (ended.status, f"names {server.url}, with another token than yours" in ended.err) == (1, True)

    def test_token_that_was_given_may_be_the_servers_own(self, home: Path, glora: Glora, server: Listening) -> None:
        (home / "server.json").write_text(json.dumps({"url": server.url, "token": "secret"}))

        assert glora("jobs", "--token", "secret").status == 0

    @pytest.mark.parametrize("content", ["", "{", '{"url": ', "[]", '{"url": 1, "token": "secret"}'])
    def test_half_written_record_is_as_good_as_none(self, content: str, home: Path, glora: Glora, server: Listening) -> None:
        (home / "server.json").write_text(content)

        assert glora("jobs", "--url", server.url, "--token", "secret").status == 0


def test_log_reaches_the_terminal_without_control_characters(glora: Glora, server: Listening, database: Database) -> None:
    lease = stock.add_running(database)
    with database.write() as session:
        job_logs.keep(session, lease, "\x1b]0;title\x07first\tcolumn\n", 400)

    assert glora("logs", lease.job_id, "--url", server.url).out.endswith("\n]0;titlefirst\tcolumn\n")


def test_failure_reaches_the_terminal_without_control_characters(glora: Glora, server: Listening, database: Database) -> None:
    lease = stock.add_running(database)
    stock.fail(database, lease, "no class \x1b[2J\x9bcats")

    ended = glora("watch", lease.job_id, "--url", server.url)

    assert "no class [2Jcats" in ended.out


def test_help_of_the_data_option_mentions_the_test_split(glora: Glora) -> None:
    assert "test/" in glora("submit", "--help").out


def test_seed_of_the_settings_file_holds(submit: Glora, database: Database, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"seed": 7}')

    submit("--settings", str(tmp_path / "settings.json"))

    assert stored_request(database)["seed"] == 7


def test_image_size_of_the_settings_file_holds(submit: Glora, database: Database, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"backbone": {"image_size": 84}}')

    with stock.describer(database, stock.INFO, None):
        submit("--settings", str(tmp_path / "settings.json"))

    assert stored_request(database)["backbone"]["image_size"] == 84


@pytest.mark.parametrize("content", [None, "{", "[]", '{"training": 5}'], ids=["missing", "broken", "a list", "a part that is no object"])
def test_unusable_settings_file_is_a_short_error(content: str | None, submit: Glora, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "settings.json").write_text(content)

    ended = submit("--settings", str(tmp_path / "settings.json"), "--epochs", "3")

    assert ended.status in (1, 2)
    assert "settings.json" in ended.err


@pytest.mark.parametrize("name", ["[red]", "[/b]", "run [a]"])
def test_name_in_brackets_is_listed_as_it_is(name: str, glora: Glora, server: Listening, database: Database) -> None:
    stock.add_job(database, name)

    assert name in glora("jobs", "--url", server.url).out


def test_error_about_a_path_in_brackets_shows_the_path(submit: Glora) -> None:
    ended = submit("--data", "/nowhere/[/flowers]")

    assert "/nowhere/[/flowers]" in ended.err


def test_failure_about_a_path_in_brackets_shows_the_path(glora: Glora, server: Listening, database: Database) -> None:
    lease = stock.add_running(database)
    stock.fail(database, lease, "cannot read [/data/flowers]")

    ended = glora("watch", lease.job_id, "--url", server.url)

    assert "cannot read [/data/flowers]" in ended.out


@pytest.mark.parametrize("prefix", ["local-dir", "LOCAL-DIR"])
def test_relative_folder_of_a_local_backbone_is_the_users_and_not_the_services(prefix: str) -> None:
    assert request_parts.absolute_backbone(f"{prefix}:../there") == f"{prefix}:{Path('../there').resolve()}"


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224.augreg_in21k", "hf-hub:timm/vit"])
def test_name_of_another_backbone_goes_as_it_is(name: str) -> None:
    assert request_parts.absolute_backbone(name) == name


@pytest.mark.parametrize(("data", "told"), [({"also_test": {"more": "far/away"}}, "far/away"), ({"columns": None}, "data.columns")])
def test_paths_of_a_settings_file_are_made_absolute_and_a_null_is_the_services_to_refuse(
    data: dict[str, Any], told: str, submit: Glora, tmp_path: Path
) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"data": data}))

    ended = submit("--settings", str(settings))

    assert (ended.status, told in ended.err, "is relative" in ended.err) == (1, True, False)
