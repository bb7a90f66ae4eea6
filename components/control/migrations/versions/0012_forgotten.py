"""what was forgotten: orders to erase an entity, how far each is, and which students it asks to be made anew"""

import sqlalchemy as sa
from alembic import op

revision = "0012_forgotten"
down_revision = "0011_requests"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "forgettings",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("workload", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("secret", sa.String(length=64), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("found", sa.JSON(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("done_at", sa.Float(), nullable=True),
        sa.Column("retrained_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("forgettings_of", "forgettings", ["workload", "at"])


def downgrade() -> None:
    op.drop_index("forgettings_of", table_name="forgettings")
    op.drop_table("forgettings")
