"""Ways to use the template: tools that run cookiecutter, addresses, and typed answers."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pexpect
import pytest
from conftest import TEMPLATE, faults, git, user_environment

FLOOR = re.search(r'"cookiecutter>=([\d.]+)"', (TEMPLATE / "pyproject.toml").read_text())
assert FLOOR
README = (TEMPLATE / "README.md").read_text(encoding="utf-8")


def run(directory: Path, *command: str, env: dict[str, str] | None = None) -> None:
    """Run a command in `directory`, with it as the home directory."""
    result = subprocess.run(
        command,
        cwd=directory,
        env=user_environment() | {"HOME": str(directory)} | (env or {}),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def assert_generated(directory: Path) -> None:
    assert faults(directory / "my-api") == []
    assert (directory / "my-api" / ".env").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("version", [f"=={FLOOR[1]}", ""], ids=["oldest", "newest"])
def test_uvx(tmp_path: Path, uv_cache: str, version: str) -> None:
    run(
        tmp_path,
        *("uvx", "--from", f"cookiecutter{version}", "cookiecutter", str(TEMPLATE), "--no-input"),
        env={"UV_CACHE_DIR": uv_cache},
    )
    assert_generated(tmp_path)


@pytest.mark.slow
def test_pip(tmp_path: Path) -> None:
    run(tmp_path, "uv", "venv", "--quiet", "--seed", "--python", sys.executable, "venv")
    run(tmp_path, "venv/bin/pip", "install", "--quiet", "cookiecutter")
    run(tmp_path, "venv/bin/cookiecutter", str(TEMPLATE), "--no-input")
    assert_generated(tmp_path)


@pytest.mark.slow
def test_pipx(tmp_path: Path, uv_cache: str) -> None:
    command = ["uvx", "--python", sys.executable, "pipx", "run", "cookiecutter"]
    run(tmp_path, *command, str(TEMPLATE), "--no-input", env={"UV_CACHE_DIR": uv_cache})
    assert_generated(tmp_path)


COOKIECUTTER = [sys.executable, "-m", "cookiecutter"]


def test_git_repository_and_tag(tmp_path: Path, template_repository: Path) -> None:
    git(template_repository, "tag", "v1")
    (template_repository / "cookiecutter.json").write_text("{}")
    git(template_repository, "commit", "-qam", "Broken")
    address = f"git+file://{template_repository}"
    run(tmp_path, *COOKIECUTTER, address, "--no-input", "--checkout", "v1")
    assert_generated(tmp_path)


def test_zip_file(tmp_path: Path, template_repository: Path) -> None:
    shutil.rmtree(template_repository / ".git")
    archive = shutil.make_archive(
        str(tmp_path / "archive"), "zip", tmp_path, template_repository.name
    )
    run(tmp_path, *COOKIECUTTER, archive, "--no-input")
    assert_generated(tmp_path)


def test_replay(tmp_path: Path) -> None:
    run(tmp_path, *COOKIECUTTER, str(TEMPLATE), "--no-input", "description=Once more")
    shutil.rmtree(tmp_path / "my-api")
    run(tmp_path, *COOKIECUTTER, str(TEMPLATE), "--replay")
    assert_generated(tmp_path)
    about = tomllib.loads((tmp_path / "my-api" / "pyproject.toml").read_text())["project"]
    assert about["description"] == "Once more"


def test_answers_typed_in_a_terminal(tmp_path: Path) -> None:
    """The README shows the same questions."""
    questions = json.loads((TEMPLATE / "cookiecutter.json").read_text())
    terminal = pexpect.spawn(
        COOKIECUTTER[0],
        [*COOKIECUTTER[1:], str(TEMPLATE)],
        cwd=tmp_path,
        env=user_environment() | {"HOME": str(tmp_path), "TERM": "dumb"},
        encoding="utf-8",
        dimensions=(40, 200),
        timeout=30,
    )
    answers = {"project_name": 'Büro "Nord"', "description": "Bills & more 🎉"}
    shown = ""
    for name in (name for name in questions if not name.startswith("_")):
        terminal.expect_exact(questions["__prompts__"][name])
        terminal.expect_exact("): ")
        shown += str(terminal.before)
        terminal.sendline(answers.get(name, ""))
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    assert "(buro-nord" in shown
    project = tmp_path / "buro-nord"
    about = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    assert about["description"] == "Bills & more 🎉"
    assert (project / "README.md").read_text("utf-8").startswith('# Büro "Nord"\n')
    for name, prompt in questions["__prompts__"].items():
        assert prompt in README, f"the README does not show the question for {name}"
