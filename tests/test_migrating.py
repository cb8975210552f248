"""Alembic beside other processes, and beside tables of others."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Project, short_directory
from load import Stage, stage
from servers import binary

pytestmark = pytest.mark.slow

CONCURRENT_INDEX = '''"""An index that is built without stopping writers."""

from alembic import op

revision = "c0c0a"
down_revision = "1f0c5e7a9b3d"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SELECT pg_sleep(2)")  # until the other processes have started
    with op.get_context().autocommit_block():
        op.create_index("ix_created", "items", ["created_at"], postgresql_concurrently=True)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_created", "items", postgresql_concurrently=True)
'''

RACE = """
for process in 1 2 3 4 5 6; do
    (alembic upgrade head 2> log.$process || cat log.$process) &
done
wait
cat log.* | grep -c "Running upgrade"
psql -Atc "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_created'::regclass"
psql -Atc "SELECT version_num FROM alembic_version"
"""

SLOW_REVISION = '''"""A slow statement after a fast one."""

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
psql -qc "CREATE EXTENSION hstore"
psql -qc "CREATE TABLE theirs (); ALTER EXTENSION hstore ADD TABLE theirs"
alembic check 2>> log || cat log
"""


@pytest.fixture(scope="module")
def server(installed: Project) -> Iterator[Stage]:
    with stage(installed.path, short_directory()) as server:
        yield server


Shell = Callable[..., str]


@pytest.fixture
def project(installed: Project) -> Project:
    """A copy of the project, to be changed. Its commands are those of the installed one."""
    return installed.copy(short_directory())


@pytest.fixture
def shell(installed: Project, project: Project, server: Stage) -> Shell:
    """Runs a script in the project, on an empty database."""
    database = project.path.parent.name
    server.psql(f'CREATE DATABASE "{database}"')
    places = [installed.path / ".venv" / "bin", Path(binary("psql")).parent, os.environ["PATH"]]
    host = server.directory
    env = {
        "PATH": os.pathsep.join(map(str, places)),
        "DATABASE_URL_SYNC": f"postgresql://postgres@/{database}?host={host}&port={server.port}",
        **{"PGHOST": str(host), "PGPORT": str(server.port)},
        **{"PGUSER": "postgres", "PGDATABASE": database},
    }
    return lambda script: project.run("sh", "-c", script, env=env).stdout


def test_concurrent_upgrades_all_succeed(project: Project, shell: Shell) -> None:
    """CREATE INDEX CONCURRENTLY waits for every older transaction, and must not wait for these."""
    (project.path / "alembic" / "versions" / "index.py").write_text(CONCURRENT_INDEX)
    assert shell(RACE).split() == ["2", "t", "c0c0a"]


def test_killed_migration_leaves_nothing_and_can_run_again(project: Project, shell: Shell) -> None:
    """It is killed in the middle of a statement, which the server would run to its end."""
    (project.path / "alembic" / "versions" / "slow.py").write_text(SLOW_REVISION)
    assert shell(KILLED) == "51044|half\n"


def test_tables_of_extensions_are_ignored(shell: Shell) -> None:
    assert "No new upgrade operations" in shell(EXTENSION)


# The fixtures of a user of pytest-alembic.
PYTEST_ALEMBIC = """
from collections.abc import Iterator

import pytest
from alembic.config import Config
from pytest_alembic.tests import (
    test_model_definitions_match_ddl,
    test_single_head_revision,
    test_up_down_consistency,
    test_upgrade,
)
from pytest_alembic.tests.experimental import (
    test_all_models_register_on_metadata,
    test_downgrade_leaves_no_trace,
)
from sqlalchemy import URL, Engine, create_engine

from app.database import ROOT


@pytest.fixture
def alembic_config() -> Config:
    return Config(ROOT / "alembic.ini")


@pytest.fixture
def alembic_engine(empty_url: URL) -> Iterator[Engine]:
    engine = create_engine(empty_url)
    yield engine
    engine.dispose()
"""

ORDERS = """
import enum

from sqlalchemy import Identity
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Base


class Status(enum.StrEnum):
    NEW = "new"
    PAID = "paid"


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    status: Mapped[Status]
"""


@pytest.mark.exhaustive
def test_tests_of_pytest_alembic_pass(copied: Project, server: Stage) -> None:
    """It writes the URL into alembic.ini, which needs a URL without % and so a server with TCP."""
    (copied.path / "app" / "models" / "order.py").write_text(ORDERS)
    for command in ("upgrade head", "revision --autogenerate -m orders", "upgrade head"):
        copied.uv("dev", "alembic", *command.split())
    (copied.path / "tests" / "test_pytest_alembic.py").write_text(PYTEST_ALEMBIC)
    server.psql("CREATE DATABASE door_test")
    output = copied.uv(
        *("--with", "pytest-alembic", "pytest", "-q", "tests/test_pytest_alembic.py"),
        *("-o", "pytest_alembic_tests_path=none"),  # pytest-alembic 0.13 needs it with pytest 9.2
        env={"TEST_DATABASE_URL": f"postgresql://postgres@127.0.0.1:{server.port}/door_test"},
    )
    assert "6 passed" in output
