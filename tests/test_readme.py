"""The template's README and contributing guide: their commands, word for word, and their links."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    git,
    move_on,
    questions,
    user_environment,
)
from readmes import CONTRIBUTING, GENERATED, TEMPLATES

COMMITTER = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in (("NAME", "Test"), ("EMAIL", "test@example.com"))
}
DEFAULTS = "\n" * len(questions())  # answers each with its default


def shell(command: str, directory: Path, **env: str) -> str:
    """Run a block of a page; return its output."""
    return Project(directory).run("sh", "-euc", command, env=COMMITTER | env).stdout


def end_dev(group: int) -> None:
    """Terminate `uv run dev`, which passes the signal on.

    Sent to the group, it would come three times to uvicorn's supervisor, which may then hang.
    """
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if process.name() == "uv" and os.getpgid(process.pid) == group:
                process.terminate()


@contextmanager
def served(command: str, directory: Path, env: dict[str, str]) -> Iterator[str]:
    """Run a block that serves until Ctrl-C; yield what it has printed when it is ready."""
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
        process.stdin.write(DEFAULTS)
        process.stdin.close()  # so that a further question ends the command
        process.stdin = None
        for line in process.stdout:
            output += line
            if "Application startup complete" in line:
                break
        yield output
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        end_dev(process.pid)
        _, alive = psutil.wait_procs(children, timeout=30)
        process.communicate(timeout=30)
    assert alive == []


def test_documented_commands_are_the_agreed_ones() -> None:
    """The commands are part of the product: forks and CI systems call them."""
    generate, test = readmes.take(TEMPLATES, "Work on the template")
    assert generate.strip() == (
        "pip install uv && uvx cookiecutter . --no-input && cd my-api && uv run dev"
    )
    assert test.strip() == "pip install uv && uv run pytest"
    assert test.strip() in (TEMPLATE / ".ci" / "run").read_text().splitlines()


PAGES = [page for page in readmes.READMES if not page.startswith(readmes.PRODUCT)]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """To a file of the template, and to a heading of it."""
    for target in re.findall(r"\]\(([^)]+)\)", readmes.read(page)):
        name, _, heading = target.partition("#")
        if "://" not in target:
            path = (TEMPLATE / page).parent / name if name else TEMPLATE / page
            assert path.is_file(), target
            headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in headings]
            assert not heading or heading in anchors, target


@pytest.mark.long
@pytest.mark.slow
def test_first_commands_give_a_running_service(
    template_repository: Path, tmp_path: Path, uv_cache: str
) -> None:
    """From a checkout and from an address, with Python, pip, git and an empty home."""
    (checkout,) = readmes.take(TEMPLATES, "Work on the template", last=1)
    (address,) = readmes.take(TEMPLATES)
    (again,) = readmes.take(GENERATED, last=1)
    create = ("uv", "venv", "--quiet", "--seed", "--python", sys.executable, tmp_path / "python")
    subprocess.run(create, check=True)
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
    end_dev(process.pid)


def test_fork_is_renamed_changes_a_rule_and_merges_upstream(
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


def test_release_is_a_tag(template_repository: Path, tmp_path: Path) -> None:
    (commands,) = readmes.take(CONTRIBUTING, "Release")
    git(tmp_path, "init", "--quiet", "--bare", "origin")
    git(template_repository, "remote", "add", "origin", str(tmp_path / "origin"))
    shell(commands, template_repository)
    assert git(tmp_path / "origin", "tag").strip() in commands


def test_changelog_has_the_version() -> None:
    changelog = (TEMPLATE / ".github" / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", changelog, re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", name) for name in headings[1:])
    about = tomllib.loads((TEMPLATE / "pyproject.toml").read_text())["project"]
    assert [name.split(" ")[0] for name in headings[1:2]] in ([], [about["version"]])


@pytest.mark.slow
def test_template_is_clean_before_a_commit() -> None:
    (command,) = readmes.take(CONTRIBUTING)
    shell(command, TEMPLATE, MYPY_CACHE_DIR=".mypy_cache")  # other options than the projects


def test_picture_shows_the_layout() -> None:
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


def test_lines_end_as_on_linux() -> None:
    """On every system: a shell script with other line ends does not run."""
    files = git(TEMPLATE, "ls-files", "--eol").splitlines()
    assert [line for line in files if "attr/text=auto eol=lf" not in line] == []
    assert [line for line in files if not re.match(r"i/(lf|none) ", line)] == []
