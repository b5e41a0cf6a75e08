"""Whether this software and a database's schema belong together; asked before anything is read from it or written to it."""

import glora_core
from services.admin.errors import AdminError
from services.store.database import Database, revisions


def refuse_newer(what: str, revision: str | None) -> None:
    """Raise AdminError if something has a schema that this software does not know, since newer software made it."""
    if revision is not None and revision not in revisions():
        raise AdminError(f"{what} has schema {revision}, of newer software than this ({glora_core.__version__}); use that, or a later one")


def refuse_older(database: Database) -> None:
    """Raise AdminError unless a database has this software's schema."""
    revision, newest = database.revision(), revisions()[0]
    refuse_newer("the database", revision)
    if revision != newest:
        has = f"schema {revision}" if revision else "no schema"
        raise AdminError(f"the database has {has}, and this software needs {newest}: run `glora admin migrate`")
