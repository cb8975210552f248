"""The template's own workflow: valid, without needless rights, and running what is documented."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import readmes
import yaml
from conftest import TEMPLATE

WORKFLOW = TEMPLATE / ".github" / "workflows" / "ci.yml"
JOBS: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())["jobs"]
STEPS: list[dict[str, Any]] = [step for job in JOBS.values() for step in job["steps"]]


def step(name: str) -> str:
    """What the step of this name runs."""
    (script,) = [step["run"] for step in STEPS if step.get("name") == name]
    return str(script)


@pytest.mark.parametrize(
    "command",
    [
        "check-jsonschema --builtin-schema vendor.github-workflows",
        "zizmor --offline --no-config --persona=pedantic",
    ],
)
def test_it_is_valid_and_safe(command: str) -> None:
    tool, *options = command.split()
    program = str(Path(sys.executable).with_name(tool))
    result = subprocess.run([program, *options, WORKFLOW], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_what_it_runs_is_in_a_readme() -> None:
    """Or is `.ci/run`, which a test looks into, or the step that another test runs."""
    documented = {
        command
        for readme in readmes.READMES
        for heading in readmes.sections(readme)
        for block in readmes.blocks(readme, heading)
        for line in block.splitlines()
        for command in line.split(" && ")
    }
    scripts = [step["run"] for step in STEPS if "run" in step and step.get("name") != "Serve"]
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


def test_actions_are_pinned_and_leave_no_token_behind() -> None:
    uses = re.findall(r"uses: (\S+)(.*)", WORKFLOW.read_text())
    assert uses
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action) for action, _ in uses)
    checkouts = [step for step in STEPS if "actions/checkout@" in step.get("uses", "")]
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)
    assert all(re.fullmatch(r" # v\d+\.\d+\.\d+", version) for _, version in uses)
