"""Every interpreter of this machine, with the newest and the lowest declared dependencies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Project

pytestmark = pytest.mark.slow


def interpreters(but_this: bool = False) -> list[str]:
    """Each Python from 3.11 on that this machine has: on PATH, or kept by pyenv.

    All other tests of generated projects run on this one.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = {}
    for minor in range(11, 15):
        if but_this and minor == sys.version_info.minor:
            continue
        candidates = [
            f"python3.{minor}",
            *map(str, pyenv.glob(f"versions/3.{minor}.*/bin/python")),
        ]
        for candidate in candidates:
            command = [candidate, "-c", "import sys; print(sys.executable)"]
            try:
                result = subprocess.run(command, capture_output=True, text=True)
            except FileNotFoundError:
                continue
            if result.returncode == 0:
                found[minor] = result.stdout.strip()
    return list(found.values())


LOWEST = ["--resolution", "lowest-direct"]


@pytest.mark.parametrize("python", interpreters(but_this=True))
def test_the_generated_suite_with_the_newest(copied: Project, python: str) -> None:
    assert " passed" in copied.uv("--python", python, "pytest", "-q", "-n", "2")


@pytest.mark.exhaustive
@pytest.mark.parametrize("python", interpreters())
def test_the_generated_suite_with_the_lowest(copied: Project, python: str) -> None:
    assert " passed" in copied.uv("--python", python, *LOWEST, "pytest", "-q")


@pytest.mark.exhaustive
@pytest.mark.parametrize("resolution", [[], LOWEST], ids=["newest", "lowest"])
@pytest.mark.parametrize("python", interpreters())
def test_the_templates_fast_part(
    template_repository: Path, python: str, resolution: list[str]
) -> None:
    template = Project(template_repository)
    assert " passed" in template.uv("--python", python, *resolution, "pytest", "-m", "not slow")
