"""Generation over a directory that has files already."""

import shutil
import subprocess
import sys
from pathlib import Path

import post_gen_project
import pytest
from conftest import Project, cookiecutter

STOCK_TEMPLATES = ["generic", "async", "pyproject", "pyproject_async"]
OVERWRITE = ["--overwrite-if-exists"]
KEEP = ["--overwrite-if-exists", "--skip-if-file-exists"]


def alembic(directory: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "alembic", *arguments]
    subprocess.run(command, cwd=directory, check=True, capture_output=True)


@pytest.fixture(params=STOCK_TEMPLATES)
def initialised(tmp_path: Path, request: pytest.FixtureRequest) -> Project:
    """A directory where `alembic init` was run and a revision was written."""
    project = Project(tmp_path / "my-api")
    project.path.mkdir()
    alembic(project.path, "init", "--template", request.param, "alembic")
    alembic(project.path, "revision", "--message", "mine")
    (project.path / "notes.txt").write_text("mine")
    (project.path / ".env").write_text("MINE=1\n")
    return project


def contents(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def history(project: Project) -> list[tuple[str, tuple[str, ...]]]:
    """Each revision's message and what it follows, from the base on."""
    revisions = post_gen_project.read_history(project.path / "alembic" / "versions")
    names = {revision.name: path.stem.split("_", 1)[1] for path, revision in revisions.items()}
    return sorted((names[r.name], tuple(names[d] for d in r.down)) for r in revisions.values())


def test_the_users_history_comes_first(initialised: Project) -> None:
    before = contents(initialised.path)
    result = cookiecutter(initialised.path.parent, *OVERWRITE)
    assert result.returncode == 0, result.stderr
    after = contents(initialised.path)
    for name in before:
        if "versions" in name or name in {"notes.txt", ".env"}:
            assert after[name] == before[name]
    assert history(initialised) == [("create_items_1f0c5e7a9b3d", ("mine",)), ("mine", ())]
    assert post_gen_project.verify(initialised.path) == []


@pytest.mark.slow
def test_the_project_works_and_its_suite_is_green(initialised: Project) -> None:
    result = cookiecutter(initialised.path.parent, *OVERWRITE)
    assert result.returncode == 0, result.stderr
    assert initialised.uv("alembic", "heads").count("(head)") == 1
    assert " passed" in initialised.uv("pytest", "-q")
    initialised.uv("dev", "alembic", "upgrade", "head")


def test_keeping_changes_no_file_and_says_what_each_lacks(initialised: Project) -> None:
    before = contents(initialised.path)
    result = cookiecutter(initialised.path.parent, *KEEP)
    assert result.returncode != 0
    after = contents(initialised.path)
    assert {name: after[name] for name in before} == before
    assert after.keys() >= set(post_gen_project.OWNED)
    faults = [line for line in result.stderr.splitlines() if ": " in line]
    for fault in (
        "alembic.ini: prepend_sys_path must be",
        "alembic/env.py: must import the models",
        "alembic/env.py: must take DATABASE_URL_SYNC",
    ):
        assert [line for line in faults if line.startswith(fault)]
    if "pyproject.toml" in before:
        assert "pyproject.toml: lacks the dependency fastapi" in faults
    told = {line.split(": ")[0] for line in faults} - {"Error"}
    assert told <= before.keys(), "a fault in a file that was written just now"


def test_keeping_ends_well_where_nothing_lacks(tmp_path: Path) -> None:
    assert cookiecutter(tmp_path).returncode == 0
    project = Project(tmp_path / "my-api")
    project.replace("app/main.py", "app = create_app()", "app = create_app()  # mine")
    (project.path / "app" / "health.py").unlink()
    before = contents(project.path)
    result = cookiecutter(tmp_path, *KEEP)
    assert result.returncode == 0, result.stderr
    after = contents(project.path)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"app/health.py"}


@pytest.mark.parametrize(
    ("name", "old", "new", "fault"),
    [
        (
            "app/config.py",
            "get_settings",
            "settings",
            "lacks get_settings, which app/main.py imports",
        ),
        ("app/models/item.py", "class Item", "class Thing", "lacks Item, which app/items/"),
        (
            "app/database.py",
            "class Base",
            "class Root",
            "lacks Base, which alembic/env.py imports",
        ),
        ("pyproject.toml", '"asyncpg', '"asyncpgx', "lacks the dependency asyncpg"),
        ("pyproject.toml", 'dev = "app', 'serve = "app', "lacks [project.scripts] dev"),
        ("pyproject.toml", "[build-system]", "[tool.build]", "lacks [build-system]"),
        (".gitignore", ".env\n", "", "lacks .env"),
    ],
)
def test_what_a_kept_file_lacks_is_told(
    copied: Project, name: str, old: str, new: str, fault: str
) -> None:
    copied.replace(name, old, new)
    faults = post_gen_project.verify(copied.path)
    assert [found for found in faults if found.startswith(f"{name}: {fault}")]
    assert all(found.startswith(f"{name}: ") for found in faults)


@pytest.mark.parametrize("options", [OVERWRITE, KEEP], ids=["overwrite", "keep"])
def test_env_and_revisions_outlive_another_generation(tmp_path: Path, options: list[str]) -> None:
    """Also the template's own, once a user has edited it."""
    assert cookiecutter(tmp_path).returncode == 0
    project = Project(tmp_path / "my-api")
    (project.path / ".env").write_text("MINE=1\n")
    project.replace(post_gen_project.FIRST_REVISION, "sa.Text(), nullable=True", "sa.Text()")
    before = contents(project.path)
    assert cookiecutter(tmp_path, *options).returncode == 0
    assert contents(project.path) == before


def test_a_first_revision_under_another_name_is_not_doubled(tmp_path: Path) -> None:
    assert cookiecutter(tmp_path).returncode == 0
    project = Project(tmp_path / "my-api")
    first = project.path / post_gen_project.FIRST_REVISION
    first.rename(first.with_name("0001_items.py"))
    before = contents(project.path)
    assert cookiecutter(tmp_path, *OVERWRITE).returncode == 0
    assert contents(project.path) == before


def test_two_heads_of_the_users_are_joined(tmp_path: Path) -> None:
    project = Project(tmp_path / "my-api")
    project.path.mkdir()
    alembic(project.path, "init", "alembic")
    alembic(project.path, "revision", "--message", "base", "--rev-id", "aaa")
    alembic(project.path, "revision", "--message", "left", "--rev-id", "bbb")
    alembic(
        project.path,
        "revision",
        "--message",
        "right",
        "--rev-id",
        "ccc",
        "--head",
        "aaa",
        "--splice",
    )
    assert cookiecutter(tmp_path, *OVERWRITE).returncode == 0
    (own,) = [down for name, down in history(project) if name.startswith("create_items")]
    assert own == ("left", "right")


def test_revisions_that_follow_the_templates_stay_so(tmp_path: Path) -> None:
    assert cookiecutter(tmp_path).returncode == 0
    project = Project(tmp_path / "my-api")
    text = (project.path / post_gen_project.FIRST_REVISION).read_text()
    text = text.replace('revision: str = "1f0c5e7a9b3d"', 'revision: str = "next"')
    text = text.replace("| None = None", '| None = "1f0c5e7a9b3d"', 1)
    (project.path / "alembic" / "versions" / "2027_next.py").write_text(text)
    before = contents(project.path)
    assert cookiecutter(tmp_path, *OVERWRITE).returncode == 0
    assert contents(project.path) == before


def test_an_interrupted_generation_is_completed_by_the_next(
    tmp_path: Path, baked: Project
) -> None:
    """Whatever had been written, and even between the hooks."""
    project = Project(tmp_path / "my-api")
    shutil.copytree(baked.path, project.path)
    original = (project.path / post_gen_project.FIRST_REVISION).read_text() + "# applied\n"
    saved = project.path / post_gen_project.SAVED / post_gen_project.FIRST_REVISION
    saved.parent.mkdir(parents=True)
    saved.write_text(original)
    for name in ("app/main.py", "alembic.ini", post_gen_project.FIRST_REVISION):
        (project.path / name).write_text("")
    assert cookiecutter(tmp_path, *OVERWRITE).returncode == 0
    assert (project.path / post_gen_project.FIRST_REVISION).read_text() == original
    assert contents(project.path).keys() == contents(baked.path).keys()
