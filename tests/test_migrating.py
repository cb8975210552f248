"""Alembic in a generated project, beside other processes and other people's tables."""

import pytest
from conftest import Project

pytestmark = pytest.mark.slow

CONCURRENT_INDEX = '''"""An index that is built while others write."""

from alembic import op

revision = "c0c0a"
down_revision = "1f0c5e7a9b3d"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index("ix_created", "items", ["created_at"], postgresql_concurrently=True)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_created", "items", postgresql_concurrently=True)
'''

RACE = """
for round in 1 2; do
    for process in 1 2 3 4 5 6; do
        (alembic upgrade head 2> log.$process || cat log.$process) &
    done
    wait
    cat log.* | grep -c "Running upgrade"
    psql -Atc "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_created'::regclass"
    psql -Atc "SELECT version_num FROM alembic_version"
    alembic downgrade base 2> log.1
done
"""

SLOW_REVISION = '''"""Something that takes long, after something that is done at once."""

import os

from alembic import op

revision = "51044"
down_revision = "1f0c5e7a9b3d"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE TABLE half ()")
    op.execute(f"SELECT pg_sleep({os.environ.get('SECONDS_TO_SLEEP', 0)})")


def downgrade() -> None:
    op.drop_table("half")
'''

KILLED = """
asleep() {
    psql -Atc "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'"
}
SECONDS_TO_SLEEP=600 alembic upgrade head 2> log &
until [ "$(asleep)" = 1 ]; do :; done
kill -9 $!
alembic upgrade head 2> log || cat log
psql -Atc "SELECT version_num, to_regclass('half') FROM alembic_version"
"""

EXTENSION = """
alembic upgrade head 2> log
psql -U postgres -qc "CREATE EXTENSION vector"
psql -U postgres -qc "CREATE TABLE theirs (); ALTER EXTENSION vector ADD TABLE theirs"
alembic check 2>> log
"""


def test_replicas_that_migrate_at_once_all_succeed(copied: Project) -> None:
    """Also where an index is built concurrently, which waits for every older transaction."""
    (copied.path / "alembic" / "versions" / "index.py").write_text(CONCURRENT_INDEX)
    output = copied.uv("dev", "sh", "-c", RACE)
    assert output.split() == ["2", "t", "c0c0a"] * 2


def test_a_migration_that_is_killed_leaves_nothing_and_can_be_run_again(copied: Project) -> None:
    """In the middle of a statement, which the server would otherwise run to its end."""
    (copied.path / "alembic" / "versions" / "slow.py").write_text(SLOW_REVISION)
    output = copied.uv("dev", "sh", "-c", KILLED, env={"MIGRATION_WAIT": "30s"})
    assert output == "51044|half\n"


def test_tables_of_extensions_are_left_alone(copied: Project) -> None:
    assert "No new upgrade operations" in copied.uv("dev", "sh", "-c", EXTENSION)
