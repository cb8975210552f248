"""The documentation's commands, word for word, as a newcomer runs them; and its picture."""

import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
import readmes
import yaml
from conftest import (
    PROJECT_DIRECTORY,
    TEMPLATE,
    Project,
    faults,
    git,
    move_on,
    user_environment,
)
from readmes import CONTRIBUTING, GENERATED, TEMPLATES

COMMITTER = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in (("NAME", "Test"), ("EMAIL", "test@example.com"))
}
NO_ANSWERS = "\n" * 9  # to whatever is asked: the default


def shell(command: str, directory: Path, env: dict[str, str] | None = None) -> str:
    """Run a block, in which the template's address is one that there is."""
    result = subprocess.run(
        ["sh", "-euc", command],
        cwd=directory,
        env=user_environment() | COMMITTER | (env or {}),
        input=NO_ANSWERS,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@contextmanager
def served(command: str, directory: Path, env: dict[str, str]) -> Iterator[str]:
    """Run a block that serves until Ctrl-C; what it has printed when it is ready."""
    process = subprocess.Popen(
        ["sh", "-euc", command],
        cwd=directory,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output = ""
        assert process.stdin
        assert process.stdout
        process.stdin.write(NO_ANSWERS)
        process.stdin.flush()
        for line in process.stdout:
            output += line
            if "Application startup complete" in line:
                break
        yield output
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        _, alive = psutil.wait_procs(children, timeout=30)
        process.communicate(timeout=30)
    assert alive == []


def test_ci_runs_the_command_of_the_readme() -> None:
    (command,) = readmes.take(TEMPLATES, "Work on the template", first=1)
    assert command.strip() == "pip install uv && uv run pytest"
    assert command.strip() in (TEMPLATE / ".ci" / "run").read_text().splitlines()


@pytest.mark.slow
def test_the_first_commands_give_a_running_service(
    template_repository: Path, tmp_path: Path, uv_cache: str
) -> None:
    """From a checkout and from an address, with Python, pip and git and an empty home."""
    (checkout,) = readmes.take(TEMPLATES, "Work on the template", last=1)
    (address,) = readmes.take(TEMPLATES)
    (again,) = readmes.take(GENERATED, last=1)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "python"], check=True)
    environment = user_environment() | {
        "HOME": str(tmp_path / "home"),
        "PATH": f"{tmp_path / 'python' / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "UV_CACHE_DIR": uv_cache,
    }
    (tmp_path / "home").mkdir()
    address = readmes.ADDRESS.sub(f"git+file://{template_repository}", address)
    for command, directory in ((checkout, template_repository), (address, tmp_path)):
        with served(command, directory, environment) as output:
            assert "is ready. Next:" in output
            for path in ("/docs", "/items", "/health/ready"):
                assert httpx.get(f"http://localhost:8000{path}").status_code == 200, output
        assert not (directory / "my-api" / ".postgres" / "data" / "postmaster.pid").exists()

    workflow = yaml.safe_load((TEMPLATE / ".github" / "workflows" / "ci.yml").read_text())
    steps = workflow["jobs"]["readme"]["steps"]
    (serve,) = [step["run"] for step in steps if step.get("name") == "Serve"]
    assert serve.startswith(again.strip())
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", serve],
        cwd=tmp_path / "my-api",
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.wait(timeout=60) == 0
    os.killpg(process.pid, signal.SIGTERM)  # as the runner does


@pytest.mark.slow
def test_into_a_directory_that_has_files(
    template_repository: Path, tmp_path: Path, uv_cache: str
) -> None:
    (tmp_path / "my-api").mkdir()
    (tmp_path / "my-api" / "notes.txt").write_text("mine")
    (command,) = readmes.take(TEMPLATES, "Into a directory that has files")
    home = {"HOME": str(tmp_path), "UV_CACHE_DIR": uv_cache}
    shell(readmes.ADDRESS.sub(str(template_repository), command), tmp_path, home)
    assert faults(tmp_path / "my-api") == []
    assert (tmp_path / "my-api" / "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_updates(template_repository: Path, tmp_path: Path, uv_cache: str) -> None:
    (commands,) = readmes.take(TEMPLATES, "Updates")
    create, update = readmes.ADDRESS.sub(str(template_repository), commands).splitlines()
    home = {"HOME": str(tmp_path), "UV_CACHE_DIR": uv_cache}
    shell(create, tmp_path, home)
    shell("git init -q && git add --all && git commit -qm Generated", tmp_path / "my-api", home)
    move_on(template_repository)
    shell(update, tmp_path / "my-api", home)
    assert (tmp_path / "my-api" / "app" / "clock.py").is_file()


def test_a_fork_is_renamed_changes_a_rule_and_follows(
    template_repository: Path, tmp_path: Path
) -> None:
    """Upstream and the fork are repositories of this machine."""
    git(template_repository, "branch", "-M", "main")
    start, follow = readmes.take(TEMPLATES, "Fork it")
    start = readmes.ADDRESS.sub(str(template_repository), start, count=1)
    named = shell(start, tmp_path).splitlines()
    assert "README.md" in named
    address = re.findall(r"\S+/\S+$", start.strip())[0]
    fork = Project(tmp_path / "house")
    for name in named:
        fork.replace(name, address, "acme/house")
    name = tomllib.loads((TEMPLATE / "pyproject.toml").read_text())["project"]["name"]
    fork.replace("pyproject.toml", f'name = "{name}"', 'name = "acme-house"')
    product = "{{cookiecutter.project_slug}}"
    fork.replace(f"{product}/pyproject.toml", "line-length = 99", "line-length = 98")
    git(fork.path, "commit", "--quiet", "--all", "--message", "House rules")

    move_on(template_repository)
    shell(follow, fork.path)
    command = [sys.executable, "-m", "cookiecutter", str(fork.path), "--no-input"]
    subprocess.run(command, cwd=tmp_path, env=user_environment(), check=True)
    project = tmp_path / "my-api"
    rules = tomllib.loads((project / "pyproject.toml").read_text())
    assert rules["tool"]["ruff"]["line-length"] == 98
    assert "structlog>=25.2.0" in rules["project"]["dependencies"]
    assert (project / "app" / "clock.py").is_file()

    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "not slow"]
    command += ["tests/test_readme.py", "tests/test_workflow.py", "-k", "not fork and not whole"]
    fork.run(*command, env={"PYTEST_DEBUG_TEMPROOT": str(tmp_path)})


def test_a_release_is_a_tag(template_repository: Path, tmp_path: Path) -> None:
    (commands,) = readmes.take(CONTRIBUTING, "Release")
    git(tmp_path, "init", "--quiet", "--bare", "origin")
    git(template_repository, "remote", "add", "origin", str(tmp_path / "origin"))
    shell(commands, template_repository)
    assert git(tmp_path / "origin", "tag").strip() in commands


def test_the_changelog_has_the_version() -> None:
    changelog = (TEMPLATE / ".github" / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", changelog, re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", name) for name in headings[1:])
    about = tomllib.loads((TEMPLATE / "pyproject.toml").read_text())["project"]
    assert [name.split(" ")[0] for name in headings[1:2]] in ([], [about["version"]])


@pytest.mark.slow
def test_the_template_is_clean_before_a_commit() -> None:
    (command,) = readmes.take(CONTRIBUTING)
    shell(command, TEMPLATE)


def test_the_picture_shows_what_there_is() -> None:
    (picture,) = re.findall(
        r"```mermaid\n(.*?)```", readmes.sections(TEMPLATES)["Why two URLs"], re.S
    )
    for directory in re.findall(r'\["([\w/]+/)<br>', picture):
        assert (PROJECT_DIRECTORY / directory).is_dir()
    example = (PROJECT_DIRECTORY / ".env.example").read_text()
    ways = re.findall(r'"(\w+)<br>(\w+), as (\w+)"', picture)
    assert len(ways) == 2
    for variable, driver, role in ways:
        assert f"\n{variable}=postgresql+{driver}://{role}:" in example


def test_every_line_ends_as_on_linux() -> None:
    """On every system: a shell script with other line ends does not run."""
    files = git(TEMPLATE, "ls-files", "--eol").splitlines()
    assert [line for line in files if "attr/text=auto eol=lf" not in line] == []
    assert [line for line in files if not re.match(r"i/(lf|none) ", line)] == []
