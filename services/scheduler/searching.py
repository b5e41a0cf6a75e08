"""Phase `search`: generation after generation, proposed from what is stored, evaluated where needed, committed whole.

Nothing is remembered between generations but what SQL holds, so a job resumed anywhere proposes the same populations.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from glora_core.configs import config_hash, decode, encode
from glora_core.metrics import ACCURACY
from glora_core.sampling import FeasibleSampler
from glora_core.search import Evaluated, Proposal, propose, rank
from services.cluster.pool import EvaluatorPool
from services.protocol import protocol
from services.scheduler.context import RunContext
from services.scheduler.evaluating import Measuring
from services.store import jobs, search_state
from services.store.models import Candidate, Evaluation, Generation, Job


def search(context: RunContext, supernet_key: str, pool: EvaluatorPool) -> list[Evaluated]:
    """Run the generations that are not stored yet; returns all evaluated subnets, best first."""
    settings, budget = context.request.search.settings(), context.request.budget
    seed = context.request.seed if context.request.search.seed is None else context.request.search.seed
    sampler = FeasibleSampler(context.space, budget)
    history = stored_history(context)
    done, measuring = _generations_done(context), Measuring(context, supernet_key, pool)
    for number in range(done, settings.generations):
        start = time.monotonic()
        population = propose(context.space, budget, settings, history, number, seed, sampler)
        fresh = measuring.missing({config_hash(p.config): p.config for p in population}, number)
        with context.fenced() as (session, job):
            measuring.store(session, fresh)
            history += _commit(context, session, job, number, population, history, start)
        context.pause_here()
    return rank(history)


def stored_history(context: RunContext) -> list[Evaluated]:
    """The evaluations of all stored generations of the job, in order."""
    with context.database.read() as session:
        job = jobs.get(session, context.lease.job_id)
        return [evaluated(evaluation, candidate.generation) for candidate, evaluation in search_state.evaluated_candidates(session, job)]


def _generations_done(context: RunContext) -> int:
    with context.database.read() as session:
        last = search_state.last_generation(session, context.lease.job_id)
        return 0 if last is None else last.number + 1


def _commit(
    context: RunContext,
    session: Session,
    job: Job,
    number: int,
    population: Sequence[Proposal],
    history: Sequence[Evaluated],
    start: float,
) -> list[Evaluated]:
    """Write a whole generation; returns its evaluations as they are stored, which another job may have done first."""
    hashes = [config_hash(p.config) for p in population]
    asked = context.request.search
    rows = search_state.known(session, job.supernet_key or "", "val", protocol(asked.precision), asked.metric, hashes)
    measured = [evaluated(rows[digest], number) for digest in hashes]
    fresh = sum(row.job_id == job.id and row.generation == number for row in rows.values())  # before a restart, too
    best = rank([*history, *measured])[0]
    generation = Generation(
        job_id=job.id,
        number=number,
        best_hash=config_hash(best.config),
        best_accuracy=best.accuracy,
        best_fitness=best.fitness,
        best_loss=best.loss,
        best_parameters=best.parameters,
        evaluated=fresh,
        from_cache=len(population) - fresh,
        seconds=time.monotonic() - start,
        committed_at=datetime.now(UTC),
    )
    search_state.commit_generation(session, job, generation, _candidates(context, number, population))
    return measured


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


def evaluated(row: Evaluation, generation: int = 0) -> Evaluated:
    """A stored evaluation as the strategies see it."""
    measure = None if row.metric == ACCURACY else row.fitness
    config = decode(row.config)
    return Evaluated(config, row.accuracy, row.loss, row.parameters, generation, measure=measure, macro_accuracy=row.macro_accuracy)
