"""Pausing, lineage and claims: a job's parent, whom it waits for, who measured an evaluation, who computes what is not stored yet

Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_JOB_COLUMNS = ("waiting_for", "inherited", "parent_action", "parent_id", "pause_requested")


def upgrade() -> None:
    """Apply this revision."""
    # Not in a batch: SQLite would make the tables anew, and others refer to those that are there.
    op.add_column("jobs", sa.Column("pause_requested", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("jobs", sa.Column("parent_id", sa.String(length=32), nullable=True))
    op.add_column("jobs", sa.Column("parent_action", sa.String(length=16), nullable=True))
    op.add_column("jobs", sa.Column("inherited", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("waiting_for", sa.String(length=32), nullable=True))
    op.create_index(op.f("ix_jobs_parent_id"), "jobs", ["parent_id"])
    op.drop_index("ix_jobs_state_created_at", table_name="jobs")
    op.create_index("ix_jobs_state_created_at_id", "jobs", ["state", "created_at", "id"])
    op.add_column("evaluations", sa.Column("job_id", sa.String(length=32), nullable=True))
    op.add_column("evaluations", sa.Column("generation", sa.Integer(), nullable=True))
    op.create_table(
        "claims",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_claims")),
    )
    op.create_index(op.f("ix_claims_job_id"), "claims", ["job_id"])


def downgrade() -> None:
    """Undo this revision; a paused job waits in the queue."""
    op.execute("UPDATE jobs SET state = 'queued' WHERE state = 'paused'")
    op.drop_table("claims")
    for column in ("generation", "job_id"):
        op.execute(f"ALTER TABLE evaluations DROP COLUMN {column}")
    op.drop_index("ix_jobs_state_created_at_id", table_name="jobs")
    op.create_index("ix_jobs_state_created_at", "jobs", ["state", "created_at"])
    op.drop_index(op.f("ix_jobs_parent_id"), table_name="jobs")
    for column in _JOB_COLUMNS:
        op.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
