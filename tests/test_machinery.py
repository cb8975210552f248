"""Tests of the generated wiring, which a generated project does not have.

Whoever forks the template owns the wiring, and so its tests. They are in `machinery/`.
"""

import pytest
from conftest import Project

pytestmark = pytest.mark.slow


@pytest.fixture
def project(copied: Project) -> Project:
    """The default project with the tests of its wiring beside its own."""
    copied.add_tests("machinery")
    return copied


@pytest.mark.long
def test_wiring_passes_its_tests(project: Project) -> None:
    assert " passed" in project.uv("pytest", "-q", "-n", "2")


def test_lint_and_types_of_these_tests_are_clean(project: Project) -> None:
    project.lint()
