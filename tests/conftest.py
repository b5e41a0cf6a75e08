"""How `pytest -n` shares the tests out: by file, and all that starts Ray or a service as one share, so that one of these runs at a time."""

from typing import Any

import pytest

SYSTEMS = ("tests/chaos/", "tests/service/", "tests/services/cluster/")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Called where pytest-xdist shares tests out, thus never without it."""
    from xdist.scheduler import LoadScopeScheduling

    class Shares(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "systems" if nodeid.startswith(SYSTEMS) else nodeid.partition("::")[0]

    return Shares(config, log)
