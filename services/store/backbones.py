"""Descriptions of backbones: asked for by the API, written by a scheduler (which has torch at hand), kept for ever."""

import hashlib
import json
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from services.store import clock
from services.store.database import insert_new
from services.store.models import Backbone


def key_of(spec: dict[str, Any], stamp: str = "") -> str:
    """Identity of a backbone spec, and of the state of its files where a stamp tells it."""
    return hashlib.sha256((json.dumps(spec, sort_keys=True) + stamp).encode()).hexdigest()


def request(session: Session, spec: dict[str, Any], stamp: str = "") -> Backbone:
    """The description of a backbone, asked for if it is not known. One that failed before is asked for again."""
    key = key_of(spec, stamp)
    insert_new(session, [Backbone(key=key, spec=spec, state="requested", requested_at=clock.now(session))])
    row = session.get_one(Backbone, key)
    if row.state == "failed":
        row.state, row.error, row.requested_at = "requested", None, clock.now(session)
    return row


def claim(session: Session, patience_seconds: float = 120.0) -> Backbone | None:
    """The longest-waiting description that nobody works on, marked as being worked on; None if there is none."""
    now = clock.now(session)
    stale = now - timedelta(seconds=patience_seconds)
    waiting = or_(Backbone.state == "requested", (Backbone.state == "describing") & (Backbone.requested_at < stale))
    query = select(Backbone).where(waiting).order_by(Backbone.requested_at).limit(1).with_for_update(skip_locked=True)
    row = session.scalars(query).first()
    if row is not None:
        row.state, row.requested_at = "describing", now
    return row


def describe(session: Session, key: str, requested_at: datetime, *, info: dict[str, Any] | None, error: str | None) -> None:
    """Store a finished description, or why there is none; whoever took too long and was replaced changes nothing.

    Args:
        requested_at: of the row as it was claimed, or asked for.
    """
    row = session.get_one(Backbone, key, with_for_update=True)
    if row.requested_at != requested_at or row.state == "ready":
        return
    row.state, row.info, row.error = ("failed" if info is None else "ready"), info, error
