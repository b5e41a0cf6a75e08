"""What has room on a cluster: each process on one node, and none on a node that is gone."""

from contextlib import nullcontext

import pytest

from services.cluster import resources
from services.cluster.resources import ResourcesUnavailable, Share, pool_size, wait_for

NODES = [
    {"Alive": True, "Resources": {"CPU": 3.0}},
    {"Alive": True, "Resources": {"CPU": 5.0}},
    {"Alive": False, "Resources": {"CPU": 64.0}},
    {"Alive": True, "Resources": {"memory": 1e9}},
]


@pytest.fixture(autouse=True)
def nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources.ray, "nodes", lambda: NODES)
    monkeypatch.setattr(resources, "asked_for", lambda count, bundle: nullcontext())


@pytest.mark.parametrize(("share", "count"), [(Share(), 8), (Share(2.0), 3), (Share(4.0), 1)])
def test_room_is_counted_node_by_node(share: Share, count: int) -> None:
    assert pool_size(0, share) == count
    wait_for(count, share, 0)
    with pytest.raises(ResourcesUnavailable):
        wait_for(count + 1, share, 0)


def test_process_that_is_larger_than_any_node_is_refused_and_the_largest_node_named() -> None:
    with pytest.raises(
        ResourcesUnavailable, match=r"1 training worker with 6 CPUs each, and the cluster has 8 CPUs, its largest node 5 CPUs"
    ):
        wait_for(1, Share(6.0), 0)
