"""The proxy before a server: transparent while it is open, a broken network while it is cut."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.chaos.proxy import Proxy


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy before a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_echo, args=(server,), daemon=True).start()
        proxy = Proxy(server.getsockname()[1])
        yield proxy
        proxy.cut()


def _echo(server: socket.socket) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_echo_one, args=(client,), daemon=True).start()


def _echo_one(client: socket.socket) -> None:
    with client:
        while chunk := client.recv(1 << 16):
            client.sendall(chunk)


def test_what_is_sent_comes_through_in_both_directions(proxy: Proxy) -> None:
    sent = bytes(range(256)) * 4000
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as connection:
        threading.Thread(target=connection.sendall, args=(sent,), daemon=True).start()
        with connection.makefile("rb") as answer:
            assert answer.read(len(sent)) == sent


def test_a_cut_breaks_open_connections_and_refuses_new_ones(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as connection:
        connection.sendall(b"a")
        assert connection.recv(1) == b"a"
        proxy.cut()
        try:
            end = connection.recv(1)
        except ConnectionResetError:
            end = b""
        assert end == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), timeout=60)


def test_after_a_cut_the_same_port_answers_again(proxy: Proxy) -> None:
    port = proxy.port
    proxy.cut()
    proxy.restore()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"b")
        assert connection.recv(1) == b"b"
