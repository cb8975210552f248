"""What a project's CI runs, run here: each step of GitHub's workflow and GitLab's jobs."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import yaml
from conftest import Bake, Project, short_directory, tool
from servers import postgresql

# What needs an engine, which a contributor need not have. tests/test_docker.py does without.
NOT_RUN_HERE = ["docker build ."]


def steps(project: Project) -> dict[str, tuple[list[str], dict[str, str]]]:
    """The commands of each job, and its variables, whichever CI it is."""
    if (project.path / ".gitlab-ci.yml").exists():
        jobs = yaml.safe_load((project.path / ".gitlab-ci.yml").read_text())
        del jobs["workflow"]
        shared = jobs.pop("variables")
        return {
            name: (job["script"], shared | job.get("variables", {})) for name, job in jobs.items()
        }
    workflow = yaml.safe_load((project.path / ".github/workflows/ci.yml").read_text())
    return {
        name: (
            [step["run"] for step in job["steps"] if "run" in step],
            workflow["env"] | job.get("env", {}),
        )
        for name, job in workflow["jobs"].items()
    }


def matrix_of(project: Project) -> list[str]:
    text = next(
        (project.path / name).read_text()
        for name in (".gitlab-ci.yml", ".github/workflows/ci.yml")
        if (project.path / name).exists()
    )
    found = re.search(r"(?:python|PYTHON): (\[.*\])", text)
    assert found
    return list(yaml.safe_load(found[1]))


def test_both_do_the_same(bake: Bake) -> None:
    """But for how uv gets there."""
    github, gitlab = bake(ci="github"), bake(ci="gitlab", project_slug="other")
    assert matrix_of(github) == matrix_of(gitlab) == ["3.11", "3.12", "3.13", "3.14"]
    done = [
        [c for commands, _ in steps(project).values() for c in commands if "install uv" not in c]
        for project in (github, gitlab)
    ]
    assert done[0] == done[1]


def test_githubs_jobs_may_only_read(baked: Project) -> None:
    workflow = yaml.safe_load((baked.path / ".github/workflows/ci.yml").read_text())
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert job["permissions"] == {"contents": "read"}


def test_a_commit_is_checked_as_ci_does(baked: Project) -> None:
    config = yaml.safe_load((baked.path / ".pre-commit-config.yaml").read_text())
    (local,) = config["repos"]
    assert local["repo"] == "local"
    commands = [hook["entry"] for hook in local["hooks"]]
    assert commands == ["uv lock --check", *steps(baked)["lint"][0][1:]]


@pytest.fixture
def tools(uv_cache: str) -> dict[str, str]:
    """A machine of a CI service: Python, pip and pipx, and nothing of ours."""
    directory = short_directory()
    subprocess.run([sys.executable, "-m", "venv", directory / "python"], check=True)
    pip = directory / "python" / "bin" / "pip"
    subprocess.run([pip, "install", "--quiet", "pipx"], check=True)
    return {
        "HOME": str(directory),
        "PATH": f"{directory / 'bin'}:{directory / 'python' / 'bin'}:/usr/bin:/bin",
        "PIPX_BIN_DIR": str(directory / "bin"),
        "PIPX_HOME": str(directory / "pipx"),
        "UV_CACHE_DIR": uv_cache,
    }


@pytest.fixture
def service() -> Iterator[str]:
    """Where the jobs' PostgreSQL listens."""
    directory = short_directory()
    access = "local all all trust\nhost all all all trust\n"
    with postgresql(directory, access, {}) as port:
        connection = ["--host", str(directory), "--port", str(port), "--username", "postgres"]
        subprocess.run(["createdb", *connection, "app_test"], check=True)
        yield f"127.0.0.1:{port}"


@pytest.mark.slow
@pytest.mark.parametrize("ci", ["github", pytest.param("gitlab", marks=pytest.mark.exhaustive)])
def test_each_step_succeeds(bake: Bake, tools: dict[str, str], service: str, ci: str) -> None:
    """In a checkout with the lock file that the README says to commit."""
    project = bake(ci=ci).copy(short_directory())
    (project.path / ".env").unlink()
    project.run("uv", "lock", "--quiet")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    left = []
    for commands, variables in steps(project).values():
        told = {
            name: re.sub(r"@(localhost|postgres):5432/", f"@{service}/", value).replace(
                "${{ matrix.python }}", python
            )
            for name, value in variables.items()
        }
        for command in commands:
            if command in NOT_RUN_HERE:
                left.append(command)
            else:
                project.run("bash", "-e", "-c", command, env=tools | told)
    assert left == NOT_RUN_HERE


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_project_without_options_runs_its_own_checks(bake: Bake) -> None:
    project = bake(docker=False, ci="none").copy(short_directory())
    for command in ("ruff check", "ruff format --check", "mypy", "pytest -q"):
        project.uv(*command.split())


@pytest.mark.slow
def test_a_commit_is_checked(copied: Project) -> None:
    """Each hook lets pass what is generated, and finds what it is for."""
    prek = tool("prek run --all-files")
    environment = {"PREK_HOME": str(short_directory()), "PATH": os.environ["PATH"]}
    copied.run("uv", "lock", "--quiet")
    copied.run("git", "init", "--quiet")
    copied.run("git", "add", "--all")
    copied.run(*prek, env=environment)
    copied.replace("app/main.py", '"""The application', 'import os\nx : int = "1"\n"""The app')
    copied.replace("pyproject.toml", "structlog>=25.1.0", "structlog>=25.2.0")
    result = copied.run(*prek, env=environment, check=False)
    assert len(re.findall(r"\.Failed", result.stdout)) == 4, result.stdout
