"""Migrations, and that Alembic sees every table."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from io import StringIO
from pathlib import Path
from pkgutil import walk_packages
from types import ModuleType
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationStep
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import (
    ARRAY,
    URL,
    Column,
    Connection,
    Engine,
    Enum,
    MetaData,
    NullPool,
    Table,
    create_engine,
    inspect,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeEngine

import app.models
from app import ROOT
from app.database import Base
from app.migrations import TRY_LOCK, connect, describe_heads
from app.urls import ConfigurationError

INI = ROOT / "alembic.ini"
SCRIPTS = ScriptDirectory.from_config(Config(INI))
HEADS = set(SCRIPTS.get_heads())


@pytest.fixture
def empty(empty_url: URL) -> Engine:
    """A database without a table."""
    return create_engine(empty_url, poolclass=NullPool)


@pytest.fixture
def migrated(fresh_url: URL) -> Engine:
    """A database at head, to change for good."""
    return create_engine(fresh_url, poolclass=NullPool)


def config_for(database: Engine | Connection) -> Config:
    """Have Alembic work on what is handed in."""
    config = Config(INI)
    config.attributes["connection"] = database
    return config


def tables(database: Engine) -> set[str]:
    return set(inspect(database).get_table_names())


def revisions(database: Engine | Connection) -> set[str]:
    query = text("SELECT version_num FROM alembic_version")
    if isinstance(database, Connection):
        return set(database.scalars(query))
    with database.connect() as connection:
        return set(connection.scalars(query))


def test_an_upgrade_lasts(empty: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a command does it: the URL from the environment, in any directory."""
    monkeypatch.setenv("DATABASE_URL_SYNC", empty.url.render_as_string(hide_password=False))
    monkeypatch.chdir(tmp_path)
    command.upgrade(Config(INI), "head")
    assert tables(empty) >= {*Base.metadata.tables, "alembic_version"}
    assert revisions(empty) == HEADS


def test_one_revision_comes_last() -> None:
    assert describe_heads(SCRIPTS) is None


def test_two_revisions_that_come_last_are_named(scratch: Config) -> None:
    for name in ("mine", "yours"):
        command.revision(scratch, name, head="base", splice=True)
    message = str(describe_heads(ScriptDirectory.from_config(scratch)))
    for part in ("_mine_", "_yours_", "alembic merge heads"):
        assert part in message


def test_each_revision_goes_up_down_and_up_again(empty: Engine) -> None:
    def stairs(*_: object) -> Iterator[MigrationStep]:
        for script in reversed(list(SCRIPTS.walk_revisions())):
            up = MigrationStep.upgrade_from_script(SCRIPTS.revision_map, script)
            down = MigrationStep.downgrade_from_script(SCRIPTS.revision_map, script)
            yield from (up, down, up)

    with EnvironmentContext(config_for(empty), SCRIPTS, fn=stairs):
        SCRIPTS.run_env()
    assert revisions(empty) == HEADS


# What there is in the schema, but for what an extension brought.
OBJECTS = text("""
    SELECT pg_describe_object(classid, objid, 0) FROM pg_depend
    WHERE refclassid = 'pg_namespace'::regclass AND refobjid = 'public'::regnamespace
    AND classid <> 'pg_extension'::regclass
    AND objid NOT IN (SELECT objid FROM pg_depend WHERE deptype = 'e')
""")


def objects(database: Engine) -> set[str]:
    with database.connect() as connection:
        return set(connection.scalars(OBJECTS))


def test_down_to_base_leaves_nothing_behind(migrated: Engine) -> None:
    """No table, and no type, sequence or function either."""
    command.downgrade(config_for(migrated), "base")
    assert objects(migrated) == {"table alembic_version"}
    assert revisions(migrated) == set()


@pytest.mark.parametrize("kind", ["TYPE x AS ENUM ()", "DOMAIN x text", "SEQUENCE x"])
def test_what_is_left_behind_is_found(empty: Engine, kind: str) -> None:
    with empty.begin() as connection:
        connection.execute(text(f"CREATE {kind}"))
    assert [name.split()[-1] for name in objects(empty)] == ["x"]


KEY = "alembic .alembic_version"


@pytest.fixture
def by_url(migrated: Engine, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Alembic at work on `migrated` as from the command line, by its URL."""
    monkeypatch.setenv("DATABASE_URL_SYNC", migrated.url.render_as_string(hide_password=False))
    return Config(INI)


def test_another_migration_is_waited_for_and_named(
    migrated: Engine,
    by_url: Config,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MIGRATION_WAIT", "100ms")
    with migrated.connect() as other:
        pid = other.scalar(text("SELECT pg_backend_pid()"))
        other.execute(TRY_LOCK, {"key": KEY})
        with pytest.raises(CommandError, match=rf"still runs after 100ms: process {pid} of "):
            command.stamp(by_url, "base")
    assert f"Waiting for another migration, at most 100ms: process {pid}" in caplog.text
    assert revisions(migrated) == HEADS
    command.stamp(by_url, "base")
    assert revisions(migrated) == set()


def test_a_lock_that_was_lost_is_told(migrated: Engine, by_url: Config, scratch: Config) -> None:
    """As when the server ends a connection that waits for long; not an idle one on its own."""
    versions = Path(str(scratch.get_main_option("script_location"))) / "versions"
    (versions / "long.py").write_text(LONG.format(down=next(iter(HEADS), None)))
    del scratch.attributes["connection"]
    with pytest.raises(CommandError, match="kept others from migrating was lost"):
        command.upgrade(scratch, "long")


LONG = """
from alembic import op

revision, down_revision = "long", {down!r}


def upgrade():
    op.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_database ON oid = database "
        "WHERE locktype = 'advisory' AND datname = current_database()"
    )
"""


@pytest.mark.parametrize("name", ["MIGRATION_WAIT", "MIGRATION_LOCK_TIMEOUT"])
@pytest.mark.parametrize("value", ["soon", "5", "5 s", "5s -c role=postgres"])
def test_a_time_needs_its_unit(
    by_url: Config, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=rf"^{name}={value} is no time"):
        command.current(by_url)


def test_to_look_and_a_connection_handed_in_need_no_lock(
    migrated: Engine, by_url: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIGRATION_WAIT", "0s")
    with migrated.connect() as other:
        other.execute(TRY_LOCK, {"key": KEY})
        command.current(by_url)
        command.stamp(config_for(migrated), "base")


def test_a_busy_table_is_named_and_left_as_it_is(
    migrated: Engine, by_url: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIGRATION_LOCK_TIMEOUT", "10ms")
    with migrated.connect() as other:
        pid = other.scalar(text("SELECT pg_backend_pid()"))
        other.execute(text("LOCK TABLE alembic_version"))
        with pytest.raises(CommandError, match=f"alembic_version is held by process {pid} of "):
            command.stamp(by_url, "base")
    assert revisions(migrated) == HEADS
    command.stamp(by_url, "base")


def test_a_statement_that_takes_too_long_is_ended(
    migrated: Engine, by_url: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIGRATION_STATEMENT_TIMEOUT", "10ms")
    with migrated.connect() as other:
        other.execute(text("LOCK TABLE alembic_version"))
        with pytest.raises(CommandError, match="statement timeout: the revision needs a longer"):
            command.stamp(by_url, "base")


def test_the_urls_own_options_and_the_timeouts_are_both_set(
    migrated: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = migrated.url.update_query_dict({"options": "-c work_mem=5MB -c lock_timeout=7s"})
    monkeypatch.setenv("DATABASE_URL_SYNC", url.render_as_string(hide_password=False))
    with connect(Config(INI)) as connection:
        shown = {
            name: connection.scalar(text(f"SHOW {name}"))
            for name in (
                *("work_mem", "lock_timeout"),
                *("client_connection_check_interval", "idle_session_timeout"),
            )
        }
    assert shown == {
        "work_mem": "5MB",
        "lock_timeout": "7s",
        "client_connection_check_interval": "0" if os.name == "nt" else "1s",
        "idle_session_timeout": "0",
    }


def test_models_and_migrations_agree(transaction: Connection) -> None:
    """If not: `uv run dev alembic revision --autogenerate -m "what changed"`."""
    command.check(config_for(transaction))


def test_a_connection_handed_in_stays_open_and_uncommitted(
    transaction: Connection, worker_url: URL
) -> None:
    command.stamp(config_for(transaction), "base")
    assert revisions(transaction) == set()
    assert revisions(create_engine(worker_url, poolclass=NullPool)) == HEADS


async def test_an_upgrade_in_a_running_event_loop_leaves_logging_alone(empty: Engine) -> None:
    root, others = logging.getLogger(), logging.getLogger("somebody.elses")
    before = (root.handlers.copy(), root.level, others.disabled)
    command.upgrade(config_for(empty), "head")
    assert (root.handlers, root.level, others.disabled) == before
    assert revisions(empty) == HEADS


COMMAND_LINE = """
import json, logging, sys
logger = logging.getLogger("somebody.elses")
from alembic.config import main
main()
from app.database import Base
seen = {"tables": sorted(Base.metadata.tables), "disabled": logger.disabled}
print(json.dumps(seen), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """`alembic -c …/alembic.ini upgrade head --sql` elsewhere, with no URL set."""
    unset = {"DATABASE_URL", "DATABASE_URL_SYNC", "DATABASE_POOLER", "PYTHONPATH"}
    return subprocess.run(  # noqa: S603 - the command is written out here
        [sys.executable, "-c", COMMAND_LINE, "-c", str(INI), "upgrade", "head", "--sql"],
        env={name: value for name, value in os.environ.items() if name not in unset},
        cwd=tmp_path_factory.mktemp("elsewhere"),
        capture_output=True,
        text=True,
        check=False,
    )


def test_sql_needs_no_database(offline: subprocess.CompletedProcess[str]) -> None:
    assert offline.returncode == 0, offline.stderr
    for table in Base.metadata.tables:
        assert f"CREATE TABLE {table} (" in offline.stdout


def test_the_command_line_sees_every_table(offline: subprocess.CompletedProcess[str]) -> None:
    seen = json.loads(offline.stderr.splitlines()[-1])
    assert seen["tables"] == sorted(Base.metadata.tables)


def test_the_command_line_keeps_loggers(offline: subprocess.CompletedProcess[str]) -> None:
    seen = json.loads(offline.stderr.splitlines()[-1])
    assert seen["disabled"] is False


def lint(script: str, directory: Path) -> str:
    """What squawk finds in an offline script.

    It gets a file for each revision: in one for all, what an earlier revision made could pass
    for new, and Alembic's own table is found fault with.
    """
    parts = re.split(r"-- Running upgrade .*-> (\S+)\n", script)[1:]
    for revision, statements in zip(parts[::2], parts[1::2], strict=True):
        text = "BEGIN;" + statements.removesuffix("BEGIN;\n\n")
        (directory / f"{revision}.sql").write_text(text)
    squawk = shutil.which("squawk", path=Path(sys.executable).parent)
    assert squawk, "not installed: run `uv sync`"
    options = ["--config", str(ROOT / ".squawk.toml"), "--no-error-on-unmatched-pattern"]
    result = subprocess.run(  # noqa: S603 - the command is written out here
        [squawk, *options, "*.sql"], cwd=directory, capture_output=True, text=True, check=False
    )
    return result.stdout + result.stderr if result.returncode else ""


def test_revisions_are_safe_on_a_busy_table(
    offline: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    """If not: see "Recipes for a busy table" in README.md."""
    if findings := lint(offline.stdout, tmp_path):
        pytest.fail(findings, pytrace=False)


REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = {revision!r}, {down!r}


def upgrade():
    {operation}
"""
SAFE = 'op.create_table("probes", sa.Column("id", sa.BigInteger(), sa.Identity()))'
UNSAFE = {
    "adding-required-field": """op.add_column(
        "probes", sa.Column("size", sa.BigInteger(), nullable=False)
    )""",
    "adding-not-nullable-field": 'op.alter_column("probes", "size", nullable=False)',
    "adding-foreign-key-constraint": """op.create_foreign_key(
        "fk", "probes", "others", ["size"], ["id"]
    )""",
    "constraint-missing-not-valid": 'op.create_check_constraint("ck", "probes", "id > 0")',
    "require-concurrent-index-creation": 'op.create_index("ix", "probes", ["id"])',
}


@pytest.mark.parametrize(("rule", "operation"), UNSAFE.items(), ids=UNSAFE)
def test_an_unsafe_revision_is_found(
    scratch: Config, tmp_path: Path, rule: str, operation: str
) -> None:
    """Also where the table is made in the same script, by an earlier revision."""
    versions = tmp_path / "alembic" / "versions"
    shutil.rmtree(versions)
    versions.mkdir()
    first = REVISION.format(revision="first", down=None, operation=SAFE)
    second = REVISION.format(revision="second", down="first", operation=operation)
    (versions / "first.py").write_text(first)
    (versions / "second.py").write_text(second)
    scratch.output_buffer = StringIO()
    command.upgrade(scratch, "head", sql=True)
    findings = lint(scratch.output_buffer.getvalue(), tmp_path)
    assert rule in findings
    assert "second.sql" in findings
    assert "first.sql" not in findings


def misplaced(base: type[DeclarativeBase], modules: Iterable[ModuleType]) -> list[str]:
    """The tables of `base` that Alembic misses, since it imports nothing but `app.models`."""
    places: dict[str, set[str]] = {name: set() for name in base.metadata.tables}
    for mapper in base.registry.mappers:
        if isinstance(mapper.local_table, Table):
            places[mapper.local_table.key].add(mapper.class_.__module__)
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, Table) and value.metadata is base.metadata:
                places[value.key].add(module.__name__)
    return [
        f"{name} is defined in {' and '.join(map(file_of, found))}: move it to app/models/"
        for name, found in places.items()
        if not any(place.startswith("app.models.") for place in found)
    ]


def file_of(module: str) -> str:
    return Path(str(sys.modules[module].__file__)).relative_to(ROOT).as_posix()


def test_every_table_is_defined_in_app_models() -> None:
    modules = [import_module(found.name) for found in walk_packages(app.__path__, "app.")]
    assert misplaced(Base, modules) == []


class OtherBase(DeclarativeBase):
    """Apart from the application's, for tables that are in the wrong place."""


class Stray(OtherBase):
    __tablename__ = "strays"

    id: Mapped[int] = mapped_column(primary_key=True)


links = Table("links", OtherBase.metadata)


def test_a_table_that_is_defined_elsewhere_is_found() -> None:
    assert misplaced(OtherBase, [sys.modules[__name__]]) == [
        f"{table} is defined in tests/test_migrations.py: move it to app/models/"
        for table in ("strays", "links")
    ]


def loose_enums(metadata: MetaData) -> list[str]:
    """Enums that autogenerate does not follow: types of PostgreSQL's, and unchecked strings."""
    return [
        f"{column}: write `Mapped[…]` of a class that derives from enum.Enum"
        for table in metadata.tables.values()
        for column in table.columns
        for kind in (column.type, getattr(column.type, "item_type", None))
        if isinstance(kind, Enum) and (kind.native_enum or not kind.create_constraint)
    ]


def test_every_enum_is_followed_by_autogenerate() -> None:
    assert loose_enums(Base.metadata) == []


@pytest.mark.parametrize(
    "kind", [Enum("a"), Enum("a", native_enum=False), ARRAY(Enum("a", name="kind"))], ids=repr
)
def test_an_enum_that_autogenerate_does_not_follow_is_found(kind: TypeEngine[Any]) -> None:
    metadata = MetaData()
    Table("probes", metadata, Column("kind", kind))
    assert [found.partition(":")[0] for found in loose_enums(metadata)] == ["probes.kind"]
