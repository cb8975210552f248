"""Generated projects, installed from nothing: their commands, and what their tests report."""

import re
import subprocess
from pathlib import Path

import pytest
import readmes
from conftest import Project, cookiecutter

pytestmark = pytest.mark.slow

SECRET = "s3cret-passw0rd"  # noqa: S105 - for a search in outputs


def test_lint_and_types_are_clean_as_generated(installed: Project) -> None:
    (command,) = readmes.take(readmes.GENERATED, first=2)
    installed.run("sh", "-euc", command)


@pytest.mark.exhaustive
@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_types_are_clean_on_other_systems(installed: Project, system: str) -> None:
    installed.uv("mypy", "--platform", system)


def test_lint_accepts_a_column_named_like_a_builtin(copied: Project) -> None:
    own = 'parent: Mapped["Item"] = relationship(remote_side=[id])\n'
    copied.replace("app/models/item.py", "    name: ", f"    {own}    name: ")
    assert "A003" not in copied.uv("ruff", "check", check=False)


def test_suite_passes_beside_a_hostile_environment(copied: Project) -> None:
    """Tests use neither the developer's database nor the settings of `.env`."""
    (copied.path / ".env").write_text(
        f"DATABASE_URL=postgresql+asyncpg://u:{SECRET}@localhost:1/prod\nDATABASE_POOLER=nonsense\n"
    )
    (command,) = readmes.take(readmes.GENERATED, first=1, last=2)
    hostile = {"DATABASE_URL_SYNC": "postgresql://localhost:1/other", "ALLOWED_HOSTS": "other"}
    assert " passed" in copied.run("sh", "-euc", command, env=hostile).stdout


@pytest.mark.exhaustive
def test_suite_passes_on_another_server(copied: Project) -> None:
    """Its role may create databases and nothing more. No database is left behind."""
    script = (
        "createuser -U postgres --createdb tester && createdb -U postgres -O tester mine_test &&"
        ' TEST_DATABASE_URL="postgresql://tester@/mine_test?host=$PGHOST" pytest -q -n 2'
    )
    assert " passed" in copied.uv("dev", "sh", "-c", script)
    left = copied.uv("dev", "psql", "-Atc", "SELECT datname FROM pg_database")
    assert [name for name in left.split() if name.endswith("_test")] == ["mine_test"]


def test_suite_refuses_a_database_that_is_not_for_tests(installed: Project) -> None:
    url = f"postgresql://me:{SECRET}@localhost/production"
    output = installed.uv("pytest", check=False, env={"TEST_DATABASE_URL": url})
    (line,) = [line for line in output.splitlines() if "production" in line]
    assert "_test" in line
    assert SECRET not in output
    assert "Traceback" not in output


TAG = """
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Base


class Tag(Base):
    __tablename__ = "tags"

    id: Mapped[int] = mapped_column(primary_key=True)
"""


def test_suite_reports_models_that_differ_from_the_migrations(copied: Project) -> None:
    """One model is outside app/models, and a column of another one has changed."""
    (copied.path / "app" / "items" / "tables.py").write_text(TAG)
    nullable = "description: Mapped[str | None]"
    copied.replace("app/models/item.py", nullable, "description: Mapped[str]")
    output = copied.uv("pytest", "-q", "tests/test_migrations.py", check=False)
    assert "tags is defined in app/items/tables.py: move it to app/models/" in output
    assert "modify_nullable" in output


REVISION = """
from alembic import op

revision, down_revision = "second", "1f0c5e7a9b3d"


def upgrade():
    {}


def downgrade():
    pass
"""
ADVICE = 'write a revision: uv run dev alembic revision --autogenerate -m "what changed"'


def only_error(output: str, reports: str) -> None:
    """Check that a run without a test ends in one report."""
    assert reports in output
    assert output.count("ERROR: ") == 1
    assert len(output.splitlines()) < 15
    for noise in ("INTERNALERROR", "site-packages", "FAILED", " passed"):
        assert noise not in output


@pytest.mark.parametrize(
    ("statement", "reports"),
    [
        ("op.execute('ALTER TABLE nope ADD x int')", 'relation "nope" does not exist'),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("1 +", "SyntaxError: invalid syntax"),
    ],
    ids=["SQL", "Python", "syntax"],
)
def test_suite_reports_a_broken_revision_once(
    copied: Project, statement: str, reports: str
) -> None:
    (copied.path / "alembic/versions/second.py").write_text(REVISION.format(statement))
    output = copied.uv("pytest", "-q", check=False)
    only_error(output, reports)
    assert re.search(r'versions/second.py", line 8(, in upgrade)?\n +' + statement[:4], output)


def test_suite_reports_a_failed_comparison_as_such(copied: Project) -> None:
    default = "server_default=func.now()"
    copied.replace("app/models/item.py", default, "server_default=func.nope()")
    output = copied.uv("pytest", "-q", check=False)
    only_error(output, "ERROR: the models cannot be compared with the database:")
    assert "function nope() does not exist" in output
    assert "do not apply" not in output


def test_suite_reports_a_forgotten_migration_once(copied: Project) -> None:
    """All other tests would fail too. Those of migrations run if they run alone."""
    nullable = "description: Mapped[str | None]"
    copied.replace("app/models/item.py", nullable, "description: Mapped[str]")
    for options in ([], ["-n", "2"]):
        output = copied.uv("pytest", "-q", *options, check=False)
        only_error(output, "modify_nullable")
        assert ADVICE in output
    output = copied.uv("pytest", "-q", "tests/test_migrations.py", check=False)
    assert "FAILED tests/test_migrations.py::test_models_and_migrations_agree" in output
    assert "1 failed, " in output
    assert ADVICE in output


@pytest.mark.long
def test_example_goes_without_a_trace_after_a_table_was_added(started: Project) -> None:
    """As "Remove the example" says for a project that is deployed nowhere."""
    table = readmes.sections(readmes.GENERATED)["Add a table"]
    (started.path / "app/models/user.py").write_text(readmes.fenced(table, "python")[0])
    add = "alembic upgrade head; alembic revision --autogenerate -m users; alembic upgrade head"
    started.uv("dev", "sh", "-euc", add)
    prose = " ".join(readmes.sections(readmes.GENERATED)["Remove the example"].split())
    (empty,) = re.findall(r"`(uv run dev alembic downgrade base)`. \*\*It empties", prose)
    remove, *_ = readmes.blocks(readmes.GENERATED, "Remove the example")
    started.run("sh", "-euc", "".join(remove.splitlines(keepends=True)[:-2]) + empty)
    (first,) = started.path.glob("alembic/versions/*_create_items_*.py")
    (second,) = started.path.glob("alembic/versions/*_users_*.py")
    first.unlink()
    name = second.relative_to(started.path).as_posix()
    started.replace(name, '= "1f0c5e7a9b3d"', "= None")
    started.uv("dev", "sh", "-euc", "alembic upgrade head && alembic check")
    assert started.uv("dev", "psql", "-Atc", "SELECT to_regclass('items')").strip() == ""
    assert " passed" in started.uv("pytest", "-q")


@pytest.mark.exhaustive
def test_project_can_be_the_backend_of_another_repository(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "mono"\nversion = "0"\n')
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("raise RuntimeError('the wrong app')\n")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    result = cookiecutter(tmp_path, "project_slug=backend")
    assert result.returncode == 0, result.stderr
    backend = Project(tmp_path / "backend")
    assert " passed" in backend.uv("pytest", "-q")
    # From the repository's root, with no PYTHONPATH, although that root has an `app` too.
    command = "uv run -q --project backend alembic -c backend/alembic.ini upgrade head --sql"
    result = backend.run(*command.split(), cwd=tmp_path)
    assert "CREATE TABLE items" in result.stdout


def test_production_needs_no_development_dependency(copied: Project) -> None:
    """The declared dependencies bring the libpq of psycopg and SQLAlchemy's greenlet."""
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
