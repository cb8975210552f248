"""`alembic` on the command line: errors as one line, offline, from any directory."""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from alembic import command
from alembic.config import Config, main
from alembic.util import CommandError
from sqlalchemy import URL, Engine, NullPool, create_engine, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from app.database import Base
from app.database.settings import MigrationSettings
from machinery.conftest import AddRevision

FIRST = "1f0c5e7a9b3d"


@pytest.fixture(autouse=True)
def no_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `main` run in this process without a change of its loggers."""
    monkeypatch.setattr("logging.config.fileConfig", lambda *_, **__: None)


def alembic(config: Config, *arguments: str) -> str:
    """Run `alembic`, and return the line that it ends with."""
    with pytest.raises(SystemExit) as error:
        main(["-c", str(config.config_file_name), *arguments])
    assert isinstance(error.value.code, str)  # which Python prints, with exit status 1
    assert "\n" not in error.value.code
    return error.value.code


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        (
            {"DATABASE_URL_SYNC": "postgresql://127.0.0.1:1/app"},
            "DATABASE_URL_SYNC does not connect: connection failed: .*port 1 failed: .*Check the",
        ),
        (
            {"DATABASE_URL_SYNC": "mysql://app:hunter2@db/app"},
            r"DATABASE_URL_SYNC has the driver mysql; it should look like postgresql\+psycopg://",
        ),
        ({"DATABASE_URL_SYNC": ""}, "neither DATABASE_URL nor DATABASE_URL_SYNC is set"),
        ({"MIGRATION_WAIT_SECONDS": "soon"}, "MIGRATION_WAIT_SECONDS: Input should be a valid"),
        ({"MIGRATION_LOCK_TIMEOUT_SECONDS": "soon"}, "MIGRATION_LOCK_TIMEOUT_SECONDS: Input"),
        ({"MIGRATION_STATEMENT_TIMEOUT_SECONDS": "5s"}, "MIGRATION_STATEMENT_TIMEOUT_SECONDS: In"),
    ],
    ids=["no server", "driver", "no URL", "wait", "lock timeout", "statement timeout"],
)
def test_wrong_setting_is_one_line(
    by_url: Config, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], line: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = alembic(by_url, "downgrade", "base")
    assert re.match(line, found), found
    assert "hunter2" not in found


def test_missing_database_is_one_line(
    by_url: Config, fresh_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = fresh_url.set(database="pytest_missing").render_as_string(hide_password=False)
    monkeypatch.setenv("DATABASE_URL_SYNC", url)
    line = alembic(by_url, "upgrade", "head")
    assert line.startswith("DATABASE_URL_SYNC does not connect: ")
    assert 'database "pytest_missing" does not exist. Check the URL' in line


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        (
            "DO $$ BEGIN RAISE insufficient_privilege USING MESSAGE = 'must be owner'; END $$",
            "must be owner",
        ),
        (
            "SET search_path = nowhere; CREATE TABLE x ()",
            "no schema has been selected to create in",
        ),
    ],
    ids=["privilege", "schema"],
)
def test_missing_right_is_one_line(
    by_url: Config, add_revision: AddRevision, sql: str, reason: str
) -> None:
    add_revision("second", FIRST, f'op.execute("{sql}")')
    line = alembic(by_url, "upgrade", "head")
    assert line.startswith(f"{reason}: DATABASE_URL_SYNC must name the role that owns the schema")


def test_unknown_schema_in_a_revision_keeps_its_traceback(
    by_url: Config, add_revision: AddRevision
) -> None:
    add_revision("second", FIRST, "op.execute('CREATE TABLE nowhere.x ()')")
    with pytest.raises(ProgrammingError, match='schema "nowhere" does not exist'):
        main(["-c", str(by_url.config_file_name), "upgrade", "head"])


@pytest.mark.parametrize("name", ["connect", "context", "gc"])
def test_model_may_be_in_a_module_named_like_a_name_of_env_py(
    by_url: Config, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The import of such a module sets an attribute of its package."""
    monkeypatch.setattr(f"app.models.{name}", ModuleType(name), raising=False)
    main(["-c", str(by_url.config_file_name), "check"])


def test_missing_extension_is_one_line(by_url: Config, add_revision: AddRevision) -> None:
    add_revision("second", FIRST, "op.execute('CREATE EXTENSION nope')")
    line = alembic(by_url, "upgrade", "head")
    assert line.startswith('extension "nope" is not available: the embedded server has only')


def test_unknown_revision_is_one_line(by_url: Config, database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'newer'"))
    line = alembic(by_url, "downgrade", "-1")
    assert line.startswith("Can't locate revision identified by 'newer' in alembic/versions. If ")
    assert line.endswith("deploy that code here too")
    assert "'no_such_one'" in alembic(by_url, "upgrade", "no_such_one")


@pytest.mark.parametrize("target", ["head", "heads"])
def test_previous_version_may_upgrade_a_newer_schema(
    by_url: Config, database: Engine, caplog: pytest.LogCaptureFixture, target: str
) -> None:
    """Its migration job succeeds, so that the application of a rollback starts."""
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'newer'"))
    main(["-c", str(by_url.config_file_name), "upgrade", target])
    assert "newer code has migrated the database, nothing is done" in caplog.text


def test_two_heads_are_one_line(by_url: Config, add_revision: AddRevision) -> None:
    add_revision("second", None)
    line = alembic(by_url, "upgrade", "head")
    for part in ("_create_items_", "second.py are both heads", "`alembic merge heads -m"):
        assert part in line


def test_raiseerr_shows_the_traceback(by_url: Config, add_revision: AddRevision) -> None:
    add_revision("second", FIRST, 'op.execute("SET search_path = nowhere; CREATE TABLE x ()")')
    with pytest.raises(CommandError, match="must name the role") as error:
        main(["-c", str(by_url.config_file_name), "--raiseerr", "upgrade", "head"])
    assert isinstance(error.value.__cause__, ProgrammingError)


def test_program_gets_an_exception(by_url: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL_SYNC", "mysql://app@db/app")
    with pytest.raises(CommandError, match="DATABASE_URL_SYNC has the driver mysql"):
        command.upgrade(by_url, "head")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("import nothing_of_that_name", ModuleNotFoundError),
        ('op.execute("SELEKT 1")', ProgrammingError),
        ("op.execute(\"INSERT INTO items (name) VALUES ('')\")", IntegrityError),
    ],
    ids=["import", "SQL", "rows"],
)
def test_mistake_in_a_revision_keeps_its_traceback(
    by_url: Config, add_revision: AddRevision, body: str, error: type[Exception]
) -> None:
    add_revision("second", FIRST, body)
    with pytest.raises(error):
        main(["-c", str(by_url.config_file_name), "upgrade", "head"])


async def test_program_keeps_its_logging_in_a_running_event_loop(
    empty_url: URL, monkeypatch: pytest.MonkeyPatch, by_url: Config
) -> None:
    monkeypatch.undo()
    root, others = logging.getLogger(), logging.getLogger("somebody.elses")
    before = (root.handlers.copy(), root.level, others.disabled)
    by_url.attributes["connection"] = create_engine(empty_url, poolclass=NullPool)
    command.upgrade(by_url, "head")
    assert (root.handlers, root.level, others.disabled) == before


ALEMBIC = """
import json, logging, sys
logger = logging.getLogger("somebody.elses")
from alembic.config import main
try:
    main()
finally:
    from app.database import Base
    seen = {"tables": sorted(Base.metadata.tables), "disabled": logger.disabled}
    print(json.dumps(seen), file=sys.stderr)
"""
NAMES = {"PYTHONPATH", *(name.upper() for name in MigrationSettings.model_fields)}


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `alembic` of the project in `directory`, elsewhere, with no variable set."""
    elsewhere = directory / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    return subprocess.run(  # noqa: S603 - the command is written out here
        [sys.executable, "-c", ALEMBIC, "-c", str(directory / "alembic.ini"), *arguments],
        env={name: value for name, value in os.environ.items() if name not in NAMES},
        cwd=elsewhere,
        capture_output=True,
        text=True,
        check=False,
    )


def seen(result: subprocess.CompletedProcess[str]) -> dict[str, object]:
    return dict(json.loads(result.stderr.splitlines()[-1]))


@pytest.mark.usefixtures("by_url")
def test_sql_needs_no_database_and_no_directory(tmp_path: Path) -> None:
    result = run(tmp_path, "upgrade", "head", "--sql")
    assert result.returncode == 0, result.stderr
    for table in Base.metadata.tables:
        assert f"CREATE TABLE {table} (" in result.stdout
    assert result.stdout.count("COMMIT;") == result.stdout.count("BEGIN;")
    assert seen(result) == {"tables": sorted(Base.metadata.tables), "disabled": False}


MODEL = """
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Base


class PytestExtra(Base):
    __tablename__ = "pytest_extras"

    id: Mapped[int] = mapped_column(primary_key=True)
"""


@pytest.mark.usefixtures("by_url")
def test_env_file_and_every_model_of_the_project_are_found(tmp_path: Path, fresh_url: URL) -> None:
    """Also a model that no module imports."""
    (tmp_path / "app" / "models" / "extra.py").write_text(MODEL)
    url = fresh_url.render_as_string(hide_password=False)
    (tmp_path / ".env").write_text(f"DATABASE_URL_SYNC={url}\n")
    result = run(tmp_path, "check")
    assert "New upgrade operations detected: [('add_table'" in result.stderr
    assert "pytest_extras" in str(seen(result)["tables"])


@pytest.mark.usefixtures("by_url")
def test_process_ends_with_status_1_and_one_line(tmp_path: Path) -> None:
    result = run(tmp_path, "current")
    _, line = result.stderr.splitlines()  # the first one is what `seen` reads
    assert result.returncode == 1
    assert line.startswith("neither DATABASE_URL nor DATABASE_URL_SYNC is set; ")
    assert result.stdout == ""
