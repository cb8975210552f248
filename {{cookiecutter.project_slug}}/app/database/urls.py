"""The two database URLs, each with its own driver. libpq parses them."""

import re
from typing import Any

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL

ASYNC_DRIVER = "postgresql+asyncpg"
SYNC_DRIVER = "postgresql+psycopg"

EXAMPLE_PASSWORD = "change-me"  # noqa: S105 - of .env.example
LOCAL_HOSTS = {"", "localhost", "127.0.0.1", "::1"}

# libpq checks these values only when it connects. Each has a pattern and a rule.
VALUES = {
    "sslmode": (r"disable|allow|prefer|require|verify-ca|verify-full", "a mode such as require"),
    "port": (r"\d*(,\d*)*", "a number"),
    "connect_timeout": (r"-?\d+", "a number of seconds"),
}


class ConfigurationError(Exception):
    """A wrong setting. The message has one line for each mistake and shows no password."""


def complete(
    url: str | URL | None,
    url_sync: str | URL | None,
    pooler: str = "none",
    sync_name: str = "DATABASE_URL_SYNC",  # in messages
) -> tuple[URL, URL]:
    """Return the application's URL and Alembic's. An unset one is derived from the other."""
    given = parse("DATABASE_URL", url, ASYNC_DRIVER) if url else None
    given_sync = parse(sync_name, url_sync, SYNC_DRIVER) if url_sync else None
    if not given_sync and pooler != "none":
        raise ConfigurationError(
            f"DATABASE_URL_SYNC is not set; with DATABASE_POOLER={pooler} migrations need a "
            f"direct connection, and {example(SYNC_DRIVER)}"
        )
    found = given or given_sync
    if found is None:
        fault = "neither DATABASE_URL nor DATABASE_URL_SYNC is set"
        raise ConfigurationError(f"{fault}; the first one {example(ASYNC_DRIVER)}")
    found_sync = given_sync or found
    name, name_sync = (url.database or url.username for url in (found, found_sync))
    if name != name_sync:
        fault = f"DATABASE_URL names the database {name!r} and {sync_name} {name_sync!r}"
        raise ConfigurationError(f"{fault}; both must name the same one (their hosts may differ)")
    return found.set(drivername=ASYNC_DRIVER), found_sync.set(drivername=SYNC_DRIVER)


def parse(name: str, value: str | URL, driver: str) -> URL:
    """Read a URL as libpq does. The schemes postgres and postgresql stand for `driver`."""
    text = value if isinstance(value, str) else render(value)
    advice = f"it {example(driver)}, with special characters percent-encoded"
    unreadable = ConfigurationError(f"{name} cannot be read as a URL; {advice}")
    # SQLAlchemy leaves the spaces of a user or password as they are, and libpq refuses them.
    scheme, separator, rest = text.replace(" ", "%20").partition("://")
    # libpq takes an unencoded @, / or ? of a password for the end of the user or of the host.
    # A message about the host or the database would then show a part of the password.
    if not re.fullmatch(r"[\w+]+", scheme) or re.search("[@/?]", rest.rpartition("@")[0]):
        raise unreadable
    if separator and scheme not in {"postgres", "postgresql", driver}:
        raise ConfigurationError(f"{name} has the driver {scheme}; it {example(driver)}")
    # libpq knows ssl=true only; other values come from SQLAlchemy's URLs.
    rest = re.sub(r"(?<=[?&])ssl=(?!true)", "sslmode=", rest)
    try:
        parameters = conninfo_to_dict(f"postgresql{separator}{rest}")
    except ProgrammingError as error:
        unknown = re.search(r'invalid URI query parameter: "(\w+)"', str(error))
        if not unknown:
            raise unreadable from None
        fault = f"{name} has the unknown parameter {unknown[1]!r}"
        advice = "remove it (for PgBouncer set DATABASE_POOLER)"
        raise ConfigurationError(f"{fault}: {advice}") from None
    refuse_wrong_values(name, parameters)
    return to_sqlalchemy(driver, parameters)


def render(url: URL) -> str:
    """Return the URL as libpq reads it: SQLAlchemy writes a space of the query as a plus."""
    start, mark, query = url.render_as_string(hide_password=False).partition("?")
    return start + mark + query.replace("+", "%20")


def refuse_wrong_values(name: str, parameters: dict[str, Any]) -> None:
    """Refuse values that would fail at the first connection, and the example password."""
    for key, (pattern, rule) in VALUES.items():
        value = str(parameters.get(key, ""))
        if value and not re.fullmatch(pattern, value):
            shown = "a wrong port" if key == "port" else f"{key}={value}"  # may be a password
            raise ConfigurationError(f"{name} has {shown}; it must be {rule}")
    hosts = str(parameters.get("hostaddr") or parameters.get("host", "")).split(",")
    remote = [host for host in hosts if host not in LOCAL_HOSTS and host[0] not in "/@"]
    if parameters.get("password") == EXAMPLE_PASSWORD and remote:
        fault = f"{name} has the password of .env.example for {remote[0]}"
        raise ConfigurationError(f"{fault}; give the role a password of its own")


def to_sqlalchemy(driver: str, parameters: dict[str, Any]) -> URL:
    """Return libpq's parameters as a URL. Several hosts, or a socket, go into its query."""
    query = {key: str(value) for key, value in parameters.items()}
    user, password, database = (query.pop(key, None) for key in ("user", "password", "dbname"))
    url = URL.create(driver, user, password, database=database)
    host, port = query.get("host", ""), query.get("port", "")
    if "," in host:
        ports = port.split(",") if "," in port else [port] * len(host.split(","))
        query["port"] = ",".join(port or "5432" for port in ports)
    elif not host.startswith(("/", "@")):
        query = {key: value for key, value in query.items() if key not in ("host", "port")}
        url = url.set(host=host or None, port=int(port) if port else None)
    return url.set(query=query)


def example(driver: str) -> str:
    """Return the end of a message: a URL that works."""
    return f"should look like {driver}://user:password@localhost:5432/database"
