"""What a client's call can fail with."""

AWAY = (502, 503, 504)
"""HTTP statuses of a service, or of a proxy before one, that is out of reach for a while."""


class ServiceError(RuntimeError):
    """The service refused a request or is out of reach; the message is for people, `status` is HTTP's, 0 without an answer.

    `kind` is the last part of the problem document's type, empty without one.
    """

    def __init__(self, message: str, status: int = 0, kind: str = "") -> None:
        super().__init__(message)
        self.status, self.kind = status, kind
