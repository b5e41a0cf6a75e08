"""What the records say, in tables: of the recipes, and of the subnets. What is not done yet is left open."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.quality_parts.runs import Record, Records
from glora_core.configs import decode

from .recipes import RECIPES, Experiment
from .statistics import CLOSE, Scores, Tau, fidelity, tau
from .subnets import largest_budget, space_of

OPEN = "…"
_LEGEND = """Gaps: median of alone minus inside, in points. Tau: Kendall's, between the order of fitness inside (accuracy on `val`, ties by
loss) and accuracy on `test` alone, with the bootstrap's 95 % interval over subnets. Largest, LoRA, and the greedy soup of the five that are
best on `val`: inside, on `test`, in %."""


@dataclass(frozen=True)
class Grid:
    """Rows of text under a head."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """As Markdown."""
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def alone_scores(found: Experiment, records: Records) -> dict[str, Scores]:
    """Of the subnets that have been trained alone, without those that diverged."""
    done = {name: record for name, run in found.alone.items() if (record := records.get(run)) is not None}
    return {name: Scores(r.val, r.val_loss, r.test) for name, r in done.items() if not r.failed}


def recipes_table(found: Experiment, records: Records) -> Grid:
    """A row for every recipe."""
    alone = alone_scores(found, records)
    head = ["recipe", "passes a step", "gap, test", "gap, val", f"within {CLOSE:g} points", "tau", "largest", "LoRA", "soup"]
    rows = [[name, str(RECIPES[name].passes), *_told(records.get(run), alone)] for name, run in found.supernets.items()]
    return Grid(head, rows)


def subnets_table(found: Experiment, records: Records) -> Grid:
    """A row for every subnet: its size, accuracy alone, and accuracy on `test` inside each supernet."""
    alone, space = alone_scores(found, records), space_of(found.task)
    supernets = {name: records.get(run) for name, run in found.supernets.items()}
    rows = []
    for name, text in found.subnets.items():
        own = [_percent(alone[name].val), _percent(alone[name].test)] if name in alone else [OPEN, OPEN]
        inside = [_percent(r.detail["inside"][name]["test"]) if r and not r.failed else OPEN for r in supernets.values()]
        rows.append([name, f"{space.parameters(decode(text)):,}", *own, *inside])
    return Grid(["subnet", "parameters", "alone, val", "alone, test", *supernets], rows)


def markdown(experiments: Sequence[Experiment], records: Records, heading: str) -> str:
    """All of it, task by task."""
    parts = [heading]
    for found in experiments:
        rate, epochs = next((run.rate, run.epochs) for run in found.alone.values())
        size = f"{len(found.subnets)} subnets of up to {largest_budget(found.task):,} parameters"
        parts += [
            f"## {found.task.name}",
            f"{size}; rate {rate:g} and {epochs} epochs, alone and in every supernet. {_LEGEND}",
            recipes_table(found, records).markdown(),
            _compared(found, records),
            "Accuracy in %, alone and on `test` inside:",
            subnets_table(found, records).markdown(),
        ]
        runs = [*found.alone.items(), *found.supernets.items()]
        parts += [f"{name}: {r.failed}." for name, run in runs if (r := records.get(run)) and r.failed]
    return "\n\n".join(parts) + "\n"


def _compared(found: Experiment, records: Records) -> str:
    """What tau is to be compared with: predictors that need no supernet, and the noise of `val`."""
    alone, space = alone_scores(found, records), space_of(found.task)
    if len(alone) < 2:
        return f"{len(alone)} of {len(found.subnets)} subnets trained alone so far."
    sizes, test = [space.parameters(decode(found.subnets[name])) for name in alone], [s.test for s in alone.values()]
    by_size, by_val = tau(sizes, test), tau([s.val for s in alone.values()], test)
    return (
        f"Over {len(alone)} of {len(found.subnets)} subnets. To compare tau with: the number of parameters has {_tau(by_size)}, "
        f"accuracy on `val` alone {_tau(by_val)}."
    )


def _told(record: Record | None, alone: dict[str, Scores]) -> list[str]:
    """The cells of a recipe."""
    if record is not None and record.failed:
        return ["failed", *[""] * 6]
    if record is None or len(alone) < 2:
        return [OPEN] * 7
    inside = {name: Scores(**scores) for name, scores in record.detail["inside"].items()}
    came = fidelity(list(alone.values()), [inside[name] for name in alone])
    gaps = [f"{came.gap_test:+.1f}", f"{came.gap_val:+.1f}", f"{100 * came.close:.0f} %", _tau(came.tau)]
    soup = f"{_percent(record.test)} (of {len(record.detail['soup'])})"
    return [*gaps, _percent(record.detail["largest"]["test"]), _percent(inside["lora"].test), soup]


def _tau(found: Tau) -> str:
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
