"""What `alembic/env.py` and readiness share; knows no FastAPI."""

import os
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from functools import cache

from alembic.config import Config
from alembic.script import ScriptDirectory
from dotenv import dotenv_values
from sqlalchemy import URL, Connection, NullPool, create_engine
from sqlalchemy.exc import OperationalError

from app import ROOT
from app.urls import SYNC_DRIVER, ConfigurationError, parse, sync_url


def migration_url(config: Config) -> URL:
    """Where migrations run: the first of

    - `DATABASE_URL_SYNC`, from the environment, then from `.env`;
    - `sqlalchemy.url` of alembic.ini, blank as shipped;
    - `DATABASE_URL` with Alembic's driver.

    Read without `Settings`: a migration job needs no variable but this one.
    """
    values = {
        name.upper(): value
        for source in (dotenv_values(ROOT / ".env"), os.environ)
        for name, value in source.items()
        if value
    }
    url_sync = values.get("DATABASE_URL_SYNC")
    ini_url = config.get_main_option("sqlalchemy.url")
    if ini_url and not url_sync:
        return parse("sqlalchemy.url of alembic.ini", ini_url, SYNC_DRIVER)
    return sync_url(values.get("DATABASE_URL"), url_sync, values.get("DATABASE_POOLER", "none"))


def connect(config: Config) -> AbstractContextManager[Connection]:
    """A new connection, or the caller's `config.attributes["connection"]`.

    The caller may hand over a connection, which stays open, or an engine.
    """
    handed_in = config.attributes.get("connection")
    if handed_in is None:
        engine = create_engine(migration_url(config), poolclass=NullPool)
        try:
            return engine.connect()
        except OperationalError as error:
            reason = str(error.orig).strip().splitlines()[0]
            raise ConfigurationError(f"DATABASE_URL_SYNC: {reason}") from error
    if isinstance(handed_in, Connection):
        return nullcontext(handed_in)
    connection: AbstractContextManager[Connection] = handed_in.connect()
    return connection


@cache
def script_directory() -> ScriptDirectory:
    """The revisions in `alembic/versions`, read once."""
    return ScriptDirectory.from_config(Config(ROOT / "alembic.ini"))


class SchemaState(Enum):
    """How the database's schema compares with this code's."""

    CURRENT = "current"
    BEHIND = "behind"
    NEWER = "newer"


def schema_state(applied: set[str]) -> SchemaState:
    """Compare the revisions that `alembic_version` holds with this code's heads."""
    scripts = script_directory()
    known = {script.revision for script in scripts.walk_revisions()}
    if not applied <= known:
        return SchemaState.NEWER
    if applied == set(scripts.get_heads()):
        return SchemaState.CURRENT
    return SchemaState.BEHIND
