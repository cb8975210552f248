"""The hook finishes what `alembic init` leaves undone, and notices what is broken."""

import re
from pathlib import Path

import post_gen_project
import pytest
from alembic.config import main as alembic
from conftest import Project, cookiecutter, faults, optional_files


def test_a_generated_project_has_no_fault(baked: Project) -> None:
    assert faults(baked.path) == []


def test_every_owned_file_is_missed(copied: Project) -> None:
    owned = set(post_gen_project.OWNED) - optional_files()
    for name in owned:
        (copied.path / name).unlink()
    found = faults(copied.path)
    for name in owned:
        assert f"{name}: missing" in found


@pytest.mark.parametrize(
    ("name", "old", "new", "fault"),
    [
        ("app/main.py", "def create_app", "def create app", "app/main.py: not valid Python"),
        ("app/main.py", '"""The', '"""\0The', "app/main.py: not valid Python"),
        ("README.md", "# My API", "# {{ cookiecutter.x }}", "README.md: a placeholder"),
        (
            "app/health.py",
            "TIMEOUT = 5",
            "{% if cookiecutter.x %}",
            "app/health.py: a placeholder",
        ),
        (".env.example", "DATABASE_URL=", "#DATABASE_URL=", "DATABASE_URL must start with"),
        (
            ".env.example",
            "+asyncpg",
            "+psycopg",
            "DATABASE_URL must start with postgresql+asyncpg",
        ),
        (".env.example", "+psycopg", "", "DATABASE_URL_SYNC must start with postgresql+psycopg"),
        ("alembic.ini", "%(here)s/alembic", "alembic", "alembic.ini: script_location"),
        ("alembic.ini", "prepend_sys_path = %(here)s", "", "alembic.ini: prepend_sys_path"),
        ("alembic.ini", "path_separator = os", "", "alembic.ini: path_separator"),
        (
            "alembic.ini",
            "sqlalchemy.url =",
            "sqlalchemy.url = driver://user:pass@localhost/dbname",
            "alembic.ini: sqlalchemy.url is a placeholder",
        ),
        (
            "alembic/env.py",
            "from app.models import *",
            "",
            "alembic/env.py: must import the models",
        ),
        ("alembic/env.py", "connect(config)", "engine()", "must take DATABASE_URL_SYNC"),
        (
            "alembic/env.py",
            "from app.migrations",
            "from elsewhere",
            "must take DATABASE_URL_SYNC",
        ),
    ],
)
def test_a_broken_file_is_noticed(
    copied: Project, name: str, old: str, new: str, fault: str
) -> None:
    copied.replace(name, old, new)
    found = faults(copied.path)
    assert [line for line in found if fault in line]
    assert all(line.startswith(f"{name}: ") for line in found)


@pytest.mark.parametrize("name", ["alembic/__init__.py", "alembic.py"])
def test_whatever_hides_the_library_is_noticed(copied: Project, name: str) -> None:
    (copied.path / name).write_text("VERSION = 1\n")
    assert faults(copied.path) == [f"{name}: hides the library alembic; rename or remove it"]


def test_all_faults_are_told_at_once_and_nothing_is_deleted(tmp_path: Path) -> None:
    """A directory that was there before, with files that the user keeps."""
    project = tmp_path / "my-api"
    (project / "alembic").mkdir(parents=True)
    (project / "notes.txt").write_text("mine")
    (project / "alembic" / "env.py").write_text("mine = True")
    (project / "README.md").write_text("{{ cookiecutter.mine }}")
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    result = cookiecutter(tmp_path, "--overwrite-if-exists", "--skip-if-file-exists")
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    for fault in (
        "README.md: a placeholder",
        "alembic/env.py: must import the models",
        "alembic/env.py: must take DATABASE_URL_SYNC",
    ):
        assert fault in result.stderr
    assert {path: path.read_bytes() for path in before} == before


def test_it_ends_with_the_next_commands(tmp_path: Path) -> None:
    result = cookiecutter(tmp_path)
    assert result.returncode == 0, result.stderr
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert "My API (An API on PostgreSQL) is ready. Next:" in lines
    assert f"cd {tmp_path / 'my-api'}" in lines
    assert [line for line in lines if line.startswith("uv run dev ")]


@pytest.mark.parametrize("template", ["generic", "async", "pyproject", "pyproject_async"])
def test_what_alembic_init_leaves_undone_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    monkeypatch.chdir(tmp_path)
    alembic(["init", "--package", "--template", template, "alembic"])
    (tmp_path / "alembic" / "versions" / "__init__.py").unlink()
    (tmp_path / "alembic" / "versions").rmdir()

    post_gen_project.create_versions_directory(tmp_path)
    post_gen_project.remove_alembic_package(tmp_path)
    post_gen_project.complete_ini(tmp_path)

    assert (tmp_path / "alembic" / "versions").is_dir()
    assert post_gen_project.verify_import(tmp_path) == []
    assert post_gen_project.verify_ini((tmp_path / "alembic.ini").read_text()) == []


def test_a_package_with_content_is_the_users(copied: Project) -> None:
    init = copied.path / "alembic" / "__init__.py"
    init.write_text("VERSION = 1\n")
    post_gen_project.remove_alembic_package(copied.path)
    assert init.read_text() == "VERSION = 1\n"


def test_a_url_of_the_users_stays(copied: Project) -> None:
    copied.replace("alembic.ini", "sqlalchemy.url =", "sqlalchemy.url = postgresql://mine/db")
    post_gen_project.complete_ini(copied.path)
    assert "sqlalchemy.url = postgresql://mine/db" in (copied.path / "alembic.ini").read_text()


def test_comments_stay_in_the_ini_file(copied: Project) -> None:
    copied.replace("alembic.ini", "path_separator = os\n", "# about\n")
    post_gen_project.complete_ini(copied.path)
    text = (copied.path / "alembic.ini").read_text()
    assert "path_separator = os\n" in text
    assert "# about\n" in text


def test_env_has_a_password_of_its_own_and_is_private(copied: Project) -> None:
    passwords = set()
    for _ in range(2):
        (copied.path / ".env").unlink(missing_ok=True)
        post_gen_project.write_env(copied.path)
        text = (copied.path / ".env").read_text()
        found = re.findall(r"^DATABASE_URL.*://(?:app|app_owner):([^@]+)@", text, re.MULTILINE)
        assert len(found) == 2
        assert min(map(len, found)) >= 32
        passwords |= set(found)
    assert len(passwords) == 4  # who has the application's does not have the owner's
    assert "change-me" not in text
    assert (copied.path / ".env").stat().st_mode & 0o777 == 0o600


def test_env_is_never_overwritten(copied: Project) -> None:
    (copied.path / ".env").write_text("MINE=1\n")
    post_gen_project.write_env(copied.path)
    assert (copied.path / ".env").read_text() == "MINE=1\n"
