"""What time it is for leases, waits and limits: the database's time, never a process's own clock.

PostgreSQL's server tells it. SQLite runs inside each process, so its time is that of the one machine that has the file open: taken
from the calendar once per boot, and from then on counted by the kernel, steadily, whatever becomes of the machine's clock.
"""

import time
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.store.models import ClockAnchor, Job, Study

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def now(session: Session) -> datetime:
    """The time that leases, waits and limits go by. It is read anew at each call, since a transaction may have waited for a lock."""
    if session.get_bind().dialect.name == "postgresql":
        moment: datetime = session.scalars(select(func.clock_timestamp())).one()
        return moment.astimezone(UTC)
    elapsed = timedelta(seconds=time.monotonic())
    anchor = session.get(ClockAnchor, _boot())
    return (_anchored(session, elapsed) if anchor is None else anchor).zero + elapsed


def calendar(session: Session) -> datetime:
    """The time to show to people: of PostgreSQL's server, or of this machine with SQLite."""
    return now(session) if session.get_bind().dialect.name == "postgresql" else datetime.now(UTC)


def _anchored(session: Session, elapsed: timedelta) -> ClockAnchor:
    """The anchor of this boot, made at its first use; past every lease of the boots before, since nothing of those still runs."""
    leased = (session.scalar(select(func.max(column))) for column in (Job.lease_expires_at, Study.lease_expires_at))
    started = max([datetime.now(UTC), *(last for last in leased if last)])
    anchor = ClockAnchor(boot=_boot(), zero=started - elapsed)
    if session.get_bind().get_execution_options().get("glora_write"):
        session.add(anchor)
        session.flush()
    return anchor


@cache
def _boot() -> str:
    """What names this boot of the machine; one name for all of them where the kernel has none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return "unnamed"
