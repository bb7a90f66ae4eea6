"""an index by which the newest run of each pipeline is found without reading all runs"""

from alembic import op

revision = "0013_newest_runs"
down_revision = "0012_forgotten"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("runs_newest", "runs", ["workload", "pipeline", "started_at"])
    op.drop_index(op.f("ix_runs_workload"), table_name="runs")


def downgrade() -> None:
    op.create_index(op.f("ix_runs_workload"), "runs", ["workload"], unique=False)
    op.drop_index("runs_newest", table_name="runs")
