"""Phase `finals`: the best candidates and the known methods within the budget, each trained alone and compared on val.

Every leg of every trial is stored as soon as it is trained (`services.scheduler.legs`), so a resumed job trains none twice. The
winner is never worse on val than a known method that fits the budget. Known methods asked for as baselines are trained here too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from glora_core.finals import FinalsSettings, Trial, first_rung, from_scratch, play
from glora_core.methods import methods_within
from glora_core.search import Evaluated
from services.scheduler.context import RunContext
from services.scheduler.legs import Finalist, Rungs
from services.scheduler.prepare import Prepared

BASELINES = ("linear-probe", "bitfit", "lora")


@dataclass(frozen=True)
class Outcome:
    """The winner, everyone it was compared with (best first), and the known methods asked for as baselines."""

    winner: Finalist
    finalists: list[Finalist]
    baselines: list[Finalist]


def finals(context: RunContext, prepared: Prepared, ranked: Sequence[Evaluated], searched: Finalist) -> Outcome:
    """Train what is not stored yet, rung after rung, and choose by fitness on val.

    Args:
        ranked: the search's evaluated subnets, best first.
        searched: the search's winner as it is inside the supernet; it is exported where there are no finals.
    """
    settings = context.request.finals.settings(context.request.training)
    sliced, scratch = _entrants(context, ranked, settings)
    found = play(sliced, scratch, settings, Rungs(context, prepared, searched, settings).train)
    compared = found if settings.mode == "thorough" else [finalist for finalist in found if finalist.sliced]
    return Outcome(compared[0] if compared else searched, compared, _baselines(found) if context.request.baselines else [])


def _entrants(context: RunContext, ranked: Sequence[Evaluated], settings: FinalsSettings) -> tuple[list[Trial], list[Trial]]:
    """The trials of the first rung, and those from scratch, among which the baselines are."""
    known = methods_within(context.space, context.request.budget)
    within = {name: config for name, config in known.items() if context.space.contains(config)}
    scratch = from_scratch(known, settings)
    if context.request.baselines and not scratch:
        wanted = {name: config for name, config in known.items() if name in BASELINES}
        scratch = from_scratch(wanted, replace(settings, mode="thorough"))
    return first_rung(ranked, within, settings), scratch


def _baselines(found: Sequence[Finalist]) -> list[Finalist]:
    """The best trial from scratch of each baseline."""
    best = {finalist.source: finalist for finalist in reversed(found) if not finalist.sliced}
    return [best[method] for method in BASELINES if method in best]
