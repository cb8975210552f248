"""A setting that a team adds: a field of Settings, and a line in the files of its deployment."""

import pytest
from conftest import Project

pytestmark = pytest.mark.slow

FIELDS = """
    payments_url: HttpUrl
    payments_api_key: SecretStr
"""
EXAMPLE = """
PAYMENTS_URL=https://payments.example.com
PAYMENTS_API_KEY=change-me
"""
PYTEST = ("pytest", "-q", "-p", "no:randomly")


@pytest.fixture
def project(copied: Project) -> Project:
    """A project with two settings that have no default."""
    copied.replace("app/config.py", "import NonNegative", "import HttpUrl, SecretStr, NonNegative")
    copied.replace(
        "app/config.py", "    allowed_hosts: Names", f"{FIELDS}\n    allowed_hosts: Names"
    )
    copied.uv("ruff", "check", "--fix", "--quiet")
    copied.uv("ruff", "format", "--quiet")
    return copied


def add_to_example(project: Project) -> None:
    with (project.path / ".env.example").open("a") as file:
        file.write(EXAMPLE)


def test_setting_without_a_default_breaks_no_test(project: Project) -> None:
    add_to_example(project)
    lines = "ALLOWED_HOSTS:\n      PAYMENTS_URL:\n      PAYMENTS_API_KEY:\n"
    project.replace("compose.yaml", "ALLOWED_HOSTS:\n", lines)
    # Neither .env nor the environment is read.
    output = project.uv(*PYTEST, env={"PAYMENTS_URL": "not a URL"})
    assert " passed" in output
    assert " skipped" not in output
    project.uv("mypy")


def test_setting_that_env_example_lacks_is_one_line(project: Project) -> None:
    output = project.uv(
        *PYTEST, check=False, env={"PAYMENTS_URL": "https://a", "PAYMENTS_API_KEY": "a"}
    )
    assert output == ".env.example: set PAYMENTS_URL\n"


def test_setting_that_compose_yaml_lacks_is_named(project: Project) -> None:
    add_to_example(project)
    output = project.uv(*PYTEST, "tests/test_settings.py", check=False)
    assert "AssertionError: add them to compose.yaml" in output
    assert "'PAYMENTS_API_KEY'" in output
    assert "1 failed" in output
    (project.path / "compose.yaml").unlink()  # as with docker=no
    assert " passed" in project.uv(*PYTEST, "tests/test_settings.py")


def test_optional_setting_that_env_example_lacks_is_named(copied: Project) -> None:
    copied.replace(
        "app/config.py",
        "    max_body_size:",
        "    page_size: PositiveInt = 50\n    max_body_size:",
    )
    output = copied.uv(*PYTEST, "tests/test_settings.py", check=False)
    for name in (".env.example", "compose.yaml"):
        assert f"AssertionError: add them to {name}" in output
    assert "'PAGE_SIZE'" in output
