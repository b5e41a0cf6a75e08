"""What can go wrong in the store; each docstring says what the caller should make of it."""


class NotFound(LookupError):
    """No row with that id."""


class LeaseLost(RuntimeError):
    """The job belongs to another runner now, is over, or its lease has run out: nothing was written, and the caller must end itself."""


class QuotaExceeded(RuntimeError):
    """A user has as much as a user may: nothing was written; `quota` names what, with its limit and what is used."""

    def __init__(self, quota: str, limit: int, used: int) -> None:
        super().__init__(f"{used:,} {quota.replace('_', ' ')}, of {limit:,} that each user may have")
        self.quota, self.limit, self.used = quota, limit, used


class WrongState(RuntimeError):
    """The job's state does not allow what was asked; the message names the state.

    Args:
        state: the state that the job is in.
        accepted: states in which it would have been allowed.
    """

    def __init__(self, message: str, state: str = "", accepted: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.state, self.accepted = state, accepted
