"""What a job must not leave behind: processes, leases, temporary files, checkpoints, rows of artifacts without their bytes."""

import getpass
import hashlib
import time
from collections.abc import Callable, Iterator

from sqlalchemy import or_, select
from sqlalchemy.exc import SQLAlchemyError

from services.store import jobs
from services.store.models import Artifact, Job
from tests.chaos import census
from tests.chaos.plane import PATIENCE_SECONDS
from tests.chaos.system import System

_RUNNERS = ("services.scheduler.runner", "services.scheduler.describe")
_CACHES = ("_ray_lockfiles", f"torchinductor_{getpass.getuser()}")
"""Folders that Ray and torch make once."""


def remains(system: System) -> list[str]:
    """What is left of jobs that are all over, once what goes by itself has had time to go."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while found := [thing for look in _LOOKS for thing in look(system)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    return found


def _processes(system: System) -> Iterator[str]:
    runners = {pid: title for pid, title in census.alive(system.root).items() if set(_RUNNERS) & set(title.split())}
    for pid, title in (runners | census.ray_workers(system.root, busy=True)).items():
        yield f"process {pid}: {title[:120]}"


def _leases(system: System) -> Iterator[str]:
    try:
        with system.plane.database.read() as session:
            held = session.scalars(select(Job).where(or_(Job.state.not_in(jobs.FINAL), Job.lease_owner.is_not(None)))).all()
    except SQLAlchemyError as error:
        yield f"database out of reach: {error}"
        return
    for job in held:
        yield f"job {job.id} is {job.state}, held by {job.lease_owner}"


def _temporary_files(system: System) -> Iterator[str]:
    for folder in system.plane.home.glob("*/work/*"):
        yield f"work folder {folder}"
    for part in system.plane.home.rglob("*.part"):
        yield f"part of a file {part}"
    for path in (system.root / "tmp").iterdir():
        if path.name not in _CACHES:
            yield f"temporary {path}"


def _checkpoints(system: System) -> Iterator[str]:
    files, folder = system.plane.files
    for path in files.find(f"{folder}/training") if files.exists(f"{folder}/training") else []:
        yield f"training checkpoint {path}"


def _artifacts(system: System) -> Iterator[str]:
    files, folder = system.plane.files
    with system.plane.database.read() as session:
        rows = session.scalars(select(Artifact)).all()
    for row in rows:
        path = f"{folder}/{row.sha256[:2]}/{row.sha256}"
        if not files.exists(path) or hashlib.sha256(files.cat_file(path)).hexdigest() != row.sha256:
            yield f"artifact {row.id} ({row.kind}) without its bytes"


_LOOKS: tuple[Callable[[System], Iterator[str]], ...] = (_processes, _leases, _temporary_files, _checkpoints, _artifacts)
