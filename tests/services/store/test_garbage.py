"""Garbage is found and removed; what somebody wants, or may want in a moment, is not."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from services.store import artifacts, claims, jobs
from services.store.blobs import BlobStore, Upload, training_name
from services.store.database import Database
from services.store.errors import WrongState
from services.store.garbage import Garbage, drop_lost, find_garbage, remove
from services.store.models import Artifact, Evaluation, Supernet
from tests.services.store.rows import EPOCH, add_job, add_running_job, change_job, evaluation
from tests.services.store.study_rows import driven

KEY = "c" * 64
NOTHING = Garbage((), (), (), (), (), (), (), ())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def blobs(home: Path) -> BlobStore:
    return BlobStore(str(home / "artifacts"))


def store(database: Database, blobs: BlobStore, tmp_path: Path, text: str, job_id: str | None, created_at: object = EPOCH) -> Artifact:
    """A stored file with its row, both old."""
    (tmp_path / text).write_text(text)
    row = artifacts.stored(blobs, tmp_path / text, "log", job_id)
    row.created_at = created_at
    with database.write() as session:
        session.add(row)
    return row


def age(home: Path, seconds: float = 7200) -> None:
    """Make everything below a folder look older."""
    for path in home.rglob("*"):
        moment = path.stat().st_mtime - seconds
        os.utime(path, (moment, moment))


def names(garbage: Garbage) -> list[str]:
    return sorted(file.name for file in garbage.files)


def kept(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "artifacts").rglob("*") if path.is_file())


def test_blobs_without_a_row_and_rows_without_an_owner_go(database: Database, blobs: BlobStore, home: Path, tmp_path: Path) -> None:
    wanted = store(database, blobs, tmp_path, "wanted", add_job(database))
    shared = store(database, blobs, tmp_path, "supernet", None)
    with database.write() as session:
        session.add(Supernet(key="s", recipe={}, history=[], artifact_id=shared.id, seconds=1.0, created_at=EPOCH))
    orphan = store(database, blobs, tmp_path, "orphan", None)
    (tmp_path / "rowless").write_text("rowless")
    rowless, _ = blobs.put(tmp_path / "rowless")
    part = f"{KEY}.12345678.part"
    (home / "artifacts" / "cc").mkdir()
    (home / "artifacts" / "cc" / part).write_text("broken write")
    age(home)

    found = find_garbage(database, blobs, home)
    assert (found.rows, names(found)) == ((orphan.id,), sorted([orphan.sha256, rowless, part]))
    assert found.size == len("orphan") + len("rowless") + len("broken write")
    assert len(kept(home)) == 5

    remove(database, blobs, found)

    assert kept(home) == sorted([wanted.sha256, shared.sha256])
    with database.read() as session:
        assert set(session.scalars(select(Artifact.id))) == {wanted.id, shared.id}
    assert find_garbage(database, blobs, home) == NOTHING


def test_uploads_that_were_left_off_go_and_young_ones_stay(
    database: Database, blobs: BlobStore, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, young = Upload("bucket/old", "1", EPOCH), Upload("bucket/young", "2", datetime.now(UTC))
    dropped: list[Upload] = []
    monkeypatch.setattr(BlobStore, "uploads", lambda self: [old, young])
    monkeypatch.setattr(BlobStore, "abort", lambda self, upload: dropped.append(upload))

    found = find_garbage(database, blobs, home)
    remove(database, blobs, found)

    assert found.uploads == (old,)
    assert dropped == [old]


@pytest.mark.parametrize("name", ["notes.txt", "cc/notes.txt", f"dd/{KEY}", KEY, f"cc/{KEY}.txt", f"cc/{KEY}/notes.txt"])
def test_file_that_is_not_the_stores_own_is_left_alone(name: str, database: Database, blobs: BlobStore, home: Path) -> None:
    path = home / "artifacts" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("somebody's")
    age(home)

    assert find_garbage(database, blobs, home).files == ()


def test_what_is_young_is_left_alone(database: Database, blobs: BlobStore, home: Path, tmp_path: Path) -> None:
    (tmp_path / "young").write_text("young")
    blobs.put(tmp_path / "young")

    assert find_garbage(database, blobs, home) == NOTHING
    assert len(find_garbage(database, blobs, home, timedelta(seconds=-5)).files) == 1


@pytest.mark.parametrize("wanted_by", ["put", "row"])
def test_blob_that_is_wanted_again_between_look_and_removal_stays(
    wanted_by: str, database: Database, blobs: BlobStore, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "back").write_text("back")
    digest, _ = blobs.put(tmp_path / "back")
    age(home)
    found = find_garbage(database, blobs, home)
    assert names(found) == [digest]
    if wanted_by == "put":
        blobs.put(tmp_path / "back")
    else:
        store(database, blobs, tmp_path, "back", add_job(database))
        age(home)

    remove(database, blobs, found)

    assert kept(home) == [digest]


def test_checkpoints_claims_and_folders_go_with_the_jobs_that_they_belong_to(database: Database, blobs: BlobStore, home: Path) -> None:
    lease, paused, over = add_running_job(database), add_job(database, state="paused"), add_job(database, state="cancelled")
    with jobs.fenced(database, lease) as (session, _):
        claims.take(session, lease, [KEY])
    with database.write() as session:
        claims.take(session, jobs.Lease(over, "gone", 1), ["d" * 64])
    filesystem, folder = blobs.training_folder()
    used = [f"{training_name(KEY)}-supernet", f"{paused}-1-rung-1"]
    unused = [f"{over}-1-rung-1", f"{'d' * 16}-supernet", f"{'e' * 16}-supernet"]
    for name in used + unused:
        filesystem.makedirs(f"{folder}/{name}")
    work, logs = [home / "work" / f"{job}-1" for job in (lease.job_id, over)], [home / "logs" / f"{job}.log" for job in (over, "j0")]
    for path in [*work, home / "logs"]:
        path.mkdir(parents=True)
    for path in logs:
        path.touch()
    age(home)

    found = find_garbage(database, blobs, home)
    remove(database, blobs, found)

    assert sorted(found.checkpoints) == sorted(unused)
    assert sorted(blobs.training_names()) == sorted(used)
    assert (found.claims, set(found.folders)) == (("d" * 64,), {work[1], logs[1]})
    assert [path.exists() for path in (*work, *logs)] == [True, False, True, False]
    change_job(database, lease.job_id, state="failed")
    assert find_garbage(database, blobs, home).checkpoints == (used[0],)


def test_folders_and_logs_of_studies_go_when_these_do_and_no_other_log_does(database: Database, blobs: BlobStore, home: Path) -> None:
    lease = driven(database)
    for path in (
        home / "work" / f"{lease.study_id}-{lease.epoch}",
        home / "work" / f"{lease.study_id}-0",
        home / "work" / "s00000000dead-1",
    ):
        path.mkdir(parents=True)
    (home / "logs").mkdir()
    for name in (lease.study_id, "s00000000dead", "scheduler"):
        (home / "logs" / f"{name}.log").write_text("x")
    age(home)

    found = find_garbage(database, blobs, home)

    assert sorted(path.name for path in found.folders) == sorted([f"{lease.study_id}-0", "s00000000dead-1", "s00000000dead.log"])


def test_rows_whose_bytes_are_gone_are_reported_and_kept(database: Database, blobs: BlobStore, home: Path, tmp_path: Path) -> None:
    row = store(database, blobs, tmp_path, "lost", add_job(database))
    (home / "artifacts" / row.sha256[:2] / row.sha256).unlink()

    found = find_garbage(database, blobs, home)
    remove(database, blobs, found)

    assert found.missing == (f"{row.id} (lost)",)
    with database.read() as session:
        assert session.get(Artifact, row.id) is not None


@pytest.fixture
def lost(database: Database, blobs: BlobStore, home: Path, tmp_path: Path) -> Path:
    """Where the bytes of a supernet were; another one is whole."""
    shared = [store(database, blobs, tmp_path, name, None) for name in ("lost", "whole")]
    with database.write() as session:
        for row in shared:
            session.add(Supernet(key=row.name, recipe={}, history=[], artifact_id=row.id, seconds=1.0, created_at=EPOCH))
            session.flush()
            session.add(evaluation("e", supernet_key=row.name))
    path = home / "artifacts" / shared[0].sha256[:2] / shared[0].sha256
    path.unlink()
    return path


def test_supernet_whose_bytes_are_gone_is_dropped_with_its_evaluations_if_that_is_wanted(
    database: Database, blobs: BlobStore, home: Path, lost: Path
) -> None:
    found = find_garbage(database, blobs, home)
    remove(database, blobs, found)
    assert (found.lost, found.missing) == (("lost",), ())
    assert find_garbage(database, blobs, home) == found

    drop_lost(database, blobs, found)

    with database.read() as session:
        assert list(session.scalars(select(Supernet.key))) == ["whole"]
        assert list(session.scalars(select(Evaluation.supernet_key))) == ["whole"]
    assert find_garbage(database, blobs, home) == NOTHING


@pytest.mark.parametrize("why", ["its bytes are back", "a job is running"])
def test_lost_supernet_stays(why: str, database: Database, blobs: BlobStore, home: Path, lost: Path) -> None:
    found = find_garbage(database, blobs, home)
    if why == "its bytes are back":
        lost.write_text("lost")
        drop_lost(database, blobs, found)
    else:
        add_running_job(database)
        with pytest.raises(WrongState, match="jobs are running"):
            drop_lost(database, blobs, found)

    with database.read() as session:
        assert session.get(Supernet, "lost") is not None
