"""Alembic's entry: runs migrations on the connection that `Database.migrate` passes in."""

from alembic import context

from services.store.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    transaction_per_migration=False,
)
context.run_migrations()
