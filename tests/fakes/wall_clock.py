"""A machine's clock that is set to another time while the service runs."""

import sys
from datetime import datetime, timedelta, tzinfo

import pytest


def jump(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    """From now on every module of the service sees the calendar shifted; what the kernel counts steadily goes on as it was."""

    class Jumped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + by

    for name, module in list(sys.modules.items()):
        if name.startswith("services.") and getattr(module, "datetime", None) is datetime:
            monkeypatch.setattr(module, "datetime", Jumped)
