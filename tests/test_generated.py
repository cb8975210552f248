"""Generated projects, installed from scratch and held to what their README says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import readmes
from conftest import Project, cookiecutter

pytestmark = pytest.mark.slow

SECRET = "s3cret-passw0rd"  # noqa: S105 - that no output may show


def test_lint_and_types_are_clean_as_generated(installed: Project) -> None:
    (command,) = readmes.take(readmes.GENERATED, first=2)
    installed.run("sh", "-euc", command)


@pytest.mark.exhaustive
@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_types_are_clean_on_other_systems(installed: Project, system: str) -> None:
    installed.uv("mypy", "--platform", system)


def test_the_suite_passes_beside_a_hostile_environment(copied: Project) -> None:
    """The developer's own database is never touched, nor are its settings read."""
    (copied.path / ".env").write_text(
        f"DATABASE_URL=postgresql+asyncpg://u:{SECRET}@localhost:1/prod\nDATABASE_POOLER=nonsense\n"
    )
    (command,) = readmes.take(readmes.GENERATED, first=1, last=2)
    hostile = {"DATABASE_URL_SYNC": "postgresql://localhost:1/other", "ALLOWED_HOSTS": "other"}
    assert " passed" in copied.run("sh", "-euc", command, env=hostile).stdout


@pytest.mark.exhaustive
def test_the_suite_passes_on_a_server_of_ones_own(copied: Project) -> None:
    """With one role, which may create databases."""
    script = (
        "createuser -U postgres --createdb tester && createdb -U tester mine_test &&"
        ' TEST_DATABASE_URL="postgresql://tester@/mine_test?host=$PGHOST" pytest -q -n 2'
    )
    assert " passed" in copied.uv("dev", "sh", "-c", script)
    left = copied.uv("dev", "psql", "-Atc", "SELECT datname FROM pg_database")
    assert [name for name in left.split() if name.endswith("_test")] == ["mine_test"]


def test_the_suite_refuses_a_database_that_is_not_for_tests(copied: Project) -> None:
    url = f"postgresql://me:{SECRET}@localhost/production"
    output = copied.uv("pytest", check=False, env={"TEST_DATABASE_URL": url})
    (line,) = [line for line in output.splitlines() if "production" in line]
    assert "_test" in line
    assert SECRET not in output
    assert "Traceback" not in output


def test_a_model_that_is_defined_elsewhere_is_named(copied: Project) -> None:
    (copied.path / "app" / "items" / "tables.py").write_text(
        "from sqlalchemy.orm import Mapped, mapped_column\n\n"
        "from app.database import Base\n\n\n"
        "class Tag(Base):\n"
        '    __tablename__ = "tags"\n\n'
        "    id: Mapped[int] = mapped_column(primary_key=True)\n"
    )
    output = copied.uv("pytest", "-q", "tests/test_migrations.py", check=False)
    assert "tags is defined in app/items/tables.py: move it to app/models/" in output


def test_a_model_that_drifts_from_the_migrations_fails_the_suite(copied: Project) -> None:
    copied.replace(
        "app/models/item.py", "description: Mapped[str | None]", "description: Mapped[str]"
    )
    output = copied.uv("pytest", "-q", "tests/test_migrations.py", check=False)
    assert " failed" in output


@pytest.mark.exhaustive
def test_it_can_be_the_backend_of_another_repository(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "mono"\nversion = "0"\n')
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("raise RuntimeError('the wrong app')\n")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    result = cookiecutter(tmp_path, "project_slug=backend")
    assert result.returncode == 0, result.stderr
    backend = Project(tmp_path / "backend")
    assert " passed" in backend.uv("pytest", "-q")
    # From the repository's root, with no PYTHONPATH, past the other `app`.
    alembic = [
        "uv",
        "run",
        "--quiet",
        "--project",
        "backend",
        "alembic",
        "-c",
        "backend/alembic.ini",
    ]
    result = backend.run(*alembic, "upgrade", "head", "--sql", cwd=tmp_path)
    assert "CREATE TABLE items" in result.stdout


def test_cruft_can_create_it(tmp_path: Path, template_repository: Path) -> None:
    cruft = [sys.executable, "-m", "cruft", "create", "--no-input", str(template_repository)]
    created = Project(tmp_path)
    created.run(*cruft)
    project = Project(tmp_path / "my-api")
    assert (project.path / ".cruft.json").is_file()
    assert (project.path / ".env").is_file()
    project.uv("alembic", "upgrade", "head", "--sql")


def test_production_needs_no_development_dependency(copied: Project) -> None:
    """The driver's libpq and SQLAlchemy's greenlet come with what is declared."""
    copied.run("uv", "sync", "--quiet", "--no-dev")
    run = ["uv", "run", "--quiet", "--no-sync"]
    script = "import psycopg, greenlet, app.main; print(psycopg.pq.__impl__)"
    assert copied.run(*run, "python", "-c", script).stdout == "binary\n"
    sql = copied.run(*run, "alembic", "upgrade", "head", "--sql").stdout
    assert "CREATE TABLE items" in sql
    result = copied.run(*run, "dev", check=False)
    assert result.returncode != 0
    (line,) = result.stderr.splitlines()
    assert "uv sync" in line


CONNECT_WITH_PASSWORDS = """
import asyncio, os, sys
from pathlib import Path
import psycopg
from sqlalchemy import URL, create_engine
from app.config import Settings
from app.database import DatabaseUnavailable, create_engine as create_async_engine

async def connect(settings):
    engine = create_async_engine(settings)
    try:
        async with engine.connect():
            pass
    finally:
        await engine.dispose()

rules = "local all postgres trust\\nlocal all all scram-sha-256\\n"
superuser = psycopg.connect(user="postgres", autocommit=True)
Path(superuser.execute("SHOW hba_file").fetchone()[0]).write_text(rules)
superuser.execute("SELECT pg_reload_conf()")
for password in sys.argv[1:]:
    superuser.execute(psycopg.sql.SQL("ALTER ROLE app PASSWORD {}").format(password))
    url = URL.create("postgresql", "app", password, port=5432, database="app",
                     query={"host": os.environ["PGHOST"]})
    os.environ["DATABASE_URL"] = url.render_as_string(hide_password=False)
    os.environ["DATABASE_URL_SYNC"] = url.render_as_string(hide_password=False)
    settings = Settings()
    asyncio.run(connect(settings))
    create_engine(settings.database_url_sync).connect().close()
    try:
        settings.database_url = settings.database_url.set(password=password + "x")
        asyncio.run(connect(settings))
    except DatabaseUnavailable:
        print("ok")
"""


def test_any_password_connects_with_both_drivers(copied: Project) -> None:
    passwords = ["%", "@", "/", ":", "100%25", "%(here)s", "a b", "#?&+=", "'\"\\$", "пароль🎉"]
    output = copied.uv("dev", "python", "-c", CONNECT_WITH_PASSWORDS, *passwords)
    assert output.split() == ["ok"] * len(passwords)


COMMANDS = {
    "alembic": ["alembic", "current"],
    "uvicorn": ["uvicorn", "app.main:app", "--port", "0"],
    "Settings": ["python", "-c", "from app.config import Settings; Settings()"],
}
WRONG_URLS = {
    "driver": f"postgresql+asyncpg://me:{SECRET}@localhost/db",
    "port": f"postgresql+psycopg://me:{SECRET}@localhost:port/db",
    "not a URL": SECRET,
    "unset": "",
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
@pytest.mark.parametrize("value", WRONG_URLS.values(), ids=WRONG_URLS.keys())
def test_a_wrong_url_is_one_line(installed: Project, command: list[str], value: str) -> None:
    """It names the variable, shows a value that works, and keeps the password to itself."""
    result = installed.run(
        "uv", "run", "-q", *command, check=False, env={"DATABASE_URL_SYNC": value}
    )
    assert result.returncode != 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("DATABASE_URL")
    assert re.search(r"postgresql\+(psycopg|asyncpg)://user:password@localhost:5432/", line)
    assert SECRET not in result.stdout + result.stderr
