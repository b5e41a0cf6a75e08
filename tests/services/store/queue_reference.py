"""The order of the queue, played out job by job: slow and plain, for the counts of `services.store.places` to be held against."""

import heapq
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from services.store.models import Job


def in_order(queued: Sequence[Job], running: Mapping[str, int], limit: int | None, held: Collection[str]) -> list[str]:
    """Ids of jobs in the order in which they would be started, were none to end; those that are passed over come last.

    Args:
        running: jobs by user.
        held: ids of those that are passed over whatever becomes of the others.
    """
    counts, lines = defaultdict(int, running), defaultdict[str, list[Job]](list)
    for job in sorted(queued, key=_rank, reverse=True):
        if job.id not in held:
            lines[job.user_name].append(job)
    heads: list[tuple[int, int, object, str, str]] = []

    def offer(user: str) -> None:
        if lines[user] and (limit is None or counts[user] < limit):
            job = lines[user][-1]
            heapq.heappush(heads, (-job.priority, counts[user], job.created_at, job.id, user))

    for user in list(lines):
        offer(user)
    order = []
    while heads:
        user = heapq.heappop(heads)[-1]
        order.append(lines[user].pop())
        counts[user] += 1
        offer(user)
    over = sorted((job for line in lines.values() for job in line), key=_rank)
    return [job.id for job in (*order, *over, *sorted((job for job in queued if job.id in held), key=_rank))]


def _rank(job: Job) -> tuple[int, object, str]:
    return -job.priority, job.created_at, job.id
