"""Cells played: a job is submitted, struck at its moments, waited for, and what became of it is gathered."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select

from services.store import jobs
from services.store.models import JobEvent
from tests.chaos.inputs import smallest_request
from tests.chaos.moments import QUEUED, Missed
from tests.chaos.outcome import Outcome, done_twice, outcome_of
from tests.chaos.plan import Cell
from tests.chaos.plane import until
from tests.chaos.remains import remains
from tests.chaos.system import System

_ATTEMPTS = 4
STEPS = ("epoch", "generation", "finalist", "succeeded")
"""Finished pieces of work."""


@dataclass(frozen=True)
class Played:
    """What became of a job.

    Attributes:
        struck: names of the cells that struck it.
        twice: what was committed more than once though it may be only once.
        left: what it has left behind.
        seconds: from its submission to its end.
        recoveries: by the cells that struck it, seconds from the end of the strike to the job's next finished piece of work (an epoch,
            a generation, a trial, its end), 0 if it ended while it was struck; a strike that came after its end has none.
    """

    outcome: Outcome
    struck: tuple[str, ...]
    twice: list[str]
    left: list[str]
    seconds: float
    recoveries: dict[str, float]


def undisturbed(system: System) -> Played:
    """A job left alone."""
    _prepare(system)
    return _ended(system, _submit(system), {})


def play(system: System, tour: Sequence[Cell]) -> Iterator[Played]:
    """Jobs struck at their moments: one, or further ones for cells whose moment was over before the job could be struck.

    Raises:
        Missed: that happened to the first of the cells that were left, several times in a row.
    """
    left, missed = list(tour), 0
    while left:
        _prepare(system)
        job_id, struck = _struck(system, left)
        if struck:
            yield _ended(system, job_id, struck)
        else:
            until(lambda: not remains(system), "a missed job to be over")
        left, missed = left[len(struck) :], 0 if struck else missed + 1
        if missed == _ATTEMPTS:
            raise Missed(f"{left[0].name} in {missed} attempts")


Strike = tuple[datetime, datetime]
"""When it began, and when it was over."""


def _struck(system: System, cells: Sequence[Cell]) -> tuple[str, dict[str, Strike]]:
    """A new job, and the strikes of the cells: of all of them, or of those before one that was missed."""
    struck: dict[str, Strike] = {}
    if cells[0].moment is QUEUED:
        system.plane.freeze()
    job_id = _submit(system)
    for cell in cells:
        try:
            cell.moment.wait(system.plane, job_id)
        except Missed:
            break
        begun = datetime.now(UTC)
        cell.fault.strike(system, job_id, cell.moment)
        struck[cell.name] = begun, datetime.now(UTC)
        system.make_whole() if cell is not cells[-1] else system.plane.thaw()
    return job_id, struck


def _prepare(system: System) -> None:
    """Everything runs, the backbone is described, and there is no job."""
    system.make_whole()
    if not system.plane.described():
        job_id = _submit(system)  # waits for a scheduler to describe the backbone
        system.plane.client.cancel(job_id)
        until(lambda: system.plane.job(job_id).state in jobs.FINAL, "the end of a cancelled job")
        until(lambda: not remains(system), "a cancelled job to be gone")
    system.plane.clear()


def _submit(system: System) -> str:
    found: str = system.plane.client.submit(smallest_request(system.data, system.backbone))["id"]
    return found


def _ended(system: System, job_id: str, struck: Mapping[str, Strike]) -> Played:
    plane = system.plane
    until(lambda: plane.job(job_id).state in jobs.FINAL, f"the end of job {job_id}")
    system.make_whole()
    left = remains(system)
    job = plane.job(job_id)
    assert job.finished_at is not None
    with plane.database.read() as session:
        done = session.scalars(select(JobEvent.at).where(JobEvent.job_id == job_id, JobEvent.kind.in_(STEPS))).all()
    recoveries = {
        name: min(((at - over).total_seconds() for at in done if at > over), default=0.0)
        for name, (begun, over) in struck.items()
        if max(done, default=begun) > begun
    }
    return Played(
        outcome=outcome_of(plane, job_id),
        struck=tuple(struck),
        twice=done_twice(plane, job_id),
        left=left,
        seconds=(job.finished_at - job.created_at).total_seconds(),
        recoveries=recoveries,
    )
