"""docs/promises.md: every promise has a test."""

import ast
import re
from pathlib import Path

import pytest
import readmes
from conftest import PROJECT_DIRECTORY, TEMPLATE

ROWS = re.findall(
    r"^\| (?!-|#|what holds)(.+) \|$", readmes.read("docs/promises.md"), re.MULTILINE
)


def functions(path: Path) -> list[str]:
    """Return the names of the tests in a file; none if there is no file."""
    nodes = ast.walk(ast.parse(path.read_bytes())) if path.is_file() else []
    return [n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split(" | ")[-2])
def test_promise_names_tests_that_exist(row: str) -> None:
    names = re.findall(r"`([^`]+)`", row.split(" | ")[-1])
    assert names, "a promise without a test"
    for name in names:
        file, _, test = name.partition("::")
        root = PROJECT_DIRECTORY if file.startswith("my-api/") else TEMPLATE
        assert test in functions(root / file.removeprefix("my-api/")), name


def test_no_promise_is_lost() -> None:
    """The numbered promises have no gap."""
    numbers = [int(row.split(" | ")[0]) for row in ROWS if row[0].isdigit()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 31
    assert len(ROWS) - len(numbers) >= 30
