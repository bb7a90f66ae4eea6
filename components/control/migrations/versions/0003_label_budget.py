"""label budget"""

import sqlalchemy as sa
from alembic import op

revision = "0003_label_budget"
down_revision = "0002_reviews"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "label_spending",
        sa.Column("workload", sa.String(length=64), nullable=False),
        sa.Column("period", sa.String(length=8), nullable=False),
        sa.Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("money", sa.BigInteger(), nullable=False),
        sa.Column("skipped", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("workload", "period", "start"),
    )
    op.create_table(
        "label_reservations",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("workload", sa.String(length=64), nullable=False),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("day", sa.BigInteger(), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("money", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_label_reservations_workload"), "label_reservations", ["workload"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_label_reservations_workload"), table_name="label_reservations")
    op.drop_table("label_reservations")
    op.drop_table("label_spending")
