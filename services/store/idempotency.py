"""Idempotency keys: a submission that is sent again is the same job, not another one.

A key belongs to a user, and its row is committed with the job that it stands for; of two at once the unique key lets one through.
"""

from datetime import timedelta

from sqlalchemy import delete
from sqlalchemy.orm import Session

from services.store import clock
from services.store.database import insert_new
from services.store.models import IdempotencyKey


class KeyTaken(RuntimeError):
    """Another submission with the same key was stored first: roll back, and look at that one."""


def find(session: Session, user: str, key: str) -> IdempotencyKey | None:
    """What a user's key stands for; None if it is new, or was kept for its time."""
    row = session.get(IdempotencyKey, (user, key))
    return None if row is None or row.expires_at <= clock.now(session) else row


def keep(session: Session, user: str, key: str, *, fingerprint: str, job_id: str, hours: float) -> None:
    """Let a key stand for a job that the same transaction creates, and drop keys that were kept for their time.

    Args:
        fingerprint: sha256 (hex) of the request.

    Raises:
        KeyTaken: another transaction was first; this one must be rolled back.
    """
    now = clock.now(session)
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.expires_at <= now))
    expires_at = now + timedelta(hours=hours)
    row = IdempotencyKey(user_name=user, key=key, fingerprint=fingerprint, job_id=job_id, expires_at=expires_at)
    if not insert_new(session, [row]):
        raise KeyTaken(f"key {key!r} of {user} stands for another job")
