"""The application: routes, dashboard, authorisation and health checks in one ASGI app."""

from collections import Counter

from fastapi import FastAPI, Response
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from sqlalchemy import text
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import glora_core
from services.api import artifacts, auth, events, jobs, lifecycle, logs, pareto, problems, studies
from services.api.contract import document_problems
from services.api.deps import BlobsDep, DatabaseDep
from services.api.limits import RequestLimits
from services.api.models import Health
from services.dashboard import routes as dashboard
from services.settings import Settings, get_settings
from services.store.blobs import BlobStore
from services.store.database import Database

_DESCRIPTION = """
Adapt a pretrained backbone to a small labelled data set within a parameter budget, by one-shot search over GLoRA
configurations. Submit a job, follow its events, download a merged checkpoint that plain `timm` loads.

Accuracies are shares between 0 and 1, losses are mean cross-entropies in nats, sizes are bytes, durations are seconds,
parameters are trainable parameters without the classification head. Errors are RFC 9457 problem documents.
"""
_HEADERS = {name.lower().encode(): value.encode() for name, value in problems.HEADERS.items()}
_POLICY = b"default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
_DOCS_POLICY = b"default-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application over the settings' database and artifact store; migrates the database."""
    settings = settings or get_settings()
    app = FastAPIOffline(redoc_url=None, title="GLoRA search", version=glora_core.__version__, description=_DESCRIPTION)
    app.state.settings = settings
    app.state.tokens = settings.tokens
    app.state.database = Database(settings.resolved_database_url)
    app.state.database.migrate()
    app.state.blobs = BlobStore(settings.resolved_artifacts_url, settings.artifacts_endpoint)
    app.state.open_streams = Counter()
    problems.install(app)
    document_problems(app)
    for part in (jobs, lifecycle, events, logs, pareto, artifacts, studies, auth, dashboard):
        app.include_router(part.router)
    app.mount("/static", StaticFiles(directory=dashboard.static_folder), name="static")
    _add_health(app)
    if app.state.tokens:
        app.add_middleware(auth.TokenGuard, tokens=app.state.tokens)
    app.add_middleware(RequestLimits)
    app.add_middleware(SecurityHeaders)
    return app


class SecurityHeaders:
    """ASGI middleware that adds the headers every answer should carry, and a content policy for our own pages."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, adding headers to its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        policy = _DOCS_POLICY if scope["path"].startswith("/docs") else _POLICY

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = _HEADERS | {b"content-security-policy": policy}
                message["headers"] = [*message["headers"], *extra.items()]
            await send(message)

        await self._app(scope, receive, with_headers)


def _add_health(app: FastAPI) -> None:
    @app.get("/healthz", tags=["health"], summary="Is the process alive?")
    async def healthz() -> Health:  # needs no thread, of which slow requests may have taken all
        """Answers as long as the process serves requests."""
        return Health()

    @app.get("/readyz", tags=["health"], summary="Can it work?", responses={503: {"model": problems.ProblemDocument}})
    def readyz(database: DatabaseDep, blobs: BlobsDep, response: Response) -> Health:
        """Answers 200 if the database and the artifact store can be reached."""
        with database.read() as session:
            session.execute(text("SELECT 1"))
        try:
            blobs.check()
        except OSError as error:
            raise problems.Problem(503, "artifact-store-unavailable", "the artifact store is out of reach") from error
        return Health()
