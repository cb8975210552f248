"""The template's own workflow: valid, without needless rights, running documented commands."""

import re
import subprocess
from typing import Any

import pytest
import readmes
import yaml
from conftest import PROJECT_DIRECTORY, TEMPLATE, tool

WORKFLOW = TEMPLATE / ".github" / "workflows" / "ci.yml"
CONTENT: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())
JOBS: dict[str, Any] = CONTENT["jobs"]
STEPS: list[dict[str, Any]] = [step for job in JOBS.values() for step in job["steps"]]


@pytest.mark.parametrize(
    "command",
    [
        "check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/ci.yml",
        "check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml",
        "zizmor --offline --no-config --persona=pedantic .github",
    ],
)
def test_linters_find_no_fault(command: str) -> None:
    result = subprocess.run(tool(command), cwd=TEMPLATE, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_its_commands_are_documented() -> None:
    """Except `.ci/run` and the named steps, which have tests of their own."""
    documented = {
        command
        for readme in readmes.READMES
        for heading in readmes.sections(readme)
        for block in readmes.blocks(readme, heading)
        for line in block.splitlines()
        for command in line.split(" && ")
    }
    named = ("Serve", "Containers", "Audit the template", "Audit a project")
    scripts = [step["run"] for step in STEPS if "run" in step and step.get("name") not in named]
    assert ".ci/run" in scripts
    commands = {part for script in scripts for part in script.split(" && ")} - {".ci/run"}
    assert len(commands) > 5
    assert commands <= documented


def test_it_covers_every_system_and_every_python() -> None:
    matrix = JOBS["readme"]["strategy"]["matrix"]
    systems = {"ubuntu-latest", "macos-latest", "windows-latest"}
    assert set(matrix["os"]) == systems
    lowest = {run["os"] for run in matrix["include"] if run["resolution"] == "lowest-direct"}
    assert lowest == systems
    pythons = [step["with"]["python-version"].split() for step in JOBS["template"]["steps"][1:2]]
    assert sorted(pythons[0]) == ["3.11", "3.12", "3.13", "3.14"]


def test_it_may_only_read() -> None:
    assert CONTENT["permissions"] == {}
    assert [job["permissions"] for job in JOBS.values()] == [{"contents": "read"}] * len(JOBS)


def test_actions_are_pinned_by_commit_and_keep_no_token() -> None:
    uses = re.findall(r"uses: (\S+)(.*)", WORKFLOW.read_text())
    assert uses
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action) for action, _ in uses)
    checkouts = [step for step in STEPS if "actions/checkout@" in step.get("uses", "")]
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)
    assert all(re.fullmatch(r" # v\d+\.\d+\.\d+", version) for _, version in uses)


def test_generated_workflow_has_the_same_actions() -> None:
    """Dependabot updates both in one pull request."""
    projects = PROJECT_DIRECTORY / ".github" / "workflows" / "ci.yml"
    ours, theirs = (
        set(re.findall(r"uses: (.*)", path.read_text())) for path in (WORKFLOW, projects)
    )
    assert theirs
    assert theirs <= ours
    config = yaml.safe_load((TEMPLATE / ".github" / "dependabot.yml").read_text())
    actions, images = config["updates"]
    assert images["package-ecosystem"] == "docker"
    assert PROJECT_DIRECTORY in TEMPLATE.glob(images["directories"][0].lstrip("/"))
    assert actions["package-ecosystem"] == "github-actions"
    root, elsewhere = actions["directories"]
    assert root == "/"
    assert list(TEMPLATE.glob(elsewhere.lstrip("/"))) == [projects.parent]


def test_docker_runs_the_containers() -> None:
    """By the documented command, in the background until all services are healthy."""
    (script,) = [step["run"] for step in STEPS if step.get("name") == "Containers"]
    up, request = script.strip().splitlines()
    assert up == "docker compose up --build --detach --wait"
    assert "`docker compose up --build`" in readmes.read(readmes.DEPLOY)
    assert request.endswith("http://localhost:8000/health/ready")


def test_packages_that_tests_need_are_listed() -> None:
    """What `.ci/run` installs is what a contributor installs."""
    script = (TEMPLATE / ".ci" / "run").read_text()
    installed = re.findall(r"packages\+?=\(([^)]+)\)", script)
    page = readmes.read(readmes.CONTRIBUTING)
    (listed,) = re.findall(r"need a Debian package \(([^)]+)\)", page)
    assert sorted(" ".join(installed).split()) == re.split(r",\s", listed)
