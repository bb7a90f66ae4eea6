"""the console: sessions, alarms that were seen or silenced, traffic by the hour, an index of rollouts"""

import sqlalchemy as sa
from alembic import op

revision = "0007_console"
down_revision = "0006_admin"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("via", sa.String(length=16), nullable=False),
        sa.Column("credential", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "alarm_acknowledgements",
        sa.Column("alarm", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("alarm"),
    )
    op.create_table(
        "alarm_silences",
        sa.Column("workload", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("until", sa.Float(), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("workload", "kind"),
    )
    op.create_table(
        "traffic",
        sa.Column("workload", sa.String(length=64), nullable=False),
        sa.Column("hour", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("answers", sa.BigInteger(), nullable=False),
        sa.Column("deferred", sa.BigInteger(), nullable=False),
        sa.Column("student_answers", sa.BigInteger(), nullable=False),
        sa.Column("student_seconds", sa.Float(), nullable=False),
        sa.Column("labels", sa.BigInteger(), nullable=False),
        sa.Column("teacher_calls", sa.BigInteger(), nullable=False),
        sa.Column("teacher_seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("workload", "hour"),
    )
    op.create_index("rollouts_last", "rollouts", ["workload", "created_at", "id"], unique=False)


def downgrade() -> None:
    op.drop_index("rollouts_last", table_name="rollouts")
    op.drop_table("traffic")
    op.drop_table("alarm_silences")
    op.drop_table("alarm_acknowledgements")
    op.drop_table("sessions")
