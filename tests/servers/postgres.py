"""A real PostgreSQL server for tests: a cluster of its own in a temporary folder, on loopback, gone afterwards.

PostgreSQL refuses to run as root, so root starts it as the user `postgres`, which every package of it creates.
"""

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql

from tests.servers.ports import free_port

HOW_TO_GET_IT = "no PostgreSQL server installation (initdb and pg_ctl) was found; get one with `apt-get install postgresql`"

_ACCOUNT = "postgres"
_DEBIAN = Path("/usr/lib/postgresql")
_START_ATTEMPTS = 3
_COMMAND_SECONDS = 60


class PostgresMissing(RuntimeError):
    """There is no PostgreSQL installation here; the message says how to get one."""


class PostgresServer:
    """A running server, from the start of the block to its end, however the block ends.

    Args:
        durable: whether what is committed is on the disk, as in production, and outlives `crash`; tests are faster without.

    Raises:
        PostgresMissing: there is no installation, or we are root and it has no account to run under.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self._lax = "" if durable else "-c fsync=off -c synchronous_commit=off -c full_page_writes=off "
        self._initdb, self._pg_ctl = _programs()
        self._prefix = _run_as()
        self._folder = Path()
        self._port = 0

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="glora-postgres-"))
        try:
            if self._prefix:
                shutil.chown(self._folder, _ACCOUNT)
            self._command(self._initdb, "-D", self._data, "-U", _ACCOUNT, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
            self._start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._remove()

    def url(self, database: str) -> str:
        """SQLAlchemy URL of one of the server's databases, without a driver's name."""
        return f"postgresql://{_ACCOUNT}@127.0.0.1:{self._port}/{database}"

    @property
    def port(self) -> int:
        """Where it listens on loopback."""
        return self._port

    def crash(self) -> None:
        """End the server at once, in the middle of whatever it does; `restart` brings it back."""
        self._command(self._pg_ctl, "-D", self._data, "-m", "immediate", "-w", "stop")

    def restart(self) -> None:
        """Start the server again after a crash, at the same port."""
        self._launch()

    @contextmanager
    def fresh_database(self, name: str, template: str = "template1") -> Iterator[str]:
        """A new database, as the URL to reach it; dropped afterwards, with whoever is still connected to it."""
        new = sql.Identifier(name)
        self._execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(new, sql.Identifier(template)))
        try:
            yield self.url(name)
        finally:
            self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(new))

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _start(self) -> None:
        """Start on a free port; where another process takes the port first, on another one."""
        for attempt in range(_START_ATTEMPTS):
            self._port = free_port()
            try:
                self._launch()
                return
            except RuntimeError:
                if attempt == _START_ATTEMPTS - 1:
                    raise

    def _launch(self) -> None:
        options = (
            f"-c listen_addresses=127.0.0.1 -p {self._port} -c unix_socket_directories={self._folder} "
            f"{self._lax}-c shared_buffers=16MB -c max_connections=60"
        )
        self._command(self._pg_ctl, "-D", self._data, "-l", str(self._folder / "log"), "-o", options, "-w", "start")

    def _remove(self) -> None:
        if (self._folder / "data" / "postmaster.pid").exists():
            self.crash()
        shutil.rmtree(self._folder)

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def _command(self, *command: str) -> None:
        """Run one of the server's programs; its output goes to a file, because a started server would keep a pipe open."""
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                [*self._prefix, *command],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=_COMMAND_SECONDS,
                check=False,
            )
            if done.returncode:
                output.seek(0)
                raise RuntimeError(f"{' '.join(command)} ended with status {done.returncode}:\n{output.read()}{self._log()}")

    def _log(self) -> str:
        log = self._folder / "log"
        return log.read_text() if log.exists() else ""


def _programs() -> tuple[str, str]:
    """Paths of `initdb` and `pg_ctl` of one installation: the one on PATH, or else the newest of Debian's."""
    versions = [folder for folder in _DEBIAN.glob("*/bin") if re.fullmatch(r"\d+", folder.parent.name)]
    newest_first = sorted(versions, key=lambda folder: int(folder.parent.name), reverse=True)
    for path in (None, *map(str, newest_first)):
        initdb, pg_ctl = shutil.which("initdb", path=path), shutil.which("pg_ctl", path=path)
        if initdb and pg_ctl:
            return initdb, pg_ctl
    raise PostgresMissing(HOW_TO_GET_IT)


def _run_as() -> tuple[str, ...]:
    """What to put before a command so that it does not run as root."""
    if os.geteuid() != 0:
        return ()
    try:
        pwd.getpwnam(_ACCOUNT)
    except KeyError as error:
        raise PostgresMissing(HOW_TO_GET_IT) from error
    return ("runuser", "-u", _ACCOUNT, "--")
