"""Where a page of a list ends: when its last row was created, and its id; so a place in the list even when that row is gone."""

import re
from datetime import UTC, datetime, timedelta

from services.store.errors import NotFound
from services.store.models import Job, Study

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORM = re.compile(r"([0-9]{1,17})-(.{1,60})")


def cursor_of(row: Job | Study) -> str:
    """The place after a row."""
    return f"{(row.created_at - _EPOCH) // timedelta(microseconds=1)}-{row.id}"


def place(cursor: str) -> tuple[datetime, str]:
    """Creation and id of the row that a cursor names. Raises NotFound for what is no cursor."""
    found = _FORM.fullmatch(cursor)
    if found is None:
        raise NotFound(f"{cursor[:80]!r} is no place in this list; start at its first page")
    return _EPOCH + timedelta(microseconds=int(found[1])), found[2]
