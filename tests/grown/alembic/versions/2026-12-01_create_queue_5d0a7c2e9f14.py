"""Create the tables of a job queue, as its library prints them.

Revision ID: 5d0a7c2e9f14
Revises: 1f0c5e7a9b3d
"""

from collections.abc import Sequence

from alembic import op

revision: str = "5d0a7c2e9f14"
down_revision: str | Sequence[str] | None = "1f0c5e7a9b3d"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE queue_jobs (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            entrypoint text NOT NULL,
            payload bytea,
            created timestamptz NOT NULL DEFAULT now()
        )
    """)
    op.execute("CREATE INDEX queue_jobs_created ON queue_jobs (created)")
    op.execute("CREATE TABLE queue_log (job_id bigint NOT NULL, status text NOT NULL)")


def downgrade() -> None:
    for table in ("queue_log", "queue_jobs"):
        op.execute(f"-- squawk-ignore ban-drop-table\nDROP TABLE {table}")
