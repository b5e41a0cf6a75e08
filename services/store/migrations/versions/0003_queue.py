"""The queue: a steady clock for SQLite files, users and priorities, idempotency keys, attempts and their logs, schedulers

Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this revision."""
    op.create_table(
        "clock_anchors",
        sa.Column("boot", sa.String(length=64), nullable=False),
        sa.Column("zero", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("boot", name=op.f("pk_clock_anchors")),
    )
    _add_to_jobs(
        sa.Column("user_name", sa.String(length=40), nullable=False, server_default="default"),
        sa.Column("retry", sa.JSON(), nullable=True),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("run_seconds", sa.Double(), nullable=False, server_default="0"),
    )
    op.create_index(op.f("ix_jobs_user_name"), "jobs", ["user_name"])
    op.create_table(
        "schedulers",
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_schedulers")),
    )
    op.create_table(
        "job_logs",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_logs_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "epoch", name=op.f("pk_job_logs")),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("user_name", sa.String(length=40), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_idempotency_keys_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_name", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_job_id"), "idempotency_keys", ["job_id"])
    op.create_index(op.f("ix_idempotency_keys_expires_at"), "idempotency_keys", ["expires_at"])


def downgrade() -> None:
    """Undo this revision."""
    op.drop_table("idempotency_keys")
    op.drop_table("job_logs")
    op.drop_table("schedulers")
    op.drop_index(op.f("ix_jobs_user_name"), "jobs")
    for name in ("user_name", "retry", "next_try_at", "priority", "run_seconds"):
        op.execute(f"ALTER TABLE jobs DROP COLUMN {name}")
    op.drop_table("clock_anchors")


def _add_to_jobs(*columns: sa.Column[object]) -> None:
    """Not in a batch: SQLite would make the table anew, and much refers to the one that is there."""
    for column in columns:
        op.add_column("jobs", column)
        if column.server_default is not None and op.get_context().dialect.name != "sqlite":
            op.alter_column("jobs", column.name, existing_type=column.type, server_default=None)
