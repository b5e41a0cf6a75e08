"""`glora admin`, run through its entry point on a home folder."""

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.settings import Settings
from services.store import artifacts
from services.store.blobs import BlobStore
from services.store.database import Database
from tests.services.client.test_commands import Glora, glora
from tests.services.store.rows import add_job, add_supernet, contents

__all__ = ["glora"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The home folder of a service with a job, a file of it, and a file that nobody refers to."""
    settings = Settings(home=tmp_path / "home")
    database, blobs = Database(settings.resolved_database_url), BlobStore(settings.resolved_artifacts_url)
    database.migrate()
    job_id = add_job(database)
    for name, owner in (("wanted", job_id), ("orphan", None)):
        (tmp_path / name).write_text(name)
        row = artifacts.stored(blobs, tmp_path / name, "log", owner)
        row.created_at = datetime.now(UTC) - timedelta(hours=3)
        with database.write() as session:
            session.add(row)
    database.dispose()
    return settings.home


def rows(home: Path) -> object:
    database = Database(f"sqlite:///{home}/glora.db")
    try:
        return contents(database)
    finally:
        database.dispose()


def test_home_is_backed_up_and_restored_elsewhere(glora: Glora, home: Path, tmp_path: Path) -> None:
    made = glora("admin", "backup", str(tmp_path / "backup"), "--home", str(home))
    restored = glora("admin", "restore", str(tmp_path / "backup"), "--home", str(tmp_path / "new"))
    again = glora("admin", "restore", str(tmp_path / "backup"), "--home", str(tmp_path / "new"))

    assert (made.status, restored.status) == (0, 0), made.err + restored.err
    assert "database.sqlite and 2 artifacts of 12 bytes" in made.out
    assert rows(tmp_path / "new") == rows(home)
    assert (again.status, "into an empty home only" in again.err) == (1, True)


def test_garbage_is_listed_by_a_dry_run_and_removed_by_another(glora: Glora, home: Path) -> None:
    before = rows(home)
    dry = glora("admin", "gc", "--dry-run", "--home", str(home))

    assert dry.status == 0, dry.err
    assert "row         a" in dry.out
    assert rows(home) == before
    assert "Removed 0 files of 0 bytes, and 1 rows, folders and unfinished uploads." in glora("admin", "gc", "--home", str(home)).out
    assert "Removed 0 files of 0 bytes, and 0 rows" in glora("admin", "gc", "--home", str(home)).out


def test_grace_in_which_a_blob_on_s3_may_be_wanted_again_is_refused(glora: Glora, home: Path) -> None:
    ended = glora("admin", "gc", "--grace-hours", "0.9", "--home", str(home))

    assert (ended.status, "--grace-hours" in ended.err) == (2, True)


def test_supernet_whose_bytes_are_gone_is_told_of_and_dropped_if_that_is_asked_for(glora: Glora, home: Path) -> None:
    database = Database(f"sqlite:///{home}/glora.db")
    with database.write() as session:
        add_supernet(session, "key")
    database.dispose()

    told = [glora("admin", "gc", *options, "--home", str(home)).out for options in (["--dry-run", "--drop-lost"], [], ["--drop-lost"], [])]

    assert ["lost        key: a supernet" in out for out in told] == [True, True, True, False]


def test_migrate_says_from_where_to_where(glora: Glora, tmp_path: Path) -> None:
    first, again = (glora("admin", "migrate", "--home", str(tmp_path / "fresh")) for _ in range(2))

    assert first.out.startswith("Schema empty → 00")
    assert "up to date" in again.out


def revise(home: Path, revision: str) -> None:
    """Say that the database has another schema than it has."""
    with sqlite3.connect(home / "glora.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    connection.close()


OLDER, NEWER = ("0005", "run `glora admin migrate`"), ("9999", "newer software")


@pytest.mark.parametrize(
    ("command", "revision", "advice"),
    [
        (("backup", "backup"), *OLDER),
        (("gc", "--dry-run"), *OLDER),
        (("backup", "backup"), *NEWER),
        (("gc",), *NEWER),
        (("migrate",), *NEWER),
    ],
)
def test_database_of_another_schema_is_refused_and_left_as_it_is(
    command: tuple[str, ...], revision: str, advice: str, glora: Glora, home: Path
) -> None:
    revise(home, revision)
    before = rows(home)

    ended = glora("admin", *command, "--home", str(home))

    assert (ended.status, advice in ended.err) == (1, True)
    assert rows(home) == before
    database = Database(f"sqlite:///{home}/glora.db")
    assert database.revision() == revision
    database.dispose()


def test_backup_of_newer_software_is_refused_before_anything_is_restored(glora: Glora, home: Path, tmp_path: Path) -> None:
    glora("admin", "backup", str(tmp_path / "backup"), "--home", str(home))
    manifest = tmp_path / "backup" / "backup.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"revision": "9999"}))

    ended = glora("admin", "restore", str(tmp_path / "backup"), "--home", str(tmp_path / "new"))

    assert (ended.status, "the backup has schema 9999, of newer software" in ended.err) == (1, True)
    assert not (tmp_path / "new").exists()


def test_folder_without_a_service_is_refused_and_stays_as_it_is(glora: Glora, tmp_path: Path) -> None:
    for command in (("backup", str(tmp_path / "backup")), ("gc",)):
        ended = glora("admin", *command, "--home", str(tmp_path / "nothing"))
        assert (ended.status, "there is no service in" in ended.err) == (1, True)

    assert not (tmp_path / "nothing").exists()
