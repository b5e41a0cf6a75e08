"""One cell played: a job is submitted, struck at its moment, waited for, and what became of it is gathered."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from services.store import jobs
from services.store.models import JobEvent
from tests.chaos.inputs import smallest_request
from tests.chaos.moments import QUEUED, Missed, Moment
from tests.chaos.outcome import Outcome, done_twice, outcome_of
from tests.chaos.plan import Cell
from tests.chaos.plane import until
from tests.chaos.remains import remains
from tests.chaos.system import System

_ATTEMPTS = 4
_STEPS = ("epoch", "generation", "finalist", "succeeded")
"""Finished pieces of work."""


@dataclass(frozen=True)
class Played:
    """What became of a job.

    Attributes:
        twice: what was committed more than once though it may be only once.
        left: what it has left behind.
        seconds: from its submission to its end.
        recovery: seconds from the moment it was struck to its next finished piece of work (an epoch, a generation, a trial, its end);
            None if it was not struck.
        claims: how often it was claimed by a scheduler.
    """

    outcome: Outcome
    twice: list[str]
    left: list[str]
    seconds: float
    recovery: float | None
    claims: int

    def times(self) -> dict[str, Any]:
        """What is recorded."""
        return {name: value for name, value in asdict(self).items() if name in ("seconds", "recovery", "claims")}


def undisturbed(system: System) -> Played:
    """A job left alone."""
    system.make_whole()
    system.plane.clear()
    return _ended(system, _submit(system), None)


def play(system: System, cell: Cell) -> Played:
    """A job struck at its moment; one that has gone on before it could be struck is followed by another, a few times."""
    for _ in range(_ATTEMPTS):
        system.make_whole()
        system.plane.clear()
        try:
            job_id = _at(system, cell.moment)
        except Missed:
            _drain(system)
            continue
        struck = datetime.now(UTC)
        cell.fault.strike(system, job_id, cell.moment)
        system.plane.thaw()
        return _ended(system, job_id, struck)
    raise Missed(f"{cell.name} in {_ATTEMPTS} attempts")


def _at(system: System, moment: Moment) -> str:
    if moment is QUEUED:
        system.plane.freeze()
    job_id = _submit(system)
    moment.wait(system.plane, job_id)
    return job_id


def _submit(system: System) -> str:
    found: str = system.plane.client.submit(smallest_request(system.data, system.backbone))["id"]
    return found


def _drain(system: System) -> None:
    """Let a job that was missed come to its end."""
    until(lambda: not remains(system), "a missed job to be over")


def _ended(system: System, job_id: str, struck: datetime | None) -> Played:
    plane = system.plane
    until(lambda: plane.job(job_id).state in jobs.FINAL, f"job {job_id} to be over: {plane.job(job_id).phase}")
    system.make_whole()
    left = remains(system)
    job = plane.job(job_id)
    assert job.finished_at is not None
    with plane.database.read() as session:
        log = session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.sequence)).all()
    steps = [event.at for event in log if event.kind in _STEPS]
    later = [at for at in steps if struck is not None and at > struck]
    return Played(
        outcome=outcome_of(plane, job_id),
        twice=done_twice(plane, job_id),
        left=left,
        seconds=(job.finished_at - job.created_at).total_seconds(),
        recovery=(later[0] - struck).total_seconds() if struck is not None and later else None,
        claims=job.lease_epoch,
    )
