"""teachers, their clean rounds of probes, and incidents"""

import sqlalchemy as sa
from alembic import op

revision = "0005_teachers"
down_revision = "0004_leases"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "teachers",
        sa.Column("workload", sa.String(length=64), nullable=False),
        sa.Column("teacher", sa.String(length=255), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("state", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("workload", "teacher"),
    )
    op.create_table(
        "clean_rounds",
        sa.Column("workload", sa.String(length=64), nullable=False),
        sa.Column("teacher", sa.String(length=255), nullable=False),
        sa.Column("member", sa.String(length=128), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("positions", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("workload", "teacher", "member"),
    )
    op.create_table(
        "incidents",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("workload", sa.String(length=64), nullable=False),
        sa.Column("teacher", sa.String(length=255), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("suspect_from", sa.Float(), nullable=False),
        sa.Column("opened_at", sa.Float(), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=True),
        sa.Column("decided_at", sa.Float(), nullable=True),
        sa.Column("settled_at", sa.Float(), nullable=True),
        sa.Column("mixed", sa.Boolean(), nullable=False),
        sa.Column("candidate", sa.JSON(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_incidents_workload"), "incidents", ["workload"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_incidents_workload"), table_name="incidents")
    op.drop_table("incidents")
    op.drop_table("clean_rounds")
    op.drop_table("teachers")
