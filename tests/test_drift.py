"""The files of the installed Alembic's `alembic init`, compared by meaning with the template's."""

import ast
import re
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest
from conftest import PROJECT_DIRECTORY

# Settings that `alembic init` mentions and the template leaves at their defaults.
DEFAULTS = {
    "output_encoding",
    "recursive_version_locations",
    "revision_environment",
    "sourceless",
    "truncate_slug_length",
    "version_locations",
}


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory where `alembic init alembic` was run."""
    directory = tmp_path_factory.mktemp("stock")
    command = [sys.executable, "-m", "alembic", "init", "alembic"]
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
    return directory


def settings(directory: Path) -> dict[str, set[str]]:
    parser = RawConfigParser()
    parser.read(directory / "alembic.ini")
    return {section: set(parser[section]) for section in parser.sections()}


def offered(directory: Path) -> set[str]:
    """Return the settings of `[alembic]`, with those that are commented out."""
    text = (directory / "alembic.ini").read_text().split("[post_write_hooks]")[0]
    return set(re.findall(r"^(?:# )?([a-z_.]+) *=", text, re.MULTILINE))


def test_every_setting_of_alembic_init_is_here(stock: Path) -> None:
    shipped = settings(PROJECT_DIRECTORY)
    for section, names in settings(stock).items():
        assert names <= shipped[section], f"new upstream in [{section}]"


def test_every_setting_that_alembic_offers_is_known(stock: Path) -> None:
    new = offered(stock) - settings(PROJECT_DIRECTORY)["alembic"] - DEFAULTS
    assert new == set(), "new upstream: ship it or add it to DEFAULTS"


def blocks(directory: Path) -> tuple[set[str], set[str], set[str]]:
    """Return the variables, the names and the functions of script.py.mako."""
    text = (directory / "alembic" / "script.py.mako").read_text()
    filled = set(re.findall(r"\$\{(?:repr\()?(\w+)", text)) - {"drop"}  # ours
    names = set(re.findall(r"^(\w+): .* = \$", text, re.MULTILINE))
    return filled, names, set(re.findall(r"^def (\w+)\(", text, re.MULTILINE))


def test_new_revisions_have_the_parts_of_alembics_own(stock: Path) -> None:
    assert blocks(PROJECT_DIRECTORY) == blocks(stock)


def test_env_py_covers_alembics_own(stock: Path) -> None:
    def functions(directory: Path) -> set[str]:
        tree = ast.parse((directory / "alembic" / "env.py").read_text())
        return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}

    def calls(directory: Path) -> set[str]:
        tree = ast.parse((directory / "alembic" / "env.py").read_text())
        found = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        return {name for name in found if name.startswith("context.")}

    assert functions(stock) <= functions(PROJECT_DIRECTORY)
    assert calls(stock) <= calls(PROJECT_DIRECTORY)
