"""Two generated projects in one uv workspace: both install `app`, and each uses its own."""

import shutil
from pathlib import Path

import httpx
import pytest
from conftest import Project, bake_with, link_bytecode, short_directory, user_environment
from pytest_cookies.plugin import Cookies
from serving import serve

pytestmark = pytest.mark.slow

WORKSPACE = '[tool.uv.workspace]\nmembers = ["first", "second"]\n'
TITLE_TEST = """
from app.main import app


def test_title() -> None:
    assert app.title == "{name}"
"""
MODEL = """
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Base


class Author(Base):
    __tablename__ = "authors"

    id: Mapped[int] = mapped_column(primary_key=True)
"""
WHICH_APP = "import app, dev; print(app.__file__, dev.__file__)"


@pytest.fixture(scope="module")
def workspace(cookies_session: Cookies, installed: Project) -> Project:
    """The workspace. `first` comes first in sys.path, and `second` has one table more."""
    workspace = Project(short_directory())
    (workspace.path / "pyproject.toml").write_text(WORKSPACE)
    for name in ("first", "second"):
        project = bake_with(cookies_session, {"project_name": name}).copy(workspace.path)
        (project.path / "tests" / "test_title.py").write_text(TITLE_TEST.format(name=name))
    (workspace.path / "second" / "app" / "models" / "author.py").write_text(MODEL)
    install_both(workspace)
    link_bytecode(installed.path / ".venv", workspace.path / ".venv")
    return workspace


def install_both(workspace: Project) -> None:
    workspace.run("uv", "sync", "--quiet", "--all-packages")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("first", ["dev"]),
        ("second", ["dev"]),
        ("second", ["uvicorn", "app.main:app"]),
        ("second", ["fastapi", "dev"]),
    ],
)
def test_project_serves_itself(workspace: Project, name: str, command: list[str]) -> None:
    uv = str(shutil.which("uv"))
    words = (uv, "run", "--quiet", *command, "--port=PORT")
    env = user_environment() | {"DATABASE_URL": ""}  # uses the URLs of `.env`
    with serve(workspace.path / name, command=words, env=env) as server:
        assert httpx.get(f"{server.url}/openapi.json").json()["info"]["title"] == name


@pytest.mark.parametrize(("name", "result"), [("first", "1 passed"), ("second", "'authors'")])
def test_project_tests_itself(workspace: Project, name: str, result: str) -> None:
    """The second one lacks a revision for its model."""
    command = ["pytest", "-q", "-n", "2", "tests/test_title.py"]
    assert result in Project(workspace.path / name).uv(*command, check=False)


@pytest.mark.parametrize(
    ("name", "result"),
    [("first", "No new upgrade operations"), ("second", "'authors'")],
)
def test_alembic_compares_the_models_of_the_project(
    workspace: Project, name: str, result: str
) -> None:
    alembic = "unset PYTHONPATH; alembic upgrade head && alembic check"
    output = Project(workspace.path / name).uv("dev", "sh", "-c", alembic, check=False)
    assert result in output


def which_app(project: Path) -> str:
    return f"{project}/app/__init__.py {project}/dev/__init__.py\n"


def test_dev_in_a_subdirectory_is_the_project_around_it(workspace: Project) -> None:
    second = Project(workspace.path / "second")
    command = ["uv", "run", "--quiet", "dev", "python", "-c", WHICH_APP]
    assert second.run(*command, cwd=second.path / "docs").stdout == which_app(second.path)


def test_dev_outside_of_the_projects_is_refused(workspace: Project) -> None:
    command = ["uv", "run", "--quiet", "--project", "second", "dev", "true"]
    result = workspace.run(*command, check=False)
    paths = f"{workspace.path}/first, {workspace.path}/second"
    assert result.stderr == f"dev: run this inside one of the projects {paths}\n"


def test_dev_works_without_its_script(workspace: Project) -> None:
    """`uv sync` in one project uninstalls the other one, and with it the script of both."""
    second = Project(workspace.path / "second")
    second.run("uv", "sync", "--quiet")
    assert not (workspace.path / ".venv" / "bin" / "dev").exists()
    assert second.uv("dev", "python", "-c", WHICH_APP) == which_app(second.path)
    install_both(workspace)
