"""The data set that a job asks for, read the same way at submission and by its runner. Loads neither torch nor ray."""

from glora_core.data.few_shot import few_shot
from glora_core.data.folders import scan
from glora_core.data.labelled import ImageFolder
from services.job_request import JobRequest


def read_data(request: JobRequest) -> ImageFolder:
    """The job's folder, cut to so many shots per class where the job asks for that. Raises DataInvalid."""
    data, shots = scan(request.data.path), request.data.shots
    return data if shots is None else few_shot(data, shots, request.seed)
