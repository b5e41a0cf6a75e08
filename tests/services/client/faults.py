"""Faults between client and service: ASGI applications that stand in front of the real one and spoil its answers."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Cuts:
    """Breaks the connection of the first answers to some paths, each after so many pieces of its body.

    Args:
        ending: how the paths end whose answers are cut.
        after: pieces of the body that arrive before the cut, one number per answer; later answers are whole.
    """

    def __init__(self, app: ASGIApp, ending: str, after: list[int]) -> None:
        self._app, self._ending, self._after = app, ending, after
        self.queries: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; raise out of the answer where it is to be cut, which makes the server drop the connection."""
        if not scope["path"].endswith(self._ending):
            await self._app(scope, receive, send)
            return
        self.queries.append(scope["query_string"].decode())
        left = self._after.pop(0) if self._after else None

        async def cut(message: Message) -> None:
            nonlocal left
            if left is not None and message["type"] == "http.response.body":
                if left == 0:
                    raise ConnectionResetError("cut on purpose")
                left -= 1
            await send(message)

        await self._app(scope, receive, cut)


class Answers:
    """Answers every request alike, as some other server would."""

    def __init__(self, status: int, content: str, media_type: str) -> None:
        self._answer = status, content, media_type

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The one answer."""
        status, content, media_type = self._answer
        await Response(content, status, media_type=media_type)(scope, receive, send)


class Stingy:
    """Refuses the requests for events after the first few, so that a client that asks for ever is noticed."""

    def __init__(self, app: ASGIApp, allowed: int) -> None:
        self._app, self._left = app, allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on while requests are left."""
        if Request(scope).url.path.endswith("/events"):
            self._left -= 1
            if self._left < 0:
                await Response("asked too often", 429)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class Counting:
    """Counts the requests that it passes on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        self.asked += 1
        await self._app(scope, receive, send)
