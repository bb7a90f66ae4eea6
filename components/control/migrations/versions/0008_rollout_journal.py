"""the journals of rollouts that are under way"""

import sqlalchemy as sa
from alembic import op

revision = "0008_rollout_journal"
down_revision = "0007_console"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rollout_journal",
        sa.Column("rollout", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "number"),
    )


def downgrade() -> None:
    op.drop_table("rollout_journal")
