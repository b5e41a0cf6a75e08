"""The evaluations that a generation needs and that are not stored yet: claimed, measured by the pool, stored as they come.

Nothing is measured twice: what another job is just measuring is waited for, and a runner that dies loses a second's work.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from glora_core.configs import SubnetConfig, encode
from glora_core.evaluation import Score
from services.cluster.pausing import Paused
from services.cluster.pool import EvaluatorPool
from services.cluster.work import VAL
from services.protocol import protocol
from services.scheduler.context import RunContext
from services.store import claims, search_state
from services.store.models import Evaluation
from services.store.search_state import Fitness, evaluation_row

_STORE_SECONDS = 1.0
_POLL_SECONDS = 0.3
_IDLE_SECONDS = 2.0
"""A job that waits for another's evaluations for longer keeps no evaluators meanwhile: the other may be waiting for room for its own."""


def fitness_of(score: Score) -> Fitness:
    """An evaluator's score as the store takes it."""
    return Fitness(score.accuracy, score.loss, score.examples, score.macro_accuracy, score.fitness)


@dataclass(frozen=True)
class Measuring:
    """Measures subnets for one job on val, or on what its second objective is measured on.

    Args:
        supernet_key: of the supernet that the pool has.
        split: as SQL and the pool's evaluators know it.
    """

    context: RunContext
    supernet_key: str
    pool: EvaluatorPool
    split: str = VAL

    def missing(self, configs: Mapping[str, SubnetConfig], generation: int) -> list[Evaluation]:
        """Measure those of the configs, given by their hashes, that are not stored yet; what comes last is the caller's to store.

        Raises:
            Paused: a pause was asked for; what was in hand is stored.
            WorkerLost: evaluators are lost again and again.
        """
        fresh, busy = list[Evaluation](), time.monotonic()
        while left := self._unknown(configs, {row.config_hash for row in fresh}):
            if ours := self._claim(left):
                with self.context.wanting("evaluator", self.context.evaluator_share):
                    fresh += self._measure({digest: configs[digest] for digest in ours}, generation)
                busy = time.monotonic()
            if len(ours) == len(left):
                continue
            self._keep(fresh)  # others may be waiting for these, as this job now waits for theirs
            fresh = []
            self.context.pause_here()
            if time.monotonic() - busy > _IDLE_SECONDS:
                self.pool.close()
            time.sleep(_POLL_SECONDS)
        return fresh

    def store(self, session: Session, rows: Sequence[Evaluation]) -> None:
        """Store evaluations and give up their claims, in a fenced transaction."""
        search_state.add_evaluations(session, rows)
        claims.drop(session, self.context.lease, [self._key(row.config_hash) for row in rows])

    def _unknown(self, configs: Mapping[str, SubnetConfig], measured: set[str]) -> list[str]:
        wanted = [digest for digest in configs if digest not in measured]
        with self.context.database.read() as session:
            known = self._known(session, wanted)
        return [digest for digest in wanted if digest not in known]

    def _claim(self, wanted: Sequence[str]) -> list[str]:
        """Those of the wanted that are this job's to measure; another job may have stored some just before."""
        with self.context.fenced() as (session, _):
            taken = claims.take(session, self.context.lease, map(self._key, wanted))
            stored = self._known(session, wanted)
            claims.drop(session, self.context.lease, [self._key(digest) for digest in stored])
        return [digest for digest in wanted if self._key(digest) in taken and digest not in stored]

    def _measure(self, configs: Mapping[str, SubnetConfig], generation: int) -> list[Evaluation]:
        """Evaluations of all configs, of which only those are returned that are not stored yet."""
        digests, stored_at, left = list(configs), time.monotonic(), len(configs)
        fresh: list[Evaluation] = []
        for positions, scores in self.pool.batches(
            [encode(config) for config in configs.values()], self.context.pausing.is_set, self.split
        ):
            fresh += [self._row(configs, digests[place], score, generation) for place, score in zip(positions, scores, strict=True)]
            left -= len(positions)
            if left and time.monotonic() - stored_at > _STORE_SECONDS:
                self._keep(fresh)
                fresh, stored_at = [], time.monotonic()
        if left:
            self._keep(fresh)
            raise Paused
        return fresh

    def _keep(self, rows: Sequence[Evaluation]) -> None:
        if rows:
            with self.context.fenced() as (session, _):
                self.store(session, rows)

    @property
    def _protocol(self) -> str:
        return protocol(self.context.request.search.precision)

    def _known(self, session: Session, hashes: Sequence[str]) -> dict[str, Evaluation]:
        return search_state.known(session, self.supernet_key, self.split, self._protocol, self.context.request.search.metric, hashes)

    def _key(self, digest: str) -> str:
        return claims.evaluation_key(self.supernet_key, self.split, self._protocol, self.context.request.search.metric, digest)

    def _row(self, configs: Mapping[str, SubnetConfig], digest: str, score: Score, generation: int) -> Evaluation:
        config, metric = configs[digest], self.context.request.search.metric
        parameters, fitness = self.context.space.parameters(config), fitness_of(score)
        row = evaluation_row(self.supernet_key, self.split, self._protocol, metric, digest, encode(config), parameters, fitness)
        row.job_id, row.generation = self.context.lease.job_id, generation
        return row
