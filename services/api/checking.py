"""Checking a submission before anything of it is stored: its data and backbone are looked at, and all parts compared.

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

from glora_core.data.inside import check_inside
from glora_core.data.labelled import AnyData
from glora_core.errors import DataInvalid, LibraryMissing
from services.api.agreement import (
    check_drop_path,
    check_max_length,
    check_parts_agree,
    check_resources,
    check_searched_metric,
    check_second,
    check_space,
)
from services.api.problems import Problem
from services.backbone_files import STAMPED, check_backbone, folder_of, with_folder
from services.job_data import drawn, facts_of, read_all, read_test
from services.job_request import BackboneRequest, DataRequest, JobRequest
from services.settings import Settings
from services.store import backbones
from services.store.database import Database
from services.store.models import Backbone

_POLL_SECONDS = 0.1


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
    check_resources(settings, request)
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
    check_drop_path(request, backbone)
    check_max_length(request, backbone)
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
