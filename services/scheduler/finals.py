"""Phase `finals`: the best candidates and the known methods within the budget, each trained alone and compared on val.

Every finalist is stored as soon as it is trained, so a resumed job trains none twice. The winner is never worse on val
than a known method that fits the budget. Known methods asked for as baselines are trained here too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from glora_core.configs import SubnetConfig, config_hash, encode
from glora_core.errors import Diverged
from glora_core.methods import methods_within
from glora_core.search import Evaluated
from glora_core.training import TrainingSettings
from services.cluster.alone import Trained, train_alone
from services.protocol import PROTOCOL
from services.scheduler.context import RunContext
from services.scheduler.prepare import Prepared
from services.scheduler.supernets import alone_settings, epoch_event, key_of, recipe_of, store_state, store_supernet, stored_state
from services.store import events, search_state
from services.store.search_state import Fitness, evaluation_row

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


def _train_all(
    context: RunContext, prepared: Prepared, entrants: dict[str, tuple[SubnetConfig, str | None]], searched: Finalist
) -> dict[str, Finalist]:
    """Every entrant as a finalist, by source; those that are stored are not trained again, those that diverge are left out.

    Args:
        entrants: config, and key of the supernet to train on from, by source.
    """
    configs = {source: config for source, (config, _) in entrants.items()}
    settings = {source: alone_settings(context, config, start) for source, (config, start) in entrants.items()}
    recipes = {source: recipe_of(context, prepared.weights_hash, chosen) for source, chosen in settings.items()}
    keys = {source: key_of(recipe) for source, recipe in recipes.items()}
    missing = {source: settings[source] for source in entrants if _stored(context, keys[source], configs[source]) is None}
    context.emit("finals", {"finalists": len(entrants), "missing": len(missing)})
    if missing:
        start = searched.state(context)
        for source, result in train_alone(prepared.workload, missing, start, context.request.training.use_gpu):
            if isinstance(result, Diverged):
                context.emit("finalist_diverged", {"source": source, "message": str(result)})
            else:
                _store(context, source, configs[source], keys[source], recipes[source], result)
    found = {source: _stored(context, keys[source], config) for source, config in configs.items()}
    return {source: Finalist(source, fitness, keys[source], settings[source]) for source, fitness in found.items() if fitness is not None}


def _stored(context: RunContext, key: str, config: SubnetConfig) -> Evaluated | None:
    digest = config_hash(config)
    with context.database.read() as session:
        row = search_state.known(session, key, "val", PROTOCOL, [digest]).get(digest)
    return Evaluated(config, row.accuracy, row.loss, row.parameters) if row else None


def _store(context: RunContext, source: str, config: SubnetConfig, key: str, recipe: dict[str, object], result: Trained) -> None:
    artifact = store_state(context, result.state, key)
    fitness = Fitness(result.val.accuracy, result.val.loss, result.val.examples)
    parameters = context.space.parameters(config)
    with context.fenced() as (session, job):
        store_supernet(session, key, recipe, [epoch_event(row) for row in result.history], artifact)
        row = evaluation_row(key, "val", PROTOCOL, config_hash(config), encode(config), parameters, fitness)
        search_state.add_evaluations(session, [row])
        job.attempts = 0
        data = {"source": source, "accuracy": fitness.accuracy, "loss": fitness.loss, "parameters": parameters}
        events.append(session, job.id, "finalist", data)
