"""Studies: creation with all of their trials, listing, cancelling, deleting. What a driver writes is in `study_progress`.

A study's trials are drawn and checked before it is created and stored with it, so that nothing is drawn anew when it is taken up again.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import delete as sql_delete
from sqlalchemy import literal, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from services.store import clock, jobs, study_leases
from services.store.cursors import place
from services.store.errors import NotFound, WrongState
from services.store.idempotency import KeyTaken
from services.store.models import Job, Study, StudyReport, StudyTrial, UtcDateTime

STATES = ("queued", "running", "succeeded", "failed", "cancelled")
ALIVE = ("queued", "running")


@dataclass(frozen=True, slots=True)
class Point:
    """A trial as it is to be stored: what differs, and the whole checked request with what was found at submission."""

    settings: dict[str, Any]
    request: dict[str, Any]
    backbone_key: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sent:
    """The idempotency key that a request came with, if any, the request's fingerprint, and for how long the key stands."""

    key: str | None
    fingerprint: str
    hours: float


def create(session: Session, *, name: str, user: str, request: dict[str, Any], metric: str, points: Sequence[Point], sent: Sent) -> Study:
    """A queued study of a user with its trials, numbered from 1. Raises KeyTaken if the key was used meanwhile: roll back."""
    now = clock.now(session)
    forgotten = update(Study).where(Study.user_name == user, Study.key_expires_at <= now)
    session.execute(forgotten.values(idempotency_key=None, key_expires_at=None).execution_options(synchronize_session=False))
    study = Study(
        id=f"s{secrets.token_hex(6)}",
        name=name,
        user_name=user,
        state="queued",
        request=request,
        metric=metric,
        attempts=0,
        lease_epoch=0,
        idempotency_key=sent.key,
        fingerprint=sent.fingerprint,
        key_expires_at=None if sent.key is None else now + timedelta(hours=sent.hours),
        created_at=clock.calendar(session),
    )
    session.add(study)
    try:
        session.flush()
    except IntegrityError as error:
        if sent.key is None:
            raise
        raise KeyTaken(f"key {sent.key!r} of {user} stands for another study") from error
    session.add_all(_trial(study.id, number, point) for number, point in enumerate(points, 1))
    return study


def sent_before(session: Session, user: str, key: str) -> Study | None:
    """The study that a user's key stands for; None if it is new, or was kept for its time."""
    current = Study.key_expires_at > clock.now(session)
    return session.scalars(select(Study).where(Study.user_name == user, Study.idempotency_key == key, current)).first()


def get(session: Session, study_id: str) -> Study:
    """A study by its id. Raises NotFound."""
    study = session.get(Study, study_id)
    if study is None:
        raise NotFound(f"no study {study_id!r}")
    return study


def page(session: Session, *, state: str | None = None, before: str | None = None, limit: int = 50) -> list[Study]:
    """Studies, newest first, at most `limit`; `before` is the cursor of the last one of the page before. Raises NotFound."""
    query = select(Study).order_by(Study.created_at.desc(), Study.id.desc()).limit(limit)
    if state is not None:
        query = query.where(Study.state == state)
    if before is not None:
        created_at, study_id = place(before)
        query = query.where(tuple_(Study.created_at, Study.id) < tuple_(literal(created_at, UtcDateTime), literal(study_id)))
    return list(session.scalars(query))


def trials(session: Session, study_id: str) -> list[StudyTrial]:
    """A study's trials, in order."""
    return list(session.scalars(select(StudyTrial).where(StudyTrial.study_id == study_id).order_by(StudyTrial.number)))


def cancel(session: Session, study_id: str) -> Study:
    """End a study that is not over, and cancel its jobs that are not. Raises NotFound, WrongState.

    Its driver has lost its lease with that, so it can submit nothing more, and ends itself.
    """
    study = study_leases.locked(session, study_id)
    if study.state not in ALIVE:
        raise WrongState(f"study {study_id} has {study.state} already; only a queued or running study can be cancelled", study.state, ALIVE)
    study_leases.finish(session, study, "cancelled")
    unfinished = select(Job.id).where(Job.study_id == study_id, Job.state.in_(jobs.ALIVE)).order_by(Job.id)
    for job_id in session.scalars(unfinished).all():
        if jobs.locked(session, job_id).state in jobs.ALIVE:
            jobs.request_cancel(session, job_id, f"study {study_id} was cancelled")
    return study


def delete(session: Session, study_id: str) -> None:
    """Delete a study that is over, with its trials and reports; their jobs stay, by themselves. Raises NotFound, WrongState."""
    study = study_leases.locked(session, study_id)
    if study.state in ALIVE:
        over = tuple(state for state in STATES if state not in ALIVE)
        raise WrongState(f"study {study_id} is {study.state}; only a study that is over can be deleted", study.state, over)
    session.execute(update(Job).where(Job.study_id == study_id).values(study_id=None, study_trial=None))
    for model in (StudyReport, StudyTrial):
        session.execute(sql_delete(model).where(model.study_id == study_id))
    session.delete(study)


def refuse_if_needed(session: Session, job: Job) -> None:
    """Raise WrongState if a job that is to be deleted belongs to a study that is not over, which still reads what it has done."""
    study = None if job.study_id is None else session.get(Study, job.study_id)
    if study is not None and study.state in ALIVE:
        raise WrongState(
            f"job {job.id} is trial {job.study_trial} of study {study.id}, which is {study.state}; cancel that first", job.state
        )


def _trial(study_id: str, number: int, point: Point) -> StudyTrial:
    return StudyTrial(
        study_id=study_id,
        number=number,
        settings=point.settings,
        request=point.request,
        backbone_key=point.backbone_key,
        data=point.data,
    )
