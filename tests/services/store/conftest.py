"""Every backend of the store, as fixtures: SQLite in a file and a real PostgreSQL server, empty or migrated."""

from collections.abc import Callable, Iterator

import pytest

from services.store.database import Database
from tests.servers.postgres import PostgresMissing, PostgresServer

Connect = Callable[[], Database]

_MIGRATED = "migrated"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for the tests of a session; with a migrated database that others are copied from."""
    try:
        installed = PostgresServer()
    except PostgresMissing as missing:
        pytest.skip(str(missing))
    with installed as server, server.fresh_database(_MIGRATED) as url:
        database = Database(url)
        database.migrate()
        database.dispose()
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def backend(request: pytest.FixtureRequest) -> str:
    """Name of the backend under test; what asks for it runs once for each."""
    return request.param


@pytest.fixture
def empty_url(backend: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a database without any tables."""
    if backend == "sqlite":
        yield f"sqlite:///{request.getfixturevalue('tmp_path')}/glora.db"
        return
    with request.getfixturevalue("postgres_server").fresh_database("empty") as url:
        yield url


@pytest.fixture
def migrated_url(backend: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a database with the current schema and no rows."""
    if backend == "sqlite":
        url = f"sqlite:///{request.getfixturevalue('tmp_path')}/glora.db"
        database = Database(url)
        database.migrate()
        database.dispose()
        yield url
        return
    with request.getfixturevalue("postgres_server").fresh_database("work", template=_MIGRATED) as url:
        yield url


@pytest.fixture
def empty_database(empty_url: str) -> Iterator[Database]:
    """A database without any tables."""
    database = Database(empty_url)
    yield database
    database.dispose()


@pytest.fixture
def connect(migrated_url: str) -> Iterator[Connect]:
    """Opens the migrated database once more, as another process would."""
    opened: list[Database] = []

    def connect() -> Database:
        opened.append(Database(migrated_url))
        return opened[-1]

    yield connect
    for database in opened:
        database.dispose()


@pytest.fixture
def database(connect: Connect) -> Database:
    """A migrated database without rows."""
    return connect()
