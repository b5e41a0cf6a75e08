"""One at a time over all jobs: what several of them need and nobody has stored yet is made by one, while the others wait.

A job that waits holds nothing of the cluster but its driver, says in its row whom it waits for, and takes over when that one's
runner dies, pauses or is cancelled. After a few seconds, which is what starting a runner again takes, it gives its place at a
scheduler to other jobs and waits in the queue.
"""

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from services.scheduler.context import RunContext
from services.store import claims, events, jobs, search_state

T = TypeVar("T")

POLL_SECONDS = 0.5


class GaveWay(Exception):
    """The job is back in the queue until another has made what it needs, or has given that up."""


def made_once(context: RunContext, key: str, find: Callable[[], T | None], make: Callable[[], T]) -> tuple[T, bool]:
    """What `find` finds by now, or `make` makes while this job holds the claim; and whether it was found.

    Args:
        make: gives the claim up in the transaction that stores what it made.

    Raises:
        GaveWay: another job takes longer to make it than a runner should wait.
        Paused: a pause was asked for while waiting; and whatever `find` and `make` raise.
    """
    told, since = "", time.monotonic()
    while (found := find()) is None:
        maker = _take(context, key)
        if maker is None:
            found = find()  # stored between the look before and the claim
            if found is None:
                return make(), False
            give_up(context, key)
            break
        if maker != told:
            _wait_for(context, maker, key)
            told = maker
        context.pause_here()
        if time.monotonic() - since > context.settings.await_seconds:
            give_way(context, key)
        time.sleep(POLL_SECONDS)
    if told:
        _wait_for(context, None, key)
    return found, True


def trained_once(
    context: RunContext,
    wanted: Mapping[str, T],
    left: Callable[[Mapping[str, T]], Mapping[str, T]],
    train: Callable[[Mapping[str, T]], None],
) -> None:
    """Train several supernets, or finalists, that nobody has stored, and wait for those that another job is just training; they are taken
    over if it gives them up.

    Args:
        wanted: by their keys.
        left: those of them that are neither stored nor known to have diverged.
        train: trains and stores, and gives the claims up in the transactions that store.

    Raises:
        GaveWay: the other job takes longer than a runner should wait.
        Paused: as `made_once`.
    """
    open_, since = left(wanted), time.monotonic()
    while open_:
        with context.fenced() as (session, _):
            ours = claims.take(session, context.lease, open_)
            free = {key for key in ours if search_state.supernet(session, key) is None}
            claims.drop(session, context.lease, ours - free)
        if free:
            train({key: open_[key] for key in free})
            since = time.monotonic()
        open_ = left(open_)
        if open_:
            context.pause_here()
            if time.monotonic() - since > context.settings.await_seconds:
                give_way(context, max(open_))  # they are trained in the order of keys
            time.sleep(POLL_SECONDS)


def give_way(context: RunContext, key: str) -> None:
    """Go back into the queue until another job has made something, or has given that up.

    Returns if nobody makes it any more, or the job is just asked to pause or end, which is heeded elsewhere.

    Raises:
        GaveWay: done.
    """
    with context.fenced() as (session, job):
        maker = claims.holder(session, key)
        if maker is None or job.pause_requested or job.cancel_requested:
            return
        jobs.give_way(session, job, key, maker)
    raise GaveWay(f"job {context.lease.job_id} waits in the queue for what job {maker} is making")


def give_up(context: RunContext, key: str) -> None:
    """Give a claim up with nothing made."""
    with context.fenced() as (session, _):
        claims.drop(session, context.lease, [key])


def _take(context: RunContext, key: str) -> str | None:
    """None if the claim is this job's now, or else the job that holds it. Writes only where the claim seems free."""
    with context.database.read() as session:
        maker = claims.holder(session, key)
    if maker is not None and maker != context.lease.job_id:
        return maker
    with context.fenced() as (session, job):
        if key in claims.take(session, context.lease, [key]):
            job.waiting_for = None
            return None
        return claims.holder(session, key) or ""


def _wait_for(context: RunContext, maker: str | None, key: str) -> None:
    """Say in the job's row whom it waits for, and by an event when it begins to."""
    with context.fenced() as (session, job):
        job.waiting_for = maker or None
        if maker:
            events.append(session, job.id, "supernet_awaited", {"supernet": key, "job": maker})
