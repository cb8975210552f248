"""Fixtures that only the tests of the machinery need. The project's own are there too."""

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from alembic.config import Config
from conftest import client_of
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import URL, Engine, NullPool, create_engine

from app.database import ROOT

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
