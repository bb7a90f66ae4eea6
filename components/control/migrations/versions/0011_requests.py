"""requests that are answered later: kept from their acceptance to their answer, and to its delivery"""

import sqlalchemy as sa
from alembic import op

revision = "0011_requests"
down_revision = "0010_workloads"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "requests",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("workload", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=256), nullable=True),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=True),
        sa.Column("callback", sa.Text(), nullable=True),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("accepted_at", sa.Float(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.Float(), nullable=True),
        sa.Column("answer", sa.LargeBinary(), nullable=True),
        sa.Column("answered_at", sa.Float(), nullable=True),
        sa.Column("delivered_at", sa.Float(), nullable=True),
        sa.Column("dead_at", sa.Float(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("workload", "key"),
    )
    op.create_index("requests_due", "requests", ["workload", "next_at"])
    op.create_index("requests_age", "requests", ["workload", "accepted_at"])


def downgrade() -> None:
    op.drop_index("requests_age", table_name="requests")
    op.drop_index("requests_due", table_name="requests")
    op.drop_table("requests")
