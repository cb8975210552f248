"""Alembic in a generated project, beside other processes and other people's tables."""

import json
import re
from typing import Any

import pytest
from conftest import Project, short_directory
from servers import postgresql, psql

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


# As a user adds it, but that the option keeps pytest-alembic 0.13 and pytest 9.2 together.
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

from app import ROOT


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


def test_the_tests_of_pytest_alembic_pass(copied: Project) -> None:
    """On a server with TCP: it writes the URL into alembic.ini, where a socket's % breaks."""
    (copied.path / "app" / "models" / "order.py").write_text(ORDERS)
    for command in ("upgrade head", "revision --autogenerate -m orders", "upgrade head"):
        copied.uv("dev", "alembic", *command.split())
    (copied.path / "tests" / "test_pytest_alembic.py").write_text(PYTEST_ALEMBIC)
    directory = short_directory()
    directory.chmod(0o755)
    trust = "local all all trust\nhost all all samehost trust\n"
    with postgresql(directory, trust, {}) as port:
        psql(directory, port, "CREATE DATABASE door_test;")
        output = copied.uv(
            *("--with", "pytest-alembic", "pytest", "-q", "tests/test_pytest_alembic.py"),
            *("-o", "pytest_alembic_tests_path=none"),
            env={"TEST_DATABASE_URL": f"postgresql://postgres@127.0.0.1:{port}/door_test"},
        )
    assert "6 passed" in output


# Run in the project: what `alembic` says on the command line, and whether anything changed.
FAULTS = """
import json, os, subprocess
from contextlib import contextmanager
import psycopg

HERE = {"user": "postgres", "autocommit": True}
URL = f"postgresql://{{}}@/{{}}?host={os.environ['PGHOST']}"

def alembic(*arguments, **variables):
    environment = {k: v for k, v in os.environ.items() if k != "DATABASE_URL"} | variables
    return subprocess.run(
        ["alembic", *arguments], env=environment, capture_output=True, text=True
    )

def attempt(*arguments, **variables):
    with psycopg.connect(**HERE) as connection:
        before = connection.execute(STATE).fetchone()
        result = alembic(*arguments, **variables)
        lines = [line for line in result.stderr.splitlines() if not line.startswith(LOGGED)]
        changed = connection.execute(STATE).fetchone() != before
    return {"status": result.returncode, "lines": lines, "changed": changed}

STATE = "SELECT to_regclass('items'), (SELECT version_num FROM alembic_version)"
LOGGED = ("INFO", "WARNI")

@contextmanager
def holding(*statements):
    with psycopg.connect(user="postgres") as connection:
        for statement in statements:
            connection.execute(statement)
        yield

assert alembic("upgrade", "head").returncode == 0
said = {
    "unknown host": attempt(
        "downgrade", "base", DATABASE_URL_SYNC="postgresql://nowhere.invalid/app"
    ),
    "port closed": attempt(
        "downgrade", "base", DATABASE_URL_SYNC="postgresql://127.0.0.1:1/app"
    ),
    "database missing": attempt(
        "downgrade", "base", DATABASE_URL_SYNC=URL.format("postgres", "missing")
    ),
    "wrong wait": attempt("downgrade", "base", MIGRATION_WAIT="soon"),
    "wrong lock timeout": attempt("downgrade", "base", MIGRATION_LOCK_TIMEOUT="soon"),
}
grants = "GRANT CONNECT ON DATABASE app TO weak; GRANT SELECT ON alembic_version TO weak"
with holding("CREATE ROLE weak LOGIN", grants, "COMMIT"):
    weak = {"DATABASE_URL_SYNC": URL.format("weak", "app")}
    said["role without rights"] = attempt("downgrade", "base", **weak)
    said["with a traceback"] = attempt("--raiseerr", "downgrade", "base", **weak)
with holding("LOCK TABLE items IN ROW EXCLUSIVE MODE"):
    said["table busy"] = attempt("downgrade", "base", MIGRATION_LOCK_TIMEOUT="10ms")
with holding("SELECT pg_advisory_lock(hashtextextended('alembic .alembic_version', 0))"):
    said["migration under way"] = attempt("downgrade", "base", MIGRATION_WAIT="10ms")
with holding("UPDATE alembic_version SET version_num = 'newer'", "COMMIT"):
    said["unknown revision"] = attempt("upgrade", "head")
with holding("UPDATE alembic_version SET version_num = '1f0c5e7a9b3d'", "COMMIT"):
    pass
revision = "alembic/versions/second.py"
with open(revision, "w") as file:
    file.write("revision, down_revision = 'second', None; upgrade = downgrade = print")
said["two heads"] = attempt("upgrade", "head")
with open(revision, "w") as file:
    file.write("import nothing_of_that_name")
said["broken import"] = attempt("upgrade", "head")
os.remove(revision)
with open("app/models/broken.py", "w") as file:
    file.write("import nothing_of_that_name")
said["broken model"] = attempt("upgrade", "head")
os.remove("app/models/broken.py")
print(json.dumps(said))
"""

ONE_LINE = {
    "unknown host": r"DATABASE_URL_SYNC does not connect: .*'nowhere\.invalid'.*\. Check ",
    "port closed": r"DATABASE_URL_SYNC does not connect: .*port 1 failed.*\. Check ",
    "database missing": r'DATABASE_URL_SYNC does not connect: .*"missing" does not exist\. Check ',
    "wrong wait": r"MIGRATION_WAIT=soon is no time; it should look like 500ms",
    "wrong lock timeout": r"MIGRATION_LOCK_TIMEOUT=soon is no time; it should look like 500ms",
    "role without rights": r"must be owner of table items: DATABASE_URL_SYNC must name the role",
    "table busy": r"A lock was not had in time: items is held by process \d+ of .*again",
    "migration under way": r"Another migration still runs after 10ms: process \d+ of ",
    "unknown revision": r"Can't locate revision identified by 'newer' .*: deploy that here too",
    "two heads": r".*_items_.* and second\.py come last: .*alembic merge heads",
}


def test_faults_are_one_line_unless_they_are_a_programmers(copied: Project) -> None:
    """All in one project, since each is a second of Alembic's start."""
    result = copied.run("uv", "run", "--quiet", "dev", "python", "-c", FAULTS)
    said: dict[str, dict[str, Any]] = json.loads(result.stdout)
    for fault, pattern in ONE_LINE.items():
        (line,) = said[fault]["lines"]
        assert re.match(pattern, line), line
        assert said[fault]["status"] == 1, fault
        assert not said[fault]["changed"], fault
    asked_for = said["with a traceback"]["lines"]
    assert asked_for[0].startswith("Traceback")
    assert any("InsufficientPrivilege" in line for line in asked_for)
    for fault in ("broken import", "broken model"):
        lines = said[fault]["lines"]
        assert lines[0].startswith("Traceback")
        assert lines[-1] == "ModuleNotFoundError: No module named 'nothing_of_that_name'"
        assert said[fault]["status"] == 1
