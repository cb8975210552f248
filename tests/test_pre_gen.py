"""Bad answers are refused before a file is written."""

from pathlib import Path

import pytest
from conftest import cookiecutter
from pre_gen_project import check_slug, check_text


@pytest.mark.parametrize(
    "slug", ["my-api", "backend", "a", "A1", "my_api.v2", "console", "fast-api"]
)
def test_names_of_distributions_are_accepted(slug: str) -> None:
    assert check_slug(slug) is None


@pytest.mark.parametrize(
    "slug",
    ["", ".", "-api", "api-", "my api", "my/api", "../api", "naïve", "api\n", "a'b", "$HOME"],
)
def test_other_names_are_refused(slug: str) -> None:
    assert "starts and ends with a letter or digit" in str(check_slug(slug))


@pytest.mark.parametrize("slug", ["fastapi", "FastAPI", "SQLAlchemy", "pydantic_core", "uv.build"])
def test_names_of_dependencies_are_refused_however_they_are_written(slug: str) -> None:
    assert "a package that the project installs" in str(check_slug(slug))


@pytest.mark.parametrize("slug", ["con", "NUL", "aux.api", "com1", "LPT9.txt"])
def test_names_of_devices_are_refused(slug: str) -> None:
    assert "a device on Windows" in str(check_slug(slug))


@pytest.mark.parametrize(
    "character", ["\0", "\n", "\r", "\t", "\x1b", "\x85", "\u2028", "\u2029", "\ud800"]
)
def test_characters_that_break_a_line_are_refused(character: str) -> None:
    error = check_text("description", f"one{character}two")
    assert error
    assert error.startswith("description ")
    assert error.isprintable()


@pytest.mark.parametrize("text", ["", "plain", "\"'\\ % $ # {}", "日本語 🎉"])
def test_other_texts_are_accepted(text: str) -> None:
    assert check_text("description", text) is None


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        ("project_slug=not valid", "starts and ends with"),
        ("project_slug=asyncpg", "a package that the project installs"),
        ("description=one\ntwo", "a control character"),
        ('project_name=It\'s "one"\u2028two', "a line separator"),
    ],
)
def test_a_refusal_is_one_line_and_leaves_nothing(answer: str, rule: str, tmp_path: Path) -> None:
    result = cookiecutter(tmp_path, answer)
    assert result.returncode != 0
    question = answer.split("=")[0]
    (line,) = [line for line in result.stderr.split("\n") if line.startswith("Error: ")]
    assert line.startswith(f"Error: {question} ")
    assert rule in line
    assert "for example" in line
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
