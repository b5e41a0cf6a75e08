"""The queue: the steady clock of SQLite files

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


def downgrade() -> None:
    """Undo this revision."""
    op.drop_table("clock_anchors")
