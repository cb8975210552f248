"""The template's own workflow: valid, without needless rights, and running what is documented."""

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
def test_it_is_valid_and_safe(command: str) -> None:
    result = subprocess.run(tool(command), cwd=TEMPLATE, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_what_it_runs_is_in_a_readme() -> None:
    """Or is `.ci/run`, which a test looks into, or a step that is tested on its own."""
    documented = {
        command
        for readme in readmes.READMES
        for heading in readmes.sections(readme)
        for block in readmes.blocks(readme, heading)
        for line in block.splitlines()
        for command in line.split(" && ")
    }
    alone = ("Serve", "Containers")
    scripts = [step["run"] for step in STEPS if "run" in step and step.get("name") not in alone]
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


def test_actions_are_pinned_and_leave_no_token_behind() -> None:
    uses = re.findall(r"uses: (\S+)(.*)", WORKFLOW.read_text())
    assert uses
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action) for action, _ in uses)
    checkouts = [step for step in STEPS if "actions/checkout@" in step.get("uses", "")]
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)
    assert all(re.fullmatch(r" # v\d+\.\d+\.\d+", version) for _, version in uses)


def test_the_project_has_the_same_actions() -> None:
    """Which Dependabot keeps up to date in both."""
    projects = PROJECT_DIRECTORY / ".github" / "workflows" / "ci.yml"
    ours, theirs = (
        set(re.findall(r"uses: (.*)", path.read_text())) for path in (WORKFLOW, projects)
    )
    assert theirs
    assert theirs <= ours
    config = yaml.safe_load((TEMPLATE / ".github" / "dependabot.yml").read_text())
    (actions,) = config["updates"]
    assert actions["package-ecosystem"] == "github-actions"
    root, elsewhere = actions["directories"]
    assert root == "/"
    assert list(TEMPLATE.glob(elsewhere.lstrip("/"))) == [projects.parent]


def test_an_engine_runs_the_containers() -> None:
    """By the command of the generated README, in the background until all is healthy."""
    (script,) = [step["run"] for step in STEPS if step.get("name") == "Containers"]
    up, asked = script.strip().splitlines()
    readme = (PROJECT_DIRECTORY / "README.md").read_text()
    assert up == "docker compose up --build --detach --wait"
    assert f"`{up.removesuffix(' --detach --wait')}`" in readme
    assert asked.endswith("http://localhost:8000/health/ready")
