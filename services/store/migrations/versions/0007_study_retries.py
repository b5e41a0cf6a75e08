"""What is remembered of a study's failed attempts, by the kinds of their reasons, as of a job's

Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this revision."""
    op.add_column("studies", sa.Column("retry", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Undo this revision; failed attempts count whatever their reasons were."""
    op.execute("ALTER TABLE studies DROP COLUMN retry")
