"""A finished job's result as the page shows it: winner, tables of what it was compared with, and its choices by layer.

Pure functions of stored JSON (`jobs.result`, `backbones.info`) and rows; nothing here reads the database.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glora_core.configs import TENSORS, decode
from glora_core.errors import ConfigInvalid
from glora_core.metrics import ACCURACY, OWN, UNMEASURED, own_value
from services.dashboard import wording
from services.store.models import Artifact, JobEvent


@dataclass(frozen=True, slots=True)
class AlsoTest:
    """A score on a further test set."""

    name: str
    accuracy: float
    examples: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of a table of compared subnets; `gain` is the winner's accuracy on val less this one's, `trained` how long it was alone.

    `val_metric` is None where the metric searched for is one of those that have a column anyway.
    """

    label: str
    trained: str
    parameters: int
    val_accuracy: float
    val_macro_accuracy: float | None
    val_metric: float | None
    val_loss: float | None
    test_accuracy: float | None
    is_winner: bool
    gain: float | None
    also_tests: tuple[AlsoTest, ...] = ()
    in_soup: bool = False


@dataclass(frozen=True, slots=True)
class Retrained:
    """What is exported in the winner's place, trained on `split`, so many examples in all, and its scores on test sets."""

    split: str
    examples: int
    test_accuracy: float | None
    also_tests: tuple[AlsoTest, ...]


@dataclass(frozen=True, slots=True)
class Winner:
    """What the job gives back, and how it was measured.

    `metric` is what was searched for, None if that is shown anyway, and `value` its value on val; `members` are the finalists that
    a soup is the average of.
    """

    label: str
    source: str
    hash: str
    val_accuracy: float
    val_macro_accuracy: float | None
    test_accuracy: float | None
    test_macro_accuracy: float | None
    metric: str | None
    val_metric: float | None
    test_metric: float | None
    test_examples: int | None
    also_tests: tuple[AlsoTest, ...]
    parameters: int
    merge_error: float | None
    members: tuple[Entry, ...]
    retrained: Retrained | None
    value: float | None


@dataclass(frozen=True, slots=True)
class Cell:
    """What one support tensor is in one layer: `code` such as `L4`, and its kind in words."""

    code: str
    kind: str


@dataclass(frozen=True, slots=True)
class LayerRow:
    """The winner's choices in one adapted layer, A to E; its parameters, where the layer's size is known."""

    name: str
    cells: tuple[Cell, ...]
    parameters: int | None


@dataclass(frozen=True, slots=True)
class File:
    """An artifact to download."""

    id: str
    name: str
    kind: str
    label: str
    size: int
    sha256: str


def winner(result: Mapping[str, Any]) -> Winner:
    """The winner of a result."""
    row, metric, again = result["winner"], _other_metric(result), result.get("retrained")
    return Winner(
        label=wording.finalist(row),
        source=row["source"],
        hash=row["hash"],
        val_accuracy=row["val_accuracy"],
        val_macro_accuracy=row.get("val_macro_accuracy"),
        test_accuracy=row.get("test_accuracy"),
        test_macro_accuracy=row.get("test_macro_accuracy"),
        metric=metric,
        val_metric=row.get("val_metric") if metric else None,
        test_metric=row.get("test_metric") if metric else None,
        test_examples=row.get("test_examples"),
        also_tests=_also_tests(row),
        parameters=row["parameters"],
        merge_error=result.get("merge_error"),
        members=tuple(_entry(member, result) for member in row.get("members", ())),
        retrained=Retrained(again["split"], again["examples"], again["test_accuracy"], _also_tests(again)) if again else None,
        value=row["val_accuracy"] if result.get("metric", ACCURACY) == ACCURACY else row.get("val_metric"),
    )


def finalists(result: Mapping[str, Any]) -> tuple[Entry, ...]:
    """The finalists of a result, best first; before them the soup of them that was better."""
    best = result["winner"]
    return tuple(_entry(row, result) for row in ([best] if best.get("members") else []) + result.get("finalists", []))


def baselines(result: Mapping[str, Any]) -> tuple[Entry, ...]:
    """The winner and then the baselines it is compared with; empty if none were asked for."""
    rows = result.get("baselines", [])
    best = result["winner"]
    return (_entry(best, result), *(_entry(row, result) for row in rows if not _is(row, best))) if rows else ()


def finalists_so_far(events: Iterable[JobEvent], metric: str) -> tuple[Entry, ...]:
    """The finalists that a running job has reported, best first."""
    rows = (event.data for event in events)
    ranked = sorted(rows, key=lambda data: (-data.get("fitness", data["accuracy"]), data["loss"], data["parameters"]))
    return tuple(_reported(data, metric) for data in ranked)


def winners_code(result: Mapping[str, Any]) -> str:
    """The winner's config as text; of a soup, that of its first member."""
    row = result["winner"]
    return str((row.get("members") or [row])[0]["config"])


def layer_rows(code: str, layers: Sequence[Mapping[str, Any]]) -> tuple[LayerRow, ...]:
    """A config's choices by layer, under the backbone's layer names; numbered if those do not fit. Empty if it cannot be read."""
    try:
        config = decode(code)
    except ConfigInvalid:
        return ()
    known: list[Mapping[str, Any] | None] = list(layers) if len(layers) == len(config) else [None] * len(config)
    return tuple(
        LayerRow(
            name=shape["name"] if shape else f"layer {number}",
            cells=tuple(Cell(layer[tensor].code, layer[tensor].kind) for tensor in TENSORS),
            parameters=layer.parameters(shape["in_features"], shape["out_features"]) if shape else None,
        )
        for number, (layer, shape) in enumerate(zip(config, known, strict=True))
    )


def files(rows: Iterable[Artifact]) -> tuple[File, ...]:
    """Artifacts to download, in the order given."""
    return tuple(File(row.id, row.name, row.kind, wording.artifact(row.kind), row.size, row.sha256) for row in rows)


def folder_name(name: str, job_id: str) -> str:
    """A name for the folder of the downloaded files that every shell and file system takes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or job_id


def _also_tests(row: Mapping[str, Any]) -> tuple[AlsoTest, ...]:
    return tuple(AlsoTest(name, found["accuracy"], found["examples"]) for name, found in row.get("also_test", {}).items())


def _other_metric(result: Mapping[str, Any]) -> str | None:
    """The metric searched for, unless it is one of those that are shown anyway."""
    metric = result.get("metric", ACCURACY)
    return None if metric in OWN else str(metric)


def _is(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two rows are of the same weights."""
    return (row["hash"], row["supernet"]) == (other["hash"], other["supernet"])


def _reported(data: Mapping[str, Any], metric: str) -> Entry:
    """A finalist from its event."""
    return Entry(
        label=wording.finalist(data),
        trained=wording.trained(data),
        parameters=data["parameters"],
        val_accuracy=data["accuracy"],
        val_macro_accuracy=data.get("macro_accuracy"),
        val_metric=own_value(metric, data["fitness"]) if metric not in OWN and data.get("fitness", UNMEASURED) != UNMEASURED else None,
        val_loss=data["loss"],
        test_accuracy=None,
        is_winner=False,
        gain=None,
    )


def _entry(row: Mapping[str, Any], result: Mapping[str, Any]) -> Entry:
    best = result["winner"]
    is_winner = _is(row, best)
    return Entry(
        label=wording.finalist(row),
        trained=wording.trained(row),
        parameters=row["parameters"],
        val_accuracy=row["val_accuracy"],
        val_macro_accuracy=row.get("val_macro_accuracy"),
        val_metric=row.get("val_metric") if _other_metric(result) else None,
        val_loss=row.get("val_loss"),
        test_accuracy=row.get("test_accuracy"),
        is_winner=is_winner,
        gain=None if is_winner else best["val_accuracy"] - row["val_accuracy"],
        also_tests=_also_tests(row),
        in_soup=any(_is(row, member) for member in best.get("members", ())),
    )
