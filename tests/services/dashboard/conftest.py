"""The fixtures of these tests; the API's and the client's are the same."""

from tests.services.api.fixtures import *  # noqa: F403
