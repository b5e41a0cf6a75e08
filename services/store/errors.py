"""What can go wrong in the store; each docstring says what the caller should make of it."""


class NotFound(LookupError):
    """No row with that id."""


class LeaseLost(RuntimeError):
    """The job belongs to another runner now, or is over: nothing was written, and the caller must end itself."""


class WrongState(RuntimeError):
    """The job's state does not allow what was asked; the message names the state.

    Args:
        state: the state that the job is in.
        accepted: states in which it would have been allowed.
    """

    def __init__(self, message: str, state: str = "", accepted: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.state, self.accepted = state, accepted
