"""A pause as the code under way meets it: asked for through a function, answered by raising `Paused` at the next safe point.

Imports nothing.
"""

from collections.abc import Callable

Asked = Callable[[], bool]
"""Whether a pause is asked for, right now."""


class Paused(Exception):
    """What was in hand is stored, and the job goes on from there when it is resumed."""


def never() -> bool:
    """No pause is asked for."""
    return False
