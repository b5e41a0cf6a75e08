"""Checking a submission before anything of it is stored: data, backbone, space and budget.

All refusals that can be known without training happen here, each as a problem document that names the field.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from glora_core.data.inside import check_inside
from glora_core.data.labelled import AnyData
from glora_core.errors import BudgetInfeasible, ConfigInvalid, DataInvalid, LibraryMissing
from glora_core.metrics import check_metric
from glora_core.space import LayerShape
from services.api.admission import admitted
from services.api.problems import Problem
from services.api.sending import Sending
from services.backbone_files import STAMPED, check_backbone, folder_of, with_folder
from services.job_data import drawn, facts_of, read_all, read_test
from services.job_request import BackboneRequest, DataRequest, JobRequest, space_of
from services.settings import Settings
from services.store import backbones, jobs, lineage, queue
from services.store.database import Database
from services.store.models import Backbone, Job
from services.store.queue import Quotas

_POLL_SECONDS = 0.1
_ROUNDING = 1e-9
"""Ten tenths of a CPU are one."""


@dataclass(frozen=True, slots=True)
class Cloned:
    """The job that a request was made from, and the text of what was asked for."""

    parent: str
    text: str


def submit(
    database: Database, settings: Settings, request: JobRequest, user: str, key: str | None = None, cloned: Cloned | None = None
) -> tuple[Job, bool]:
    """Check a request and store it as a queued job of a user; returns it, and whether it is new.

    Args:
        key: idempotency key; a request that the user has sent with it before is not stored again.
        cloned: where the request comes from, if it is not the user's own.

    Raises:
        Problem: the cluster, data, metric, backbone, space or budget cannot be used, the key stands for another request, or too many
            submissions are being checked; nothing was stored of the job.
        QuotaExceeded: the user has as much as a user may.
    """
    sending = Sending(database, settings, user, cloned.text if cloned else request.model_dump_json(), key)
    made = sending.made_before()
    if made is not None:
        return made, False
    check_quotas(database, settings, user)
    with admitted(user):
        checked = check(database, settings, request, Inputs())

    def create(session: Session) -> Job:
        queue.check_quotas(session, user, Quotas.of(settings))
        job = jobs.create(session, name=checked.name, user=user, **checked.facts())
        if cloned is not None:
            lineage.tie(session, job, cloned.parent, "clone")
        return job

    return sending.make(create)


def check_quotas(database: Database, settings: Settings, user: str) -> None:
    """Raise QuotaExceeded before anything is read, if the user may submit nothing; asked again where the job is made."""
    with database.read() as session:
        queue.check_quotas(session, user, Quotas.of(settings))


@dataclass(frozen=True, slots=True)
class Checked:
    """A request that can be run: its paths resolved, with what was found of backbone and data."""

    request: JobRequest
    name: str
    backbone: Backbone
    data: dict[str, Any]

    def facts(self) -> dict[str, Any]:
        """What is stored of it, as `jobs.create` takes it."""
        return {"request": self.request.model_dump(mode="json"), "backbone_key": self.backbone.key, "data": self.data}


@dataclass
class Inputs:
    """Data sets and backbones that were looked at already, by what asks for them; a sweep asks for the same ones many times."""

    data: dict[str, tuple[DataRequest, AnyData, dict[str, AnyData]]] = field(default_factory=dict)
    drawn: dict[str, AnyData] = field(default_factory=dict)
    backbones: dict[str, tuple[BackboneRequest, Backbone]] = field(default_factory=dict)


def check(database: Database, settings: Settings, request: JobRequest, inputs: Inputs) -> Checked:
    """Check all of a request that can be checked without training. Raises Problem; stores nothing but a backbone's description."""
    _check_resources(settings, request)
    check_parts_agree(request)
    asked = f"{request.data.model_dump_json(exclude={'shots'})} {request.reads_texts}"
    if asked not in inputs.data:
        inputs.data[asked] = _data_of(settings, request)
    resolved, whole, also = inputs.data[asked]
    shots = f"{asked} {request.data.shots} {None if request.data.shots is None else request.seed}"
    if shots not in inputs.drawn:
        inputs.drawn[shots] = _read("data.shots", partial(drawn, request, whole))
    resolved, data = resolved.model_copy(update={"shots": request.data.shots}), inputs.drawn[shots]
    check_searched_metric(request, len(data.classes))
    named = request.backbone.model_dump_json()
    if named not in inputs.backbones:
        files = _check_backbone_files(settings, request)
        inputs.backbones[named] = files, _describe(database, settings, request.model_copy(update={"backbone": files}))
    files, backbone = inputs.backbones[named]
    request = request.model_copy(update={"data": resolved, "backbone": files})
    check_space(request, backbone)
    _check_drop_path(request, backbone)
    _check_max_length(request, backbone)
    with _readable("data.path"):
        facts = facts_of(data, also)
    check_second(request, facts)
    return Checked(request, (request.name or data.root.name)[:120], backbone, facts)


def _data_of(settings: Settings, request: JobRequest) -> tuple[DataRequest, AnyData, dict[str, AnyData]]:
    """A request's data with its paths resolved, its images, and those of its further test sets."""
    request = request.model_copy(update={"data": _check_data_paths(settings, request.data)})
    data = _read("data.path", partial(read_all, request, settings.data_roots))
    also = {
        name: _read(f"data.also_test.{name}", partial(read_test, request, path, data, settings.data_roots))
        for name, path in request.data.also_test.items()
    }
    return request.data, data, also


def _check_resources(settings: Settings, request: JobRequest) -> None:
    """Refuse what the cluster can never hold, where it is known what that is; else the runner finds out. A single evaluator must fit."""
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


def _check_data_paths(settings: Settings, asked: DataRequest) -> DataRequest:
    """The data's folders with their paths resolved, all bound to the data roots."""
    also = {name: str(_inside_roots(settings, path, f"data.also_test.{name}")) for name, path in asked.also_test.items()}
    return asked.model_copy(update={"path": str(_inside_roots(settings, asked.path, "data.path")), "also_test": also})


def _read(field: str, read: Callable[[], AnyData]) -> AnyData:
    """A data set as read. Raises Problem with the field if it cannot be."""
    with _readable(field):
        return read()


@contextmanager
def _readable(field: str) -> Iterator[None]:
    """Turns what reading data can fail with into a Problem."""
    try:
        yield
    except (DataInvalid, LibraryMissing) as error:
        raise Problem(422, "data-invalid", str(error), field=field) from error
    except OSError as error:
        message = f"{error.filename!r} cannot be read by the service: {error.strerror or type(error).__name__}"
        raise Problem(422, "data-invalid", message, field=field) from error
    except UnicodeError as error:
        raise Problem(422, "data-invalid", "a file or folder has a name that is not UTF-8; rename it", field=field) from error


def check_searched_metric(request: JobRequest, classes: int) -> None:
    """Raise Problem if the metric searched for cannot be taken over so many classes."""
    try:
        check_metric(request.search.metric, classes)
    except ConfigInvalid as error:
        raise Problem(422, "request-invalid", str(error), field="search.metric") from error


def _check_backbone_files(settings: Settings, request: JobRequest) -> BackboneRequest:
    """The backbone with its paths resolved: weights and local folders are files, bound to the data roots like data."""
    backbone = request.backbone
    folder = folder_of(backbone.name)
    if folder is not None:
        path = _inside_roots(settings, folder, "backbone.name")
        backbone = backbone.model_copy(update={"name": with_folder(backbone.name, path)})
        with _readable("backbone.name"):
            check_backbone(backbone.name, None, settings.data_roots)
    if backbone.weights is not None:
        path = _inside_roots(settings, backbone.weights, "backbone.weights")
        backbone = backbone.model_copy(update={"weights": str(path)})
        with _readable("backbone.weights"):
            check_inside(path, settings.data_roots)
    return backbone


def _stamp(backbone: BackboneRequest) -> str:
    """What tells that a local backbone is not the one described before: the hash of its config files."""
    folder = folder_of(backbone.name)
    if folder is None:
        return ""
    try:
        files = (Path(folder) / name for name in STAMPED)
        return hashlib.sha256(b"".join(file.read_bytes() for file in files if file.is_file())).hexdigest()
    except OSError:
        return ""


def _inside_roots(settings: Settings, path: str, field: str) -> Path:
    """The path, links followed. Raises Problem if it lies outside the data roots, or is no path."""
    try:
        expanded = Path(path).expanduser()
        found = expanded.resolve()
        found.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise Problem(422, "data-invalid", f"{path[:80]!r} is not a path that can be read: {error}", field=field) from error
    if not expanded.is_absolute():
        raise Problem(
            422, "data-invalid", f"{path[:200]!r} is relative, and the service has another working folder; give it whole", field=field
        )
    roots = [root.resolve() for root in settings.data_roots]
    if roots and not any(found.is_relative_to(root) for root in roots):
        accepted = ", ".join(str(root) for root in roots)
        raise Problem(422, "data-invalid", f"{path[:200]!r} does not lie below {accepted}", field=field)
    return found


def _describe(database: Database, settings: Settings, request: JobRequest) -> Backbone:
    """The backbone's description; a first-seen backbone is described by a scheduler, which takes a few seconds."""
    spec: dict[str, Any] = request.backbone.model_dump()
    with database.write() as session:
        row = backbones.request(session, spec, _stamp(request.backbone))
    deadline = time.monotonic() + settings.describe_seconds
    while row.state not in ("ready", "failed"):
        if time.monotonic() > deadline:
            raise Problem(503, "no-scheduler", "no scheduler has described the backbone in time; is one running?")
        time.sleep(_POLL_SECONDS)
        with database.read() as session:
            row = session.get_one(Backbone, row.key)
    if row.state == "failed":
        raise Problem(422, "backbone-unknown", row.error or "the backbone cannot be described", field="backbone.name")
    return row


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


def _check_max_length(request: JobRequest, backbone: Backbone) -> None:
    """Raise Problem if texts are to be cut to more tokens than the backbone reads, or to none but those that its tokenizer adds."""
    assert backbone.info is not None
    asked, most, least = request.data.max_length, backbone.info.get("max_length"), backbone.info.get("added_tokens", 0) + 1
    if asked is not None and not least <= asked <= (most or asked):
        problem = (
            f"backbone {request.backbone.name!r} reads {least:,} to {most or 'any number of'} tokens, {least - 1} of which it adds itself"
        )
        raise Problem(422, "request-invalid", problem, field="data.max_length")


def _check_drop_path(request: JobRequest, backbone: Backbone) -> None:
    assert backbone.info is not None
    if request.training.drop_path and not backbone.info.get("branches", 1):  # descriptions of old do not say
        problem = f"backbone {request.backbone.name!r} has no residual branches that can be left out; accepted is 0"
        raise Problem(422, "request-invalid", problem, field="training.drop_path")
