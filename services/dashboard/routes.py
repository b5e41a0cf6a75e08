"""The dashboard's pages as routes: the list of jobs, a job, and the part of a job's page that follows its events.

Whoever includes `router` sets `app.state.database` and `app.state.settings`, serves `static_folder` at `/static`, and puts both behind its
authorisation (the static files stay open: the sign-in page needs them).
"""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.templating import Jinja2Templates

from glora_core.metrics import OWN, SIGNS
from services.dashboard import study_views, views, wording
from services.store.database import Database
from services.store.errors import NotFound
from services.store.queue import Quotas

static_folder = Path(__file__).parent / "static"
template_folder = Path(__file__).parent / "templates"

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

_FILTERS = (
    wording.percent,
    wording.points,
    wording.thousands,
    wording.decimals,
    wording.size,
    wording.duration,
    wording.iso,
    wording.utc,
    wording.value,
)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(template_folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {function.__name__: function for function in _FILTERS}
    return environment


templates = Jinja2Templates(env=_environment())


@router.get("/")
def job_list(request: Request, state: str | None = None, before: str | None = None) -> HTMLResponse:
    """The list of jobs, newest first."""
    with _database(request).read() as session:
        try:
            page = views.job_list(session, _quotas(request), state, before)
        except NotFound:
            return message_page(request, 404, "No such page", "The job that this page of the list starts after does not exist.")
    return _page(request, "jobs.html", {"page": page})


@router.get("/jobs/{job_id}")
def job_page(request: Request, job_id: str) -> HTMLResponse:
    """A job, with everything its charts start from."""
    with _database(request).read() as session:
        try:
            page = views.job_page(session, _quotas(request), job_id)
        except NotFound:
            return message_page(request, 404, "No such job", f"There is no job {job_id}. It may have been mistyped.")
    return _page(request, "job.html", {"page": page, "status": page.status, "data": _data(page)})


@router.get("/jobs/{job_id}/live")
def job_live(request: Request, job_id: str) -> HTMLResponse:
    """The changing part of a job's page alone; the page asks for it after an event."""
    with _database(request).read() as session:
        try:
            status = views.job_status(session, _quotas(request), job_id)
        except NotFound:
            return message_page(request, 404, "No such job", f"There is no job {job_id}.")
    return _page(request, "job_live.html", {"status": status})


@router.get("/studies")
def study_list(request: Request, before: str | None = None) -> HTMLResponse:
    """The list of studies, newest first."""
    with _database(request).read() as session:
        try:
            page = study_views.study_list(session, before)
        except NotFound:
            return message_page(request, 404, "No such page", "The study that this page of the list starts after does not exist.")
    return _page(request, "studies.html", {"page": page})


@router.get("/studies/{study_id}")
def study_page(request: Request, study_id: str) -> HTMLResponse:
    """A study, with all of its trials side by side."""
    with _database(request).read() as session:
        try:
            page = study_views.study_page(session, study_id)
        except NotFound:
            return message_page(request, 404, "No such study", f"There is no study {study_id}. It may have been mistyped.")
    return _page(request, "study.html", {"page": page})


def login_page(error: str | None = None) -> str:
    """The sign-in page as HTML, for a browser that has shown no valid token; `error` says what was wrong with the one it sent."""
    return templates.get_template("login.html").render(error=error, now=datetime.now(UTC))


def message_page(request: Request, status_code: int, title: str, message: str) -> HTMLResponse:
    """A page that says one thing, such as that something was not found."""
    return _page(request, "message.html", {"title": title, "message": message, "code": status_code}, status_code)


def _page(request: Request, name: str, context: dict[str, Any], status_code: int = 200) -> HTMLResponse:
    """A rendered page, never kept by a cache, since going back must not show a state that is over."""
    headers = {"Cache-Control": "no-store"}
    return templates.TemplateResponse(request, name, {"now": datetime.now(UTC)} | context, status_code, headers)


def _quotas(request: Request) -> Quotas:
    return Quotas.of(request.app.state.settings)


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


def _data(page: views.JobPage) -> dict[str, Any]:
    """What the page's script starts from, as plain JSON."""
    winner = page.winner
    return {
        "id": page.status.id,
        "state": page.status.state,
        "sequence": page.sequence,
        "budget": page.request.budget,
        "epochs": page.request.training.epochs,
        "generations": page.request.search.generations,
        "metric": page.request.search.metric,
        "second": page.request.search.second,
        "sign": SIGNS.get(page.request.search.metric, 1),
        "share": page.request.search.metric in OWN,
        "charts": asdict(page.charts),
        "winner": winner
        and {
            "source": winner.source,
            "label": winner.label,
            "members": len(winner.members),
            "parameters": winner.parameters,
            "value": winner.value,
        },
    }
