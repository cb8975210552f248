"""The README's way into a project that has models and rows, word for word, on four of them."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import TEMPLATE, Project, short_directory
from test_roles import PRINT_ENVIRONMENT, SERVER, environment_of, start

pytestmark = pytest.mark.slow

SECTION = (
    (TEMPLATE / "README.md")
    .read_text(encoding="utf-8")
    .split("## Into a project that uses SQLAlchemy already\n")[1]
    .split("\n## ")[0]
)
PROJECTS = Path(__file__).with_name("projects")


def blocks(language: str) -> list[str]:
    """The section's blocks of code in a language."""
    found = re.findall(rf"^   ```{language}\n(.*?)^   ```", SECTION, re.DOTALL | re.MULTILINE)
    return [re.sub(r"^   ", "", block, flags=re.MULTILINE) for block in found]


COPY, BASELINE, STAMP = blocks("console")
IMPORTS, ALL_MODELS = blocks("python")
ROWS = re.findall(r"^   \| (.+?) \| `(\S+)` \| `(.+?)` \| `(.+?)` \|$", SECTION, re.MULTILINE)


@dataclass(frozen=True)
class Layout:
    """A row of the section's table: what a project has in place of what the text says."""

    directory: str
    base: str
    models: str
    main: str

    def shell(self, block: str) -> str:
        return block.replace("shop/migrating", self.directory).replace(
            "gh:OWNER/cookiecutter-fastapi-alembic", str(TEMPLATE)
        )

    def imports(self) -> str:
        package = self.directory.removeprefix("src/").replace("/", ".")
        return (
            IMPORTS.replace("from shop.database import Base", self.base)
            .replace("shop.migrating", package)
            .replace("from shop.models import *", self.models)
        )


MAIN = {"flat": "main", "src": "shop.main", "features": "shop.main", "sqlmodel": "app.main"}
LAYOUTS = {
    name: Layout(*row[1:], main)
    for (name, main), row in zip(MAIN.items(), ROWS, strict=True)
}
# A column that is new, put before the line that the table's model has last.
NEW_COLUMN = {
    "flat": ("models.py", "    customer: Mapped", "    note: Mapped[str | None]\n"),
}


@pytest.fixture(scope="module")
def server(installed: Project) -> Iterator[dict[str, str]]:
    """The environment that leads libpq to a PostgreSQL for this module."""
    script = SERVER + PRINT_ENVIRONMENT + "sys.stdin.read(); server.stop()"
    directory = str(short_directory() / "data")
    with environment_of(start(installed, "python", "-c", script, directory)) as environment:
        yield {name: environment[name] for name in ("PGHOST", "PGUSER", "PATH")}


@dataclass(frozen=True)
class Shell:
    """A project of somebody's, and a shell in it."""

    project: Project
    environment: dict[str, str]

    def __call__(self, script: str, check: bool = True) -> str:
        result = self.project.run(
            "sh", "-euc", script, check=check, env=self.environment
        )
        return result.stdout + result.stderr


@pytest.mark.parametrize("name", LAYOUTS)
def test_adopt(server: dict[str, str], name: str) -> None:
    layout = LAYOUTS[name]
    project = Project(short_directory() / "shop")
    shutil.copytree(PROJECTS / name, project.path)
    url = f"postgresql+asyncpg://postgres@/{name}?host={server['PGHOST']}"
    (project.path / ".env").write_text(f"DATABASE_URL={url}\n")
    shell = Shell(project, server)
    shell(f"createdb {name} && uv run -q --env-file .env python -m {layout.main}")
    before = shell(f"pg_dump {name}")
    print(shell(layout.shell(COPY)))
    env_py = project.path / "alembic" / "env.py"
    text, count = re.subn(r"(from app\..*\n)+", layout.imports(), env_py.read_text())
    assert count == 1
    env_py.write_text(text)
    if "all_models" in layout.models:
        (project.path / "shop" / "all_models.py").write_text(ALL_MODELS)
    print(shell(layout.shell(BASELINE)))
    print(next((project.path / "alembic" / "versions").glob("*.py")).read_text())
    print(shell(STAMP))
