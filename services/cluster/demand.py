"""What an autoscaler is to see beyond the processes that wait for a place: it adds nodes for what is asked of Ray, and for nothing else.

Amounts are given as Ray takes them, by a `Share`'s `bundle` and `options`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group


@contextmanager
def asked_for(count: int, bundle: dict[str, float]) -> Iterator[None]:
    """Ask for room for so many processes while the block runs; what was reserved is free again after it."""
    group = placement_group([bundle] * count)
    try:
        yield
    finally:
        remove_placement_group(group)


class Growth:
    """Asks for room for one more process, as long as it is asked to, and never holds any.

    What is asked for is an empty task: where there is room it is done at once, and where there is none it waits, with no claim on
    what another process may have by then.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._asked: Any = None

    def ask(self) -> None:
        """Ask, or go on asking."""
        if self._asked is None or ray.wait([self._asked], timeout=0)[0]:
            self._asked = ray.remote(max_retries=0, **self._options)(_nothing).remote()

    def rest(self) -> None:
        """Ask no more."""
        if self._asked is not None:
            ray.cancel(self._asked)
            self._asked = None


def _nothing() -> None:
    """All that there is to do in the room that was asked for."""
