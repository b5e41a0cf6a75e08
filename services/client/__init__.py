"""Python client and command line; knows only HTTP."""

from services.client.client import Client
from services.client.errors import ServiceError

__all__ = ["Client", "ServiceError"]
