"""Answers and directories that cannot work are refused before a file is written."""

import inspect
import os
import shutil
import subprocess
from pathlib import Path

import post_gen_project
import pre_gen_project
import pytest
from conftest import TEMPLATE, commit, cookiecutter, git, interpreters, user_environment
from pre_gen_project import check_slug, check_text


@pytest.mark.parametrize(
    "slug", ["my-api", "backend", "a", "A1", "my_api.v2", "console", "fast-api"]
)
def test_names_of_distributions_are_accepted(slug: str) -> None:
    assert check_slug(slug) is None


@pytest.mark.parametrize(
    "slug",
    ["", ".", "-api", "api-", "my api", "my/api", "../api", "naïve", "api\n", "a'b", "$HOME"],
)
def test_other_names_are_refused(slug: str) -> None:
    assert "starts and ends with a letter or digit" in str(check_slug(slug))


@pytest.mark.parametrize("slug", ["fastapi", "FastAPI", "SQLAlchemy", "pydantic_core", "uv.build"])
def test_names_of_dependencies_are_refused_however_they_are_written(slug: str) -> None:
    assert "a package that the project installs" in str(check_slug(slug))


@pytest.mark.parametrize("slug", ["con", "NUL", "aux.api", "com1", "LPT9.txt"])
def test_names_of_devices_are_refused(slug: str) -> None:
    assert "a device on Windows" in str(check_slug(slug))


@pytest.mark.parametrize(
    "character",
    ["\0", "\n", "\r", "\t", "\x1b", "\x85", "\u2028", "\u2029", "\ud800", "\ufffe", "\uffff"],
)
def test_characters_that_break_a_line_are_refused(character: str) -> None:
    error = check_text("description", f"one{character}two")
    assert error
    assert error.startswith("description ")
    assert error.isprintable()


@pytest.mark.parametrize("text", ["", "plain", "\"'\\ % $ # {}", "日本語 🎉"])
def test_other_texts_are_accepted(text: str) -> None:
    assert check_text("description", text) is None


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        ("project_slug=not valid", "starts and ends with"),
        ("project_slug=asyncpg", "a package that the project installs"),
        ("description=one\ntwo", "must not hold '\\n'"),
        ('project_name=It\'s "one"\u2028two', "must not hold '\\u2028'"),
    ],
)
def test_a_refused_answer_is_one_line_and_leaves_nothing(
    answer: str, rule: str, tmp_path: Path
) -> None:
    result = cookiecutter(tmp_path, answer)
    assert result.returncode != 0
    question = answer.split("=")[0]
    (line,) = [line for line in result.stderr.split("\n") if line.startswith("Error: ")]
    assert line.startswith(f"Error: {question} ")
    assert rule in line
    assert "for example" in line
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


OLDEST = interpreters(minors=[8])


@pytest.mark.slow
@pytest.mark.skipif(not OLDEST, reason="no Python 3.8")
def test_an_old_python_that_runs_cookiecutter_is_one_line(tmp_path: Path) -> None:
    """It cannot parse what newer ones can, for example a revision with a match statement."""

    def generate(*answers: str) -> tuple[int, list[str]]:
        command = ["uvx", "--python", OLDEST[0], "cookiecutter", str(TEMPLATE), "--no-input", "-f"]
        result = subprocess.run(
            [*command, *answers],
            cwd=tmp_path,
            env=user_environment(),
            capture_output=True,
            text=True,
        )
        assert "Traceback" not in result.stderr
        lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        return result.returncode, lines

    assert generate("project_slug=asyncpg")[1][0].startswith("Error: project_slug 'asyncpg'")
    assert generate() == (0, [])
    project = tmp_path / "my-api"
    revision = "revision, down_revision = 'a', None\nmatch 1:\n    case _:\n        pass\n"
    write(project, "alembic/versions/mine.py", revision)
    commit(project)
    status, lines = generate()
    assert status != 0
    assert lines == [
        "Error: alembic/versions/mine.py: revision or down_revision is not a literal, "
        "or needs a newer Python to run cookiecutter"
    ]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with two files of the owner's, which is the current directory."""
    directory = tmp_path / "my-api"
    write(directory, "notes.txt")
    write(directory, "README.md")
    commit(directory)
    monkeypatch.chdir(directory)
    return directory


def write(directory: Path, name: str, text: str = "mine\n") -> None:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def refusal() -> str:
    """The one line that the hook says about the current directory; empty if it accepts it."""
    line = pre_gen_project.check_directory(os.getcwd()) or ""
    assert "\n" not in line
    return line


def install_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a program named git in the place of the real one."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "git"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def test_committed_files_are_accepted(directory: Path) -> None:
    assert refusal() == ""


def test_a_link_to_the_directory_is_followed(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(directory)
    monkeypatch.chdir(tmp_path / "link")
    assert refusal() == ""
    write(tmp_path / "link", "new.txt")
    assert "git status shows '?? new.txt'" in refusal()


def test_files_without_a_repository_are_refused(tmp_path: Path, directory: Path) -> None:
    (directory / ".git").rename(tmp_path / "moved")
    assert refusal().startswith(f"{directory}: git must be able to restore it as it is, but ")
    assert "git says 'fatal: not a git repository" in refusal()
    assert refusal().endswith("; commit every change, or generate into a new directory")


def test_files_are_refused_where_no_git_is_installed(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert "git does not run (No such file or directory)" in refusal()


def test_the_words_of_a_git_that_fails_are_repeated(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does where the directory belongs to another user, see safe.directory."""
    script = "printf 'fatal: dubious ownership\\n\\n\\tgit config --add\\n' >&2; exit 128"
    install_git(tmp_path, monkeypatch, script)
    assert "git says 'fatal: dubious ownership git config --add'" in refusal()


def test_a_git_that_fails_without_a_word_is_no_backup(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_git(tmp_path, monkeypatch, "exit 1")
    assert "git says ''" in refusal()


def test_a_directory_that_git_ignores_is_refused(tmp_path: Path, directory: Path) -> None:
    (directory / ".git").rename(tmp_path / ".git")
    write(tmp_path, ".gitignore", "my-api/\n")
    assert "git ignores the directory" in refusal()


CHANGES = {
    "an untracked file": ("new.txt", "mine", False, "?? new.txt"),
    "a changed file": ("notes.txt", "changed", False, " M notes.txt"),
    "a staged file": ("notes.txt", "changed", True, "M  notes.txt"),
}


@pytest.mark.parametrize(("name", "text", "add", "shown"), CHANGES.values(), ids=CHANGES)
def test_changes_that_are_not_committed_are_refused(
    directory: Path, name: str, text: str, add: bool, shown: str
) -> None:
    write(directory, name, text)
    if add:
        git(directory, "add", name)
    assert f"git status shows '{shown}'" in refusal()


def test_a_repository_without_a_commit_is_no_backup(tmp_path: Path, directory: Path) -> None:
    (directory / ".git").rename(tmp_path / "moved")
    git(directory, "init", "--quiet")
    assert "git status shows '?? README.md'" in refusal()


def test_a_configuration_that_hides_untracked_files_changes_nothing(directory: Path) -> None:
    git(directory, "config", "status.showUntrackedFiles", "no")
    write(directory, "new.txt")
    assert "git status shows '?? new.txt'" in refusal()


def test_changes_in_a_submodule_are_refused_though_git_is_told_to_overlook_them(
    directory: Path,
) -> None:
    add_submodule(directory, "vendor")
    git(directory, "config", "diff.ignoreSubmodules", "all")
    assert refusal() == ""
    write(directory, "vendor/main.py", "changed")
    assert "git status shows ' M vendor'" in refusal()


def add_submodule(directory: Path, name: str) -> None:
    write(directory, f"{name}/main.py")
    commit(directory / name)
    git(directory, "-c", "advice.addEmbeddedRepo=false", "add", name)
    git(directory, "commit", "--quiet", "--message", "Submodule")


@pytest.mark.parametrize("cloned", [True, False])
def test_a_submodule_in_the_way_is_refused(directory: Path, cloned: bool) -> None:
    """`git restore` in the repository around it brings no file of it back."""
    add_submodule(directory, "app")
    if not cloned:
        shutil.rmtree(directory / "app")
        (directory / "app").mkdir()
    assert refusal().startswith("app: the project needs a folder of this name")


def test_an_ignored_file_in_the_way_is_refused(directory: Path) -> None:
    write(directory, ".gitignore", "*.ini\n")
    commit(directory)
    write(directory, "alembic.ini")
    assert refusal().startswith("alembic.ini: git could not restore it")


@pytest.mark.parametrize("option", ["--assume-unchanged", "--skip-worktree"])
def test_a_file_whose_changes_git_overlooks_is_refused(directory: Path, option: str) -> None:
    git(directory, "update-index", option, "README.md")
    write(directory, "README.md", "changed")
    assert refusal().startswith("README.md: git could not restore it")


def test_ignored_files_that_the_template_does_not_have_are_accepted(directory: Path) -> None:
    write(directory, ".gitignore", ".env\n.venv/\n__pycache__/\n")
    commit(directory)
    for name in (".env", ".venv/pyvenv.cfg", "app/__pycache__/main.pyc"):
        write(directory, name)
    assert refusal() == ""


def test_the_rest_of_a_monorepo_may_have_changes(tmp_path: Path, directory: Path) -> None:
    (directory / ".git").rename(tmp_path / ".git")
    commit(tmp_path)
    write(tmp_path, "frontend/new.txt")
    assert refusal() == ""
    write(directory, "new.txt")
    assert "git status shows '?? my-api/new.txt'" in refusal()


def test_the_environment_of_a_git_hook_leads_to_no_other_repository(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "other" / ".git" / "index"))
    assert refusal() == ""


def test_git_is_configured_by_the_environment_as_usual(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CI sets safe.directory so."""
    write(tmp_path, "ignored", "new.txt\n")
    write(directory, "new.txt")
    for name, value in (("COUNT", "1"), ("KEY_0", "core.excludesFile")):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(tmp_path / "ignored"))
    assert refusal() == ""


def test_both_hooks_run_git_in_the_same_way() -> None:
    one, other = map(inspect.getsource, (pre_gen_project.git, post_gen_project.git))
    assert one == other


IN_THE_WAY = {
    "tests": "tests: the project needs a folder of this name",
    "alembic/versions": "alembic/versions: the project needs a folder of this name",
    "pyproject.toml/page": "pyproject.toml: the project needs a file of this name",
    "alembic.py": "alembic.py: it hides the library alembic",
    "alembic/__init__.py": "alembic/__init__.py: it hides the library alembic",
    "app.py": "app.py: the project imports app/__init__.py by the same name",
    "app/models.py": "app/models.py: the project imports app/models/__init__.py by the same name",
    "app/config/base.py": "app/config: the project imports app/config.py by the same name",
}


@pytest.mark.parametrize(("name", "error"), IN_THE_WAY.items(), ids=IN_THE_WAY)
def test_what_stands_in_the_way_is_named(directory: Path, name: str, error: str) -> None:
    write(directory, name)
    commit(directory)
    assert refusal().startswith(error)


def test_an_empty_module_hides_the_library_too(directory: Path) -> None:
    write(directory, "alembic.py", "")
    commit(directory)
    assert refusal().startswith("alembic.py: it hides the library")


def test_the_empty_package_of_alembic_init_is_accepted(directory: Path) -> None:
    write(directory, "alembic/__init__.py", "")
    commit(directory)
    assert refusal() == ""


@pytest.mark.parametrize(
    ("name", "target", "kind"),
    [("alembic.ini", "notes.txt", "file"), ("app", "../elsewhere", "folder")],
)
def test_links_are_not_written_through(
    tmp_path: Path, directory: Path, name: str, target: str, kind: str
) -> None:
    """They may lead out of the directory, where git was not asked."""
    (tmp_path / "elsewhere").mkdir()
    (directory / name).symlink_to(target)
    commit(directory)
    assert refusal().startswith(f"{name}: the project needs a {kind} of this name")


@pytest.mark.parametrize("linked", [False, True])
def test_what_stands_in_the_way_may_be_ignored(
    tmp_path: Path, directory: Path, linked: bool
) -> None:
    write(directory, ".gitignore", "tests\n")
    commit(directory)
    if linked:
        (directory / "tests").symlink_to(tmp_path)
    else:
        write(directory, "tests")
    assert refusal().startswith("tests: the project needs a folder of this name")


ELSEWHERE = {
    "another directory": ("alembic.ini", "script_location = %(here)s/migrations"),
    "one relative to the current": ("alembic.ini", "script_location = migrations"),
    "one with a longer name": ("alembic.ini", "script_location = alembic_old"),
    "pyproject.toml": ("pyproject.toml", 'script_location = "%(here)s/migrations"'),
    "several": ("alembic.ini", "version_locations = %(here)s/a:%(here)s/b"),
    "subdirectories": ("pyproject.toml", "recursive_version_locations = true"),
}


@pytest.mark.parametrize(("name", "line"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_revisions_that_are_kept_elsewhere_are_refused(
    directory: Path, name: str, line: str
) -> None:
    write(directory, name, f"[alembic]\n{line}\n")
    commit(directory)
    assert refusal() == f"{name}: {line!r}; move the revisions to alembic/versions first"


@pytest.mark.parametrize(
    "line",
    [
        "script_location = alembic",
        "script_location = %(here)s/alembic",
        'script_location = "%(here)s/alembic"',
        "# version_locations = %(here)s/a:%(here)s/b",
    ],
)
def test_the_usual_place_of_revisions_is_accepted(directory: Path, line: str) -> None:
    write(directory, "alembic.ini", f"[alembic]\n{line}\n")
    commit(directory)
    assert refusal() == ""
