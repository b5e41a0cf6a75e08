"""Who may call: users with a bearer token each, sent as a header by programs and as a cookie by browsers.

A browser gets its cookie from the login form, or from the link with `?token=…` that the server prints at start. The
cookie does not hold the token itself. It is `SameSite=Strict`, and since a browser counts other ports of a host as the
same site, a call that changes something must also come from our own origin.
"""

import hmac
from collections.abc import Mapping
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from services.api.problems import Problem, problem_response
from services.dashboard.routes import login_page

COOKIE = "glora_session"
_SAFE = ("GET", "HEAD", "OPTIONS")
_MAX_FORM = 4096
_OPEN = ("/healthz", "/readyz", "/login", "/static/")

router = APIRouter(include_in_schema=False)


class TokenGuard:
    """ASGI middleware that lets nothing through without a token, but health checks, the login form and static files.

    What it lets through knows its user as `request.state.user`.

    Args:
        tokens: by their users' names.
    """

    def __init__(self, app: ASGIApp, tokens: Mapping[str, str]) -> None:
        self._app, self._tokens = app, tokens
        self._cookies = {name: session_value(token) for name, token in tokens.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401, or turn a `?token=` link into a cookie."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        response = self._answer(request)
        await (self._app if response is None else response)(scope, receive, send)

    def _answer(self, request: Request) -> Response | None:
        path: str = request.scope["path"]
        linked = request.query_params.get("token", "")
        linked_user = holder(self._tokens, linked) if request.method == "GET" else None
        if linked_user is not None:
            clean = request.url.remove_query_params("token")
            there = "/" + clean.path.lstrip("/") + (f"?{clean.query}" if clean.query else "")  # relative: a proxy knows its own name
            signed_in = holder(self._cookies, request.cookies.get(COOKIE, ""))
            if signed_in not in (None, linked_user) and request.headers.get("sec-fetch-site") == "cross-site":
                return RedirectResponse(there, 303)  # another site's page does not make somebody someone else
            return with_cookie(request, RedirectResponse(there, 303), linked)
        user = holder(self._tokens, _bearer(request))
        if path.startswith(_OPEN) or user is not None:
            request.state.user = user
            return None
        request.state.user = holder(self._cookies, request.cookies.get(COOKIE, ""))
        if request.state.user is not None:
            return None if request.method in _SAFE or _own_origin(request) else problem_response(_foreign())
        if "text/html" in request.headers.get("accept", "") and not path.startswith("/v1"):
            return HTMLResponse(login_page(None), 401)
        detail = "send the token as `Authorization: Bearer …`; the server prints it at start"
        return problem_response(Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"}))


def holder(secrets: Mapping[str, str], presented: str) -> str | None:
    """The user whose secret was presented; None if it is nobody's. Takes as long for either."""
    equal = [name for name, secret in secrets.items() if hmac.compare_digest(presented.encode(), secret.encode())]
    return equal[0] if equal else None


def session_value(token: str) -> str:
    """What the cookie holds: it proves knowledge of the token and cannot be turned back into it."""
    return hmac.new(token.encode(), b"glora dashboard session", "sha256").hexdigest()


def with_cookie(request: Request, response: Response, token: str) -> Response:
    """The response, also setting the browser's cookie."""
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, session_value(token), httponly=True, samesite="strict", secure=secure, max_age=30 * 86_400)
    return response


@router.get("/login")
def login_form() -> Response:
    """The sign-in page."""
    return HTMLResponse(login_page(None))


@router.post("/login")
async def login(request: Request) -> Response:
    """Check the field `token` of the login form and set the cookie. Another site's page cannot sign anybody in."""
    if (request.headers.get("origin") or request.headers.get("sec-fetch-site")) and not _own_origin(request):
        return problem_response(_foreign())
    token = parse_qs((await _body(request)).decode(errors="replace")).get("token", [""])[0].strip()
    tokens = request.app.state.tokens
    if not tokens:
        return RedirectResponse("/", 303)
    if holder(tokens, token) is None:
        return HTMLResponse(login_page("This is not the token. The server prints it when it starts."), 401)
    return with_cookie(request, RedirectResponse("/", 303), token)


async def _body(request: Request) -> bytes:
    """The first few kilobytes of a request's body; nobody has shown a token yet."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM:
            break
    return body[:_MAX_FORM]


def _bearer(request: Request) -> str:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def _own_origin(request: Request) -> bool:
    """Whether a browser says that the request comes from a page of ours; without such a word it does not count as one."""
    origin, fetched = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    if fetched is not None:
        return fetched in ("same-origin", "none")
    return origin is not None and origin.partition("://")[2] == request.headers.get("host")


def _foreign() -> Problem:
    return Problem(
        403, "foreign-origin", "a browser may change something from the dashboard's own pages only; programs send the bearer token"
    )
