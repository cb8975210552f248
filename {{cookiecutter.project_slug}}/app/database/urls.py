"""The two database URLs, each with its own driver. libpq parses them."""

import re
from typing import Any

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL

from .asyncpg_url import unknown_to_asyncpg

ASYNC_DRIVER = "postgresql+asyncpg"
SYNC_DRIVER = "postgresql+psycopg"

EXAMPLE_PASSWORD = "change-me"  # noqa: S105 - of .env.example
LOCAL_HOSTS = {"", "localhost", "127.0.0.1", "::1"}

UNKNOWN_PARAMETER = re.compile(r'invalid URI query parameter: "(\w+)"')
# The values that libpq accepts in a URL and refuses when it connects.
VALUES = {
    "sslmode": (
        r"disable|allow|prefer|require|verify-ca|verify-full",
        "one of disable, allow, prefer, require, verify-ca, verify-full",
    ),
    "port": (r"\d*(,\d*)*", "a number"),
    "connect_timeout": (r"-?\d+", "a number of seconds"),
}


class ConfigurationError(Exception):
    """A wrong setting. The message is one line for the operator and shows no password."""


def async_url(url: str | URL | None, url_sync: str | URL | None) -> URL:
    """Return `DATABASE_URL`, or `DATABASE_URL_SYNC` with the application's driver."""
    if url:
        name, found = "DATABASE_URL", parse("DATABASE_URL", url, ASYNC_DRIVER)
    elif url_sync:
        name, found = "DATABASE_URL_SYNC", parse("DATABASE_URL_SYNC", url_sync, SYNC_DRIVER)
    else:
        raise ConfigurationError(f"DATABASE_URL is not set; {example(ASYNC_DRIVER)}")
    if unknown := unknown_to_asyncpg(found):
        raise ConfigurationError(
            f"{name} asks for {' and '.join(unknown)}, which asyncpg does not support; "
            "set DATABASE_URL without it"
        )
    return found.set(drivername=ASYNC_DRIVER)


def sync_url(
    url: str | URL | None,
    url_sync: str | URL | None,
    pooler: str = "none",
    name: str = "DATABASE_URL_SYNC",
) -> URL:
    """Return `DATABASE_URL_SYNC`, or `DATABASE_URL` with Alembic's driver.

    `name` is what messages call `url_sync`.
    """
    if not url_sync and pooler != "none":
        raise ConfigurationError(
            f"DATABASE_URL_SYNC is not set; with DATABASE_POOLER={pooler} migrations need a "
            f"direct connection, and {example(SYNC_DRIVER)}"
        )
    derived = parse("DATABASE_URL", url, ASYNC_DRIVER).set(drivername=SYNC_DRIVER) if url else None
    given = parse(name, url_sync, SYNC_DRIVER) if url_sync else None
    if derived and given and database_name(derived) != database_name(given):
        raise ConfigurationError(
            f"DATABASE_URL names the database {database_name(derived)!r} and {name} "
            f"{database_name(given)!r}; both must name the same one (their hosts may differ)"
        )
    if found := given or derived:
        return found
    raise ConfigurationError(f"DATABASE_URL_SYNC is not set; {example(SYNC_DRIVER)}")


def database_name(url: URL) -> str | None:
    """Return the name of the database, which defaults to the user's."""
    return url.database or url.username


def parse(name: str, value: str | URL, driver: str) -> URL:
    """Read a URL as libpq does, and complete the scheme postgres:// or postgresql://.

    Raises ConfigurationError, whose message calls the URL `name` and never quotes it.
    """
    text = value if isinstance(value, str) else value.render_as_string(hide_password=False)
    scheme, separator, rest = text.partition("://")
    user = rest.rpartition("@")[0]
    # libpq takes an unencoded @ or / of a password for the end of the user or host, and a
    # message about the host or database would then show a part of the password.
    if not re.fullmatch(r"[\w+]+", scheme) or not separator or re.search("[@/]", user):
        raise unreadable(name, driver)
    if scheme not in {"postgres", "postgresql", driver}:
        raise ConfigurationError(f"{name} has the driver {scheme}; {example(driver)}")
    try:
        # SQLAlchemy's name of sslmode; libpq itself knows ssl=true.
        parameters = conninfo_to_dict(
            "postgresql://" + re.sub(r"(?<=[?&])ssl=(?!true)", "sslmode=", rest)
        )
    except ProgrammingError as error:
        if not (unknown := UNKNOWN_PARAMETER.search(str(error))):
            raise unreadable(name, driver) from None
        raise ConfigurationError(
            f"{name} has the unknown parameter {unknown[1]!r}: remove it "
            "(for PgBouncer set DATABASE_POOLER)"
        ) from None
    refuse_wrong_values(name, parameters)
    return to_url(driver, parameters)


def unreadable(name: str, driver: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name} cannot be read as a URL; {example(driver)}, "
        "with special characters percent-encoded"
    )


def refuse_wrong_values(name: str, parameters: dict[str, Any]) -> None:
    """Refuse values that would fail at the first connection, and the example password."""
    for key, (pattern, rule) in VALUES.items():
        value = str(parameters.get(key, ""))
        if value and not re.fullmatch(pattern, value):
            raise ConfigurationError(f"{name} has {key}={value}; it must be {rule}")
    hosts = str(parameters.get("hostaddr") or parameters.get("host", "")).split(",")
    remote = [host for host in hosts if host not in LOCAL_HOSTS and host[0] not in "/@"]
    if parameters.get("password") == EXAMPLE_PASSWORD and remote:
        raise ConfigurationError(
            f"{name} has the password of .env.example, known to all, for {remote[0]}; "
            "give the role a password of its own"
        )


def to_url(driver: str, parameters: dict[str, Any]) -> URL:
    """Return libpq's parameters as a URL of SQLAlchemy.

    Several hosts, and the directory of a socket, go into the query.
    """
    query = {key: str(value) for key, value in parameters.items()}
    url = URL.create(
        driver,
        query.pop("user", None),
        query.pop("password", None),
        database=query.pop("dbname", None),
    )
    host, port = query.get("host", ""), query.get("port", "")
    if "," in host:
        ports = port.split(",") if "," in port else [port] * len(host.split(","))
        query["port"] = ",".join(port or "5432" for port in ports)
    elif not host.startswith(("/", "@")):
        query.pop("host", None)
        query.pop("port", None)
        url = url.set(host=host or None, port=int(port) if port else None)
    return url.set(query=query)


def example(driver: str) -> str:
    """Return the end of a message: a URL that works."""
    return f"it should look like {driver}://user:password@localhost:5432/database"
