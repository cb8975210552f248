"""The CI of generated projects: each command of GitHub's workflow and GitLab's jobs runs here."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import yaml
from conftest import Bake, Project, short_directory, tool
from servers import postgresql

# Needs Docker, which contributors need not have. tests/test_docker.py builds without it.
NOT_RUN_HERE = ["docker build ."]


def steps(project: Project) -> dict[str, tuple[list[str], dict[str, str]]]:
    """The commands and the variables of each job, for GitHub and GitLab."""
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


def test_github_and_gitlab_run_the_same_commands(bake: Bake) -> None:
    """They differ only in how they install uv."""
    github, gitlab = bake(ci="github"), bake(ci="gitlab", project_slug="other")
    assert matrix_of(github) == matrix_of(gitlab) == ["3.11", "3.12", "3.13", "3.14"]
    commands = [
        [c for commands, _ in steps(project).values() for c in commands if "install uv" not in c]
        for project in (github, gitlab)
    ]
    assert commands[0] == commands[1]


def test_github_jobs_have_read_permission_only(baked: Project) -> None:
    workflow = yaml.safe_load((baked.path / ".github/workflows/ci.yml").read_text())
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert job["permissions"] == {"contents": "read"}


def test_pre_commit_runs_the_checks_of_ci(baked: Project) -> None:
    config = yaml.safe_load((baked.path / ".pre-commit-config.yaml").read_text())
    (local,) = config["repos"]
    assert local["repo"] == "local"
    *commands, secrets = [hook["entry"] for hook in local["hooks"]]
    assert commands == ["uv lock --check", *steps(baked)["lint"][0][1:]]
    assert re.match(r"uvx --from detect-secrets==[\d.]+ detect-secrets-hook ", secrets)


@pytest.fixture
def tools(uv_cache: str) -> dict[str, str]:
    """The environment of a CI machine: Python, pip and pipx, without this machine's tools."""
    directory = short_directory()
    python = directory / "python"
    create = ("uv", "venv", "--quiet", "--seed", "--python", sys.executable, python)
    subprocess.run(create, check=True)
    install = ("uv", "pip", "install", "--quiet", "--python", python, "pipx")
    subprocess.run(install, check=True)
    return {
        "HOME": str(directory),
        "PATH": f"{directory / 'bin'}:{directory / 'python' / 'bin'}:/usr/bin:/bin",
        "PIPX_BIN_DIR": str(directory / "bin"),
        "PIPX_HOME": str(directory / "pipx"),
        "UV_CACHE_DIR": uv_cache,
    }


@pytest.fixture
def service() -> Iterator[str]:
    """Run the PostgreSQL of the jobs. Yields its address."""
    directory = short_directory()
    access = "local all all trust\nhost all all all trust\n"
    with postgresql(directory, access, {}) as port:
        connection = ["--host", str(directory), "--port", str(port), "--username", "postgres"]
        subprocess.run(["createdb", *connection, "app_test"], check=True)
        yield f"127.0.0.1:{port}"


FLAW = {
    "id": "OSV-2026-1",
    "summary": "It is unsafe.",
    "modified": "2026-01-01T00:00:00Z",
    "affected": [{"package": {"ecosystem": "PyPI", "name": "anyio"}, "versions": []}],
}


@pytest.fixture
def flaws() -> Iterator[tuple[str, set[str]]]:
    """A database of vulnerabilities as `uv audit` asks it: its URL, and the flawed packages."""
    names: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            queries = json.loads(self.rfile.read(int(self.headers["content-length"])))["queries"]
            known = [{"id": FLAW["id"], "modified": FLAW["modified"]}]
            found = [query["package"]["name"] in names for query in queries]
            self.answer({"results": [{"vulns": known} if flawed else {} for flawed in found]})

        def do_GET(self) -> None:
            self.answer(FLAW)

        def answer(self, value: object) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(value).encode())

        def log_message(self, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/", names
        server.shutdown()


@pytest.mark.slow
def test_audit_fails_for_a_flaw_and_without_its_database(
    baked: Project, flaws: tuple[str, set[str]]
) -> None:
    """And it says which."""
    url, names = flaws
    assert "uv audit" in steps(baked)["audit"][0]
    project = baked.copy(short_directory())
    audit = ["uv", "audit", "--no-progress", "--service-url"]
    assert "no known vulnerabilities" in project.run(*audit, url).stderr
    names.add("anyio")
    result = project.run(*audit, url, check=False)
    assert result.returncode != 0
    assert "OSV-2026-1" in result.stdout + result.stderr
    retries = {"UV_HTTP_RETRIES": "0"}
    result = project.run(*audit, "http://127.0.0.1:1/", check=False, env=retries)
    assert result.returncode != 0
    assert "error sending request for url (http://127.0.0.1:1/" in result.stderr


def bill(project: Project) -> set[str]:
    """The packages of a bill of materials."""
    content = json.loads((project.path / "sbom.json").read_text())
    assert (content["bomFormat"], content["specVersion"]) == ("CycloneDX", "1.5")
    return {component["name"] for component in content["components"]}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("ci", ["github", "gitlab"])
def test_every_command_succeeds(
    bake: Bake, tools: dict[str, str], service: str, flaws: tuple[str, set[str]], ci: str
) -> None:
    """In a checkout with a lock file, which the README tells users to commit."""
    project = bake(ci=ci).copy(short_directory())
    (project.path / ".env").unlink()
    project.run("uv", "lock", "--quiet")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    skipped = []
    for commands, variables in steps(project).values():
        values = {
            name: re.sub(r"@(localhost|postgres):5432/", f"@{service}/", value).replace(
                "${{ matrix.python }}", python
            )
            for name, value in variables.items()
        }
        for command in commands:
            if command in NOT_RUN_HERE:
                skipped.append(command)
            else:
                command = command.replace("uv audit", f"uv audit --service-url {flaws[0]}")
                project.run("bash", "-e", "-c", command, env=tools | values)
    assert skipped == NOT_RUN_HERE
    packages = bill(project)
    assert {"fastapi", "asyncpg", "starlette"} <= packages
    assert {"pytest", "ruff"} & packages == set()


@pytest.mark.slow
@pytest.mark.exhaustive
def test_project_without_options_passes_its_checks(bake: Bake) -> None:
    project = bake(docker=False, ci="none").copy(short_directory())
    for command in ("ruff check", "ruff format --check", "mypy", "pytest -q"):
        project.uv(*command.split())


@pytest.mark.slow
def test_pre_commit_hooks_find_faults(copied: Project) -> None:
    """Each hook passes on the generated project and fails on a fault."""
    prek = tool("prek run --all-files")
    environment = {"PREK_HOME": str(short_directory()), "PATH": os.environ["PATH"]}
    copied.run("uv", "lock", "--quiet")
    copied.run("git", "init", "--quiet")
    copied.run("git", "add", "--all")
    copied.run(*prek, env=environment)
    leak = '"""postgresql://app:s3cret-passw0rd@db.example.com/app"""\n'
    (copied.path / "app" / "leak.py").write_text(leak)
    copied.run("git", "add", "--all")
    copied.replace("app/main.py", '"""The application', 'import os\nx : int = "1"\n"""The app')
    copied.replace("pyproject.toml", "structlog>=25.1.0", "structlog>=25.2.0")
    result = copied.run(*prek, env=environment, check=False)
    assert len(re.findall(r"\.Failed", result.stdout)) == 5, result.stdout
