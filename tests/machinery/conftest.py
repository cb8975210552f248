"""Fixtures that only the tests of the machinery need. The project's own are there too."""

import re
import shutil
from collections.abc import AsyncIterator, Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import Script
from conftest import client_of
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import URL, Engine, Identity, MetaData, NullPool, create_engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from test_migrations import lint

from app.database import ROOT, Base

REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = {name!r}, {after!r}


def upgrade():
    {upgrade}


def downgrade():
    pass
"""
AddRevision = Callable[..., None]


@pytest.fixture
def by_url(tmp_path: Path, fresh_url: URL, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Alembic as the command line runs it, on a migrated database that it finds by its URL.

    `tmp_path` holds a copy of the project's code to change. Revisions come from there. This
    process has imported `app` already; another one imports the copy.
    """
    monkeypatch.setenv("DATABASE_URL_SYNC", fresh_url.render_as_string(hide_password=False))
    for name in ("app", "alembic"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copy(ROOT / "alembic.ini", tmp_path)
    config = Config(tmp_path / "alembic.ini")
    config.set_section_option("post_write_hooks", "hooks", "")
    return config


@pytest.fixture
def database(fresh_url: URL) -> Engine:
    """The database of `by_url`."""
    return create_engine(fresh_url, poolclass=NullPool)


@pytest.fixture
def add_revision(by_url: Config) -> AddRevision:
    """Add a revision to those of `by_url`: its name, the one before it, what it does."""
    versions = Path(str(by_url.config_file_name)).parent / "alembic" / "versions"

    def add(name: str, after: str | None, upgrade: str = "pass") -> None:
        text = REVISION.format(name=name, after=after, upgrade=upgrade)
        (versions / f"{name}.py").write_text(text)

    return add


# These tests look at the 500 of a bug. In the project's own tests a bug raises.


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    async with client_of(app, raise_bugs=False) as client:
        yield client


@pytest.fixture
async def served_client(served_app: FastAPI) -> AsyncIterator[AsyncClient]:
    async with client_of(served_app, raise_bugs=False) as client:
        yield client


Model = type[DeclarativeBase]


class Migrations:
    """The project's Alembic on an empty database, with models and revisions of the test's own."""

    def __init__(self, directory: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine, self.directory, self.monkeypatch = engine, directory, monkeypatch
        self.versions = directory / "alembic" / "versions"
        self.versions.mkdir(parents=True)
        for name in ("env.py", "script.py.mako"):
            shutil.copy(ROOT / "alembic" / name, directory / "alembic")
        self.config = self.new_config()
        self.config.attributes["connection"] = engine

    def new_config(self) -> Config:
        config = Config(ROOT / "alembic.ini", output_buffer=StringIO())
        config.set_main_option("script_location", str(self.directory / "alembic"))
        config.set_section_option("post_write_hooks", "hooks", "")
        return config

    def use(self, model: Model) -> None:
        self.monkeypatch.setattr("app.database.Base", model)

    def write(self, model: Model) -> str:
        """Write a revision, and return its text."""
        self.use(model)
        script = command.revision(self.config, "change", autogenerate=True)
        assert isinstance(script, Script)
        return Path(script.path).read_text()

    def migrate(self, model: Model) -> str:
        """Write a revision and apply it. Afterwards `alembic check` finds no difference."""
        written = self.write(model)
        command.upgrade(self.config, "head")
        command.check(self.config)
        return written

    def stairs(self) -> None:
        """Go down by one revision, by two and so on, and up again each time."""
        for steps in range(1, len(list(self.versions.glob("*.py"))) + 1):
            command.downgrade(self.config, f"-{steps}")
            command.upgrade(self.config, "head")
            command.check(self.config)

    def lint(self) -> str:
        """Return what squawk finds in the revisions."""
        config = self.new_config()
        command.upgrade(config, "head", sql=True)
        assert isinstance(config.output_buffer, StringIO)
        return lint(config.output_buffer.getvalue(), self.directory)

    def execute(self, *statements: str) -> None:
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    def checks(self) -> list[tuple[str, bool]]:
        """Return each CHECK constraint, without the hash in its name, and if it is validated."""
        query = text(
            "SELECT conname, convalidated FROM pg_constraint "
            "WHERE contype = 'c' AND connamespace = 'public'::regnamespace ORDER BY conname"
        )
        with self.engine.connect() as connection:
            found = connection.execute(query).all()
        return [(re.sub("_[0-9a-f]{8}$", "", name), valid) for name, valid in found]

    def accepts(self, table: str, **values: Any) -> bool:
        """Tell whether the table would take a row with these values."""
        names, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
        try:
            with self.engine.connect() as connection:
                insert = f'INSERT INTO "{table}" ({names}) VALUES ({marks})'  # noqa: S608
                connection.execute(text(insert), values)
        except IntegrityError:
            return False
        return True


@pytest.fixture
def migrations(tmp_path: Path, empty_url: URL, monkeypatch: pytest.MonkeyPatch) -> Migrations:
    return Migrations(tmp_path, create_engine(empty_url, poolclass=NullPool), monkeypatch)


def base(naming_convention: Any = Base.metadata.naming_convention) -> Model:
    """Return a class like `Base`, but without a table."""

    class New(DeclarativeBase):
        metadata = MetaData(naming_convention=naming_convention)
        type_annotation_map = Base.type_annotation_map

    return New


def model(table: str = "orders", /, *rules: Any, of: Model | None = None, **columns: Any) -> Model:
    """Return a base class with one more table.

    A column is `Mapped[...]`, or a pair of it and either a default or a `mapped_column`.
    """
    of = of or base()
    pairs = {
        name: column if isinstance(column, tuple) else (column, mapped_column())
        for name, column in columns.items()
    }
    body = {
        "__tablename__": table,
        "__table_args__": rules,
        "__annotations__": {"id": Mapped[int]} | {name: pair[0] for name, pair in pairs.items()},
        "id": mapped_column(Identity(), primary_key=True),
    }
    for name, (_, given) in pairs.items():
        body[name] = mapped_column(server_default=given) if isinstance(given, str) else given
    type(table, (of,), body)
    return of
