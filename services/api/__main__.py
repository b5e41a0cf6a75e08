"""`python -m services.api`: the API process."""

import sys

import uvicorn

from services.settings import get_settings


def main() -> int:
    """Serve on the settings' host and port until stopped; 1 if the port is taken, 2 without a token."""
    settings = get_settings()
    if settings.token is None:
        print("GLORA_TOKEN is not set, and an API without a token would be open to everyone who reaches its port", file=sys.stderr)
        return 2
    try:
        uvicorn.run(
            "services.api.app:create_app",
            factory=True,
            host=settings.host,
            port=settings.port,
            log_level=settings.log_level.lower(),
            access_log=False,
            timeout_graceful_shutdown=3,
        )
    except SystemExit as error:
        return int(error.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
