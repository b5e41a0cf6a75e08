"""Phase `finals`: the best candidates trained on alone, the known methods within the budget from scratch, all compared on val.

Every finalist is stored as soon as it is trained, so a resumed job trains none twice. The winner is never worse on val
than a known method trained alone. Compared with what is trained are the best candidates as they stand in the
supernet. Known methods asked for as trained baselines are trained here too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from glora_core.finals import Leg, Trial, as_they_stand, first_rung, from_scratch, play, rank_finalists
from glora_core.methods import methods_inside, methods_within
from glora_core.search import Evaluated
from glora_core.search.front import by_both
from glora_core.search.noise import rank_within_noise
from services.scheduler.baselines import BASELINES, inside, standing
from services.scheduler.context import RunContext
from services.scheduler.legs import Finalist, Rungs
from services.scheduler.prepare import Prepared
from services.scheduler.soups import Soup, soup_of
from services.scheduler.supernets import supernet_settings


@dataclass(frozen=True)
class Outcome:
    """The winner, everyone it was compared with (best first), the known methods asked for as baselines, and the soup that is better.

    What is exported is the winner, or the soup, or what is `retrained` of either on train and val together.
    """

    winner: Finalist
    finalists: list[Finalist]
    baselines: list[Finalist]
    soup: Soup | None = None
    retrained: Finalist | Soup | None = None


def finals(context: RunContext, prepared: Prepared, ranked: Sequence[Evaluated], supernet_key: str) -> Outcome:
    """Train the finalists that are not stored yet, and choose by fitness on val, within its noise.

    Args:
        ranked: the search's evaluated subnets, best first; the first as it is inside the supernet is exported where there are no finals.
            With a second objective, candidates are taken in the order of both; the finals themselves decide on val.
        supernet_key: of the job's supernet.
    """
    examples = len(prepared.local.val)
    two = prepared.local.second is not None
    ordered = by_both(ranked) if two else rank_within_noise(ranked, examples)
    searched = Finalist("search", ordered[0] if two else ranked[0], supernet_key, supernet_settings(context))
    settings = context.request.played_finals
    compared, baselines = scratch_trials(context)
    sliced = first_rung(ordered, settings, methods_inside(context.space, context.request.budget))
    found = play(sliced, compared or baselines, settings, Rungs(context, prepared, searched, settings).train)
    found += _standing(context, prepared, searched, as_they_stand(ordered, settings))
    ranking = rank_finalists([finalist for finalist in found if finalist.sliced or compared], examples)
    told = inside(context, prepared, searched) if context.request.baselines else []
    told += _baselines(found) if context.request.baselines == "trained" else []
    return Outcome(ranking[0] if ranking else searched, ranking, told, soup_of(context, prepared, ranking))


def scratch_trials(context: RunContext) -> tuple[list[Trial], list[Trial]]:
    """Trials from scratch: those of the finals, and those of trained baselines where these are asked for, which are among them if any."""
    known, asked = methods_within(context.space, context.request.budget), context.request.finals.settings(context.request.training)
    wanted = {name: config for name, config in known.items() if name in BASELINES and context.request.baselines == "trained"}
    return from_scratch(known, asked), from_scratch(wanted, replace(asked, mode="thorough", scratch_epochs=(1,)))


def _standing(context: RunContext, prepared: Prepared, searched: Finalist, legs: Sequence[Leg]) -> list[Finalist]:
    """The best candidates as they stand in the supernet."""
    found = standing(context, prepared, searched, {leg.trial.source: leg.trial.config for leg in legs})
    return [replace(finalist, leg=leg) for finalist, leg in zip(found, legs, strict=True)]


def _baselines(found: Sequence[Finalist]) -> list[Finalist]:
    """The best trial from scratch of each baseline."""
    best = {finalist.source: finalist for finalist in reversed(found) if not finalist.sliced}
    return [best[method] for method in BASELINES if method in best]
