"""The two database URLs, each with its own driver, read as libpq reads them.

libpq itself would take 9 MiB and a tenth of the start of each worker, which needs asyncpg only.
"""

import re
from typing import Any
from urllib.parse import parse_qsl, unquote

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
    scheme, separator, rest = text.partition("://")
    try:
        if not separator or not re.fullmatch(r"[\w+]+", scheme):
            raise ValueError
        parameters = read(rest)
    except ValueError:
        advice = f"it {example(driver)}, with special characters percent-encoded"
        raise ConfigurationError(f"{name} cannot be read as a URL; {advice}") from None
    if scheme not in {"postgres", "postgresql", driver}:
        raise ConfigurationError(f"{name} has the driver {scheme}; it {example(driver)}")
    refuse_wrong_values(name, parameters)
    return to_sqlalchemy(driver, parameters)


def read(rest: str) -> dict[str, str]:
    """Split a URL without its scheme into libpq's parameters. ValueError if it is none."""
    login, _, place = rest.rpartition("@")
    user, _, password = login.partition(":")
    place, _, query = place.partition("?")
    places, _, database = place.partition("/")
    hosts = re.findall(r"(?:^|,)(\[[^][]+]|[^][:,]*)(?::([^,]*))?(?=,|$)", places)
    # libpq takes an unencoded @, / or ? of a password for the end of the user or of the host.
    # A message about the host or the database would then show a part of the password.
    wrong = re.search("[@/?]", login) or re.search("%(?![0-9A-Fa-f]{2})|%00", rest)
    if wrong or len(hosts) != places.count(",") + 1:
        raise ValueError
    host, port = (",".join(items) for items in zip(*hosts, strict=True))
    found = {"user": user, "password": password, "dbname": database, "port": port}
    found["host"] = re.sub(r"[][]", "", host)
    found = {key: unquote(value, errors="strict") for key, value in found.items() if value}
    plus = query.replace("+", "%2B")  # which is no space to libpq
    found |= parse_qsl(plus, keep_blank_values=True, strict_parsing=bool(query), errors="strict")
    if "ssl" in found:
        found["sslmode"] = found.pop("ssl").replace("true", "require")
    return found


def render(url: URL) -> str:
    """Return the URL as libpq reads it: SQLAlchemy writes a space of the query as a plus."""
    start, mark, query = url.render_as_string(hide_password=False).partition("?")
    return start + mark + query.replace("+", "%20")


def refuse_wrong_values(name: str, parameters: dict[str, str]) -> None:
    """Refuse values that would fail at the first connection, and the example password."""
    for key, (pattern, rule) in VALUES.items():
        value = parameters.get(key, "")
        if value and not re.fullmatch(pattern, value):
            shown = "a wrong port" if key == "port" else f"{key}={value}"  # may be a password
            raise ConfigurationError(f"{name} has {shown}; it must be {rule}")
    hosts = (parameters.get("hostaddr") or parameters.get("host", "")).split(",")
    remote = [host for host in hosts if host not in LOCAL_HOSTS and host[0] not in "/@"]
    if parameters.get("password") == EXAMPLE_PASSWORD and remote:
        fault = f"{name} has the password of .env.example for {remote[0]}"
        raise ConfigurationError(f"{fault}; give the role a password of its own")


def to_sqlalchemy(driver: str, parameters: dict[str, str]) -> URL:
    """Return libpq's parameters as a URL. Several hosts, or a socket, go into its query."""
    query: dict[str, Any] = dict(parameters)
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
