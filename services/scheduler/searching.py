"""Phase `search`: generation after generation, proposed from what is stored, evaluated where needed, committed whole.

What is remembered between generations is what was committed, and it is read from SQL once, when a runner starts; so a job
resumed anywhere proposes the same populations, and a generation costs the same late in a search as early.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from glora_core.configs import decode, encode
from glora_core.metrics import ACCURACY
from glora_core.sampling import FeasibleSampler
from glora_core.search import Evaluated, Proposal, propose, rank
from services.cluster.pool import EvaluatorPool
from services.protocol import protocol
from services.scheduler.context import RunContext
from services.scheduler.evaluating import Measuring
from services.store import jobs, search_state
from services.store.models import Candidate, Evaluation, Generation, Job
from services.store.search_state import Measurement


def search(context: RunContext, supernet_key: str, pool: EvaluatorPool, second: str | None = None) -> list[Evaluated]:
    """Run the generations that are not stored yet; returns all evaluated subnets, best first.

    Args:
        second: what a second objective is measured on, as SQL and the pool's evaluators know it.
    """
    settings, budget = context.request.search.settings(), context.request.budget
    seed = context.request.seed if context.request.search.seed is None else context.request.search.seed
    sampler = FeasibleSampler(context.space, budget)
    history = stored_history(context, second)
    best, measuring = _best(history), Measuring(context, supernet_key, pool)
    further = [Measuring(context, supernet_key, pool, second)] if second else []
    for number in range(_generations_done(context), settings.generations):
        start = time.monotonic()
        population = propose(context.space, budget, settings, history, number, seed, sampler)
        configs = {p.digest: p.config for p in population}
        fresh = [(each, each.missing(configs, number)) for each in (measuring, *further)]
        with context.fenced() as (session, job):
            for each, rows in fresh:
                each.store(session, rows)
            measured = _commit(context, session, job, number, population, best, start, second)
        best = _best([best, *measured])
        history += measured
        context.pause_here()
    return rank(history)


def stored_history(context: RunContext, second: str | None = None) -> list[Evaluated]:
    """The evaluations of all stored generations of the job, in order; with accuracy on a second split, where one is named."""
    with context.database.read() as session:
        job = jobs.get(session, context.lease.job_id)
        found = [evaluated(row, generation) for generation, row in search_state.history(session, job)]
        return _with_second(context, session, job, found, second)


def _with_second(context: RunContext, session: Session, job: Job, found: list[Evaluated], second: str | None) -> list[Evaluated]:
    """The same with what is stored of them on the second split."""
    if second is None:
        return found
    asked = context.request.search
    hashes = [one.digest for one in found]
    rows = search_state.known(session, job.supernet_key or "", second, protocol(asked.precision), asked.metric, hashes)
    return [replace(one, second=rows[one.digest].accuracy) for one in found]


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
    best: Evaluated | None,
    start: float,
    second: str | None,
) -> list[Evaluated]:
    """Write a whole generation; returns its evaluations as they are stored, which another job may have done first."""
    hashes = [p.digest for p in population]
    asked = context.request.search
    rows = search_state.known(session, job.supernet_key or "", "val", protocol(asked.precision), asked.metric, hashes)
    measured = _with_second(context, session, job, [evaluated(rows[digest], number) for digest in hashes], second)
    fresh = sum(row.job_id == job.id and row.generation == number for row in rows.values())  # before a restart, too
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
