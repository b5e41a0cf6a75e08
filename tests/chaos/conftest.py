"""The systems under test, started when the first cell asks for them, and the job that nothing disturbed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from tests.chaos.ray_cluster import RayCluster
from tests.chaos.system import NoSmallDisk, System, cluster, ground, small_disk
from tests.chaos.trial import Played, undisturbed
from tests.servers.postgres import PostgresMissing


@pytest.fixture(scope="package")
def base() -> Iterator[tuple[Path, RayCluster, Path, str]]:
    """One Ray cluster, data and a backbone for all cells; what comes after this folder has the machine for itself."""
    with ground() as found:
        yield found


@pytest.fixture(scope="package")
def system_for(base: tuple[Path, RayCluster, Path, str]) -> Iterator[Callable[[bool], System]]:
    """The system on a cluster's database and object store, or on a small disk; skips where it cannot be had."""
    with ExitStack() as stack:

        @cache
        def find(on_disk: bool) -> System:
            return stack.enter_context(small_disk(base) if on_disk else cluster(base))

        def get(on_disk: bool) -> System:
            try:
                return find(on_disk)
            except (PostgresMissing, NoSmallDisk) as missing:
                pytest.skip(str(missing))

        yield get


@pytest.fixture(scope="package")
def reference() -> Callable[[System], Played]:
    """The job left alone, run once, on the system that is asked for first: on which one does not show in what it comes to."""
    played: list[Played] = []

    def find(system: System) -> Played:
        if not played:
            played.append(undisturbed(system))
        return played[0]

    return find
