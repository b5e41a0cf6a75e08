"""Free ports for servers that tests start. Imports nothing of ours."""

import random
import socket

_RANGE = range(20_000, 32_000)
"""Above the ports that Ray gives its workers, and below those that the system gives to whoever asks for any (Linux: from 32,768)."""


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on at this moment, and that nobody is given by chance before it is used."""
    for port in random.SystemRandom().sample(_RANGE, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"none of 100 ports of {_RANGE} is free")
