"""The study's record as a table and a plot. Nothing here evaluates; matplotlib is loaded on use."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glora_core.configs import TENSORS

_HEAD = ["population", "mutation rate", "generations", "evaluations", "best val, %", "its loss, nats", "choices tried, %"]
_HEAD += ["layer configs tried, %", "choices alive, %"]
_LEGEND = """Mean ± standard deviation over {seeds} seeds of the best subnet so far on `val`. A search of fewer generations is the
beginning of the same search of more. *Tried*: choices that a candidate has had at least once, by layer and support tensor in the mean;
and configs of a layer. *Alive*: effective number of choices (the exponential of their entropy) in the last generation, as a share of all
choices of a tensor, in the mean likewise."""


def markdown(record: dict[str, Any], picture: str) -> str:
    """The whole page: what was done, the table, and the plot."""
    asked, facts = record["asked"], ", ".join(f"{name} {value}" for name, value in record["facts"].items())
    told = f"`{asked['strategy']}`, budget {asked['budget']:,}, a supernet of {asked['epochs']} epochs on digits 5–9; {facts}."
    lines = [_HEAD, ["---"] * len(_HEAD), *rows(record)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    alt = "best accuracy by evaluations for each population and mutation rate, and choices alive by layer and tensor"
    intro = (
        "Made by the command from its record in `benchmarks/results/population_study.json`; [what it says](benchmarks.md#population-study)."
    )
    parts = ["# Population size, mutation rate, generations", f"`{record['command']}`", intro, told]
    return "\n\n".join([*parts, _LEGEND.format(seeds=asked["seeds"]), table, f"![{alt}]({picture})"]) + "\n"


def rows(record: dict[str, Any]) -> list[list[str]]:
    """A row for every setting and number of generations."""
    return [_row(setting, look) for setting in record["rows"] for look in range(len(setting["searches"][0]))]


def _row(setting: dict[str, Any], look: int) -> list[str]:
    searches = [search[look] for search in setting["searches"]]

    def percent(name: str) -> str:
        return f"{100 * statistics.mean(search[name] for search in searches):.0f}"

    return [
        str(setting["population"]),
        f"{setting['rate']:g}",
        str(searches[0]["generations"]),
        f"{statistics.mean(search['evaluations'] for search in searches):.0f}",
        _spread([100 * search["accuracy"] for search in searches], 2),
        _spread([search["loss"] for search in searches], 3),
        *(percent(name) for name in ("tried", "configs", "alive")),
    ]


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values) if len(values) > 1 else 0.0:.{digits}f}"


def plot(record: dict[str, Any], file: Path) -> None:
    """Draw the best accuracy by evaluations, a panel for every rate, and below it what is alive in the middle setting of each rate."""
    from matplotlib.figure import Figure

    rates = sorted({row["rate"] for row in record["rows"]})
    populations = sorted({row["population"] for row in record["rows"]})
    figure = Figure(figsize=(4.2 * len(rates), 8), layout="constrained")
    axes = figure.subplots(2, len(rates), squeeze=False, height_ratios=(1, 1.4))
    for column, rate in enumerate(rates):
        _curves(axes[0, column], [row for row in record["rows"] if row["rate"] == rate], rate)
        middle = populations[len(populations) // 2]
        (shown,) = [row for row in record["rows"] if row["rate"] == rate and row["population"] == middle]
        drawn = _heat(
            axes[1, column], shown["alive"], record["layers"] if not column else [], f"choices alive at the end, population {middle}"
        )
    lowest, highest = (pick(axis.get_ylim()[end] for axis in axes[0]) for pick, end in ((min, 0), (max, 1)))
    for axis in axes[0]:
        axis.set_ylim(lowest, highest)
    figure.colorbar(drawn, ax=axes[1, :].tolist(), label="effective share of choices")
    figure.savefig(file, dpi=110)


def _curves(axis: Any, settings: Sequence[dict[str, Any]], rate: float) -> None:
    """Best accuracy so far by candidates proposed, in the mean over seeds, a line for each population."""
    for setting in settings:
        means = [100 * statistics.mean(generation) for generation in zip(*setting["best"], strict=True)]
        proposed = [setting["population"] * (number + 1) for number in range(len(means))]
        axis.plot(proposed, means, marker=".", label=f"population {setting['population']}")
    axis.set(title=f"mutation rate {rate:g}", xlabel="candidates proposed", ylabel="best val accuracy, %")
    axis.legend(fontsize="small")
    axis.grid(alpha=0.3)


def _heat(axis: Any, alive: Sequence[Sequence[float]], layers: Sequence[str], title: str) -> Any:
    """What is alive by layer and tensor."""
    drawn = axis.imshow(alive, aspect="auto", vmin=0.25, vmax=1.0, cmap="viridis")
    axis.set_title(title, fontsize="medium")
    axis.set_xticks(range(len(TENSORS)), TENSORS)
    axis.set_yticks(range(len(layers)), layers, fontsize=6)
    return drawn
