"""A project follows its template, and gets an option later; what is the user's stays."""

import subprocess
import sys
from pathlib import Path

import pytest
import readmes
from conftest import Project, commit, git, link_bytecode, move_on, user_environment

pytestmark = pytest.mark.slow


def cruft(directory: Path, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "cruft", *arguments],
        cwd=directory,
        env=user_environment()
        | {"GIT_AUTHOR_NAME": "Test", "GIT_AUTHOR_EMAIL": "test@example.com"}
        | {"GIT_COMMITTER_NAME": "Test", "GIT_COMMITTER_EMAIL": "test@example.com"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_cruft_update_brings_the_template_and_leaves_the_users(
    tmp_path: Path, template_repository: Path
) -> None:
    git(template_repository, "tag", "v1")
    cruft(tmp_path, "create", "--no-input", "--checkout", "v1", str(template_repository))
    project = Project(tmp_path / "my-api")
    env = (project.path / ".env").read_text()
    git(project.path, "init", "--quiet")
    git(project.path, "add", "--all")
    git(project.path, "commit", "--quiet", "--message", "Generated")

    revision = project.path / "alembic" / "versions" / "2027-01-01_mine_abc.py"
    revision.write_text('"""mine"""\n\nrevision = "abc"\ndown_revision = "1f0c5e7a9b3d"\n')
    project.replace("app/main.py", "app = create_app()", "app = create_app()  # mine")
    (project.path / "app" / "models" / "user.py").write_text('"""Mine."""\n')
    git(project.path, "add", "--all")
    git(project.path, "commit", "--quiet", "--message", "Mine")
    before = {
        path: path.read_text()
        for path in (
            revision,
            project.path / "app" / "main.py",
            project.path / "app" / "models" / "user.py",
            project.path / "alembic" / "versions" / "2026-11-22_create_items_1f0c5e7a9b3d.py",
        )
    }

    move_on(template_repository)
    cruft(project.path, "update", "--skip-apply-ask", "--checkout", "v2")

    assert list(project.path.rglob("*.rej")) == []
    assert "-- Second release.\n" in (project.path / "roles.sql").read_text()
    assert "structlog>=25.2.0" in (project.path / "pyproject.toml").read_text()
    assert (project.path / "app" / "clock.py").is_file()
    assert not (project.path / "tests" / "test_health.py").exists()
    assert {path: path.read_text() for path in before} == before
    assert (project.path / ".env").read_text() == env
    cruft(project.path, "check")


OPTIONS = "docs/options.md"  # its option is auth=accounts
# Other options: what to write in place of the page's, in main.py, and a query of the table.
LATER = {
    "auth": ({}, "from app.auth", "SELECT count(*) FROM accounts"),
    "jobs": (
        {'"auth": "accounts"': '"jobs": true', "auth=accounts": "jobs=yes"},
        "from app.jobs",
        "SELECT count(*) FROM jobs.pgqueuer",
    ),
    "oidc": (
        {'"auth": "accounts"': '"auth": "oidc"', "auth=accounts": "auth=oidc"},
        "from app.oidc",
        "",  # it has none
    ),
}
NOTES = """
from sqlalchemy import Identity
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Base


class Note(Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
"""
BEFORE = """
alembic upgrade head
psql -qc "INSERT INTO items (name) VALUES ('kept')"
alembic revision --autogenerate -m "create notes"
alembic upgrade head
"""
JOIN = "are both heads: join them with `alembic merge heads -m 'merge branches'`"


def generate(template: Path, directory: Path, tool: str) -> Project:
    """A committed project with an edit of the owner's."""
    git(template, "tag", "1.0.0")
    create, answers = ["cookiecutter"], ["project_name=Billing"]
    if tool == "cruft":
        create, answers = ["cruft", "create"], ["--extra-context", '{"project_name": "Billing"}']
    options = ["--checkout", "1.0.0", "--no-input", *answers]
    Project(directory).run(sys.executable, "-m", *create, str(template), *options)
    project = Project(directory / "billing")
    commit(project.path)
    project.replace("app/main.py", "app = create_app()", "app = create_app()  # mine")
    return project


def run(heading: str, project: Project, template: Path, option: str = "auth") -> str:
    """Run the block of a section of the page."""
    (block,) = readmes.take(OPTIONS, heading)
    for old, new in LATER[option][0].items():
        block = block.replace(old, new)
    return project.run("sh", "-euc", readmes.ADDRESS.sub(str(template), block)).stdout


@pytest.mark.exhaustive
@pytest.mark.parametrize(("option", "answer"), [("auth", "auth=accounts"), ("oidc", "auth=oidc")])
def test_option_comes_without_cruft(
    template_repository: Path, tmp_path: Path, option: str, answer: str
) -> None:
    """As in a new project, but for what the owner has changed."""
    project = generate(template_repository, tmp_path, "cookiecutter")
    commit(project.path)
    run("Without cruft", project, template_repository, option)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["billing", "template"]
    project.replace("app/main.py", "  # mine", "")
    commit(project.path)
    commands = [sys.executable, "-m", "cookiecutter", str(template_repository)]
    Project(tmp_path).run(*commands, "--no-input", "-f", "project_name=Billing", answer)
    assert git(project.path, "status", "--porcelain") == ""


@pytest.mark.exhaustive
def test_option_without_tables_comes_by_cruft(template_repository: Path, tmp_path: Path) -> None:
    project = generate(template_repository, tmp_path, "cruft")
    commit(project.path)
    run("With cruft", project, template_repository, "oidc")
    assert list(project.path.rglob("*.rej")) == []
    main = (project.path / "app" / "main.py").read_text()
    assert LATER["oidc"][1] in main
    assert "# mine" in main
    assert " passed" in project.uv("pytest", "-q", "tests/test_oidc.py", "tests/test_items.py")


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("tool", "option"),
    [("cruft", "auth"), ("cruft", "jobs"), ("cookiecutter", "auth")],
)
def test_option_comes_to_a_migrated_database(
    template_repository: Path, tmp_path: Path, installed: Project, tool: str, option: str
) -> None:
    """With a revision of the owner's, so that there are two heads to join."""
    project = generate(template_repository, tmp_path, tool)
    project.uv("true")
    link_bytecode(installed.path / ".venv", project.path / ".venv")
    (project.path / "app" / "models" / "note.py").write_text(f'"""Mine."""\n{NOTES}')
    project.uv("dev", "sh", "-euc", BEFORE)
    commit(project.path)
    heading = "With cruft" if tool == "cruft" else "Without cruft"
    run(heading, project, template_repository, option)
    assert list(project.path.rglob("*.rej")) == []
    main = (project.path / "app" / "main.py").read_text()
    _, came, count = LATER[option]
    assert came in main
    assert "# mine" in main

    assert JOIN in project.uv("dev", "alembic", "upgrade", "head", check=False)
    head = "tests/test_migrations.py::test_there_is_one_head"
    assert JOIN in project.uv("pytest", "-q", head, check=False)
    assert " passed" in run("Its tables", project, template_repository)
    rows = "SELECT name, (SELECT count(*) FROM notes) FROM items"
    assert project.uv("dev", "psql", "-Atc", rows, "-c", count).split() == ["kept|0", "0"]
