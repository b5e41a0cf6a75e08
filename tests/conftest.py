"""How `pytest -n` shares the tests out: by file, and before them three shares of what starts Ray or a service, since these last longest."""

from typing import Any

import pytest

SHARES = {"tests/service/": "service", "tests/chaos/": "chaos", "tests/services/cluster/": "clusters"}
"""By folder, the longest first: while workers are busy with these, the small ones fill the gaps."""


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Called where pytest-xdist shares tests out, thus never without it."""
    from xdist.scheduler import LoadScopeScheduling

    class Shares(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return share(nodeid) or nodeid.partition("::")[0]

    return Shares(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The shares first, in their order."""
    order = list(SHARES.values())
    items.sort(key=lambda item: order.index(found) if (found := share(item.nodeid)) else len(order))


def share(nodeid: str) -> str | None:
    """The share that a test belongs to; None where its file is one of its own."""
    return next((name for folder, name in SHARES.items() if nodeid.startswith(folder)), None)
