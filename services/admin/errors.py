"""What can go wrong in looking after a service."""


class AdminError(RuntimeError):
    """It was not done, and nothing is half done; the message says why, and what to do."""
