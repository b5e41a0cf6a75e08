"""The event stream of a job: server-sent events from the append-only log, resumable with `Last-Event-ID`."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from sse_starlette import EventSourceResponse, ServerSentEvent

from services.api.deps import DatabaseDep, UserDep
from services.api.models import EventView
from services.api.problems import Problem, ProblemDocument
from services.store import events, jobs
from services.store.database import Database

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
_POLL_SECONDS = 0.5
_MOST_STREAMS = 100
"""Of one user at a time, in one process; each asks the database twice a second."""


@router.get(
    "/{job_id}/events",
    summary="Events of a job",
    response_model=None,
    responses={
        200: {
            "description": "With `Accept: application/json` a list of at most 500 events, else a stream that ends with the job.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}, "application/json": {"schema": {"type": "array"}}},
        },
        404: {"model": ProblemDocument, "description": "No such job."},
        429: {"model": ProblemDocument, "description": "The user has as many streams open as a user may."},
    },
)
async def stream_events(
    job_id: str,
    request: Request,
    database: DatabaseDep,
    user: UserDep,
    after: Annotated[int, Query(ge=0, le=10**9, description="Only events numbered above this.")] = 0,
    last_event_id: Annotated[int | None, Header(ge=0, le=10**9, description="As `after`; sent by browsers when they reconnect.")] = None,
) -> EventSourceResponse | list[EventView]:
    """Everything that happened to a job, oldest first, and what goes on happening until it is over."""
    start = max(after, last_event_id or 0)
    await asyncio.to_thread(_exists, database, job_id)
    if "application/json" in request.headers.get("accept", ""):
        rows, _ = await asyncio.to_thread(_next, database, job_id, start)
        return rows
    open_streams: Counter[str] = request.app.state.open_streams
    if open_streams[user] >= _MOST_STREAMS:
        raise Problem(429, "too-many-streams", f"{_MOST_STREAMS} event streams of {user} are open; close some, or ask for JSON instead")
    return EventSourceResponse(_counted(open_streams, user, _follow(database, job_id, start)), ping=15)


async def _counted(open_streams: Counter[str], user: str, stream: AsyncIterator[ServerSentEvent]) -> AsyncIterator[ServerSentEvent]:
    """A stream that counts as one of a user's for as long as it is read."""
    open_streams[user] += 1
    try:
        async for event in stream:
            yield event
    finally:
        open_streams[user] -= 1


async def _follow(database: Database, job_id: str, start: int) -> AsyncIterator[ServerSentEvent]:
    last = start
    while True:
        rows, over = await asyncio.to_thread(_next, database, job_id, last)
        for row in rows:
            last = row.sequence
            yield ServerSentEvent(data=json.dumps(row.model_dump(mode="json")), event=row.kind, id=str(row.sequence))
        if over and not rows:
            return
        if not rows:
            await asyncio.sleep(_POLL_SECONDS)


def _exists(database: Database, job_id: str) -> None:
    with database.read() as session:
        jobs.get(session, job_id)


def _next(database: Database, job_id: str, last: int) -> tuple[list[EventView], bool]:
    with database.read() as session:
        over = jobs.get(session, job_id).state in jobs.FINAL
        rows: list[Any] = events.after(session, job_id, last)
        return [EventView.model_validate(row) for row in rows], over
