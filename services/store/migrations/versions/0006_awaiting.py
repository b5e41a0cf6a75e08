"""Waiting in the queue for a supernet that another job trains, and an index that tells a job's place in the queue by itself

Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_QUEUE = ["state", "created_at", "id", "user_name", "priority", "next_try_at", "awaited_key"]


def upgrade() -> None:
    """Apply this revision."""
    # Not in a batch: SQLite would make the table anew, and others refer to the one that is there.
    op.add_column("jobs", sa.Column("awaited_key", sa.String(length=64), nullable=True))
    op.create_index(op.f("ix_jobs_awaited_key"), "jobs", ["awaited_key"])
    op.drop_index("ix_jobs_state_created_at_id", table_name="jobs")
    op.create_index("ix_jobs_queue", "jobs", _QUEUE)


def downgrade() -> None:
    """Undo this revision; a job that waits for a supernet is started, and waits in its runner."""
    op.drop_index("ix_jobs_queue", table_name="jobs")
    op.create_index("ix_jobs_state_created_at_id", "jobs", ["state", "created_at", "id"])
    op.drop_index(op.f("ix_jobs_awaited_key"), table_name="jobs")
    op.execute("ALTER TABLE jobs DROP COLUMN awaited_key")
