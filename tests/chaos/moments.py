"""The columns of the matrix: the moments of a job's life at which something is struck, told from what the database holds."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import func, select

from services.store import jobs
from services.store.models import Job, JobEvent
from tests.chaos.plane import Plane, until

_PHASES = (None, "prepare", "train", "search", "finals", "export")
_LOOK_SECONDS = 0.02


class Missed(RuntimeError):
    """The job had gone on before it could be struck."""


@dataclass(frozen=True)
class Seen:
    """A job as the database shows it: state, phase, and how many events of each kind."""

    state: str
    phase: str | None
    events: Counter[str]


@dataclass(frozen=True)
class Moment:
    """A column.

    Args:
        phase: the job's phase at that moment; None while it is queued.
        title: of the column.
        ripe: whether the moment has come, within the phase.
    """

    name: str
    title: str
    phase: str | None
    ripe: Callable[[Seen], bool] = lambda seen: True

    def wait(self, plane: Plane, job_id: str) -> None:
        """Return at this moment of the job. Raises Missed if it is past."""
        until(lambda: self._now(look(plane, job_id)), f"job {job_id} to be at {self.name}", _LOOK_SECONDS)

    def _now(self, seen: Seen) -> bool:
        if seen.state in jobs.FINAL or _PHASES.index(seen.phase) > _PHASES.index(self.phase):
            raise Missed(f"{self.name} is past: {seen}")
        return seen.phase == self.phase and self.ripe(seen)


PREPARING = Moment("preparing", "data preparation", "prepare")
TRAINING = Moment("training", "supernet training", "train", lambda seen: seen.events["epoch"] > 0)
GENERATION = Moment("generation", "mid-generation", "search", lambda seen: seen.events["generation"] in (1, 2))
FINALS = Moment("finals", "finals (Ray Tune)", "finals", lambda seen: seen.events["finalist"] > 0)
EXPORT = Moment("export", "export/merge", "export")
QUEUED = Moment("queued", "idle with queue", None)
MOMENTS = (QUEUED, PREPARING, TRAINING, GENERATION, FINALS, EXPORT)
"""In the order in which a job comes to them."""


def look(plane: Plane, job_id: str) -> Seen:
    """A job as the database shows it now."""

    def ask() -> Seen:
        with plane.database.read() as session:
            job = session.get_one(Job, job_id)
            kinds = session.execute(select(JobEvent.kind, func.count()).where(JobEvent.job_id == job_id).group_by(JobEvent.kind))
            return Seen(job.state, job.phase, Counter(dict(kinds.tuples().all())))

    found: Seen = plane.look(ask)
    return found
