"""How `pytest -n` shares the tests out: by file, and two shares of what starts Ray or a service, since these last longest."""

from typing import Any

import pytest

SYSTEMS = {"tests/chaos/": "services", "tests/service/": "services", "tests/services/cluster/": "clusters"}


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Called where pytest-xdist shares tests out, thus never without it."""
    from xdist.scheduler import LoadScopeScheduling

    class Shares(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return next((share for folder, share in SYSTEMS.items() if file.startswith(folder)), file)

    return Shares(config, log)
