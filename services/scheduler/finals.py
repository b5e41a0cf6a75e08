"""Phase `finals`: the best candidates and the known methods within the budget, each trained alone and compared on val.

Every finalist is stored as soon as it is trained, so a resumed job trains none twice. The winner is never worse on val
than a known method that fits the budget. Known methods asked for as baselines are trained here too.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy.orm import Session
from torch import Tensor

from glora_core.configs import SubnetConfig, config_hash, encode
from glora_core.errors import Diverged
from glora_core.evaluation import Score
from glora_core.methods import methods_within
from glora_core.search import Evaluated
from glora_core.training import TrainingSettings
from services.cluster.alone import Trained, score_split, train_alone
from services.protocol import PROTOCOL
from services.scheduler.context import RunContext
from services.scheduler.prepare import Prepared
from services.scheduler.searching import evaluated, fitness_of
from services.scheduler.supernets import alone_settings, epoch_event, key_of, recipe_of, store_state, store_supernet, stored_state
from services.store import events, search_state
from services.store.models import Job
from services.store.search_state import evaluation_row

BASELINES = ("linear-probe", "bitfit", "lora")


@dataclass(frozen=True)
class Finalist:
    """A subnet that may be exported: where it came from, the supernet that holds its weights, and its fitness on val."""

    source: str
    fitness: Evaluated
    supernet_key: str
    settings: TrainingSettings

    def state(self, context: RunContext) -> dict[str, Tensor]:
        """The trainable state that holds this finalist's weights."""
        found = stored_state(context, self.supernet_key)
        assert found is not None
        return found


@dataclass(frozen=True)
class Outcome:
    """The winner, everyone it was compared with (best first), and the known methods asked for as baselines."""

    winner: Finalist
    finalists: list[Finalist]
    baselines: list[Finalist]


def finals(context: RunContext, prepared: Prepared, ranked: Sequence[Evaluated], searched: Finalist) -> Outcome:
    """Train the finalists that are not stored yet, and choose by fitness on val.

    Args:
        ranked: the search's evaluated subnets, best first.
        searched: the search's winner as it is inside the supernet; it is exported where there are no finals.
    """
    known = methods_within(context.space, context.request.budget)
    count = context.request.finals.candidates
    entrants: dict[str, tuple[SubnetConfig, str | None]] = {}
    if count:
        entrants |= {f"search #{place}": (e.config, searched.supernet_key) for place, e in enumerate(ranked[:count], 1)}
        entrants |= {method: (config, None) for method, config in known.items()}
    compared = set(entrants)
    if context.request.baselines:
        entrants |= {method: (known[method], None) for method in BASELINES if method in known}
    trained = _train_all(context, prepared, entrants, searched)
    ranking = sorted((trained[name] for name in compared if name in trained), key=lambda f: f.fitness.order)
    return Outcome(
        winner=ranking[0] if ranking else searched,
        finalists=ranking,
        baselines=[trained[method] for method in BASELINES if context.request.baselines and method in trained],
    )


@dataclass(frozen=True)
class _Entrant:
    """A subnet to train alone, how, and the key under which its supernet is stored."""

    source: str
    config: SubnetConfig
    settings: TrainingSettings
    recipe: dict[str, Any]
    key: str


def _train_all(
    context: RunContext, prepared: Prepared, entrants: dict[str, tuple[SubnetConfig, str | None]], searched: Finalist
) -> dict[str, Finalist]:
    """Every entrant as a finalist, by source; those that are stored are not trained again, those that diverge are left out.

    Args:
        entrants: config, and key of the supernet to train on from, by source.
    """
    everyone = [_entrant(context, prepared, source, config, start) for source, (config, start) in entrants.items()]
    unscored = [entrant for entrant in everyone if _stored(context, entrant) is None]
    context.emit("finals", {"finalists": len(everyone), "missing": len(unscored)})
    untrained = {entrant.source: entrant for entrant in unscored if not _scored_as_trained(context, prepared, entrant)}
    if untrained:
        recipes = {source: entrant.settings for source, entrant in untrained.items()}
        for source, result in train_alone(prepared.workload, recipes, searched.state(context), context.request.training.use_gpu):
            if isinstance(result, Diverged):
                context.emit("finalist_diverged", {"source": source, "message": str(result)})
            else:
                _store(context, untrained[source], result)
    found = [(entrant, _stored(context, entrant)) for entrant in everyone]
    return {e.source: Finalist(e.source, fitness, e.key, e.settings) for e, fitness in found if fitness is not None}


def _entrant(context: RunContext, prepared: Prepared, source: str, config: SubnetConfig, start: str | None) -> _Entrant:
    settings = alone_settings(context, config, start)
    recipe = recipe_of(context, prepared.weights_hash, settings)
    return _Entrant(source, config, settings, recipe, key_of(recipe))


def _scored_as_trained(context: RunContext, prepared: Prepared, entrant: _Entrant) -> bool:
    """Score an entrant that a job with another metric has trained; False if none has."""
    state = stored_state(context, entrant.key)
    if state is None:
        return False
    val = score_split(prepared.workload, entrant.settings, state, entrant.config, None, context.request.training.use_gpu)
    with context.fenced() as (session, job):
        _store_score(context, session, job, entrant, val)
    return True


def _stored(context: RunContext, entrant: _Entrant) -> Evaluated | None:
    digest, metric = config_hash(entrant.config), context.request.search.metric
    with context.database.read() as session:
        row = search_state.known(session, entrant.key, "val", PROTOCOL, metric, [digest]).get(digest)
    return evaluated(row) if row else None


def _store(context: RunContext, entrant: _Entrant, result: Trained) -> None:
    artifact = store_state(context, result.state, entrant.key)
    with context.fenced() as (session, job):
        store_supernet(session, entrant.key, entrant.recipe, [epoch_event(row) for row in result.history], artifact)
        _store_score(context, session, job, entrant, result.val)


def _store_score(context: RunContext, session: Session, job: Job, entrant: _Entrant, val: Score) -> None:
    """The entrant's evaluation, and the event that reports it."""
    config, fitness, metric = entrant.config, fitness_of(val), context.request.search.metric
    parameters = context.space.parameters(config)
    row = evaluation_row(entrant.key, "val", PROTOCOL, metric, config_hash(config), encode(config), parameters, fitness)
    search_state.add_evaluations(session, [row])
    job.attempts = 0
    measured = {name: value for name, value in asdict(fitness).items() if name != "examples"}
    events.append(session, job.id, "finalist", {"source": entrant.source, "parameters": parameters} | measured)
