"""All interpreters of this machine, with the newest and the lowest declared dependencies."""

from pathlib import Path

import pytest
from conftest import Project, bake_with, interpreters, short_directory
from pytest_cookies.plugin import Cookies

pytestmark = pytest.mark.slow

LOWEST = ["--resolution", "lowest-direct"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("python", interpreters(but_this=True))
def test_generated_suite_with_newest_dependencies(copied: Project, python: str) -> None:
    assert " passed" in copied.uv("--python", python, "pytest", "-q", "-n", "2")


@pytest.mark.exhaustive
@pytest.mark.parametrize("python", interpreters())
def test_generated_suite_with_lowest_dependencies(copied: Project, python: str) -> None:
    assert " passed" in copied.uv("--python", python, *LOWEST, "pytest", "-q")


@pytest.mark.exhaustive
def test_jobs_and_accounts_with_lowest_dependencies(cookies_session: Cookies) -> None:
    answers = {"auth": "accounts", "jobs": True}
    project = bake_with(cookies_session, answers).copy(short_directory())
    project.add_tests("jobs", "mails")
    lowest = ["--python", interpreters()[0], *LOWEST]
    assert " passed" in project.uv(*lowest, "pytest", "-q", "-n", "2")


@pytest.mark.long
@pytest.mark.exhaustive
@pytest.mark.parametrize("python", dict.fromkeys([interpreters()[0], interpreters()[-1]]))
def test_fast_part_of_the_template(template_repository: Path, python: str) -> None:
    """The oldest one with the lowest dependencies, and the newest one with the newest."""
    template = Project(template_repository)
    resolution = LOWEST if python == interpreters()[0] else []
    assert " passed" in template.uv("--python", python, *resolution, "pytest", "-m", "not slow")
