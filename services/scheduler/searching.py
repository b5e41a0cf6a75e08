"""Phase `search`: generation after generation, proposed from what is stored, evaluated where needed, committed whole.

Nothing is remembered between generations but what SQL holds, so a job resumed anywhere proposes the same populations.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from glora_core.sampling import FeasibleSampler
from glora_core.search import Evaluated, Proposal, propose, rank
from glora_core.space import config_hash, decode, encode
from services.cluster.pool import EvaluatorPool
from services.protocol import PROTOCOL
from services.scheduler.context import RunContext
from services.store import jobs, search_state
from services.store.models import Candidate, Evaluation, Generation
from services.store.search_state import Fitness, evaluation_row


def search(context: RunContext, supernet_key: str, pool: EvaluatorPool) -> list[Evaluated]:
    """Run the generations that are not stored yet; returns all evaluated subnets, best first."""
    settings, budget = context.request.search.settings(), context.request.budget
    sampler = FeasibleSampler(context.space, budget)
    history = stored_history(context)
    done = _generations_done(context)
    for number in range(done, settings.generations):
        start = time.monotonic()
        population = propose(context.space, budget, settings, history, number, context.request.seed, sampler)
        rows, fresh = _evaluate(context, supernet_key, pool, population)
        history += [_evaluated(rows[config_hash(p.config)]) for p in population]
        best = rank(history)[0]
        generation = Generation(
            job_id=context.lease.job_id,
            number=number,
            best_hash=config_hash(best.config),
            best_accuracy=best.accuracy,
            best_loss=best.loss,
            best_parameters=best.parameters,
            evaluated=len(fresh),
            from_cache=len(population) - len(fresh),
            seconds=time.monotonic() - start,
            committed_at=datetime.now(UTC),
        )
        with context.fenced() as (session, job):
            search_state.commit_generation(session, job, generation, _candidates(context, number, population), fresh)
    return rank(history)


def stored_history(context: RunContext) -> list[Evaluated]:
    """The evaluations of all stored generations of the job, in order."""
    with context.database.read() as session:
        job = jobs.get(session, context.lease.job_id)
        return [_evaluated(evaluation) for _, evaluation in search_state.evaluated_candidates(session, job)]


def _generations_done(context: RunContext) -> int:
    with context.database.read() as session:
        return len(search_state.generations(session, context.lease.job_id))


def _evaluate(
    context: RunContext, supernet_key: str, pool: EvaluatorPool, population: Sequence[Proposal]
) -> tuple[dict[str, Evaluation], list[Evaluation]]:
    """The evaluation of every candidate by config hash, and those among them that had to be measured."""
    by_hash = {config_hash(p.config): p.config for p in population}
    with context.database.read() as session:
        rows = search_state.known(session, supernet_key, "val", PROTOCOL, by_hash)
    missing = [digest for digest in by_hash if digest not in rows]
    scores = pool.score([encode(by_hash[digest]) for digest in missing])
    fresh = [
        evaluation_row(
            supernet_key,
            "val",
            PROTOCOL,
            digest,
            encode(by_hash[digest]),
            context.space.parameters(by_hash[digest]),
            Fitness(score.accuracy, score.loss, score.examples),
        )
        for digest, score in zip(missing, scores, strict=True)
    ]
    return rows | {row.config_hash: row for row in fresh}, fresh


def _candidates(context: RunContext, generation: int, population: Sequence[Proposal]) -> list[Candidate]:
    return [
        Candidate(
            job_id=context.lease.job_id,
            generation=generation,
            position=position,
            config_hash=config_hash(proposal.config),
            config=encode(proposal.config),
            parameters=context.space.parameters(proposal.config),
            operator=proposal.operator,
            parents=list(proposal.parents),
        )
        for position, proposal in enumerate(population)
    ]


def _evaluated(row: Evaluation) -> Evaluated:
    return Evaluated(decode(row.config), row.accuracy, row.loss, row.parameters)
