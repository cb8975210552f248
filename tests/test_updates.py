"""A project follows its template by `cruft update`; what is the user's stays."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Project, git, move_on, user_environment

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
