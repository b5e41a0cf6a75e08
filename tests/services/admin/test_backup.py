"""A backup of a service at work, restored into an empty one, holds the same; a backup that is not whole is refused."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.admin import dumps
from services.admin.backup import MANIFEST, back_up, restore
from services.admin.errors import AdminError
from services.store import artifacts, jobs, search_state
from services.store.blobs import BlobStore
from services.store.database import Database
from tests.services.store.rows import (
    add_job,
    add_running_job,
    artifact,
    contents,
    evaluation,
    events_of,
    generation,
    population,
)


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "artifacts"))


@pytest.fixture
def other_url(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of another database, with nothing in it."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path}/other/glora.db"
        return
    with request.getfixturevalue("postgres_server").fresh_database("other") as url:
        yield url


@pytest.fixture
def filled(database: Database, blobs: BlobStore, tmp_path: Path) -> str:
    """A database with a row in most tables, and two files; returns the id of a running job."""
    lease = add_running_job(database)
    for text in ("one", "two"):
        (tmp_path / text).write_text(text)
        row = artifacts.stored(blobs, tmp_path / text, "log", lease.job_id)
        with jobs.fenced(database, lease) as (session, _):
            session.add(row)
    with jobs.fenced(database, lease) as (session, job):
        row = artifacts.stored(blobs, tmp_path / "one", "supernet", None)
        session.add(row)
        session.flush()
        session.add(search_state.Supernet(key="s", recipe={}, history=[], artifact_id=row.id, seconds=1.0, created_at=row.created_at))
        session.flush()
        search_state.add_evaluations(session, [evaluation("a", supernet_key="s")])
        search_state.commit_generation(session, job, generation(job.id, 0), population(job.id, 0, ["a"]))
    return lease.job_id


def held(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_restored_service_is_the_one_that_was_backed_up(
    database: Database, blobs: BlobStore, filled: str, other_url: str, tmp_path: Path
) -> None:
    before = contents(database)
    back_up(database, blobs, tmp_path / "backup")
    add_job(database, "later")

    restore(tmp_path / "backup", other_url, BlobStore(str(tmp_path / "restored")))

    again = Database(other_url)
    assert contents(again) == before
    assert held(tmp_path / "restored") == held(tmp_path / "artifacts")
    assert add_job(again)  # it can be worked with: sequences, foreign keys and all
    with again.write() as session:
        assert len(search_state.add_evaluations(session, [evaluation("b", supernet_key="s")])) == 1
    again.dispose()


def test_backup_of_a_service_that_is_written_to_is_of_one_moment(
    database: Database, connect: Any, blobs: BlobStore, filled: str, other_url: str, tmp_path: Path
) -> None:
    stop, writer = threading.Event(), connect()

    def work() -> None:
        while not stop.is_set():
            add_job(writer, "busy")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        back_up(database, blobs, tmp_path / "backup")
    finally:
        stop.set()
        thread.join()

    restore(tmp_path / "backup", other_url, BlobStore(str(tmp_path / "restored")))
    again = Database(other_url)
    with again.read() as session:
        found = [job.id for job in jobs.page(session, limit=500)]
    assert all(events_of(again, job_id) for job_id in found)  # a job and its event are of one transaction
    again.dispose()


def test_second_backup_into_a_folder_copies_only_what_is_new(database: Database, blobs: BlobStore, filled: str, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    back_up(database, blobs, folder)
    moments = {path.name: path.stat().st_mtime_ns for path in (folder / "artifacts").iterdir()}
    (folder / "artifacts" / "stray").touch()
    (tmp_path / "three").write_text("three")
    with database.write() as session:
        session.add(artifacts.stored(blobs, tmp_path / "three", "log", filled))

    back_up(database, blobs, folder)

    after = {path.name: path.stat().st_mtime_ns for path in (folder / "artifacts").iterdir()}
    assert len(after) == 3
    assert {name: after[name] for name in moments} == moments


@pytest.mark.parametrize("spoilt", ["manifest", "database", "artifact", "lost artifact"])
def test_backup_that_is_not_whole_is_refused_and_restores_nothing(
    spoilt: str, database: Database, blobs: BlobStore, filled: str, other_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "backup"
    made = back_up(database, blobs, folder)
    some = next((folder / "artifacts").iterdir())
    match spoilt:
        case "manifest":
            (folder / MANIFEST).write_text("{")
        case "database":
            (folder / made.database).write_bytes(b"?")
        case "artifact":
            some.write_bytes(b"?")
        case _:
            some.unlink()

    with pytest.raises(AdminError, match=r"no whole backup|is damaged|lacks"):
        restore(folder, other_url, BlobStore(str(tmp_path / "restored")))

    assert held(tmp_path / "restored") == {}
    restorable = Database(other_url)
    assert restorable.revision() is None
    restorable.dispose()


def test_backup_is_restored_into_an_empty_database_only(database: Database, blobs: BlobStore, filled: str, tmp_path: Path) -> None:
    back_up(database, blobs, tmp_path / "backup")
    before = contents(database)

    with pytest.raises(AdminError, match="empty"):
        restore(tmp_path / "backup", database.url, blobs)

    assert contents(database) == before


def test_artifact_whose_bytes_are_gone_fails_the_backup(database: Database, blobs: BlobStore, filled: str, tmp_path: Path) -> None:
    with database.write() as session:
        session.add(artifact("lost", filled))

    with pytest.raises(AdminError, match="not in the store"):
        back_up(database, blobs, tmp_path / "backup")

    assert not (tmp_path / "backup" / MANIFEST).exists()


def test_backup_that_fails_leaves_the_one_before_it(
    database: Database, blobs: BlobStore, filled: str, other_url: str, tmp_path: Path
) -> None:
    back_up(database, blobs, tmp_path / "backup")
    before = contents(database)
    with database.write() as session:
        session.add(artifact("lost", filled))

    with pytest.raises(AdminError, match="not in the store"):
        back_up(database, blobs, tmp_path / "backup")

    restore(tmp_path / "backup", other_url, BlobStore(str(tmp_path / "restored")))
    again = Database(other_url)
    assert contents(again) == before
    again.dispose()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_log_of_a_database_that_is_gone_is_not_replayed_over_a_restored_one(
    database: Database, blobs: BlobStore, filled: str, other_url: str, tmp_path: Path
) -> None:
    back_up(database, blobs, tmp_path / "backup")
    before = contents(database)
    gone = Database(other_url)
    gone.migrate()
    add_job(gone, "gone")
    log = (tmp_path / "other" / "glora.db-wal").read_bytes()
    gone.dispose()
    (tmp_path / "other" / "glora.db").unlink()
    (tmp_path / "other" / "glora.db-wal").write_bytes(log)

    restore(tmp_path / "backup", other_url, BlobStore(str(tmp_path / "restored")))

    assert not (tmp_path / "other" / "glora.db-wal").exists()
    again = Database(other_url)
    assert contents(again) == before
    again.dispose()


def test_backup_of_one_kind_of_database_is_not_restored_into_another(
    backend: str, database: Database, blobs: BlobStore, filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(database, blobs, tmp_path / "backup")
    url = "postgresql://nowhere/db" if backend == "sqlite" else f"sqlite:///{tmp_path}/another.db"
    monkeypatch.setattr("services.admin.backup.refuse_full", lambda url: None)

    with pytest.raises(AdminError, match="the backup is of a"):
        restore(tmp_path / "backup", url, BlobStore(str(tmp_path / "restored")))


@pytest.mark.postgres
def test_missing_tool_of_postgres_is_named(
    request: pytest.FixtureRequest, blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with request.getfixturevalue("postgres_server").fresh_database("tools", template="migrated") as url:
        database = Database(url)
        monkeypatch.setattr(shutil, "which", lambda name: None)
        with pytest.raises(AdminError, match=r"pg_dump is needed .* postgresql-client"):
            back_up(database, blobs, tmp_path / "backup")
        database.dispose()


@pytest.mark.postgres
def test_dump_may_take_longer_than_a_session_may_be_idle(
    request: pytest.FixtureRequest, blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = dumps._run

    def slow(*arguments: str) -> None:
        time.sleep(0.5)
        run(*arguments)

    monkeypatch.setattr("services.store.database._IDLE_MS", 100)
    monkeypatch.setattr(dumps, "_run", slow)
    with request.getfixturevalue("postgres_server").fresh_database("slow", template="migrated") as url:
        database = Database(url)
        assert back_up(database, blobs, tmp_path / "backup").database == "database.dump"
        database.dispose()
