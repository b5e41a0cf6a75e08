"""Whether the parts of a request agree with each other, and with what is known of the cluster, the data and the backbone.

Nothing here reads a file; each refusal is a problem document that names the field and what would be accepted.
"""

from typing import Any

from glora_core.errors import BudgetInfeasible, ConfigInvalid
from glora_core.metrics import check_metric
from glora_core.space import LayerShape
from services.api.problems import Problem
from services.job_request import DataRequest, JobRequest, space_of
from services.settings import Settings
from services.store.models import Backbone

_ROUNDING = 1e-9
"""Ten tenths of a CPU are one."""


def check_resources(settings: Settings, request: JobRequest) -> None:
    """Raise Problem for what the cluster can never hold, where that is known; else the runner finds out. One evaluator must fit."""
    asked, training = request.resources, request.training
    for count, name, process in ((training.workers, "worker", asked.worker), (1, "evaluator", asked.evaluator)):
        cpus, gpus = process.amounts(training.use_gpu)
        for kind, each, have in (("CPU", cpus, settings.cluster_cpus), ("GPU", gpus, settings.cluster_gpus)):
            if have is None or count * each <= have + _ROUNDING:
                continue
            other_kind = have == 0 and (kind == "GPU") == training.use_gpu
            field = "training.use_gpu" if other_kind else f"resources.{name}.cpus" if each > have else "training.workers"
            cluster = {"cpus": settings.cluster_cpus, "gpus": settings.cluster_gpus}
            raise Problem(422, "resources-infeasible", _infeasible(count, name, kind, each, have), field=field, cluster=cluster)


def _infeasible(count: int, name: str, kind: str, each: float, have: int) -> str:
    """What is asked for, and what there is."""
    processes = ("training worker" if name == "worker" else name) + ("s" if count > 1 else "")
    with_each = f"one {kind}" if each == 1 else f"{each:g} {kind}{'s' if each > 1 else ''}"
    return (
        f"the job asks for {count} {processes} with {with_each} each, and the cluster has at most {have} {kind}{'' if have == 1 else 's'}"
    )


def check_parts_agree(request: JobRequest) -> None:
    """Raise Problem if one part of a request asks for what another rules out."""
    if request.train_on_val and request.finals.mode == "off":
        message = "without finals nothing is trained alone that could be trained again; accepted with `finals.mode` winner or thorough"
        raise Problem(422, "request-invalid", message, field="train_on_val")
    _check_kind(request)
    second = request.search.second
    if second is None:
        return
    if request.search.strategy != "nsga2":
        message = f"strategy {request.search.strategy!r} has one objective; accepted with a second one is nsga2"
        raise Problem(422, "request-invalid", message, field="search.second")
    if second not in request.data.also_test:
        known = ", ".join(request.data.also_test) or "none yet"
        raise Problem(
            422, "request-invalid", f"{second!r} is none of data.also_test; accepted is one of these: {known}", field="search.second"
        )


def check_second(request: JobRequest, facts: dict[str, Any]) -> None:
    """Raise Problem if the second objective's test set is too small for one part to select by and one to report on."""
    second = request.search.second
    if second is not None and not facts["also_test"][second].get("parts"):
        message = f"test set {second!r} cannot be split in two; accepted are two classes with two examples each that differ, or more"
        raise Problem(422, "data-invalid", message, field="search.second")


def _check_kind(request: JobRequest) -> None:
    """Raise Problem for settings of images in a job of texts, and of texts in one of images."""
    name = request.backbone.name
    if request.reads_texts and request.training.augment:
        message = f"backbone {name!r} reads texts, which are not changed in training; accepted is an empty list"
        raise Problem(422, "request-invalid", message, field="training.augment")
    if request.reads_texts:
        return
    for part in ("max_length", "columns"):
        if getattr(request.data, part) != DataRequest.model_fields[part].default:
            message = f"backbone {name!r} reads images, which have no {part}; a backbone named transformers:FOLDER reads texts"
            raise Problem(422, "request-invalid", message, field=f"data.{part}")


def check_searched_metric(request: JobRequest, classes: int) -> None:
    """Raise Problem if the metric searched for cannot be taken over so many classes."""
    try:
        check_metric(request.search.metric, classes)
    except ConfigInvalid as error:
        raise Problem(422, "request-invalid", str(error), field="search.metric") from error


def check_space(request: JobRequest, backbone: Backbone) -> None:
    """Raise Problem if the space cannot be made over the backbone's layers, or the budget not be met in it."""
    assert backbone.info is not None
    try:
        space = space_of(request, tuple(LayerShape(**layer) for layer in backbone.info["layers"]))
    except ConfigInvalid as error:
        raise Problem(422, "space-invalid", str(error), field="space") from error
    try:
        space.check_budget(request.budget)
    except BudgetInfeasible as error:
        achievable = {"minimum": error.minimum, "maximum": error.maximum}
        raise Problem(422, "budget-infeasible", str(error), field="budget", achievable=achievable) from error


def check_max_length(request: JobRequest, backbone: Backbone) -> None:
    """Raise Problem if texts are to be cut to more tokens than the backbone reads, or to none but those that its tokenizer adds."""
    assert backbone.info is not None
    asked, most, least = request.data.max_length, backbone.info.get("max_length"), backbone.info.get("added_tokens", 0) + 1
    if asked is not None and not least <= asked <= (most or asked):
        problem = (
            f"backbone {request.backbone.name!r} reads {least:,} to {most or 'any number of'} tokens, {least - 1} of which it adds itself"
        )
        raise Problem(422, "request-invalid", problem, field="data.max_length")


def check_drop_path(request: JobRequest, backbone: Backbone) -> None:
    """Raise Problem if the backbone has no residual branches that training could leave out."""
    assert backbone.info is not None
    if request.training.drop_path and not backbone.info.get("branches", 1):  # descriptions of old do not say
        problem = f"backbone {request.backbone.name!r} has no residual branches that can be left out; accepted is 0"
        raise Problem(422, "request-invalid", problem, field="training.drop_path")
