"""Generation over a directory that has files already."""

import subprocess
import sys
from pathlib import Path

import post_gen_project
import pytest
from conftest import Project, cookiecutter, faults, optional_files

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
    assert faults(initialised.path) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "initialised",
    [
        pytest.param("pyproject_async", marks=pytest.mark.exhaustive),
        pytest.param("generic", marks=pytest.mark.exhaustive),
        pytest.param("async", marks=pytest.mark.exhaustive),
        pytest.param("pyproject", marks=pytest.mark.exhaustive),
    ],
    indirect=True,
)
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
    assert after.keys() >= set(post_gen_project.OWNED) - optional_files()
    told = [line for line in result.stderr.splitlines() if ": " in line]
    for fault in (
        "alembic.ini: prepend_sys_path must be",
        "alembic/env.py: must import the models",
        "alembic/env.py: must take DATABASE_URL_SYNC",
    ):
        assert [line for line in told if line.startswith(fault)]
    if "pyproject.toml" in before:
        assert "pyproject.toml: lacks the dependency fastapi" in told
    files = {line.split(": ")[0] for line in told} - {"Error"}
    assert files <= before.keys(), "a fault in a file that was written just now"


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
        (
            "app/asyncpg_url.py",
            "unknown_to_asyncpg",
            "unknown",
            "lacks unknown_to_asyncpg, which app/urls.py imports",
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
        ("roles.sql", "CREATE ROLE app_owner", "CREATE ROLE owner", "lacks CREATE ROLE app_owner"),
        ("roles.sql", "CREATE ROLE app LOGIN", "", "lacks CREATE ROLE app"),
    ],
)
def test_what_a_kept_file_lacks_is_told(
    copied: Project, name: str, old: str, new: str, fault: str
) -> None:
    copied.replace(name, old, new)
    found = faults(copied.path)
    assert [line for line in found if line.startswith(f"{name}: {fault}")]
    assert all(line.startswith(f"{name}: ") for line in found)


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


def test_files_of_a_run_that_was_stopped_are_not_lost(tmp_path: Path) -> None:
    """Nobody can tell which of two versions the user wants, so the user is asked."""
    assert cookiecutter(tmp_path).returncode == 0
    saved = tmp_path / "my-api" / post_gen_project.SAVED
    saved.mkdir()
    (saved / "README.md").write_text("mine")
    before = contents(tmp_path)
    result = cookiecutter(tmp_path, *OVERWRITE)
    assert result.returncode != 0
    assert f"Error: {post_gen_project.SAVED}: a run that was stopped left" in result.stderr
    assert contents(tmp_path) == before


def test_a_first_revision_that_was_half_written_is_written_again(tmp_path: Path) -> None:
    assert cookiecutter(tmp_path).returncode == 0
    first = tmp_path / "my-api" / post_gen_project.FIRST_REVISION
    whole = first.read_text()
    first.write_text("")
    assert cookiecutter(tmp_path, *OVERWRITE).returncode == 0
    assert first.read_text() == whole


def write_revision(project: Project, name: str, text: str) -> None:
    path = project.path / "alembic" / "versions" / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("latin-1"))


STYLES = {
    "plain": "revision = 'aaa'\ndown_revision = None\n",
    "annotated": "revision: str = 'aaa'\ndown_revision: str | None = None\n",
    "labelled": "revision = 'aaa'\ndown_revision = None\nbranch_labels = ('x',)\n",
    "latin-1": "# -*- coding: latin-1 -*-\n# caf\xe9\nrevision = 'aaa'\ndown_revision = None\n",
    "BOM": "\xef\xbb\xbfrevision = 'aaa'\ndown_revision = None\n",
    "merge": "revision = 'aaa'\ndown_revision = ('bbb', 'ccc')\n",
}


@pytest.mark.parametrize("text", STYLES.values(), ids=STYLES)
def test_revisions_of_every_style_are_followed(tmp_path: Path, text: str) -> None:
    project = Project(tmp_path / "my-api")
    write_revision(project, "mine", text)
    if "bbb" in text:
        write_revision(project, "base", "revision = 'ddd'\ndown_revision = None\n")
        write_revision(project, "left", "revision = 'bbb'\ndown_revision = 'ddd'\n")
        write_revision(project, "right", "revision = 'ccc'\ndown_revision = ('ddd',)\n")
    before = contents(project.path)
    result = cookiecutter(tmp_path, *OVERWRITE)
    assert result.returncode == 0, result.stderr
    first = (project.path / post_gen_project.FIRST_REVISION).read_text()
    assert '\ndown_revision: str | Sequence[str] | None = "aaa"\n' in first
    assert "\nbranch_labels: str | Sequence[str] | None = None\n" in first
    assert {name: contents(project.path)[name] for name in before} == before


def test_later_generations_leave_a_first_revision_alone(tmp_path: Path) -> None:
    project = Project(tmp_path / "my-api")
    write_revision(project, "a", "revision = 'aaa'\ndown_revision = None\n")
    assert cookiecutter(tmp_path, *OVERWRITE).returncode == 0
    write_revision(project, "b", "revision = 'bbb'\ndown_revision = '1f0c5e7a9b3d'\n")
    before = contents(project.path)
    assert cookiecutter(tmp_path, *OVERWRITE).returncode == 0
    assert contents(project.path) == before


UNFIT = {
    "a base beside the head": (
        "revision = 'bbb'\ndown_revision = None\n",
        "alembic/versions: heads",
    ),
    "no literal": ("P = 'x'\nrevision = 'bbb'\ndown_revision = P\n", "mine.py: revision or down"),
}


@pytest.mark.parametrize(("text", "fault"), UNFIT.values(), ids=UNFIT)
def test_a_history_that_cannot_be_followed_changes_nothing(
    tmp_path: Path, text: str, fault: str
) -> None:
    assert cookiecutter(tmp_path).returncode == 0
    project = Project(tmp_path / "my-api")
    write_revision(project, "mine", text)
    (project.path / "README.md").write_text("mine")
    before = contents(project.path)
    result = cookiecutter(tmp_path, *OVERWRITE)
    assert result.returncode != 0
    assert "Error: nothing was changed" in result.stderr
    assert fault in result.stderr
    assert contents(project.path) == before


OBSTACLES = {
    "alembic.py": "alembic.py: it hides the library",
    "alembic/__init__.py": "alembic/__init__.py: it hides the library",
    "README.md/page": "README.md: a file of this name is needed",
    "tests": "tests: a directory of this name is needed",
    "alembic.ini": "alembic.ini: script_location is '%(here)s/migrations'",
    "pyproject.toml": "pyproject.toml: version_locations is set",
}


@pytest.mark.parametrize(("name", "error"), OBSTACLES.items(), ids=OBSTACLES)
def test_what_stands_in_the_way_is_named_before_anything_is_written(
    tmp_path: Path, name: str, error: str
) -> None:
    path = tmp_path / "my-api" / name
    path.parent.mkdir(parents=True)
    path.write_text(
        "script_location = %(here)s/migrations" if "ini" in name else "version_locations = 1"
    )
    before = contents(tmp_path)
    result = cookiecutter(tmp_path, *OVERWRITE)
    assert result.returncode != 0
    assert f"Error: {error}" in result.stderr
    assert contents(tmp_path) == before


def test_alembic_init_with_a_package_is_finished(tmp_path: Path) -> None:
    (tmp_path / "my-api").mkdir()
    alembic(tmp_path / "my-api", "init", "--package", "alembic")
    assert cookiecutter(tmp_path, *OVERWRITE).returncode == 0
    assert not (tmp_path / "my-api" / "alembic" / "__init__.py").exists()
    assert faults(tmp_path / "my-api") == []
