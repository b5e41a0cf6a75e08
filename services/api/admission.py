"""How many submissions one API process checks at once: each keeps a thread while it reads data or waits for a backbone's description.

Without a bound, slow submissions of one user would take all threads there are, and nobody would get an answer.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from services.api.problems import Problem

AT_ONCE, EACH = 12, 6
"""Submissions that are checked at once, in all and of one user; well below Starlette's 40 threads."""

_lock = Lock()
_checking: Counter[str] = Counter()


@contextmanager
def admitted(user: str) -> Iterator[None]:
    """Check a user's submission. Raises Problem if too many are being checked already."""
    with _lock:
        if _checking[user] >= EACH or _checking.total() >= AT_ONCE:
            detail = "as many submissions are being checked as the service checks at once; try again in a moment"
            raise Problem(503, "busy", detail, headers={"Retry-After": "2"})
        _checking[user] += 1
    try:
        yield
    finally:
        with _lock:
            _checking[user] -= 1
