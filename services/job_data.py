"""The data that a job asks for, read the same way at submission and by its runner. Loads neither torch nor ray."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glora_core.data.few_shot import few_shot
from glora_core.data.folders import scan
from glora_core.data.inside import check_inside
from glora_core.data.labelled import AnyData, ImageFolder
from glora_core.data.shifted import facts_of_test, scan_test
from glora_core.data.tables import TextTable, read_table, read_test_table
from services.job_request import JobRequest


def read_data(request: JobRequest, roots: Sequence[Path]) -> AnyData:
    """The job's images or texts, whichever its backbone reads, cut to so many shots per class where it asks for that.

    Args:
        roots: folders below which all that is read must lie, wherever links lead; anywhere, if there are none.

    Raises:
        DataInvalid, LibraryMissing: see `check_inside`, `scan` and `read_table`.
    """
    return drawn(request, read_all(request, roots))


def read_all(request: JobRequest, roots: Sequence[Path]) -> AnyData:
    """All of the job's data, however few shots it asks for. Raises as `read_data`."""
    asked = request.data
    check_inside(asked.path, roots)
    return read_table(asked.path, asked.columns.columns()) if request.reads_texts else scan(asked.path)


def drawn(request: JobRequest, data: AnyData) -> AnyData:
    """The shots of the job's data that its seed draws; all of it where it asks for none. Raises DataInvalid."""
    return data if request.data.shots is None else few_shot(data, request.data.shots, request.seed)


def read_test(request: JobRequest, path: str, data: AnyData, roots: Sequence[Path]) -> AnyData:
    """A further test set over the classes of the job's data. Raises as `read_data`."""
    check_inside(path, roots)
    if isinstance(data, TextTable):
        return read_test_table(path, data, request.data.columns.columns())
    assert isinstance(data, ImageFolder)
    return scan_test(path, data)


def facts_of(data: AnyData, also_tests: Mapping[str, AnyData]) -> dict[str, Any]:
    """What is stored with a job of its data: the data set's facts, and those of its further test sets under `also_test`."""
    facts, also = data.facts(), {name: facts_of_test(name, test, data) for name, test in also_tests.items()}
    told = [warning for known in also.values() for warning in known.pop("warnings")]
    return facts | {"warnings": facts["warnings"] + told, "also_test": also}


def advised(request: JobRequest, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A job's stored facts, with a warning where val is no smaller than train and the job does not train on it.

    It is the job's, not the data's: a fork over the same data may ask otherwise. Jobs of before may have no sizes.
    """
    train, val = (facts.get("splits", {}).get(split, 0) for split in ("train", "val"))
    if val < max(train, 1) or request.train_on_val or request.finals.mode == "off":
        return dict(facts)
    advice = f"val has {val:,} examples and train {train:,}: `train_on_val` trains what has won once more, on both"
    return {**facts, "warnings": [*facts.get("warnings", []), advice]}
