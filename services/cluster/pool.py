"""The evaluator pool: as many Ray actors as there is room for, which score batches of subnets.

It grows while evaluations wait and there is room, with evaluators that wait for their resources (which is what an autoscaler
looks at), and shrinks as soon as it is told to, after the batch in hand. An evaluator that dies or hangs is replaced and its
batch is scored again; a batch that is late is given to an idle evaluator as well, and the first answer counts. Scoring is
deterministic and results are kept by position, so nothing of that shows in a result.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError

from glora_core.evaluation import Score
from services.cluster.pace import Pace
from services.cluster.pausing import Asked, never
from services.cluster.work import VAL, Batch, Work

_MAX_LOSSES = 3
_TURN_SECONDS = 0.5
_LIMIT_SECONDS = 2.0


class WorkerLost(RuntimeError):
    """The same batch lost its evaluator several times, or none could be started: something outside the search kills them."""


@dataclass(eq=False)
class _Member:
    """An evaluator, and the one call that it has been sent: its process id at first, then batches, each of one work."""

    actor: Any
    call: Any
    since: float
    pid: int | None = None
    batch: Batch | None = None
    work: Work | None = None

    @property
    def idle(self) -> bool:
        return self.pid is not None and self.call is None


class EvaluatorPool:
    """Evaluators over one trained supernet.

    Args:
        start: starts an evaluator and returns it at once; see `evaluator.evaluators`.
        limit: how many there may be now; asked again every few seconds.
    """

    def __init__(self, start: Callable[[], Any], limit: Callable[[], int]) -> None:
        self._start, self._ask_limit = start, limit
        self._members: list[_Member] = []
        self._pace = Pace()
        self._failed_starts = 0
        self._limit, self._asked_at = 1, float("-inf")

    def score(self, codes: Sequence[str]) -> list[Score]:
        """Scores of subnet configs, in order.

        Raises:
            WorkerLost: a batch lost its evaluator more than a few times, or evaluators die as they start.
        """
        found = {position: score for positions, scores in self.batches(codes) for position, score in zip(positions, scores, strict=True)}
        return [found[position] for position in range(len(codes))]

    def batches(self, codes: Sequence[str], pausing: Asked = never, split: str = VAL) -> Iterator[tuple[range, list[Score]]]:
        """Positions and scores of one batch after another, as they are done; a pause lets those in hand be the last.

        Args:
            codes: canonical texts of configs.
            pausing: asked between two batches.
            split: what they are scored on; see `Evaluator.score`.

        Raises:
            WorkerLost: a batch lost its evaluator more than a few times, or evaluators die as they start.
        """
        work = Work(codes, split)
        while not work.done:
            self._shrink()
            if not pausing():
                self._grow(work)
                self._hand_out(work)
            elif not work.in_hand:
                return
            for answered, batch, scores in self._collect():
                if answered is work:
                    yield batch.positions, scores
            self._replace_hung()

    def pids(self) -> list[int]:
        """Process ids of the evaluators that have started."""
        return [member.pid for member in self._members if member.pid is not None]

    def close(self) -> None:
        """End all evaluators; where there is more to score, others are started."""
        for member in list(self._members):
            self._end(member)

    def _shrink(self) -> None:
        """End those beyond the limit: first those that have not started, then idle ones; busy ones when they have answered."""
        now = time.monotonic()
        if now - self._asked_at >= _LIMIT_SECONDS:
            self._limit, self._asked_at = max(1, self._ask_limit()), now
        free = [m for m in self._members if m.pid is None] + [m for m in self._members if m.idle]
        for member in free[: max(0, len(self._members) - self._limit)]:
            self._end(member)

    def _grow(self, work: Work) -> None:
        """Start evaluators for what waits beyond those that could take it."""
        free = sum(member.batch is None for member in self._members)
        for _ in range(min(self._limit - len(self._members), work.waiting - free)):
            self._add()

    def _add(self) -> None:
        actor = self._start()
        self._members.append(_Member(actor, actor.pid.remote(), time.monotonic()))

    def _hand_out(self, work: Work) -> None:
        """Give every idle evaluator a batch, or where none waits, a copy of one that is late."""
        started = sum(member.pid is not None for member in self._members)
        for member in (m for m in self._members if m.idle):
            batch = work.take(self._pace.batch(work.waiting, started)) or self._late(work)
            if batch is None:
                return
            batch.holders += 1
            member.batch, member.work, member.since = batch, work, time.monotonic()
            member.call = member.actor.score.remote(batch.codes, work.split)

    def _late(self, work: Work) -> Batch | None:
        now = time.monotonic()
        for member in sorted(self._members, key=lambda m: m.since):
            batch = member.batch
            if batch is not None and member.work is work and not batch.done and batch.holders == 1:
                return batch if self._pace.late(len(batch.codes), now - member.since) else None
        return None

    def _collect(self) -> list[tuple[Work, Batch, list[Score]]]:
        """Wait for an answer, but not for ever, and take in all that are there; returns what is answered for the first time."""
        calls = {member.call: member for member in self._members if member.call is not None}
        ready, _ = ray.wait(list(calls), num_returns=1, timeout=_TURN_SECONDS)
        if len(calls) > 1 and ready:
            ready, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
        received = [self._receive(calls[call]) for call in ready]
        return [answer for answer in received if answer is not None]

    def _receive(self, member: _Member) -> tuple[Work, Batch, list[Score]] | None:
        try:
            answer = ray.get(member.call)
        except RayActorError as error:
            self._lost(member, error)
            return None
        member.call, self._failed_starts = None, 0
        batch, work = member.batch, member.work
        if batch is None or work is None:
            member.pid = answer
            return None
        self._pace.measured(len(batch.codes), time.monotonic() - member.since)
        batch.holders -= 1
        member.batch = member.work = None
        return (work, batch, answer) if work.answer(batch, answer) else None

    def _replace_hung(self) -> None:
        now = time.monotonic()
        for member in [m for m in self._members if m.batch is not None and self._pace.hung(len(m.batch.codes), now - m.since)]:
            self._lost(member, RayActorError(error_msg=f"no answer for {now - member.since:.0f} s"))

    def _lost(self, member: _Member, error: RayActorError) -> None:
        self._end(member)
        batch, work = member.batch, member.work
        if batch is None or work is None:
            self._failed_starts += 1
            if self._failed_starts > _MAX_LOSSES:
                raise WorkerLost(f"{self._failed_starts} evaluators in a row were lost as they started: {error}") from error
            return
        batch.holders -= 1
        work.lose(batch)
        if batch.losses > _MAX_LOSSES and not batch.done:
            raise WorkerLost(f"a batch of {len(batch.codes)} candidates lost its evaluator {batch.losses} times: {error}") from error

    def _end(self, member: _Member) -> None:
        self._members.remove(member)
        ray.kill(member.actor)
