"""A project follows its template, gets and loses an option; what is the user's stays."""

import json
import re
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


def generate(
    template: Path, directory: Path, tool: str, repository: Path | None = None, **more: object
) -> Project:
    """A committed project with an edit of the owner's. `repository` has it in a folder."""
    git(template, "tag", "1.0.0")
    answers = {"project_name": "Billing"} | more
    create, options = ["cookiecutter"], [f"{name}={value}" for name, value in answers.items()]
    if tool == "cruft":
        create, options = ["cruft", "create"], ["--extra-context", json.dumps(answers)]
    options = ["--checkout", "1.0.0", "--no-input", *options]
    directory.mkdir(parents=True, exist_ok=True)
    Project(directory).run(sys.executable, "-m", *create, str(template), *options)
    project = Project(directory / "billing")
    commit(repository or project.path)
    project.replace("app/main.py", "app = create_app()", "app = create_app()  # mine")
    commit(repository or project.path)
    return project


def run(
    heading: str,
    project: Project,
    template: Path,
    option: str = "auth",
    first: int = 0,
    last: int | None = None,
) -> str:
    """Run the blocks of a section of the page, or some of them."""
    script = "".join(readmes.take(OPTIONS, heading, first, last))
    for old, new in LATER[option][0].items():
        script = script.replace(old, new)
    return project.run("sh", "-euc", readmes.ADDRESS.sub(str(template), script)).stdout


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("option", "answer", "folder"),
    [
        ("auth", "auth=accounts", "billing"),
        ("oidc", "auth=oidc", "billing"),
        ("auth", "auth=accounts", "mono/billing"),
        ("oidc", "auth=oidc", "mono/services/billing"),
    ],
)
def test_option_comes_without_cruft(
    template_repository: Path, tmp_path: Path, option: str, answer: str, folder: str
) -> None:
    """As in a new project, but for what the owner has changed; also in a monorepo."""
    directory, repository = (tmp_path / folder).parent, tmp_path / folder.split("/")[0]
    project = generate(template_repository, directory, "cookiecutter", repository)
    run("Without cruft", project, template_repository, option)
    assert {path.name for path in directory.iterdir()} <= {"billing", "template", ".git"}
    assert "# mine" in (project.path / "app" / "main.py").read_text()
    project.replace("app/main.py", "  # mine", "")
    commit(repository)
    commands = [sys.executable, "-m", "cookiecutter", str(template_repository)]
    Project(directory).run(*commands, "--no-input", "-f", "project_name=Billing", answer)
    assert git(project.path, "status", "--porcelain") == ""


@pytest.mark.exhaustive
def test_option_without_tables_comes_by_cruft(template_repository: Path, tmp_path: Path) -> None:
    project = generate(template_repository, tmp_path, "cruft")
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


GOES = "An option that goes"
IGNORED, DROP_ACCOUNTS, DROP_JOBS = readmes.fenced(readmes.sections(OPTIONS)[GOES], "python")
# The answer, and what the option's revision creates.
TABLES: dict[str, tuple[object, str]] = {"auth": ("accounts", "accounts"), "jobs": (True, "jobs")}
MIGRATE = """
alembic upgrade head
psql -qc "INSERT INTO items (name) VALUES ('kept')"
"""
LEFT = "SELECT to_regclass('accounts'), to_regnamespace('jobs'), name FROM items"


def write_drop(versions: Path, created: str) -> None:
    """Complete the new revision as the page says."""
    (new,), (old,) = (versions.glob(f"*_{verb}_{created}_*.py") for verb in ("drop", "create"))
    code = DROP_JOBS
    if created == "accounts":
        body = old.read_text().split("def upgrade")[1].split("\n\n\n")[0]
        code = f"{DROP_ACCOUNTS}\n\ndef downgrade{body}\n"
    new.write_text(new.read_text().split("def upgrade")[0] + code)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("tool", "option", "folder"),
    [
        ("cookiecutter", "auth", "mono/services/billing"),
        ("cookiecutter", "jobs", "billing"),
        ("cruft", "auth", "billing"),
    ],
)
def test_option_goes_and_its_tables_one_release_later(
    template_repository: Path,
    tmp_path: Path,
    installed: Project,
    tool: str,
    option: str,
    folder: str,
) -> None:
    """Its revision stays."""
    directory, repository = (tmp_path / folder).parent, tmp_path / folder.split("/")[0]
    answer, created = TABLES[option]
    project = generate(template_repository, directory, tool, repository, **{option: answer})
    project.uv("true")
    link_bytecode(installed.path / ".venv", project.path / ".venv")
    project.uv("dev", "sh", "-euc", MIGRATE)
    commit(repository)
    versions, env = project.path / "alembic" / "versions", project.path / "alembic" / "env.py"
    before = {path.name: path.read_text() for path in versions.glob("*.py")}
    assert len(before) == 2

    if tool == "cruft":
        run(GOES, project, template_repository, option, last=1)
    else:
        run("Without cruft", project, template_repository, option, last=1)
        run(GOES, project, template_repository, option, 1, 2)
    assert list(project.path.rglob("*.rej")) == []
    assert {path.name: path.read_text() for path in versions.glob("*.py")} == before
    assert not list(project.path.glob(f"app/{option}/*.py"))
    assert "# mine" in (project.path / "app" / "main.py").read_text()
    text = env.read_text()
    if option == "auth":
        env.write_text(re.sub("^IGNORED_TABLES.*\n", IGNORED, text, flags=re.MULTILINE))
    commit(repository)
    assert " passed" in project.uv("pytest", "-q", "tests/test_migrations.py")

    env.write_text(text)
    new, finish = readmes.take(OPTIONS, GOES, 2)
    project.run("sh", "-euc", new.replace("drop accounts", f"drop {created}"))
    write_drop(versions, created)
    assert " passed" in project.run("sh", "-euc", finish).stdout
    project.lint()
    assert project.uv("dev", "psql", "-Atc", LEFT).strip() == "||kept"
