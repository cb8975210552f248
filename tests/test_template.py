"""What is generated, file by file."""

import ast
import json
import re
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
    faults,
    findings,
    matrix,
    optional_files,
    tracked,
)

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
        n for (o, v), names in post_gen_project.OPTIONAL.items() if answers[o] == v for n in names
    }
    expected = tracked(PROJECT_DIRECTORY) - optional_files() | come
    assert files(project.path) == expected | {".env"}
    assert faults(project.path, **answers) == []
    assert findings(project.path) == []
    left = [
        name for name in files(project.path) if JINJA.search((project.path / name).read_text())
    ]
    assert left == []


def test_nothing_of_an_option_comes_without_it(bake: Bake) -> None:
    names = files(bake(docker=False, ci="none").path)
    tools = re.compile("docker|compose|github|gitlab|pre-commit", re.IGNORECASE)
    assert [name for name in names if tools.search(name)] == []


def test_every_choice_brings_files_and_no_files_come_without_one() -> None:
    assert {option for option, _ in post_gen_project.OPTIONAL} == choices().keys()
    for option, value in post_gen_project.OPTIONAL:
        assert value in choices()[option]


def test_the_hook_verifies_exactly_the_files_of_the_template() -> None:
    assert set(post_gen_project.OWNED) == tracked(PROJECT_DIRECTORY)
    assert pre_gen_project.OWNED == post_gen_project.OWNED


def test_the_hook_asks_a_kept_file_for_what_the_templates_own_has(baked: Project) -> None:
    about = tomllib.loads((baked.path / "pyproject.toml").read_text())
    listed = about["project"]["dependencies"] + about["dependency-groups"]["dev"]
    assert set(post_gen_project.REQUIREMENTS) == {re.split(">=", name)[0] for name in listed}
    tree = ast.parse((baked.path / "tests" / "conftest.py").read_text())
    fixtures = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and any("fixture" in ast.unparse(decorator) for decorator in node.decorator_list)
    }
    assert set(post_gen_project.FIXTURES) == fixtures


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
