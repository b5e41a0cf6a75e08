"""The metric of an evaluation: part of its key, with its fitness and macro accuracy; what there is was measured by accuracy

Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_OLD_KEY = "uq_evaluations_supernet_key_config_hash_split_protocol"
_NEW_KEY = f"{_OLD_KEY}_metric"


def upgrade() -> None:
    """Apply this revision."""
    op.add_column("evaluations", sa.Column("metric", sa.String(length=64), nullable=True))
    op.add_column("evaluations", sa.Column("fitness", sa.Double(), nullable=True))
    op.add_column("evaluations", sa.Column("macro_accuracy", sa.Double(), nullable=True))
    op.execute("UPDATE evaluations SET metric = 'accuracy', fitness = accuracy")
    with op.batch_alter_table("evaluations", schema=None) as batch_op:
        batch_op.alter_column("metric", existing_type=sa.String(length=64), nullable=False)
        batch_op.alter_column("fitness", existing_type=sa.Double(), nullable=False)
        batch_op.drop_constraint(op.f(_OLD_KEY), type_="unique")
        batch_op.create_unique_constraint(op.f(_NEW_KEY), ["supernet_key", "config_hash", "split", "protocol", "metric"])

    # Not in a batch: SQLite would make the table anew, and candidates refer to the one that is there.
    op.add_column("generations", sa.Column("best_fitness", sa.Double(), nullable=False, server_default="0"))
    op.execute("UPDATE generations SET best_fitness = best_accuracy")
    if op.get_context().dialect.name != "sqlite":
        op.alter_column("generations", "best_fitness", existing_type=sa.Double(), server_default=None)


def downgrade() -> None:
    """Undo this revision; evaluations by other metrics than accuracy are lost."""
    op.execute("ALTER TABLE generations DROP COLUMN best_fitness")
    op.execute("DELETE FROM evaluations WHERE metric <> 'accuracy'")
    with op.batch_alter_table("evaluations", schema=None) as batch_op:
        batch_op.drop_constraint(op.f(_NEW_KEY), type_="unique")
        batch_op.create_unique_constraint(op.f(_OLD_KEY), ["supernet_key", "config_hash", "split", "protocol"])
        batch_op.drop_column("macro_accuracy")
        batch_op.drop_column("fitness")
        batch_op.drop_column("metric")
