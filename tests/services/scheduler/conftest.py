"""The fixtures of these tests: the store's, as the API's tests have them."""

from tests.services.api.fixtures import *  # noqa: F403
