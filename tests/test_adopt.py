"""docs/adopt.md, word for word, on projects that have rows."""

import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import readmes
from conftest import TEMPLATE, Project, commit, short_directory
from servers import PRINT_ENVIRONMENT, SERVER, environment_of

pytestmark = pytest.mark.slow

ADOPT = "docs/adopt.md"
COPY, NO_ALEMBIC, WITH_ALEMBIC, FILES, NAMES = list(readmes.sections(ADOPT))[1:]
PROJECTS = Path(__file__).with_name("projects")
MAIN = {"flat": "main", "src": "shop.main", "features": "shop.main", "sqlmodel": "app.main"}


def table(heading: str) -> list[list[str]]:
    """Return the cells in backquotes of each row of a section's tables."""
    rows = re.findall(r"^\| .*`.*\|$", readmes.sections(ADOPT)[heading], re.MULTILINE)
    return [re.findall(r"`([^`]+)`", row) for row in rows]


IMPORTS, ALL_MODELS, SEPARATE_VARIABLES, OTHER_DRIVER = readmes.fenced(
    readmes.sections(ADOPT)[COPY], "python"
)
(CONVENTION,) = readmes.fenced(readmes.sections(ADOPT)[NAMES], "python")
TOOLS = dict(zip(("uv", "pip", "Poetry"), (r for r in table(COPY) if len(r) == 2), strict=True))
LAYOUTS = dict(zip(MAIN, (row[-3:] for row in table(COPY) if len(row) >= 3), strict=True))
CLEAN = "No new upgrade operations"
# The next revision, in the database that was there and in a new one.
NEXT = """
import os
from alembic.config import main
main(["revision", "--autogenerate", "-m", "note"])
main(["upgrade", "head"])
main(["check"])
os.environ.update(DATABASE_URL_SYNC=os.environ["ANEW"])
main(["upgrade", "head"])
"""


@dataclass
class Adopter:
    """A project of tests/projects with a database of its own, and a shell in it."""

    name: str
    project: Project
    environment: dict[str, str]
    run: str = "uv run "  # what precedes a command, and installs before that

    def shell(self, block: str, check: bool = True, **variables: str) -> str:
        """Run a block of the page as this project's layout and tool have it."""
        folder = LAYOUTS[self.name][0] if self.name in LAYOUTS else ""
        block = readmes.ADDRESS.sub(str(TEMPLATE), block)
        block = block.replace("shop/postgres", folder).replace("uv run ", self.run)
        environment = self.environment | variables
        result = self.project.run("sh", "-euc", block, check=check, env=environment)
        return result.stdout + result.stderr

    def dump(self, *options: str) -> str:
        """Return the database without Alembic's table and pg_dump's random key."""
        command = f"pg_dump --exclude-table=alembic_version {' '.join(options)}"
        lines = self.shell(command).splitlines(keepends=True)
        return "".join(line for line in lines if "restrict" not in line)

    def edit(self, name: str, pattern: str, new: str) -> None:
        path = self.project.path / name
        text, count = re.subn(pattern, lambda _: new, path.read_text(), count=1)
        assert count == 1, f"{name} has no {pattern!r}"
        path.write_text(text)

    def add_rows(self) -> None:
        self.shell(f"uv run python -m {MAIN[self.name]}", DATABASE_URL=self.url)
        assert self.dump().count("@example.com") == 50

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://postgres@/{self.name}?host={self.environment['PGHOST']}"

    def edit_env_py(self, url: str = SEPARATE_VARIABLES) -> None:
        """Change env.py as the page says for this layout. `url` is the code for `flat`."""
        folder, base, models = LAYOUTS[self.name]
        package = folder.removeprefix("src/").replace("/", ".")
        lines = IMPORTS.replace("shop.postgres", package)
        lines = lines.replace("from shop.database import Base", base)
        lines = lines.replace("import shop.models", models)
        if self.name == "flat":
            start = "config = context.config\n"
            self.edit("alembic/env.py", start, start + url)
            lines += "import os\nfrom urllib.parse import quote\nfrom config import settings\n"
        if self.name == "features":
            (self.project.path / "shop" / "all_models.py").write_text(ALL_MODELS)
        self.edit("alembic/env.py", r"(from app\..*\n)+", lines)


@pytest.fixture(scope="module")
def server(installed: Project) -> Iterator[dict[str, str]]:
    """Yield the variables that lead libpq and its tools to a PostgreSQL of this module."""
    script = SERVER + PRINT_ENVIRONMENT + "sys.stdin.read(); server.stop()"
    directory = str(short_directory() / "data")
    with environment_of(installed.start("python", "-c", script, directory)) as environment:
        yield {name: environment[name] for name in ("PGHOST", "PGUSER", "PATH")} | {
            # One for all projects, so that libraries are compiled once.
            "UV_PROJECT_ENVIRONMENT": str(Path(directory).with_name("venv"))
        }


@pytest.fixture
def adopter(server: dict[str, str]) -> Iterator[Callable[[str], Adopter]]:
    """`adopter(name)`: a copy of a project, with a new database that has no tables yet."""
    made: list[Adopter] = []

    def make(name: str) -> Adopter:
        path = Path(shutil.copytree(PROJECTS / name, short_directory() / "my-api"))
        shop = Adopter(name, Project(path), server | {"PGDATABASE": name})
        if name == "flat":
            password = "p@ss/w%rd:1"  # noqa: S105 - the server asks for none
            values = {"USER": "postgres", "PASSWORD": password, "HOST": server["PGHOST"]}
            shop.environment |= {f"DB_{key}": value for key, value in values.items()}
            shop.environment["DB_NAME"] = name
        else:
            (path / ".env").write_text(f"DATABASE_URL={shop.url}\n")
        made.append(shop)
        shop.shell("createdb")
        return shop

    yield make
    for shop in made:
        shop.shell(f"for name in {shop.name} anew baseline; do dropdb -f --if-exists $name; done")


EXHAUSTIVE = pytest.mark.exhaustive


@pytest.mark.parametrize(
    ("name", "tool"),
    [
        ("flat", "uv"),
        ("sqlmodel", "uv"),
        pytest.param("src", "uv", marks=EXHAUSTIVE),
        pytest.param("features", "uv", marks=EXHAUSTIVE),
        pytest.param("flat", "pip", marks=EXHAUSTIVE),
    ],
)
def test_project_without_alembic_is_adopted(
    adopter: Callable[[str], Adopter], name: str, tool: str
) -> None:
    """No row changes, and all revisions together make the same schema in a new database."""
    install, alembic = TOOLS[tool]
    shop = adopter(name)
    shop.add_rows()
    before = shop.dump()

    (copy,) = readmes.take(ADOPT, COPY)
    files, baseline, stamp = readmes.take(ADOPT, NO_ALEMBIC)
    if tool == "pip":
        environment = shop.project.path / ".venv"
        shop.shell(f"{sys.executable} -m venv {environment}")
        shop.environment["PATH"] = f"{environment / 'bin'}:{shop.environment['PATH']}"
        shop.shell('pip install "sqlalchemy[asyncio]>=2.1" ruff')
        shop.run = ""
    else:
        shop.shell("uv add --dev ruff")
    assert alembic == f"{shop.run}alembic"
    shop.shell(f"{install}\n{copy}{files}")
    shop.edit_env_py()
    shop.shell(baseline, DATABASE_URL="postgresql+asyncpg://nobody@localhost/elsewhere")
    output = shop.shell(stamp)
    assert f"/{name}" in output
    assert CLEAN in output
    assert shop.dump() == before

    (models,) = (p for p in shop.project.path.rglob("models.py") if "class Order" in p.read_text())
    new = {"sqlmodel": "    note: str | None = None\n"}.get(name, "    note: Mapped[str | None]\n")
    models.write_text(models.read_text().replace("    status: ", f"{new}    status: "))
    shop.shell("createdb anew")
    assert CLEAN in shop.shell(f"uv run python -c '{NEXT}'", ANEW="postgresql:///anew")
    assert shop.dump("-s", "--dbname=anew") == shop.dump("-s")
    shop.shell("psql -c 'ALTER TABLE orders DROP COLUMN note'")
    assert shop.dump() == before


def test_poetry_installs_the_same() -> None:
    """Poetry itself does not run here: it reads other indexes than pip and uv."""
    install, alembic = TOOLS["uv"]
    changed = [install.replace("uv add", "poetry add"), alembic.replace("uv", "poetry")]
    assert TOOLS["Poetry"] == changed


@EXHAUSTIVE
def test_constraints_get_the_names_that_the_database_has(
    adopter: Callable[[str], Adopter],
) -> None:
    shop = adopter("flat")
    shop.add_rows()
    shop.shell(f"{TOOLS['uv'][0]}; {readmes.take(ADOPT, COPY)[0]}")
    shop.shell(readmes.take(ADOPT, NO_ALEMBIC, last=1)[0])
    shop.edit_env_py()
    shop.edit("alembic.ini", r"\[post_write_hooks\]\n(.+\n)+", "")
    shop.shell("uv run alembic upgrade head")  # with no revision: it makes Alembic's own table

    metadata = textwrap.indent(CONVENTION, "    ")
    shop.edit("models.py", "(?<=class Base.DeclarativeBase.:\n)    pass\n", metadata)
    shop.edit("models.py", "Numeric, ", "MetaData, Numeric, ")
    assert CLEAN in shop.shell("uv run alembic check")
    # The enum has a CHECK without a name too.
    (check,) = re.findall(r"`(CheckConstraint.*)`", readmes.sections(ADOPT)[NAMES])
    shop.edit("models.py", r"CheckConstraint\(.*?\)", check)
    shop.edit("models.py", "native_enum=False", 'native_enum=False, name="orders_paid_by_check"')
    assert CLEAN in shop.shell("uv run alembic check")
    shop.edit("models.py", "orders_total_check", "orders_total")
    assert "orders_total_check" in shop.shell("uv run alembic check", check=False)


def use_stock_alembic(shop: Adopter, template: str, models: str) -> None:
    """Have `alembic init`, autogenerate and upgrade make the tables, as in any tutorial."""
    shop.shell(
        f'uv add "alembic>=1.20.1" "psycopg[binary]"; uv run alembic init -t {template} alembic'
    )
    shop.edit(
        "alembic/env.py", "target_metadata = None", f"{models}\ntarget_metadata = Base.metadata"
    )
    shop.edit("alembic.ini", "driver://.*", shop.url.replace("asyncpg", "psycopg"))
    shop.shell("uv run alembic revision --autogenerate -m first; uv run alembic upgrade head")


@pytest.mark.parametrize(
    ("name", "template", "models", "missing"),
    [
        ("features", "async", "import shop.customers.models, shop.orders.models", "counted"),
        pytest.param("flat", "generic", "", CLEAN, marks=EXHAUSTIVE),
    ],
    ids=["features", "flat"],
)
def test_project_with_alembic_keeps_its_revisions(
    adopter: Callable[[str], Adopter], name: str, template: str, models: str, missing: str
) -> None:
    """Models, rows and revisions stay, and `alembic check` is clean."""
    shop = adopter(name)
    use_stock_alembic(shop, template, f"{LAYOUTS[name][1]}\n{models}")
    shop.add_rows()
    before, (revision,) = shop.dump(), shop.project.path.glob("alembic/versions/*.py")
    text = revision.read_text()

    (copy,) = readmes.take(ADOPT, COPY)
    files, compare, write = readmes.take(ADOPT, WITH_ALEMBIC)
    if name == "flat":  # as a synchronous application on the previous SQLAlchemy
        shop.environment["DATABASE_URL"] = shop.url.replace("asyncpg", "psycopg2")
        shop.edit("pyproject.toml", r".*asyncpg.*\n", "")
        shop.edit("pyproject.toml", r"\[asyncio\]>=2.1.0", "<2.1")
        shop.shell("uv sync")  # removes greenlet
    shop.shell(f"{TOOLS['uv'][0]}\n{copy}{files}")
    shop.edit_env_py(OTHER_DRIVER)
    if name == "features":  # with an option of its own
        options = r"\*\*autogenerate_options\(connection, target_metadata, IGNORED_TABLES\)"
        (own,) = re.findall(rf"`({options} .*)`", readmes.sections(ADOPT)[WITH_ALEMBIC])
        shop.edit("alembic/env.py", options, own.replace(": include_object", ": lambda *_: True"))
    shop.edit("alembic.ini", "(?m)^sqlalchemy.url = .*", "sqlalchemy.url =")
    output = shop.shell(compare, check=False)
    assert f"/{name}" in output
    assert missing in output
    assert shop.dump() == before
    assert CLEAN in shop.shell(write)
    assert revision.read_text() == text
    check = ",\n    CONSTRAINT counted CHECK ((number > 0))"
    assert shop.dump().replace(check, "") == before


def test_directory_with_files_gets_the_whole_layout(
    adopter: Callable[[str], Adopter],
) -> None:
    """Rows, revisions and .env stay; after a revision models and database agree."""
    shop = adopter("started")
    use_stock_alembic(shop, "generic", "from app.models import Base")
    rows = "INSERT INTO customers (email) SELECT n || '@example.com' FROM generate_series(1, 50) n"
    shop.shell(f'psql -c "{rows}"')
    commit(shop.project.path)
    (revision,) = shop.project.path.glob("alembic/versions/*.py")
    before, text = shop.dump("--data-only", "--table=customers"), revision.read_text()

    generate, migrate, write = readmes.take(ADOPT, FILES)
    shop.shell(f"cd ..; yes '' | {generate}")
    assert shop.url in (shop.project.path / ".env").read_text()
    (shop.project.path / "app" / "models" / "base.py").unlink()
    shop.edit("app/models/customer.py", "from app.models.base", "from app.database")
    elsewhere = "postgresql://nobody@localhost/elsewhere"
    output = shop.shell(migrate, check=False, DATABASE_URL=elsewhere, DATABASE_URL_SYNC=elsewhere)
    assert "New upgrade operations detected" in output
    assert "customers_email_key" in output
    assert CLEAN in shop.shell(write)
    assert shop.dump("--data-only", "--table=customers") == before
    assert revision.read_text() == text
    assert "items" in shop.dump("-s")
