"""What can go wrong in the store; each docstring says what the caller should make of it."""


class NotFound(LookupError):
    """No row with that id."""


class LeaseLost(RuntimeError):
    """The job belongs to another runner now, is over, or its lease has run out: nothing was written, and the caller must end itself."""


class WrongState(RuntimeError):
    """The job's state does not allow what was asked; the message names the state."""
