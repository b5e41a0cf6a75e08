"""Checking a submission before anything of it is stored: data, backbone, space and budget.

All refusals that can be known without training happen here, each as a problem document that names the field.
"""

import time
from pathlib import Path
from typing import Any

from glora_core.data.folders import ImageFolder, scan
from glora_core.errors import BudgetInfeasible, ConfigInvalid, DataInvalid
from glora_core.space import LayerShape
from services.api.problems import Problem
from services.job_request import JobRequest, space_of
from services.settings import Settings
from services.store import backbones, jobs
from services.store.database import Database
from services.store.models import Backbone, Job

_POLL_SECONDS = 0.1


def submit(database: Database, settings: Settings, request: JobRequest) -> Job:
    """Check a request and store it as a queued job.

    Raises:
        Problem: the data, backbone, space or budget cannot be used; nothing was stored of the job.
    """
    data = _check_data(settings, request)
    backbone = _describe(database, settings, request)
    _check_space(request, backbone)
    facts = {
        "fingerprint": data.fingerprint,
        "classes": list(data.classes),
        "splits": {split: len(examples) for split, examples in data.splits.items()},
    }
    stored = request.model_dump(mode="json")
    stored["data"]["path"] = str(data.root)
    with database.write() as session:
        return jobs.create(session, name=request.name or data.root.name, request=stored, backbone_key=backbone.key, data=facts)


def _check_data(settings: Settings, request: JobRequest) -> ImageFolder:
    path = Path(request.data.path).expanduser().resolve()
    roots = [root.resolve() for root in settings.data_roots]
    if roots and not any(path.is_relative_to(root) for root in roots):
        accepted = ", ".join(str(root) for root in roots)
        raise Problem(422, "data-invalid", f"data must lie below {accepted}", field="data.path")
    try:
        return scan(path)
    except DataInvalid as error:
        raise Problem(422, "data-invalid", str(error), field="data.path") from error


def _describe(database: Database, settings: Settings, request: JobRequest) -> Backbone:
    """The backbone's description; a first-seen backbone is described by a scheduler, which takes a few seconds."""
    spec: dict[str, Any] = request.backbone.model_dump()
    with database.write() as session:
        row = backbones.request(session, spec)
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


def _check_space(request: JobRequest, backbone: Backbone) -> None:
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
