"""Submitting a job: checked whole, then stored with its key in one go, or not at all."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from services.api.admission import admitted
from services.api.checking import Inputs, check
from services.api.sending import Sending
from services.job_request import JobRequest
from services.settings import Settings
from services.store import jobs, lineage, queue
from services.store.database import Database
from services.store.models import Job
from services.store.queue import Quotas


@dataclass(frozen=True, slots=True)
class Cloned:
    """The job that a request was made from, and the text of what was asked for."""

    parent: str
    text: str


def submit(
    database: Database, settings: Settings, request: JobRequest, user: str, key: str | None = None, cloned: Cloned | None = None
) -> tuple[Job, bool]:
    """Check a request and store it as a queued job of a user; returns it, and whether it is new.

    Args:
        key: idempotency key; a request that the user has sent with it before is not stored again.
        cloned: where the request comes from, if it is not the user's own.

    Raises:
        Problem: the cluster, data, metric, backbone, space or budget cannot be used, the key stands for another request, or too many
            submissions are being checked; nothing was stored of the job.
        QuotaExceeded: the user has as much as a user may.
    """
    sending = Sending(database, settings, user, cloned.text if cloned else request.model_dump_json(), key)
    made = sending.made_before()
    if made is not None:
        return made, False
    check_quotas(database, settings, user)
    with admitted(user):
        checked = check(database, settings, request, Inputs())

    def create(session: Session) -> Job:
        queue.check_quotas(session, user, Quotas.of(settings))
        job = jobs.create(session, name=checked.name, user=user, **checked.facts())
        if cloned is not None:
            lineage.tie(session, job, cloned.parent, "clone")
        return job

    return sending.make(create)


def check_quotas(database: Database, settings: Settings, user: str) -> None:
    """Raise QuotaExceeded before anything is read, if the user may submit nothing; asked again where the job is made."""
    with database.read() as session:
        queue.check_quotas(session, user, Quotas.of(settings))
