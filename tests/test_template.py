"""What is generated, file by file."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import post_gen_project
import pre_gen_project
import pytest
from conftest import (
    PROJECT_DIRECTORY,
    TEMPLATE,
    Bake,
    Project,
    choices,
    commit,
    faults,
    findings,
    interpreters,
    matrix,
    optional_files,
    tracked,
)
from cookiecutter.environment import StrictEnvironment

JINJA = re.compile(r"(?<!\$)\{\{|\{%|\{#")  # `${{ }}` is of a workflow, which is copied


def files(directory: Path) -> set[str]:
    return {
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("answers", matrix(), ids=str)
def test_each_choice_gives_exactly_its_files_and_env(
    bake: Bake, answers: dict[str, object]
) -> None:
    project = bake(**answers)
    come = {
        name
        for (question, answer), names in post_gen_project.OPTIONAL.items()
        if answers[question] == answer
        for name in names.split()
    }
    expected = tracked(PROJECT_DIRECTORY) - optional_files() | come
    assert files(project.path) == expected | {".env"}
    assert faults(project.path) == []
    assert findings(project.path) == []
    left = [
        name for name in files(project.path) if JINJA.search((project.path / name).read_text())
    ]
    assert left == []


def test_nothing_of_an_option_comes_without_it(bake: Bake) -> None:
    names = [path.name for path in bake(docker=False, ci="none").path.rglob("*")]
    tools = re.compile("docker|compose|github|gitlab|pre-commit", re.IGNORECASE)
    assert [name for name in names if tools.search(name)] == []


def test_every_choice_brings_files_and_no_files_come_without_one() -> None:
    assert {option for option, _ in post_gen_project.OPTIONAL} == choices().keys()
    for option, value in post_gen_project.OPTIONAL:
        assert value in choices()[option]


def test_the_hooks_know_exactly_the_files_of_the_template() -> None:
    assert set(pre_gen_project.FILES) == tracked(PROJECT_DIRECTORY)
    assert len(pre_gen_project.FILES) == len(set(pre_gen_project.FILES))
    assert {*optional_files(), post_gen_project.FIRST_REVISION} <= set(pre_gen_project.FILES)


OLDEST = interpreters(minors=[8])


@pytest.mark.skipif(not OLDEST, reason="no Python 3.8")
def test_the_hooks_run_on_the_oldest_python_that_cookiecutter_supports(tmp_path: Path) -> None:
    """Over files that were there before, where all of their code runs."""
    project = tmp_path / "my-api"
    shutil.copytree(PROJECT_DIRECTORY, project)
    first = project / post_gen_project.FIRST_REVISION
    mine = first.with_name("mine.py")
    shutil.move(first, tmp_path / "first")
    mine.write_text("revision = 'aaa'\ndown_revision = None\n")
    commit(project)
    answers: dict[str, object] = {"project_name": "A", "project_slug": "a", "description": "A"}
    answers |= {name: values[0] for name, values in choices().items()}
    for name in ("pre_gen_project.py", "post_gen_project.py"):
        environment = StrictEnvironment(context={"cookiecutter": answers})
        source = environment.from_string((TEMPLATE / "hooks" / name).read_text())
        (tmp_path / name).write_text(source.render(cookiecutter=answers))
        if name.startswith("post"):
            shutil.move(tmp_path / "first", first)
        subprocess.run([OLDEST[0], str(tmp_path / name)], cwd=project, check=True)
    assert post_gen_project.read_history(project)[first] == ("1f0c5e7a9b3d", {"aaa"})


def test_files_that_people_read_as_code_hold_no_jinja() -> None:
    code = {
        name
        for name in tracked(PROJECT_DIRECTORY)
        if name.endswith((".py", ".sql", ".ini")) or name.startswith("alembic/")
    }
    assert len(code) > 20
    assert [name for name in code if JINJA.search((PROJECT_DIRECTORY / name).read_text())] == []
    for name in code:
        if name.endswith(".py"):
            compile((PROJECT_DIRECTORY / name).read_text(), name, "exec")


TEXTS = [
    "Plain",
    """It's "quoted" \\ backslashed \\n""",
    "100 % $HOME ${x} #1 {single} [brackets] <tags> & more",
    "Ünïcödé, 日本語, עברית, 🎉",
    ": - ! @ ` | > ' \"",
]


@pytest.mark.parametrize("text", TEXTS)
def test_free_text_comes_through_unchanged(bake: Bake, text: str) -> None:
    project = bake(project_name=text, project_slug="my-api", description=text)
    about = tomllib.loads((project.path / "pyproject.toml").read_text("utf-8"))["project"]
    assert about["description"] == text
    readme = (project.path / "README.md").read_text("utf-8").splitlines()
    assert readme[0] == f"# {text}"
    assert readme[2] == text


def test_the_slug_names_directory_distribution_and_database(bake: Bake) -> None:
    project = bake(project_name="Billing Service 2.0")
    assert project.path.name == "billing-service-2-0"
    about = tomllib.loads((project.path / "pyproject.toml").read_text("utf-8"))["project"]
    assert about["name"] == "billing-service-2-0"
    assert "@localhost:5432/billing_service_2_0\n" in (project.path / ".env.example").read_text()


def test_every_question_has_words_for_people() -> None:
    questions = json.loads((TEMPLATE / "cookiecutter.json").read_text())
    asked = {name for name in questions if not name.startswith("_")}
    assert questions["__prompts__"].keys() == asked


def test_a_misspelt_answer_fails_the_bake_of_a_test(bake: Bake) -> None:
    with pytest.raises(AssertionError, match="projekt_name"):
        bake(projekt_name="My API")


def test_no_dependency_is_allowed_as_the_name_of_the_project(installed: Project) -> None:
    """A project of that name would depend on itself, indirectly too."""
    lock = tomllib.loads((installed.path / "uv.lock").read_text())
    names = {package["name"] for package in lock["package"]} - {"my-api"}
    build = tomllib.loads((installed.path / "pyproject.toml").read_text())["build-system"]
    names |= {re.split("[<>=]", name)[0].replace("_", "-") for name in build["requires"]}
    assert names <= set(pre_gen_project.DEPENDENCIES)


def test_the_lock_file_of_a_project_is_not_ignored(baked: Project, tmp_path: Path) -> None:
    project = baked.copy(tmp_path)
    (project.path / "uv.lock").touch()
    project.run("git", "init", "--quiet")
    status = project.run("git", "status", "--short", "--untracked-files=all").stdout
    assert "uv.lock" in status
    assert ".env\n" not in status
