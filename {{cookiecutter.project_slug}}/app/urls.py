"""The two database URLs, each with the driver that its user needs.

Both are written as libpq's documentation says, and providers do. Kept free of pydantic, which
would be a fifth of the time that an `alembic` command takes.
"""

import re
from typing import Any
from urllib.parse import unquote

from psycopg import ProgrammingError
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from .asyncpg_url import unknown_to_asyncpg  # relative, as in migrations.py

ASYNC_DRIVER = "postgresql+asyncpg"
SYNC_DRIVER = "postgresql+psycopg"

EXAMPLE_PASSWORD = "change-me"  # noqa: S105 - of .env.example
LOCAL = {"", "localhost", "127.0.0.1", "::1"}

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

SEVERAL_HOSTS = re.compile(r"([\w+]+://(?:[^@]*+@)?+)([^/?]*,[^/?]*)(.*)", re.DOTALL)
HOST_AND_PORT = re.compile(r"(?:\[(?P<ipv6>.+)\]|(?P<host>[^:]*))(?::(?P<port>\d+))?")


class ConfigurationError(SystemExit):
    """A wrong environment, told in one line.

    It is the operator's mistake and no bug, so it ends any process with that line
    alone: the message on stderr, status 1, no traceback.
    """


def async_url(url: str | URL | None, url_sync: str | URL | None) -> URL:
    """`DATABASE_URL`, or else `DATABASE_URL_SYNC` with the application's driver."""
    if url:
        name, found = "DATABASE_URL", parse("DATABASE_URL", url, ASYNC_DRIVER)
    elif url_sync:
        name, found = "DATABASE_URL_SYNC", parse("DATABASE_URL_SYNC", url_sync, SYNC_DRIVER)
    else:
        raise ConfigurationError(f"DATABASE_URL is not set; {example(ASYNC_DRIVER)}")
    if unknown := unknown_to_asyncpg(found):
        raise ConfigurationError(
            f"{name} asks for {' and '.join(unknown)}, which asyncpg cannot do; "
            "set DATABASE_URL without it"
        )
    return found.set(drivername=ASYNC_DRIVER)


def sync_url(
    url: str | URL | None,
    url_sync: str | URL | None,
    pooler: str = "none",
    name: str = "DATABASE_URL_SYNC",
) -> URL:
    """`DATABASE_URL_SYNC`, or else `DATABASE_URL` with Alembic's driver."""
    if not url_sync and pooler != "none":
        raise ConfigurationError(
            f"DATABASE_URL_SYNC is not set, and with DATABASE_POOLER={pooler} migrations need "
            f"a way past the pooler; {example(SYNC_DRIVER)}"
        )
    derived = parse("DATABASE_URL", url, ASYNC_DRIVER).set(drivername=SYNC_DRIVER) if url else None
    given = parse(name, url_sync, SYNC_DRIVER) if url_sync else None
    if derived and given and database(derived) != database(given):
        raise ConfigurationError(
            f"DATABASE_URL names the database {database(derived)!r} and {name} "
            f"{database(given)!r}; both must name the same one (their hosts may differ)"
        )
    if found := given or derived:
        return found
    raise ConfigurationError(f"DATABASE_URL_SYNC is not set; {example(SYNC_DRIVER)}")


def database(url: URL) -> str | None:
    """The database's name, which by default is the user's."""
    return url.database or url.username


def parse(name: str, value: str | URL, driver: str) -> URL:
    """Read `value`, completing a bare `postgres://` or `postgresql://` with `driver`.

    Raises ConfigurationError, which calls the value by `name` and never shows it:
    it may hold a password.
    """
    try:
        url = read(value)
        if isinstance(value, str) and value.partition("?")[0].count("@") > 1:
            raise ValueError  # a password that was not encoded; no message is to show a part of it
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            f"{name} cannot be read as a URL; {example(driver)}, "
            "with special characters percent-encoded"
        ) from None
    if url.drivername in {"postgres", "postgresql"}:
        url = url.set(drivername=driver)
    if url.drivername != driver:
        raise ConfigurationError(f"{name} has the driver {url.drivername}; {example(driver)}")
    refuse_wrong_parameters(name, url)
    refuse_example_password(name, url)
    return url


def refuse_wrong_parameters(name: str, url: URL) -> None:
    """What libpq would refuse, before anything connects."""
    try:
        make_conninfo(**dict.fromkeys(url.query, ""))
    except ProgrammingError as error:
        raise ConfigurationError(
            f"{name} has an {str(error).strip()}: remove it (for PgBouncer set DATABASE_POOLER)"
        ) from None
    mode = url.query.get("sslmode", "prefer")
    if mode not in SSL_MODES:
        raise ConfigurationError(f"{name} has sslmode={mode}; it is one of {', '.join(SSL_MODES)}")
    port = url.query.get("port", "5432")
    if not re.fullmatch(r"\d+(,\d+)*", str(port)):
        raise ConfigurationError(f"{name} has port={port}; it is a number")
    timeout = url.query.get("connect_timeout", "0")
    if not re.fullmatch(r"-?\d+", str(timeout)):
        raise ConfigurationError(
            f"{name} has connect_timeout={timeout}; it is a number of seconds"
        )


def refuse_example_password(name: str, url: URL) -> None:
    """A server elsewhere is not for development, whatever was copied to reach it."""
    given = url.query.get("hostaddr") or url.query.get("host", url.host or "")
    hosts = given.split(",") if isinstance(given, str) else given
    elsewhere = [host for host in hosts if host not in LOCAL and host[0] not in "/@"]
    if url.password == EXAMPLE_PASSWORD and elsewhere:
        raise ConfigurationError(
            f"{name} has the password of .env.example, known to all, for {elsewhere[0]}; "
            "give the role one of its own"
        )


def read(value: str | URL) -> URL:
    """A URL as libpq understands it, in the form that SQLAlchemy gives its parts."""
    hosts = ""
    if isinstance(value, str) and (several := SEVERAL_HOSTS.fullmatch(value)):
        start, hosts, rest = several.groups()
        value = start + rest
    url = make_url(value)
    query: dict[str, Any] = {
        key: given if isinstance(given, str) or key == "host" else given[-1]
        for key, given in url.query.items()
    }
    if hosts:
        query |= split(hosts)
    if (url.host or "").lower().startswith("%2f"):  # the directory of a socket
        query["host"], url = unquote(str(url.host)), url.set(host=None)
    if isinstance(several := query.get("host"), str) and "," in several:
        query.setdefault("port", str(url.port or 5432))
        if "," not in query["port"]:
            query["port"] = ",".join([query["port"]] * len(several.split(",")))
    if mode := query.pop("ssl", None):
        query["sslmode"] = "require" if mode == "true" else mode
    # Where str() masks the password, it must be in its own place.
    parts = {
        part: query.pop(key)
        for key, part in [("user", "username"), ("password", "password"), ("dbname", "database")]
        if key in query
    }
    return url.set(query=query, **parts)


def split(hosts: str) -> dict[str, str]:
    """`one:5433,[::2]` as libpq's parameters. Raises ValueError."""
    names, ports = [], []
    for host in hosts.split(","):
        found = HOST_AND_PORT.fullmatch(unquote(host))
        if not found:
            raise ValueError
        names.append(found["ipv6"] or found["host"])
        ports.append(found["port"] or "5432")
    return {"host": ",".join(names), "port": ",".join(ports)}


def example(driver: str) -> str:
    """The end of a message: a value that works."""
    return f"it should look like {driver}://user:password@localhost:5432/database"
