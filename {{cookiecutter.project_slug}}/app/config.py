"""Settings: the environment, then `.env`, as typed values."""

import re
import sys
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import (
    InstanceOf,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL

from app import ROOT
from app.durations import seconds
from app.urls import ConfigurationError, async_url, sync_url

DatabaseURL = Annotated[InstanceOf[URL], NoDecode]
Names = Annotated[list[str], NoDecode]

# As browsers send them, for what is written in another way would never match.
PATTERNS = {
    "allowed_hosts": (r"\*|(\*\.)?[a-z0-9._-]+", "api.example.com or *.example.com"),
    "cors_origins": (r"\*|https?://[a-z0-9._-]+(:\d+)?", "https://www.example.com"),
}


class Settings(BaseSettings):
    """What the process was told from outside; each field is an upper-case variable.

    `database_url` (asyncpg) is the application's way to the database and
    `database_url_sync` (psycopg) is Alembic's. Both are `sqlalchemy.URL`: `str()` masks
    the password, `url.render_as_string(hide_password=False)` writes it out. The one that
    is not set is derived from the other.

    Each process has `database_pool_size` connections at most. The timeouts are PostgreSQL's, as
    `500ms` or `5min`, and 0 is none.

    `allowed_hosts` and `cors_origins` are lists, with commas in between; see
    `app/middleware.py`. `shutdown_delay` is in seconds; see `app/shutdown.py`.

    Raises ConfigurationError, one line for each variable that is wrong.
    """

    model_config = SettingsConfigDict(
        env_file=ROOT / ".env", env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore"
    )

    database_url: DatabaseURL
    database_url_sync: DatabaseURL
    database_pooler: Literal["none", "pgbouncer"] = "none"
    database_pool_size: PositiveInt = 15
    database_statement_timeout: str = "30s"
    database_idle_in_transaction_timeout: str = "60s"
    allowed_hosts: Names = []
    cors_origins: Names = []
    max_body_size: PositiveInt = 1_000_000  # bytes of a request
    shutdown_delay: NonNegativeInt = 5

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except UnicodeDecodeError:
            raise ConfigurationError(f"{ROOT / '.env'} is not UTF-8; save it as such") from None
        except ValidationError as error:
            faults = [f"{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()]
            raise ConfigurationError("\n".join(faults).replace("Value error, ", "")) from None

    @model_validator(mode="before")
    @classmethod
    def complete_urls(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Parse both URLs and derive the one that is missing."""
        url, url_sync = values.get("database_url"), values.get("database_url_sync")
        pooler = values.get("database_pooler", "none")
        return values | {
            "database_url": async_url(url, url_sync),
            "database_url_sync": sync_url(url, url_sync, pooler),
        }

    @field_validator("database_statement_timeout", "database_idle_in_transaction_timeout")
    @classmethod
    def check_time(cls, value: str) -> str:
        seconds(value)
        return value

    @field_validator(*PATTERNS, mode="before")
    @classmethod
    def split_names(cls, value: str | list[str], info: ValidationInfo) -> list[str]:
        """What stands between commas, if it looks as it should."""
        names = value.lower().replace(",", " ").split() if isinstance(value, str) else value
        pattern, example = PATTERNS[str(info.field_name)]
        for name in names:
            if not re.fullmatch(pattern, name):
                raise ValueError(f"{name!r} should look like {example}")
        return names


@cache
def get_settings() -> Settings:
    """The settings of this process, read once."""
    try:
        return Settings()
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        # By this status uvicorn's supervisor knows that other workers would fail as well.
        sys.exit(3)
