"""Generation over a directory that has files already; git is the backup."""

import shutil
import subprocess
from contextlib import chdir
from pathlib import Path

import post_gen_project
import pytest
from alembic.config import CommandLine
from conftest import Project, commit, cookiecutter, faults, git
from post_gen_project import FIRST_REVISION

STOCK_TEMPLATES = ["generic", "async", "pyproject", "pyproject_async"]
OVERWRITE = ["--overwrite-if-exists"]
KEEP = ["--overwrite-if-exists", "--skip-if-file-exists"]
BOTH = pytest.mark.parametrize("options", [OVERWRITE, KEEP], ids=["overwrite", "keep"])


def alembic(directory: Path, *arguments: str) -> None:
    with chdir(directory):
        CommandLine("alembic").main(arguments)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A committed directory with `.env`, which git ignores, and a file of the owner's."""
    project = Project(tmp_path / "my-api")
    project.path.mkdir()
    (project.path / ".gitignore").write_text(".env\n__pycache__/\n")
    (project.path / ".env").write_text("MINE=1\n")
    (project.path / "notes.txt").write_text("mine")
    commit(project.path)
    return project


@pytest.fixture(params=STOCK_TEMPLATES)
def initialised(project: Project, request: pytest.FixtureRequest) -> Project:
    """A directory where `alembic init` was run and a revision was written."""
    alembic(project.path, "init", "--template", request.param, "alembic")
    alembic(project.path, "revision", "--message", "mine")
    commit(project.path)
    return project


@pytest.fixture
def generated(tmp_path: Path) -> Project:
    """A project of this template, committed."""
    assert cookiecutter(tmp_path).returncode == 0
    commit(tmp_path / "my-api")
    return Project(tmp_path / "my-api")


def contents(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }


def undo(output: str, directory: Path) -> None:
    """Run the command that the hook ends with."""
    (line,) = [line for line in output.splitlines() if line.startswith("To undo: ")]
    command = line.removeprefix("To undo: ")
    subprocess.run(["sh", "-euc", command], cwd=directory, check=True, capture_output=True)


def history(project: Project) -> list[tuple[str, set[str]]]:
    """Each revision's message and the messages of those that it follows."""
    revisions = post_gen_project.read_history(project.path)
    messages = {name: path.stem.split("_", 1)[1] for path, (name, _) in revisions.items()}
    return sorted((messages[n], {messages[d] for d in down}) for n, down in revisions.values())


def test_the_owners_history_comes_first(initialised: Project) -> None:
    before = contents(initialised.path)
    result = cookiecutter(initialised.path.parent, *OVERWRITE)
    assert result.returncode == 0, result.stderr
    after = contents(initialised.path)
    for name in before:
        if "versions" in name or name in {"notes.txt", ".env"}:
            assert after[name] == before[name]
    assert history(initialised) == [("create_items_1f0c5e7a9b3d", {"mine"}), ("mine", set())]
    assert faults(initialised.path) == []
    undo(result.stdout, initialised.path)
    assert contents(initialised.path) == before


def test_undo_leaves_no_env_where_nothing_was_ignored(project: Project) -> None:
    """The template's .gitignore would keep it."""
    for name in (".gitignore", ".env"):
        (project.path / name).unlink()
    commit(project.path)
    before = contents(project.path)
    result = cookiecutter(project.path.parent, *OVERWRITE)
    assert result.returncode == 0, result.stderr
    assert (project.path / ".env").exists()
    undo(result.stdout, project.path)
    assert contents(project.path) == before


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_project_works_and_its_suite_is_green(initialised: Project) -> None:
    result = cookiecutter(initialised.path.parent, *OVERWRITE)
    assert result.returncode == 0, result.stderr
    assert initialised.uv("alembic", "heads").count("(head)") == 1
    assert " passed" in initialised.uv("pytest", "-q")
    initialised.uv("dev", "alembic", "upgrade", "head")


def test_keeping_changes_no_file_and_says_what_each_needs(initialised: Project) -> None:
    before = contents(initialised.path)
    result = cookiecutter(initialised.path.parent, *KEEP)
    assert result.returncode != 0
    after = contents(initialised.path)
    assert {name: after[name] for name in before} == before
    assert "app/main.py" in after
    told = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    for fault in (
        "Error: alembic.ini: needs the line prepend_sys_path = %(here)s",
        "Error: alembic/env.py: needs a line that starts with from app.models import *",
    ):
        assert fault in told
    assert {line.split(": ")[1] for line in told} == {"alembic.ini", "alembic/env.py"}
    assert "Traceback" not in result.stderr
    assert "is ready" not in result.stdout
    undo(result.stderr, initialised.path)
    assert contents(initialised.path) == before


def test_no_env_is_written_for_a_project_with_faults(project: Project) -> None:
    (project.path / ".env").unlink()
    (project.path / "alembic.ini").write_text("[alembic]\n")
    commit(project.path)
    assert cookiecutter(project.path.parent, *KEEP).returncode != 0
    assert not (project.path / ".env").exists()


def test_keeping_adds_what_is_missing(generated: Project) -> None:
    generated.replace("app/main.py", "app = create_app()", "app = create_app()  # mine")
    (generated.path / "roles.sql").unlink()
    commit(generated.path)
    before = contents(generated.path)
    result = cookiecutter(generated.path.parent, *KEEP)
    assert result.returncode == 0, result.stderr
    after = contents(generated.path)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"roles.sql"}


@BOTH
def test_env_and_revisions_outlive_another_generation(
    generated: Project, options: list[str]
) -> None:
    """Also the template's own, once the owner has edited it."""
    (generated.path / ".env").write_text("MINE=1\n")
    generated.replace(FIRST_REVISION, "sa.Text(), nullable=True", "sa.Text()")
    text = "revision = 'bbb'\ndown_revision = '1f0c5e7a9b3d'\n"
    (generated.path / "alembic" / "versions" / "mine.py").write_text(text)
    commit(generated.path)
    before = contents(generated.path)
    result = cookiecutter(generated.path.parent, *options)
    assert result.returncode == 0, result.stderr
    assert contents(generated.path) == before


def test_the_templates_revision_on_top_of_others_stays_there(project: Project) -> None:
    alembic(project.path, "init", "alembic")
    alembic(project.path, "revision", "--message", "mine")
    commit(project.path)
    assert cookiecutter(project.path.parent, *OVERWRITE).returncode == 0
    commit(project.path)
    before = contents(project.path)
    assert cookiecutter(project.path.parent, *OVERWRITE).returncode == 0
    assert contents(project.path) == before


@BOTH
def test_files_of_the_owners_outlive_an_option_that_was_not_chosen(
    project: Project, options: list[str]
) -> None:
    workflow = project.path / ".github" / "workflows" / "ci.yml"
    workflow.parent.mkdir(parents=True)
    workflow.write_text("mine")
    (project.path / "Dockerfile").write_text("mine")
    commit(project.path)
    result = cookiecutter(project.path.parent, *options, "docker=no", "ci=none")
    assert result.returncode == 0, result.stderr
    assert workflow.read_text() == (project.path / "Dockerfile").read_text() == "mine"
    assert not (project.path / "compose.yaml").exists()
    assert not (workflow.parents[1] / "dependabot.yml").exists()


MARKS = "a  # option: docker=no\r\nb  # option: docker=yes\r\n# caf\xe9\r\n"


def test_mark_in_a_file_that_is_kept_is_the_owners(generated: Project) -> None:
    (generated.path / "README.md").write_bytes(MARKS.encode("latin-1"))
    commit(generated.path)
    before = contents(generated.path)
    result = cookiecutter(generated.path.parent, *KEEP)
    assert result.returncode == 0, result.stderr
    assert contents(generated.path) == before


def test_line_of_an_option_comes_by_another_generation(generated: Project) -> None:
    """The template's files are written over, and end as in a new project."""
    generated.replace("app/main.py", "app = create_app()", "app = create_app()  # mine")
    commit(generated.path)
    parent = generated.path.parent
    result = cookiecutter(parent, *OVERWRITE, "auth=accounts")
    assert result.returncode == 0, result.stderr
    (parent / "new").mkdir()
    assert cookiecutter(parent / "new", "auth=accounts").returncode == 0
    new = contents(parent / "new" / "my-api")
    assert contents(generated.path) | {".env": b""} == new | {".env": b""}


@pytest.mark.parametrize("answer", ["auth=accounts", "kubernetes=yes"])
def test_new_option_in_a_project_that_is_kept_is_told(generated: Project, answer: str) -> None:
    """Its lines cannot come, and without them it would be half there."""
    before = contents(generated.path)
    result = cookiecutter(generated.path.parent, *KEEP, answer)
    assert result.returncode != 0
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert line == "Error: app/main.py: it was kept and lacks the new option; generate without -s"
    undo(result.stderr, generated.path)
    assert contents(generated.path) == before


@BOTH
def test_option_that_comes_by_another_generation_joins_the_owners_history(
    generated: Project, options: list[str]
) -> None:
    """Its revision is the owner's from then on, also once it is edited."""
    mine = "revision = 'bbb'\ndown_revision = '1f0c5e7a9b3d'\n"
    (generated.path / "alembic" / "versions" / "mine.py").write_text(mine)
    commit(generated.path)
    parent = generated.path.parent
    result = cookiecutter(parent, *OVERWRITE, "auth=accounts")
    assert result.returncode == 0, result.stderr
    assert faults(generated.path) == []
    revisions = post_gen_project.REVISIONS - {FIRST_REVISION}
    (accounts,) = (name for name in revisions if (generated.path / name).exists())
    history = post_gen_project.read_history(generated.path)
    ((merge, (_, joined)),) = (
        (path, revision) for path, revision in history.items() if "_merge_" in path.name
    )
    assert joined == {"bbb", history[generated.path / accounts][0]}

    generated.replace(accounts, "def upgrade() -> None:\n", "def upgrade() -> None:\n    # mine\n")
    commit(generated.path)
    before = contents(generated.path)
    result = cookiecutter(parent, *options, "auth=accounts")
    assert result.returncode == 0, result.stderr
    assert contents(generated.path) == before
    assert merge.relative_to(generated.path).as_posix() in before


def test_what_git_does_not_restore_is_told(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here another process holds the lock."""
    (project.path / "Dockerfile").write_text("mine")
    commit(project.path)
    (project.path / ".git" / "index.lock").touch()
    result = cookiecutter(project.path.parent, *OVERWRITE, "docker=no")
    assert result.returncode != 0
    assert "Error: Dockerfile: not restored, git says " in result.stderr
    assert "index.lock" in result.stderr


def test_a_refusal_is_one_line_and_changes_nothing(project: Project) -> None:
    (project.path / "notes.txt").write_text("changed")
    before = contents(project.path)
    result = cookiecutter(project.path.parent, *OVERWRITE)
    assert result.returncode != 0
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "git status shows ' M notes.txt'" in line
    assert "Traceback" not in result.stderr
    assert contents(project.path) == before


@pytest.mark.parametrize("cloned", [False, True])
def test_an_empty_directory_needs_no_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cloned: bool
) -> None:
    """Neither does one that holds only a new repository."""
    (tmp_path / "my-api").mkdir()
    if cloned:
        git(tmp_path / "my-api", "init", "--quiet")
    monkeypatch.setenv("PATH", "")
    result = cookiecutter(tmp_path, *OVERWRITE)
    assert result.returncode == 0, result.stderr
    assert faults(tmp_path / "my-api") == []
    assert "undo" not in result.stdout


def test_alembic_init_with_a_package_is_finished(project: Project) -> None:
    alembic(project.path, "init", "--package", "alembic")
    commit(project.path)
    result = cookiecutter(project.path.parent, *OVERWRITE)
    assert result.returncode == 0, result.stderr
    assert not (project.path / "alembic" / "__init__.py").exists()
    assert faults(project.path) == []


def test_a_history_that_does_not_fit_is_told_and_undone(generated: Project) -> None:
    text = "revision = 'bbb'\ndown_revision = None\n"
    (generated.path / "alembic" / "versions" / "mine.py").write_text(text)
    (generated.path / "README.md").write_text("mine")
    commit(generated.path)
    before = contents(generated.path)
    result = cookiecutter(generated.path.parent, *OVERWRITE)
    assert result.returncode != 0
    assert "Error: alembic/versions: needs one head, has 1f0c5e7a9b3d, bbb" in result.stderr
    undo(result.stderr, generated.path)
    assert contents(generated.path) == before


def test_a_folder_of_a_monorepo_becomes_a_project_though_the_rest_has_changes(
    tmp_path: Path,
) -> None:
    """A new one and one that has files; nothing beside it is touched."""
    (tmp_path / "Dockerfile").write_text("mine")
    commit(tmp_path)
    (tmp_path / "Dockerfile").write_text("changed")
    (tmp_path / "new.txt").write_text("mine")
    for options in ([], OVERWRITE):
        result = cookiecutter(tmp_path, "project_slug=backend", "docker=no", *options)
        assert result.returncode == 0, result.stderr
        assert faults(tmp_path / "backend") == []
        assert not (tmp_path / "backend" / "Dockerfile").exists()
        git(tmp_path, "add", "backend")
        git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "Backend")
    undo(result.stdout, tmp_path)
    assert (tmp_path / "Dockerfile").read_text() == "changed"
    assert (tmp_path / "new.txt").read_text() == "mine"


def test_deleted_folder_of_a_monorepo_is_refused_until_the_deletion_is_committed(
    tmp_path: Path,
) -> None:
    """Else git's files, which are the old project's, would pass for the owner's."""
    command = ("project_slug=backend", "jobs=yes")
    assert cookiecutter(tmp_path, *command).returncode == 0
    commit(tmp_path)
    shutil.rmtree(tmp_path / "backend")
    result = cookiecutter(tmp_path, *command, "auth=accounts", "docker=no")
    assert result.returncode != 0
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "git status shows ' D backend/.dockerignore'; commit every change, or " in line
    assert not (tmp_path / "backend").exists()

    commit(tmp_path)
    result = cookiecutter(tmp_path, *command, "auth=accounts", "docker=no")
    assert result.returncode == 0, result.stderr
    assert faults(tmp_path / "backend") == []
    assert not (tmp_path / "backend" / "Dockerfile").exists()
