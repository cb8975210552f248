"""The two database URLs, each with the driver that its user needs.

Kept free of pydantic, which would be a fifth of the time that an `alembic` command takes.
"""

from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

ASYNC_DRIVER = "postgresql+asyncpg"
SYNC_DRIVER = "postgresql+psycopg"


class ConfigurationError(SystemExit):
    """A wrong environment, told in one line.

    It is the operator's mistake and no bug, so it ends any process with that line
    alone: the message on stderr, status 1, no traceback.
    """


def async_url(url: str | URL | None, url_sync: str | URL | None) -> URL:
    """`DATABASE_URL`, or else `DATABASE_URL_SYNC` with the application's driver."""
    if url:
        return parse("DATABASE_URL", url, ASYNC_DRIVER)
    if url_sync:
        return parse("DATABASE_URL_SYNC", url_sync, SYNC_DRIVER).set(drivername=ASYNC_DRIVER)
    raise ConfigurationError(f"DATABASE_URL is not set; {example(ASYNC_DRIVER)}")


def sync_url(url: str | URL | None, url_sync: str | URL | None, pooler: str = "none") -> URL:
    """`DATABASE_URL_SYNC`, or else `DATABASE_URL` with Alembic's driver."""
    if url_sync:
        return parse("DATABASE_URL_SYNC", url_sync, SYNC_DRIVER)
    if pooler != "none":
        raise ConfigurationError(
            f"DATABASE_URL_SYNC is not set, and with DATABASE_POOLER={pooler} migrations need "
            f"a way past the pooler; {example(SYNC_DRIVER)}"
        )
    if url:
        return parse("DATABASE_URL", url, ASYNC_DRIVER).set(drivername=SYNC_DRIVER)
    raise ConfigurationError(f"DATABASE_URL_SYNC is not set; {example(SYNC_DRIVER)}")


def parse(name: str, value: str | URL, driver: str) -> URL:
    """Read `value`, completing a bare `postgres://` or `postgresql://` with `driver`.

    Raises ConfigurationError, which calls the value by `name` and never shows it:
    it may hold a password.
    """
    try:
        url = make_url(value)
        if "@" in (url.host or ""):  # of a password that was not encoded: do not show the rest
            raise ValueError
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            f"{name} cannot be read as a URL; {example(driver)}, "
            "with special characters percent-encoded"
        ) from None
    # As libpq allows; where str() masks the password, it must be in its own place.
    query: dict[str, Any] = dict(url.query)
    user, password = query.pop("user", None), query.pop("password", None)
    url = url.set(username=user, password=password, query=query)
    if url.drivername in {"postgres", "postgresql"}:
        return url.set(drivername=driver)
    if url.drivername != driver:
        raise ConfigurationError(f"{name} has the driver {url.drivername}; {example(driver)}")
    return url


def example(driver: str) -> str:
    """The end of a message: a value that works."""
    return f"it should look like {driver}://user:password@localhost:5432/database"
