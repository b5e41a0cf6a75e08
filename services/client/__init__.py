"""Python client and command line; knows only HTTP."""

from services.client.client import Client, ServiceError

__all__ = ["Client", "ServiceError"]
