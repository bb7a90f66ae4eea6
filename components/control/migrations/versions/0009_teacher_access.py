"""what all who ask a workload's teacher share: its rate limits' windows, and whether it is away"""

import sqlalchemy as sa
from alembic import op

revision = "0009_teacher_access"
down_revision = "0008_rollout_journal"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "teacher_access",
        sa.Column("workload", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("state", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("workload", "name"),
    )


def downgrade() -> None:
    op.drop_table("teacher_access")
