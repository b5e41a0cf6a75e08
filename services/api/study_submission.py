"""Checking a study before anything of it is stored: its sweep, and every trial's whole request as if it were submitted by itself.

A refusal names the trial, what differs in it, and the field: as `sweep.…` where that is swept, else as `base.…`.
"""

import hashlib
from collections.abc import Sequence

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from services.api.admission import admitted
from services.api.checking import Checked, Inputs, check
from services.api.problems import Problem
from services.job_request import JobRequest
from services.settings import Settings
from services.store import queue, studies
from services.store.database import Database
from services.store.idempotency import KeyTaken
from services.store.models import Study
from services.store.queue import Quotas
from services.store.studies import Point, Sent
from services.study_points import Drawn, SweepInvalid, draw
from services.study_request import StudyRequest


def submit_study(database: Database, settings: Settings, request: StudyRequest, user: str, key: str | None = None) -> tuple[Study, bool]:
    """Draw and check all trials, and store them as a queued study of a user; returns it, and whether it is new.

    Args:
        key: idempotency key; a request that the user has sent with it before is not stored again.

    Raises:
        Problem, RequestValidationError: the sweep or one of its trials cannot be run, or the key stands for another request.
        QuotaExceeded: the user has as much as a user may.
    """
    fingerprint = hashlib.sha256(request.model_dump_json().encode()).hexdigest()
    sent = _sent_before(database, user, key, fingerprint)
    if sent is not None:
        return sent, False
    with database.read() as session:
        queue.check_study_quotas(session, user, Quotas.of(settings))
    try:
        drawn = draw(request)
        with admitted(user):
            checked = _checked(database, settings, request, drawn)
    except SweepInvalid as error:
        raise Problem(422, "request-invalid", str(error), field=error.field) from error
    points = [Point(trial.settings, **found.facts()) for trial, found in zip(drawn, checked, strict=True)]
    try:
        with database.write() as session:
            queue.check_study_quotas(session, user, Quotas.of(settings))
            study = studies.create(
                session,
                name=request.name or checked[0].name,
                user=user,
                request=request.model_dump(mode="json"),
                metric=checked[0].request.search.metric,
                points=points,
                sent=Sent(key, fingerprint, settings.idempotency_hours),
            )
        return study, True
    except KeyTaken:
        first = _sent_before(database, user, key, fingerprint)
        assert first is not None
        return first, False


def _sent_before(database: Database, user: str, key: str | None, fingerprint: str) -> Study | None:
    """The study that a key stands for; None if it is new. Raises Problem if it stands for another request."""
    if key is None:
        return None
    with database.read() as session:
        found = studies.sent_before(session, user, key)
    if found is not None and found.fingerprint != fingerprint:
        detail = f"this key was sent with another request, which is study {found.id}; send each new request with a key of its own"
        raise Problem(422, "idempotency-key-reused", detail, field="idempotency-key", study=found.id)
    return found


def _checked(database: Database, settings: Settings, request: StudyRequest, drawn: Sequence[Drawn]) -> list[Checked]:
    """Every trial, checked like a job; requests first, since that needs no data."""
    asked = [_parsed(request, number, trial) for number, trial in enumerate(drawn, 1)]
    _check_early_stop(request, asked)
    found, inputs = [], Inputs()
    for number, (trial, job) in enumerate(zip(drawn, asked, strict=True), 1):
        try:
            found.append(check(database, settings, job, inputs))
        except Problem as problem:
            field = problem.field and _place(request, problem.field)
            detail = f"{_named(number, trial)}: {problem}"
            raise Problem(problem.status, problem.kind, detail, field=field, trial=number, **problem.extra) from problem
    return found


def _parsed(request: StudyRequest, number: int, trial: Drawn) -> JobRequest:
    try:
        return JobRequest.model_validate(trial.request)
    except ValidationError as error:
        raise RequestValidationError(
            [
                entry
                | {"loc": ("body", *_place(request, ".".join(str(part) for part in entry["loc"])).split("."))}
                | {"msg": f"{_named(number, trial)}: {entry['msg'].removeprefix('Value error, ')}"}
                for entry in error.errors()
            ]
        ) from error


def _check_early_stop(request: StudyRequest, asked: Sequence[JobRequest]) -> None:
    epochs, stop = asked[0].training.epochs, request.early_stop
    if stop.rule == "asha" and stop.grace_epochs >= epochs:
        detail = (
            f"each trial trains for {epochs:,} epochs, so after a grace of {stop.grace_epochs:,} none could be stopped; accepted is less"
        )
        raise Problem(422, "request-invalid", detail, field="early_stop.grace_epochs")


def _named(number: int, trial: Drawn) -> str:
    return f"trial {number} ({str(trial)[:200]})"


def _place(request: StudyRequest, field: str) -> str:
    """Where a field of a trial's request comes from: the sweep, or the base."""
    swept = next((name for name in request.sweep if field == name or field.startswith(f"{name}.")), None)
    return f"base.{field}" if swept is None else f"sweep.{swept}"
