"""Studies: sweeps of jobs' settings, their trials and what these reported; which study a job belongs to, and why it was cancelled

Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_JOB_COLUMNS = ("cancel_reason", "study_trial", "study_id")


def upgrade() -> None:
    """Apply this revision."""
    # Not in a batch: SQLite would make the table anew, and others refer to the one that is there.
    op.add_column("jobs", sa.Column("study_id", sa.String(length=32), nullable=True))
    op.add_column("jobs", sa.Column("study_trial", sa.Integer(), nullable=True))
    op.add_column("jobs", sa.Column("cancel_reason", sa.Text(), nullable=True))
    op.create_index("uq_jobs_study_id_study_trial", "jobs", ["study_id", "study_trial"], unique=True)
    _create_studies()
    _create_trials()
    op.create_table(
        "study_reports",
        sa.Column("study_id", sa.String(length=32), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("trial", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id", "trial"], ["study_trials.study_id", "study_trials.number"], name=op.f("fk_study_reports_study_id_study_trials")
        ),
        sa.PrimaryKeyConstraint("study_id", "sequence", name=op.f("pk_study_reports")),
        sa.UniqueConstraint("study_id", "trial", "kind", "step", name=op.f("uq_study_reports_study_id_trial_kind_step")),
    )


def _create_studies() -> None:
    op.create_table(
        "studies",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("user_name", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("metric", sa.String(length=64), nullable=False),
        sa.Column("failure_reason", sa.String(length=32), nullable=True),
        sa.Column("failure_message", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_owner", sa.String(length=120), nullable=True),
        sa.Column("lease_epoch", sa.Integer(), nullable=False),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("key_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_studies")),
        sa.UniqueConstraint("user_name", "idempotency_key", name=op.f("uq_studies_user_name_idempotency_key")),
    )
    op.create_index("ix_studies_created_at_id", "studies", ["created_at", "id"])
    op.create_index(op.f("ix_studies_state"), "studies", ["state"])


def _create_trials() -> None:
    op.create_table(
        "study_trials",
        sa.Column("study_id", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("backbone_key", sa.String(length=64), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("job_id", sa.String(length=32), nullable=True),
        sa.Column("stopped_at", sa.Integer(), nullable=True),
        sa.Column("stopped_why", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["backbone_key"], ["backbones.key"], name=op.f("fk_study_trials_backbone_key_backbones")),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_study_trials_study_id_studies")),
        sa.PrimaryKeyConstraint("study_id", "number", name=op.f("pk_study_trials")),
    )


def downgrade() -> None:
    """Undo this revision; jobs of studies stand by themselves."""
    for table in ("study_reports", "study_trials", "studies"):
        op.drop_table(table)
    op.drop_index("uq_jobs_study_id_study_trial", table_name="jobs")
    for column in _JOB_COLUMNS:
        op.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
