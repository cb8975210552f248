"""What may import what. AGENTS.md has the same rules for people."""

import ast
import re
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

from app.database import ROOT

APP = ROOT / "app"
FEATURES = sorted({path.name for path in APP.iterdir() if path.is_dir()} - {"database", "web"})
# Files, the imports that they must not have, and what to do instead.
RULES = [
    ("database/**/*.py", r"app\.(?!database\b)", "pass what it needs into app/database"),
    ("web/**/*.py", rf"app\.({'|'.join(FEATURES)})\b", "move the code into the feature"),
    ("*/service*.py", r"(fastapi|starlette)\b", "raise an error of app/errors.py instead"),
]


def imports(path: Path) -> Iterator[str]:
    """Yield the full names of everything that a file imports."""
    package = ".".join(path.parent.relative_to(ROOT).parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(("files", "forbidden", "advice"), RULES)
def test_imports_follow_the_rules(files: str, forbidden: str, advice: str) -> None:
    for path in APP.glob(files):
        wrong = [name for name in imports(path) if re.match(forbidden, name)]
        assert not wrong, f"{path} imports {wrong[0]}: {advice}"
