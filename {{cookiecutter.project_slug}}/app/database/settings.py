"""Settings of the database and of migrations: the environment, then `.env`, as typed values."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, InstanceOf, PositiveInt, ValidationError, model_validator
from pydantic.functional_serializers import PlainSerializer
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL

from .asyncpg_url import unknown_to_asyncpg
from .urls import ConfigurationError, complete

# The project's root: the nearest directory above this file with alembic.ini.
ABOVE = Path(__file__).resolve().parents
ROOT = next((path for path in ABOVE if (path / "alembic.ini").is_file()), Path())


def hide_secrets(url: URL) -> str:
    """Return the URL without its passwords. `str()` masks only one of them."""
    return str(url.difference_update_query(["sslpassword"]))


DatabaseURL = Annotated[
    InstanceOf[URL], NoDecode, PlainSerializer(hide_secrets), Field(repr=False)
]
# Seconds. A timeout of 0 is no limit. PostgreSQL counts milliseconds in 32 bits: 24 days.
Seconds = Annotated[float, Field(ge=0, le=24 * 86400)]


class DatabaseSettings(BaseSettings):
    """The variables of the database. Each field is an upper-case environment variable.

    `database_url` (asyncpg) is the application's connection, `database_url_sync` (psycopg) is
    Alembic's. Without a pooler, one is derived from the other. `str()` of a URL masks a password.
    """

    model_config = SettingsConfigDict(
        env_file=ROOT / ".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,  # of a bug, whose traceback would show a URL
    )

    database_url: DatabaseURL
    database_url_sync: DatabaseURL
    database_pooler: Literal["none", "pgbouncer"] = "none"
    database_pool_size: PositiveInt = 15  # connections of one process
    database_statement_timeout_seconds: Seconds = 30
    database_lock_timeout_seconds: Seconds = 5  # wait for a row that another transaction changes
    database_idle_in_transaction_timeout_seconds: Seconds = 60

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except (UnicodeDecodeError, PermissionError):
            rule = "it must be UTF-8 and readable by this user"
            raise ConfigurationError(f"{ROOT / '.env'} cannot be read: {rule}") from None
        except ValidationError as error:
            lines = [  # a rule for several variables has no location
                ": ".join([*(str(name).upper() for name in e["loc"][:1]), e["msg"]])
                for e in error.errors()
            ]
            message = "\n".join(lines).replace("Value error, ", "")
            raise ConfigurationError(message) from None

    @model_validator(mode="before")
    @classmethod
    def complete_urls(cls, values: dict[str, Any]) -> dict[str, Any]:
        given, pooler = values.get("database_url"), values.get("database_pooler", "none")
        url, url_sync = complete(given, values.get("database_url_sync"), pooler)
        if unknown := unknown_to_asyncpg(url):
            name = "DATABASE_URL" if given else "DATABASE_URL_SYNC"
            fault = f"{name} asks for {' and '.join(unknown)}, which asyncpg does not support"
            advice = "set DATABASE_URL without it (for PgBouncer set DATABASE_POOLER)"
            raise ConfigurationError(f"{fault}; {advice}")
        return values | {"database_url": url, "database_url_sync": url_sync}


class MigrationSettings(DatabaseSettings):
    """The variables of migrations. A job that migrates needs DATABASE_URL_SYNC alone.

    The URL is `DATABASE_URL_SYNC` from the environment, then from `.env`; the keyword
    argument `ini_url`, which is `sqlalchemy.url` of alembic.ini; or derived from `DATABASE_URL`.
    """

    migration_wait_seconds: Seconds = 60  # for another process that migrates
    migration_lock_timeout_seconds: Seconds = 5  # for a table; others queue behind this wait
    migration_statement_timeout_seconds: Seconds = 0

    @model_validator(mode="before")
    @classmethod
    def complete_urls(cls, values: dict[str, Any]) -> dict[str, Any]:
        url, url_sync = values.get("database_url"), values.get("database_url_sync")
        if os.environ.get("DATABASE_URL_SYNC"):
            url = os.environ.get("DATABASE_URL")  # not .env's, which may name another database
        name = "DATABASE_URL_SYNC" if url_sync else "sqlalchemy.url of alembic.ini"
        pooler = values.get("database_pooler", "none")
        url, url_sync = complete(url, url_sync or values.get("ini_url"), pooler, name)
        return values | {"database_url": url, "database_url_sync": url_sync}
