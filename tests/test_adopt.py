"""The README's way into a project that has models and rows, word for word, on four of them."""

import re
import shutil
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import readmes
from conftest import TEMPLATE, Project, short_directory
from servers import PRINT_ENVIRONMENT, SERVER, environment_of

pytestmark = pytest.mark.slow

HEADING = "Into a project that uses SQLAlchemy already"
SECTION = readmes.sections(readmes.TEMPLATES)[HEADING]
PROJECTS = Path(__file__).with_name("projects")
IMPORTS, ALL_MODELS = (
    textwrap.dedent(code)
    for code in re.findall(r"^   ```python\n(.*?)^   ```", SECTION, re.DOTALL | re.MULTILINE)
)
ROWS = re.findall(r"^   \| (.+?) \| `(\S+)` \| `(.+?)` \| `(.+?)` \|$", SECTION, re.MULTILINE)


@dataclass(frozen=True)
class Layout:
    """A row of the section's table: what a project has in place of what the text says."""

    directory: str
    base: str
    models: str
    main: str

    def shell(self, block: str) -> str:
        return readmes.ADDRESS.sub(str(TEMPLATE), block.replace("shop/migrating", self.directory))

    def imports(self) -> str:
        package = self.directory.removeprefix("src/").replace("/", ".")
        return (
            IMPORTS.replace("from shop.database import Base", self.base)
            .replace("shop.migrating", package)
            .replace("from shop.models import *", self.models)
        )


MAIN = {"flat": "main", "src": "shop.main", "features": "shop.main", "sqlmodel": "app.main"}
LAYOUTS = {
    name: Layout(directory, base, models, main)
    for (name, main), (_, directory, base, models) in zip(MAIN.items(), ROWS, strict=True)
}
# The next revision, in the database that was there and in a new one.
NEXT = """
import os
from alembic.config import main
main(["revision", "--autogenerate", "-m", "note"])
main(["upgrade", "head"])
main(["check"])
os.environ["DATABASE_URL_SYNC"] = os.environ["ANEW"]
main(["upgrade", "head"])
"""
NOTE = {"sqlmodel": "    note: str | None = None\n"}


@pytest.fixture(scope="module")
def server(installed: Project) -> Iterator[dict[str, str]]:
    """What leads libpq, and its tools, to a PostgreSQL for this module."""
    script = SERVER + PRINT_ENVIRONMENT + "sys.stdin.read(); server.stop()"
    directory = str(short_directory() / "data")
    with environment_of(installed.start("python", "-c", script, directory)) as environment:
        yield {name: environment[name] for name in ("PGHOST", "PGUSER", "PATH")} | {
            # One for all projects, in which libraries are compiled once.
            "UV_PROJECT_ENVIRONMENT": str(Path(directory).with_name("venv"))
        }


def dump(shell: Callable[..., str], *options: str) -> str:
    """The database, but for what Alembic adds and for a random key."""
    text = shell("pg_dump", "--exclude-table=alembic_version", *options)
    return "".join(line for line in text.splitlines(True) if "restrict" not in line)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_project_with_rows_is_adopted(server: dict[str, str], name: str) -> None:
    """No row changes; the next revision works, and all of them make the same schema anew."""
    copy, baseline, stamp = readmes.take(readmes.TEMPLATES, HEADING)
    layout = LAYOUTS[name]
    project = Project(Path(shutil.copytree(PROJECTS / name, short_directory() / "shop")))
    url = f"postgresql+asyncpg://postgres@/{name}?host={server['PGHOST']}"
    (project.path / ".env").write_text(f"DATABASE_URL={url}\n")

    def shell(*command: str, **variables: str) -> str:
        environment = server | {"PGDATABASE": name} | variables
        result = project.run(*command, env=environment)
        return result.stdout + result.stderr

    shell("createdb")
    shell("uv", "run", "--quiet", "--env-file=.env", "python", "-m", layout.main)
    before = dump(shell)
    assert before.count("@example.com") == 50

    shell("sh", "-euc", layout.shell(copy))
    imported = r"(from app\..*\n)+"
    env_py = project.path / "alembic" / "env.py"
    env_py.write_text(re.sub(imported, layout.imports(), env_py.read_text(), count=1))
    if "all_models" in layout.models:
        (project.path / "shop" / "all_models.py").write_text(ALL_MODELS)
    shell("sh", "-euc", layout.shell(baseline).replace("baseline", f"{name}_baseline"))
    assert "No new upgrade operations" in shell("sh", "-euc", stamp)
    assert dump(shell) == before

    (models,) = (p for p in project.path.rglob("models.py") if "class Order" in p.read_text())
    new = NOTE.get(name, "    note: Mapped[str | None]\n")
    models.write_text(models.read_text().replace("    status: ", f"{new}    status: "))
    shell("createdb", f"{name}_anew")
    anew = f"postgresql:///{name}_anew"
    assert "No new upgrade operations" in shell("uv", "run", "python", "-c", NEXT, ANEW=anew)
    assert dump(shell, "-s", f"--dbname={name}_anew") == dump(shell, "-s")
    shell("psql", "-c", "ALTER TABLE orders DROP COLUMN note")
    assert dump(shell) == before
