"""Garbage: what is kept and nobody refers to. Found first, as a list that can be looked at; removed only if wanted.

Supernets and evaluations are no garbage: they are kept for ever, for jobs to come; only a supernet whose bytes are gone can be
dropped, so that it is trained again. Nothing is garbage before it is older than a
grace, since bytes are stored before the row that names them, and a runner may be between the two.
"""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from services.store import jobs, queue
from services.store.blobs import BlobStore, StoredFile, Upload, training_name
from services.store.database import Database
from services.store.errors import WrongState
from services.store.jobs import ALIVE
from services.store.models import Artifact, Claim, Evaluation, Job, Study, Supernet

GRACE = timedelta(hours=1)
_LONGEST_UPLOAD = timedelta(days=1)
"""An upload in parts tells when it began, and not whether it goes on."""
_LOGS = ("j*.log", f"s{'?' * 12}.log")
"""Of jobs and of studies' drivers; others, such as the scheduler's own, are nobody's to remove."""


@dataclass(frozen=True)
class Garbage:
    """What can go, and what is wrong.

    Attributes:
        rows: ids of artifact rows that no job and no supernet has.
        files: blobs that no other row names, and what broken writes have left.
        checkpoints: names of folders of training checkpoints that nobody will go on from.
        folders: work folders of runners that are gone, and logs of jobs that were deleted, on this machine.
        uploads: to S3 in parts, which were left off.
        claims: keys that jobs which are over have claimed.
        lost: keys of supernets, and of finalists, whose bytes are not there; see `drop_lost`.
        missing: other artifact rows, as `id (name)`, whose bytes are not there; only reported.
    """

    rows: tuple[str, ...]
    files: tuple[StoredFile, ...]
    checkpoints: tuple[str, ...]
    folders: tuple[Path, ...]
    uploads: tuple[Upload, ...]
    claims: tuple[str, ...]
    lost: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(file.size for file in self.files)


def find_garbage(database: Database, blobs: BlobStore, home: Path, grace: timedelta = GRACE) -> Garbage:
    """Look for garbage; changes nothing. Raises StoreUnavailable."""
    before = datetime.now(UTC) - grace
    files = blobs.listing()  # before the rows: a file that gets its row meanwhile is then found to have one
    checkpoints, uploads = blobs.training_names(), blobs.uploads()
    with database.read() as session:
        rows = set(_unreferenced(session, before))
        kept = [artifact for artifact in _artifacts(session) if artifact[0] not in rows]
        wanted, held = {sha for _, sha, _, _ in kept}, {file.name: file.size for file in files}
        gone = {key: f"{key} ({name})" for key, sha, size, name in kept if held.get(sha) != size}
        old = session.execute(select(Supernet.artifact_id, Supernet.key).where(Supernet.created_at < before)).tuples()
        lost = {artifact: key for artifact, key in old if artifact in gone}
        return Garbage(
            rows=tuple(sorted(rows)),
            files=tuple(file for file in files if file.name not in wanted and file.modified < before),
            checkpoints=tuple(name for name in checkpoints if name not in _in_use(session, checkpoints)),
            folders=tuple(_left_on_disk(session, home, before)),
            uploads=tuple(upload for upload in uploads if upload.began < min(before, datetime.now(UTC) - _LONGEST_UPLOAD)),
            claims=tuple(session.scalars(select(Claim.key).where(Claim.job_id.not_in(_alive())))),
            lost=tuple(sorted(lost.values())),
            missing=tuple(sorted(named for key, named in gone.items() if key not in lost)),
        )


def remove(database: Database, blobs: BlobStore, garbage: Garbage, grace: timedelta = GRACE) -> None:
    """Remove what was found, unless it is wanted again by now. Raises StoreUnavailable."""
    before = datetime.now(UTC) - grace
    with database.write() as session:
        session.execute(delete(Artifact).where(Artifact.id.in_(set(_unreferenced(session, before)) & set(garbage.rows))))
        session.execute(delete(Claim).where(Claim.job_id.not_in(_alive())).execution_options(synchronize_session=False))
    for file in garbage.files:
        with database.read() as session:
            wanted = session.scalar(select(Artifact.id).where(Artifact.sha256 == file.name).limit(1))
        if wanted is None:
            blobs.remove_if_untouched(file, before)
    for name in garbage.checkpoints:
        with database.read() as session:
            used = _in_use(session, [name])
        if not used:
            blobs.remove_training_folder(name)
    for upload in garbage.uploads:
        blobs.abort(upload)
    for path in garbage.folders:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def drop_lost(database: Database, blobs: BlobStore, garbage: Garbage) -> None:
    """Drop the lost supernets whose bytes are still gone, with their evaluations; whoever needs one trains it again.

    Raises:
        WrongState: a job is running, and may be about to use one; nothing was dropped.
        StoreUnavailable: the same.
    """
    with database.write() as session:
        queue.lock(session, "claims")  # nobody begins to run meanwhile
        if running := jobs.count_running(session):
            raise WrongState(f"jobs are running ({running:,}) and may need what is lost; pause them first", "running", ("paused",))
        for key in garbage.lost:
            row = session.get(Supernet, key)
            artifact = session.get_one(Artifact, row.artifact_id) if row else None
            if artifact is not None and not blobs.holds(artifact.sha256, artifact.size):
                session.execute(delete(Evaluation).where(Evaluation.supernet_key == key))
                session.execute(delete(Supernet).where(Supernet.key == key))
                session.delete(artifact)


def _unreferenced(session: Session, before: datetime) -> Iterable[str]:
    query = select(Artifact.id).where(Artifact.job_id.is_(None), Artifact.created_at < before)
    return session.scalars(query.where(Artifact.id.not_in(select(Supernet.artifact_id)))).all()


def _artifacts(session: Session) -> Iterable[tuple[str, str, int, str]]:
    return [row._tuple() for row in session.execute(select(Artifact.id, Artifact.sha256, Artifact.size, Artifact.name))]


def _alive() -> Select[str]:
    """Ids of the jobs that are not over."""
    return select(Job.id).where(Job.state.in_(ALIVE))


def _in_use(session: Session, names: Iterable[str]) -> set[str]:
    """Those folders of checkpoints that a job which is not over may go on from: its own, or of a supernet that it claims or awaits."""
    alive = set(session.scalars(select(Job.id).where(Job.state.in_(ALIVE))))
    wanted = select(Job.awaited_key).where(Job.state.in_(ALIVE), Job.awaited_key.is_not(None))
    keys = (*session.scalars(select(Claim.key).where(Claim.job_id.in_(_alive()))), *session.scalars(wanted))
    claimed = {training_name(key) for key in keys if key is not None}
    return {name for name in names if name.partition("-")[0] in alive | claimed}


def _left_on_disk(session: Session, home: Path, before: datetime) -> Iterable[Path]:
    running = {f"{job}-{epoch}" for job, epoch in session.execute(select(Job.id, Job.lease_epoch).where(Job.state == "running"))}
    running |= {f"{study}-{epoch}" for study, epoch in session.execute(select(Study.id, Study.lease_epoch).where(Study.state == "running"))}
    known = set(session.scalars(select(Job.id))) | set(session.scalars(select(Study.id)))
    gone = [path for path in (home / "work").glob("*") if path.name not in running]
    logs = [path for pattern in _LOGS for path in (home / "logs").glob(pattern)]
    gone += [path for path in logs if path.stem not in known]
    return [path for path in gone if datetime.fromtimestamp(path.stat().st_mtime, UTC) < before]
