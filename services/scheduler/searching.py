"""Phase `search`: generation after generation, proposed from what is stored, evaluated where needed, committed whole.

What is remembered between generations is what was committed, and it is read from SQL once, when a runner starts; so a job
resumed anywhere proposes the same populations, and a generation costs the same late in a search as early.
"""

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from glora_core.configs import decode, encode
from glora_core.evaluation import Score
from glora_core.metrics import ACCURACY
from glora_core.sampling import FeasibleSampler
from glora_core.search import Evaluated, Proposal, propose, rank
from services.cluster.pool import EvaluatorPool
from services.protocol import PROTOCOL
from services.scheduler.context import RunContext
from services.store import jobs, search_state
from services.store.models import Candidate, Evaluation, Generation, Job
from services.store.search_state import Fitness, Measurement, evaluation_row


def search(context: RunContext, supernet_key: str, pool: EvaluatorPool) -> list[Evaluated]:
    """Run the generations that are not stored yet; returns all evaluated subnets, best first."""
    settings, budget = context.request.search.settings(), context.request.budget
    sampler = FeasibleSampler(context.space, budget)
    history = stored_history(context)
    done, best = _generations_done(context), _best(history)
    for number in range(done, settings.generations):
        start = time.monotonic()
        population = propose(context.space, budget, settings, history, number, context.request.seed, sampler)
        fresh = _evaluate(context, supernet_key, pool, population)
        with context.fenced() as (session, job):
            measured = _commit(context, session, job, number, population, best, fresh, start)
        best = _best([best, *measured])
        history += measured
    return rank(history)


def stored_history(context: RunContext) -> list[Evaluated]:
    """The evaluations of all stored generations of the job, in order."""
    with context.database.read() as session:
        job = jobs.get(session, context.lease.job_id)
        return [evaluated(row, generation) for generation, row in search_state.history(session, job)]


def _generations_done(context: RunContext) -> int:
    with context.database.read() as session:
        last = search_state.last_generation(session, context.lease.job_id)
        return 0 if last is None else last.number + 1


def _evaluate(context: RunContext, supernet_key: str, pool: EvaluatorPool, population: Sequence[Proposal]) -> list[Evaluation]:
    """The evaluations of those candidates that are not stored yet."""
    by_hash = {p.digest: p.config for p in population}
    metric = context.request.search.metric
    with context.database.read() as session:
        rows = search_state.known(session, supernet_key, "val", PROTOCOL, metric, by_hash)
    missing = [digest for digest in by_hash if digest not in rows]
    codes = [encode(by_hash[digest]) for digest in missing]
    sizes = [context.space.parameters(by_hash[digest]) for digest in missing]
    return [
        evaluation_row(supernet_key, "val", PROTOCOL, metric, digest, code, size, fitness_of(score))
        for digest, code, size, score in zip(missing, codes, sizes, pool.score(codes), strict=True)
    ]


def _commit(
    context: RunContext,
    session: Session,
    job: Job,
    number: int,
    population: Sequence[Proposal],
    best: Evaluated | None,
    fresh: Sequence[Evaluation],
    start: float,
) -> list[Evaluated]:
    """Write a whole generation; returns its evaluations as they are stored, which another job may have done first."""
    hashes = [p.digest for p in population]
    search_state.add_evaluations(session, fresh)
    rows = search_state.known(session, job.supernet_key or "", "val", PROTOCOL, context.request.search.metric, hashes)
    measured = [evaluated(rows[digest], number) for digest in hashes]
    best = _best([best, *measured])
    assert best is not None
    generation = Generation(
        job_id=job.id,
        number=number,
        best_hash=best.digest,
        best_accuracy=best.accuracy,
        best_fitness=best.fitness,
        best_loss=best.loss,
        best_parameters=best.parameters,
        evaluated=len(fresh),
        from_cache=len(population) - len(fresh),
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
            config_hash=proposal.digest,
            config=encode(proposal.config),
            parameters=context.space.parameters(proposal.config),
            operator=proposal.operator,
            parents=list(proposal.parents),
        )
        for position, proposal in enumerate(population)
    ]


def _best(found: Iterable[Evaluated | None]) -> Evaluated | None:
    """The first in the search's order; None if there is none."""
    return min((e for e in found if e is not None), key=lambda e: e.order, default=None)


def evaluated(row: Evaluation | Measurement, generation: int = 0) -> Evaluated:
    """A stored evaluation as the strategies see it."""
    measure = None if row.metric == ACCURACY else row.fitness
    config = decode(row.config)
    return Evaluated(config, row.accuracy, row.loss, row.parameters, generation, measure=measure, macro_accuracy=row.macro_accuracy)


def fitness_of(score: Score) -> Fitness:
    """An evaluator's score as the store takes it."""
    return Fitness(score.accuracy, score.loss, score.examples, score.macro_accuracy, score.fitness)
