"""Subnets as they stand in the job's own supernet: known methods, and the search's best; what they reach alone is the finals' affair.

Most have been candidates of the search, so that their fitness is stored; the others are scored once.
"""

from collections.abc import Mapping

from glora_core.configs import SubnetConfig, config_hash, encode
from glora_core.methods import methods_inside
from services.cluster.scoring import score_split
from services.protocol import PROTOCOL
from services.scheduler.context import RunContext
from services.scheduler.evaluating import fitness_of
from services.scheduler.legs import Finalist
from services.scheduler.prepare import Prepared
from services.scheduler.searching import evaluated
from services.store import search_state
from services.store.models import Evaluation
from services.store.search_state import evaluation_row

BASELINES = ("linear-probe", "bitfit", "lora")


def inside(context: RunContext, prepared: Prepared, searched: Finalist) -> list[Finalist]:
    """The known methods that are in the job's space and within its budget, as subnets of its supernet.

    Args:
        searched: any subnet of that supernet, for its key and settings.
    """
    known = methods_inside(context.space, context.request.budget)
    return standing(context, prepared, searched, {name: known[name] for name in BASELINES if name in known})


def standing(context: RunContext, prepared: Prepared, searched: Finalist, chosen: Mapping[str, SubnetConfig]) -> list[Finalist]:
    """Subnets of the job's supernet as they stand in it, by their source; `searched` as of `inside`."""
    digests = {name: config_hash(config) for name, config in chosen.items()}
    rows = _stored(context, searched.supernet_key, list(digests.values()))
    missing = [name for name, digest in digests.items() if digest not in rows]
    if missing:
        state, share = searched.state(context), context.worker_share
        for name in missing:
            with context.wanting("score", share):
                score = score_split(prepared.workload, searched.settings, state, chosen[name], None, share)
            parameters = context.space.parameters(chosen[name])
            metric, code = context.request.search.metric, encode(chosen[name])
            row = evaluation_row(searched.supernet_key, "val", PROTOCOL, metric, digests[name], code, parameters, fitness_of(score))
            with context.fenced() as (session, _):
                search_state.add_evaluations(session, [row])
        rows = _stored(context, searched.supernet_key, list(digests.values()))
    return [Finalist(name, evaluated(rows[digest]), searched.supernet_key, searched.settings) for name, digest in digests.items()]


def _stored(context: RunContext, key: str, digests: list[str]) -> dict[str, Evaluation]:
    with context.database.read() as session:
        return search_state.known(session, key, "val", PROTOCOL, context.request.search.metric, digests)
