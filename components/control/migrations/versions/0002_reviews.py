"""questions to people"""

import sqlalchemy as sa
from alembic import op

revision = "0002_reviews"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "reviews",
        sa.Column("workload", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("teacher", sa.String(length=255), nullable=False),
        sa.Column("space", sa.String(length=128), nullable=False),
        sa.Column("classes", sa.JSON(), nullable=False),
        sa.Column("input", sa.LargeBinary(), nullable=False),
        sa.Column("draft", sa.JSON(), nullable=True),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("policy", sa.String(length=64), nullable=False),
        sa.Column("probability", sa.Float(), nullable=False),
        sa.Column("audit", sa.Boolean(), nullable=False),
        sa.Column("asked_at", sa.Float(), nullable=False),
        sa.Column("answer", sa.JSON(), nullable=True),
        sa.Column("annotator", sa.String(length=128), nullable=True),
        sa.Column("answered_at", sa.Float(), nullable=True),
        sa.Column("ends", sa.JSON(), nullable=True),
        sa.Column("publisher", sa.String(length=64), nullable=True),
        sa.Column("publisher_until", sa.Float(), nullable=True),
        sa.Column("published_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("workload", "key"),
    )
    op.create_index("reviews_open", "reviews", ["workload", "published_at", "answered_at"], unique=False)


def downgrade() -> None:
    op.drop_table("reviews")
