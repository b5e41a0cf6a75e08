"""What no request may be: larger than a job request ever is, or addressed with a zero byte, which PostgreSQL refuses."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api.problems import Problem, problem_response

MAX_BODY = 1 << 20
"""Bytes of a request's body."""


class RequestLimits:
    """ASGI middleware that refuses such requests before anything reads them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 404 or 413."""
        problem = _refusal(scope) if scope["type"] == "http" else None
        if problem is not None:
            await problem_response(problem)(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_BODY:
                raise HTTPException(413, _too_large().detail)  # what else is raised amid a body, FastAPI takes for a broken one
            return message

        await self._app(scope, counted, send)


def _refusal(scope: Scope) -> Problem | None:
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        return Problem(404, "not-found", "an address with a zero byte names nothing here")
    length = dict(scope["headers"]).get(b"content-length", b"0")
    return _too_large() if length.isdigit() and int(length[:20]) > MAX_BODY else None


def _too_large() -> Problem:
    return Problem(413, "request-too-large", f"a request's body may have at most {MAX_BODY:,} bytes")
