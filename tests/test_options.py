"""The guide "Add an option in three steps", performed on a copy of the template."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TEMPLATE, Project, commit, matrix, user_environment

GUIDE = (TEMPLATE / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")


def steps() -> list[str]:
    """What the guide shows in code blocks: answers, prompt, the file's content, a row."""
    section = GUIDE.split("## Add an option in three steps")[1].split("\n## ")[0]
    return re.findall(r"```\w+\n(.*?)```", section, re.DOTALL)


def perform(repository: Path, with_table: bool = True) -> None:
    question, prompt, content, row = steps()
    path = repository / "cookiecutter.json"
    questions = path.read_text(encoding="utf-8")
    questions = questions.replace(
        '  "__description"', f"  {question.strip()}\n" + '  "__description"'
    )
    questions = questions.replace(
        '"__prompts__": {', '"__prompts__": {' + f"\n    {prompt.strip()}"
    )
    json.loads(questions)
    path.write_text(questions, encoding="utf-8")

    makefile = repository / "{{cookiecutter.project_slug}}" / "Makefile"
    makefile.write_text(content, encoding="utf-8")
    hooks = Project(repository / "hooks")
    hooks.replace("pre_gen_project.py", " Dockerfile README.md", " Dockerfile Makefile README.md")
    if with_table:
        table = "OPTIONAL: dict[tuple[str, object], str] = {"
        hooks.replace("post_gen_project.py", table, f"{table}\n    {row.strip()}")
    subprocess.run(["git", "add", "--all"], cwd=repository, check=True)


def run_matrix(repository: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-n",
            "0",
            "-v",
            "tests/test_template.py",
            "-k",
            "choice",
        ],
        cwd=repository,
        env=user_environment() | {"PYTEST_DEBUG_TEMPROOT": str(repository.parent)},
        capture_output=True,
        text=True,
    )


def test_the_matrix_picks_the_option_up(template_repository: Path) -> None:
    perform(template_repository)
    result = run_matrix(template_repository)
    assert result.returncode == 0, result.stdout
    passed = re.findall(r"'makefile': (\w+)}\] PASSED", result.stdout)
    assert len(passed) == len(matrix()) * 2
    assert set(passed) == {"False", "True"}


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_step_that_is_left_out_is_noticed(template_repository: Path) -> None:
    perform(template_repository, with_table=False)
    result = run_matrix(template_repository)
    assert result.returncode == 1, result.stdout


@pytest.mark.parametrize("answer", ["makefile=no", "makefile=false"])
def test_what_was_not_chosen_is_dropped_and_the_users_own_stays(
    template_repository: Path, tmp_path: Path, answer: str
) -> None:
    perform(template_repository)
    command = [
        sys.executable,
        "-m",
        "cookiecutter",
        str(template_repository),
        "--no-input",
        answer,
    ]
    target = tmp_path / "target"
    target.mkdir()
    subprocess.run(command, cwd=target, env=user_environment(), check=True)
    makefile = target / "my-api" / "Makefile"
    assert not makefile.exists()
    makefile.write_text("mine:\n")
    commit(target / "my-api")
    subprocess.run([*command, "-f"], cwd=target, env=user_environment(), check=True)
    assert makefile.read_text() == "mine:\n"


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.exhaustive
def test_every_fast_test_passes_with_the_option(template_repository: Path) -> None:
    perform(template_repository)
    readme = template_repository / "README.md"
    readme.write_text(readme.read_text(encoding="utf-8") + steps()[1], encoding="utf-8")
    options = ["-m", "not slow", "--ignore", "tests/test_options.py"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options],
        cwd=template_repository,
        env=user_environment(),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout
