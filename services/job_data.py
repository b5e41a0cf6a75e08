"""The data that a job asks for, read the same way at submission and by its runner. Loads neither torch nor ray."""

from collections.abc import Mapping
from typing import Any

from glora_core.data.few_shot import few_shot
from glora_core.data.folders import scan
from glora_core.data.labelled import ImageFolder
from glora_core.data.shifted import facts_of_test
from services.job_request import JobRequest


def read_data(request: JobRequest) -> ImageFolder:
    """The job's folder, cut to so many shots per class where the job asks for that. Raises DataInvalid."""
    data, shots = scan(request.data.path), request.data.shots
    return data if shots is None else few_shot(data, shots, request.seed)


def facts_of(data: ImageFolder, also_tests: Mapping[str, ImageFolder]) -> dict[str, Any]:
    """What is stored with a job of its data: the data set's facts, and those of its further test sets under `also_test`."""
    facts, also = data.facts(), {name: facts_of_test(name, test, data) for name, test in also_tests.items()}
    told = [warning for known in also.values() for warning in known.pop("warnings")]
    return facts | {"warnings": facts["warnings"] + told, "also_test": also}
