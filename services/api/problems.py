"""Errors as RFC 9457 problem documents: a stable type, what was wrong, which field, and what would be accepted."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError, TimeoutError
from starlette.exceptions import HTTPException

from services.store.blobs import BlobMissing, StoreUnavailable
from services.store.errors import NotFound, QuotaExceeded, WrongState

HEADERS = {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin"}
"""Headers that every answer carries."""

MEDIA_TYPE = "application/problem+json"
_MAX_ERRORS = 20


class FieldError(BaseModel):
    """One refused field of a request."""

    field: str = Field(description="Path of the field in the request, e.g. `search.population`.")
    message: str = Field(description="What was wrong with it, and what would be accepted.")


class ProblemDocument(BaseModel):
    """RFC 9457 problem document."""

    type: str = Field(description="Stable identifier of the kind of problem.", examples=["urn:glora:problem:budget-infeasible"])
    title: str = Field(description="The kind of problem, in words.")
    status: int = Field(description="HTTP status.")
    detail: str = Field(description="What was wrong this time.")
    errors: list[FieldError] = Field([], description="Refused fields, if the request was at fault.")


class Problem(Exception):
    """A refusal that is answered with a problem document.

    Args:
        status: HTTP status.
        kind: last part of the stable type, e.g. `budget-infeasible`.
        detail: what was wrong this time.
        field: path of the refused field, if it was one.
        headers: further headers of the answer.
        extra: further members of the document, such as an achievable range.
    """

    def __init__(
        self, status: int, kind: str, detail: str, *, field: str | None = None, headers: dict[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(detail)
        self.headers = headers
        self.status, self.kind, self.detail, self.field, self.extra = status, kind, detail, field, extra


def problem_response(problem: Problem) -> JSONResponse:
    """The HTTP answer for a problem."""
    errors = [] if problem.field is None else [FieldError(field=problem.field, message=problem.detail)]
    return _response(problem.status, problem.kind, problem.detail, errors, problem.extra, problem.headers)


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem document."""

    @app.exception_handler(Problem)
    def _problem(request: Request, error: Problem) -> JSONResponse:
        return problem_response(error)

    @app.exception_handler(RequestValidationError)
    def _validation(request: Request, error: RequestValidationError) -> JSONResponse:
        errors = [FieldError(field=_field(entry)[:200], message=_message(entry)[:500]) for entry in error.errors()[:_MAX_ERRORS]]
        detail = "; ".join(f"{e.field}: {e.message}" for e in errors)
        return _response(422, "request-invalid", detail, errors)

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> JSONResponse:
        kind = {404: "not-found", 405: "method-not-allowed", 413: "request-too-large"}.get(error.status_code, "http-error")
        return _response(error.status_code, kind, str(error.detail), headers=dict(error.headers or {}))

    @app.exception_handler(NotFound)
    def _not_found(request: Request, error: NotFound) -> JSONResponse:
        return _response(404, "not-found", str(error))

    @app.exception_handler(WrongState)
    def _wrong_state(request: Request, error: WrongState) -> JSONResponse:
        states = {"state": error.state, "accepted": list(error.accepted)} if error.accepted else {}
        return _response(409, "wrong-state", str(error), extra=states)

    @app.exception_handler(QuotaExceeded)
    def _quota(request: Request, error: QuotaExceeded) -> JSONResponse:
        extra = {"quota": error.quota, "limit": error.limit, "used": error.used}
        return _response(429, "quota-exceeded", f"you have {error}", extra=extra)

    @app.exception_handler(StoreUnavailable)
    def _store(request: Request, error: StoreUnavailable) -> JSONResponse:
        return _response(503, "artifact-store-unavailable", "the artifact store is out of reach; try again")

    @app.exception_handler(BlobMissing)
    def _blob_missing(request: Request, error: BlobMissing) -> JSONResponse:
        return _response(503, "artifact-unavailable", str(error))

    @app.exception_handler(Exception)
    def _unexpected(request: Request, error: Exception) -> JSONResponse:
        return _response(500, "internal-error", "an unexpected error; the log of the API says more", headers=dict(HEADERS))

    @app.exception_handler(TimeoutError)  # of the pool of connections
    @app.exception_handler(OperationalError)
    def _database(request: Request, error: OperationalError | TimeoutError) -> JSONResponse:
        return _response(503, "database-unavailable", "the database is out of reach; try again")


def _response(
    status: int,
    kind: str,
    detail: str,
    errors: list[FieldError] | None = None,
    extra: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    title = kind.replace("-", " ").capitalize()
    told = [FieldError(field=error.field, message=_unicode(error.message)) for error in errors or []]
    document = ProblemDocument(type=f"urn:glora:problem:{kind}", title=title, status=status, detail=_unicode(detail), errors=told)
    return JSONResponse(document.model_dump() | (extra or {}), status, headers, MEDIA_TYPE)


def _unicode(text: str) -> str:
    """Text that JSON can carry: bytes of a file's name that are no UTF-8 are written as escapes."""
    return text.encode(errors="backslashreplace").decode()


def _field(entry: dict[str, Any]) -> str:
    """Path of the refused field; the first part only says where in the request it stands."""
    where, *parts = entry["loc"]
    return str(where) if entry["type"] == "json_invalid" or not parts else ".".join(str(part) for part in parts)


def _message(entry: dict[str, Any]) -> str:
    if entry["type"] == "extra_forbidden":
        return "unknown field; see /docs for the fields that are accepted"
    text: str = entry["msg"]
    given = entry.get("input")
    shown = (
        f", got {given if not isinstance(given, str) else given[:80]!r}"
        if isinstance(given, str | int | float | bool) and entry["type"] != "value_error"
        else ""
    )
    return text.removeprefix("Value error, ") + shown
