"""The README's section "Updates", word for word, for cruft's projects and for cookiecutter's."""

import sys
from pathlib import Path

import pytest
import readmes
from conftest import Project, commit, git, move_on, questions

pytestmark = pytest.mark.slow

CREATE, LINK, UPDATE = range(3)
ANSWERS = "Billing\n" + "\n" * len(questions())  # a name of its own, and the defaults


@pytest.mark.parametrize(
    ("tool", "committed"),
    [
        ("cruft", True),
        ("cookiecutter", True),
        pytest.param("cookiecutter", False, marks=pytest.mark.exhaustive),
    ],
)
def test_project_follows_the_template(
    template_repository: Path, tmp_path: Path, tool: str, committed: bool
) -> None:
    """A line that both sides changed is a conflict. A change of the owner alone stays.

    `committed`: git knows the project as it was generated.
    """
    blocks = readmes.take(readmes.TEMPLATES, "Updates")
    commands = [readmes.ADDRESS.sub(str(template_repository), block) for block in blocks]
    git(template_repository, "tag", "1.0.0")
    parent, project = Project(tmp_path), Project(tmp_path / "billing")

    def run(command: str, where: Project) -> None:
        where.run("sh", "-euc", command, stdin=ANSWERS)

    if tool == "cruft":
        run(commands[CREATE], parent)
    else:
        cookiecutter = f"{sys.executable} -m cookiecutter"
        run(f"{cookiecutter} {template_repository} --checkout 1.0.0", parent)
    if committed:
        commit(project.path)
    env = (project.path / ".env").read_text()
    project.replace("pyproject.toml", "structlog>=25.1.0", "structlog>=25.3.0")
    project.replace("app/main.py", "app = create_app()", "app = create_app()  # ours")
    main = (project.path / "app" / "main.py").read_text()

    move_on(template_repository)
    if tool == "cookiecutter":
        run(commands[LINK], project)
    commit(project.path)
    run(commands[UPDATE], project)
    dependencies = (project.path / "pyproject.toml").read_text()
    rejected = list(project.path.rglob("*.rej"))
    conflict = dependencies if committed else rejected.pop().read_text()
    assert rejected == []
    assert ("<<<<<<<" in dependencies) == committed
    assert "structlog>=25.3.0" in dependencies
    assert "structlog>=25.2.0" in conflict
    assert "Second release" in (project.path / "roles.sql").read_text()
    assert (project.path / "app" / "clock.py").is_file()
    assert not (project.path / "tests" / "test_health.py").exists()
    assert (project.path / "app" / "main.py").read_text() == main
    assert (project.path / ".env").read_text() == env
