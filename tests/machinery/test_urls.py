"""The two URLs: what is accepted, what each driver is given, and what a message shows."""

import re
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from app.config import Settings
from app.database import ConfigurationError
from app.database import create_engine as create_app_engine
from app.database.asyncpg_url import asyncpg_arguments
from app.database.settings import MigrationSettings
from app.database.urls import ASYNC_DRIVER, EXAMPLE_PASSWORD, SYNC_DRIVER, complete, read

SECRET = "hunter2"  # noqa: S105 - nobody's
USER = {"user": "u", "password": SECRET}
SOCKET = "/cloudsql/project:region:instance"
PASSWORDS = ["%", "@/:#?&+ ", "100%25", "p%(here)s", "[;'\"\\$`", "пароль🔑"]
NAMES = ["DATABASE_URL", "DATABASE_URL_SYNC"]
# libpq refuses these itself: an unknown parameter, an unencoded = in a value.
LEFT_TO_THE_DRIVERS = 'invalid URI query parameter|extra key/value separator "="'
DRIVERS = {"DATABASE_URL": ASYNC_DRIVER, "DATABASE_URL_SYNC": SYNC_DRIVER}


def given_to_psycopg(url: str) -> dict[str, Any]:
    """Return the arguments of psycopg, which hands them to libpq."""
    parsed = complete(None, url)[1]
    given = dict(create_engine(parsed).dialect.create_connect_args(parsed)[1])
    del given["context"]  # SQLAlchemy's own
    return given


def given_to_asyncpg(url: str) -> dict[str, Any]:
    """Return the arguments of asyncpg, those in its DSN included."""
    parsed, arguments = asyncpg_arguments(
        Settings(database_url=url, database_url_sync=None).database_url
    )
    dsn = make_url(arguments.pop("dsn", "postgresql://")).query
    dialect = create_async_engine(parsed).dialect
    return {**dialect.create_connect_args(parsed)[1], **arguments, **dsn}


def refused(name: str, url: str) -> str:
    """Return the line that refuses a URL."""
    urls = (url, None) if name == "DATABASE_URL" else (None, url)
    with pytest.raises(ConfigurationError) as error:
        Settings(database_url=urls[0], database_url_sync=urls[1])
    message = str(error.value)
    assert "\n" not in message
    assert SECRET not in message
    return message


SAME = {
    "Heroku": (
        f"postgres://u:{SECRET}@ec2-1-2-3-4.compute-1.amazonaws.com:5432/d5k",
        {**USER, "host": "ec2-1-2-3-4.compute-1.amazonaws.com", "port": 5432, "database": "d5k"},
    ),
    "Render": (
        f"postgresql://u:{SECRET}@dpg-1-a.oregon-postgres.render.com/shop",
        {**USER, "host": "dpg-1-a.oregon-postgres.render.com", "database": "shop"},
    ),
    "Fly": (
        f"postgres://u:{SECRET}@shop-db.flycast:5432/shop?sslmode=disable",
        {
            **USER,
            **{"host": "shop-db.flycast", "port": 5432, "database": "shop"},
            "sslmode": "disable",
        },
    ),
    "Supabase": (
        f"postgresql://postgres.ref:{SECRET}@aws-0-eu.pooler.supabase.com:6543/postgres",
        {
            **{"user": "postgres.ref", "password": SECRET, "database": "postgres"},
            **{"host": "aws-0-eu.pooler.supabase.com", "port": 6543},
        },
    ),
    "RDS": (
        f"postgresql://u:{SECRET}@shop.1.eu-west-1.rds.amazonaws.com:5432/shop"
        "?sslmode=verify-full&sslrootcert=/certs/global-bundle.pem",
        {
            **USER,
            **{"host": "shop.1.eu-west-1.rds.amazonaws.com", "port": 5432, "database": "shop"},
            **{"sslmode": "verify-full", "sslrootcert": "/certs/global-bundle.pem"},
        },
    ),
    "Cloud SQL": (
        f"postgresql://u:{SECRET}@/shop?host={SOCKET}",
        {**USER, "host": SOCKET, "database": "shop"},
    ),
    "Azure": (
        f"postgresql://u%40shop:{SECRET}@shop.postgres.database.azure.com/shop?sslmode=require",
        {
            **{"user": "u@shop", "password": SECRET, "database": "shop"},
            **{"host": "shop.postgres.database.azure.com", "sslmode": "require"},
        },
    ),
    "Neon, by its endpoint": (
        f"postgresql://u:{SECRET}@1.2.3.4/shop?sslmode=require&options=endpoint%3Dep-1",
        {
            **USER,
            **{"host": "1.2.3.4", "database": "shop"},
            **{"sslmode": "require", "options": "endpoint=ep-1"},
        },
    ),
    "client certificate": (
        "postgresql://u@db/shop?sslmode=verify-ca&sslcert=c.crt&sslkey=c.key&sslrootcert=ca.crt",
        {
            **{"user": "u", "host": "db", "database": "shop", "sslmode": "verify-ca"},
            **{"sslcert": "c.crt", "sslkey": "c.key", "sslrootcert": "ca.crt"},
        },
    ),
    "options": (
        "postgresql://u@db/shop?application_name=shop%20api&options=-c%20work_mem%3D5MB",
        {
            **{"user": "u", "host": "db", "database": "shop"},
            **{"application_name": "shop api", "options": "-c work_mem=5MB"},
        },
    ),
    "ssl=true": (
        "postgresql://u@db/shop?ssl=true",
        {"user": "u", "host": "db", "database": "shop", "sslmode": "require"},
    ),
    "ssl=verify-full": (
        "postgresql://u@db/shop?ssl=verify-full",
        {"user": "u", "host": "db", "database": "shop", "sslmode": "verify-full"},
    ),
    "given twice": (
        "postgresql://u@db/shop?sslmode=disable&sslmode=require",
        {"user": "u", "host": "db", "database": "shop", "sslmode": "require"},
    ),
    "comma in the password": (
        "postgresql://u:p,a@db/shop",
        {"user": "u", "password": "p,a", "host": "db", "database": "shop"},
    ),
    "IPv6": (
        "postgresql://u@[2001:db8::1]:5433/shop",
        {"user": "u", "host": "2001:db8::1", "port": 5433, "database": "shop"},
    ),
    "socket as the host": (
        "postgresql://u@%2Fvar%2Frun%2Fpostgresql/shop",
        {"user": "u", "host": "/var/run/postgresql", "database": "shop"},
    ),
    "abstract socket": (
        "postgresql://u@/shop?host=%40postgres&port=5433",
        {"user": "u", "host": "@postgres", "port": 5433, "database": "shop"},
    ),
    "all in parameters": (
        f"postgresql://?user=u&password={SECRET}&host=db&port=5433&dbname=shop",
        {**USER, "host": "db", "port": "5433", "database": "shop"},
    ),
    "encoded": (
        "postgresql://%C3%BC:p%40%2F%25%3A%2B@db/sh%20op",
        {"user": "ü", "password": "p@/%:+", "host": "db", "database": "sh op"},
    ),
}


@pytest.mark.parametrize(("url", "given"), SAME.values(), ids=SAME)
def test_both_drivers_are_given_the_same(url: str, given: dict[str, Any]) -> None:
    expected = {name: str(value) for name, value in given.items()}
    assert as_text(given_to_asyncpg(url)) == expected
    expected["dbname"] = expected.pop("database")
    assert as_text(given_to_psycopg(url)) == expected


def as_text(given: dict[str, Any]) -> dict[str, str]:
    return {
        name: ",".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in given.items()
    }


@pytest.mark.parametrize("url", [url for url, _ in SAME.values()], ids=SAME)
def test_parsed_url_is_parsed_to_itself(url: str) -> None:
    parsed, parsed_sync = complete(url, url)
    assert complete(parsed, parsed_sync) == (parsed, parsed_sync)


@pytest.mark.parametrize(
    ("url", "hosts", "ports"),
    [
        ("postgresql://u@one:5433,two:5434/d", "one,two", "5433,5434"),
        ("postgresql://u:p,w@one,[::2]:5433", "one,::2", "5432,5433"),
        ("postgresql://%2Fa,two/d", "/a,two", "5432,5432"),
        ("postgresql://u@/d?host=one,two", "one,two", "5432,5432"),
        ("postgresql://u@/d?host=one,two&port=5433", "one,two", "5433,5433"),
        ("postgresql://u@/d?host=one,two&port=5433,5434", "one,two", "5433,5434"),
    ],
)
def test_several_hosts_keep_their_ports(url: str, hosts: str, ports: str) -> None:
    for given in (as_text(given_to_psycopg(url)), as_text(given_to_asyncpg(url))):
        assert (given["host"], given["port"]) == (hosts, ports)


def test_both_drivers_choose_among_hosts() -> None:
    url = "postgresql://u@one,two/d?target_session_attrs=read-write"
    for given in (given_to_psycopg(url), given_to_asyncpg(url)):
        assert given["target_session_attrs"] == "read-write"


@pytest.mark.parametrize(
    "mode", ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
)
def test_every_sslmode_is_handed_on(mode: str) -> None:
    url = f"postgresql://u@db/d?sslmode={mode}"
    assert given_to_psycopg(url)["sslmode"] == given_to_asyncpg(url)["sslmode"] == mode


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("passfile", "/run/pgpass"),
        ("krbsrvname", "pg"),
        ("gsslib", "gssapi"),
        ("sslpassword", "secret"),
        ("sslcrl", "revoked.crl"),
        ("sslnegotiation", "postgres"),
        ("ssl_min_protocol_version", "TLSv1.2"),
        ("ssl_max_protocol_version", "TLSv1.3"),
    ],
)
def test_parameter_that_asyncpg_reads_is_handed_on(parameter: str, value: str) -> None:
    assert given_to_asyncpg(f"postgresql://db/d?{parameter}={value}")[parameter] == value


@pytest.mark.parametrize("password", PASSWORDS)
def test_any_encoded_password_reaches_both_drivers(password: str) -> None:
    url = URL.create("postgresql", "app", password, "db", database="app")
    text = url.render_as_string(hide_password=False)
    for given in (given_to_psycopg(text), given_to_asyncpg(text)):
        assert given["password"] == password


@pytest.mark.parametrize("password", PASSWORDS)
def test_any_password_of_a_url_of_sqlalchemy_reaches_both_drivers(password: str) -> None:
    url = URL.create(SYNC_DRIVER, "app", password, "db", database="app")
    assert [parsed.password for parsed in complete(None, url)] == [password] * 2


def test_password_among_the_parameters_is_masked_too() -> None:
    for url in complete(f"postgresql://db/app?user=app&password={SECRET}", None):
        assert url.password == SECRET
        assert SECRET not in str(url)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_scheme_without_a_driver_gets_it(scheme: str) -> None:
    url, url_sync = complete(f"{scheme}://app@db/app", f"{scheme}://owner@db/app")
    assert (str(url), str(url_sync)) == (
        f"{ASYNC_DRIVER}://app@db/app",
        f"{SYNC_DRIVER}://owner@db/app",
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "value",
    [
        "postgresql+psycopg2://app:hunter2@db/app",
        "mysql://app:hunter2@db/app",
        "postgresql://app:hunter2@db:port/app",
        "postgresql://app:hunter2@hunter2@db/app",
        "postgresql://app:hunter2@hunter2,hunter2@db/app",
        "postgresql://app:hunter2@hunter2/hunter2@db/app",
        "postgresql://app:p/hunter2@db/app",
        "postgresql://app:p@hunter2/app@db",
        "postgresql://app:p/hunter2?x=@db/app",
        "postgresql://app:p?sslmode=hunter2@db/app",
        "postgresql://app:hunter2%@db/app",
        "postgresql://u:hunter2@one:x,two/d",
        "postgresql://u:hunter2@one:1:2,two/d",
        "postgresql://u:hunter2@[::1,two/d",
        "postgresql://db:hunter2/app",
        "app:hunter2@db/app",
        "app:hunter2@postgresql://db/app",
        "host=db password=hunter2",
        "hunter2",
    ],
)
def test_wrong_url_is_refused_with_its_name_and_without_its_password(
    name: str, value: str
) -> None:
    message = refused(name, value)
    assert message.startswith(f"{name} ")
    assert f"{DRIVERS[name]}://" in message or "wrong port; it must be a number" in message


@pytest.mark.parametrize("name", NAMES)
def test_each_url_refuses_the_driver_of_the_other(name: str) -> None:
    (other,) = set(DRIVERS.values()) - {DRIVERS[name]}
    message = refused(name, f"{other}://app:{SECRET}@db/app")
    assert message.startswith(
        f"{name} has the driver {other}; it should look like {DRIVERS[name]}"
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("parameter", ["pgbouncer", "schema", "prepared_statement_cache_size"])
def test_parameter_that_postgresql_does_not_know_is_refused(name: str, parameter: str) -> None:
    message = refused(name, f"postgresql://u:{SECRET}@db/d?{parameter}=1")
    assert message.startswith(f"{name} asks for {parameter}, which asyncpg does not support")
    assert message.endswith("(for PgBouncer set DATABASE_POOLER)")


PIECES = "ü % %zz %40 %2F %2C %5B + # & = , : [::1] [ ] / @ ? :5433 u@ u:p@ /d ?host=db &port=1"
PIECES += " ?ssl=true ?sslmode=disable"


def test_url_is_read_as_libpq_reads_it() -> None:
    """Every URL of three pieces is refused, or has the parameters that libpq gives it."""
    accepted = 0
    for pieces in product(["", *PIECES.split()], repeat=3):
        rest = "".join(pieces)
        ours, libpqs = try_to(read, rest), try_to(conninfo_to_dict, f"postgresql://{rest}")
        if isinstance(ours, dict) and isinstance(libpqs, dict):
            assert ours == {name: str(value) for name, value in libpqs.items()}, rest
            accepted += 1
        elif isinstance(ours, dict):
            assert re.search(LEFT_TO_THE_DRIVERS, str(libpqs)), rest
    assert accepted > 5000


def try_to(read_url: Callable[[str], dict[str, Any]], url: str) -> dict[str, Any] | Exception:
    try:
        return read_url(url)
    except (ProgrammingError, ValueError) as error:
        return error


@pytest.mark.parametrize(
    ("parameter", "rule"),
    [
        ("sslmode=no-verify", "has sslmode=no-verify; it must be a mode such as require"),
        ("ssl=false", "has sslmode=false; it must be a mode such as require"),
        ("connect_timeout=soon", "has connect_timeout=soon; it must be a number of seconds"),
        ("port=abc", "has a wrong port; it must be a number"),
    ],
)
def test_wrong_value_of_a_parameter_is_refused(parameter: str, rule: str) -> None:
    message = refused("DATABASE_URL", f"postgresql://u:{SECRET}@db/d?{parameter}")
    assert message == f"DATABASE_URL {rule}"


@pytest.mark.parametrize(
    "parameters",
    [
        "require_auth=scram-sha-256",
        "gssencmode=require",
        "requirepeer=postgres",
        "client_encoding=latin1",
        "host=/tmp&channel_binding=require",
        "hostaddr=127.0.0.1",
        "channel_binding=require&ssl_min_protocol_version=TLSv1.3",
        "sslrootcert=system&sslcrl=revoked.crl",
    ],
)
def test_parameter_that_asyncpg_does_not_support_is_refused(parameters: str) -> None:
    url = f"postgresql://u:{SECRET}@db/d?{parameters}"
    parameter = parameters.split("&")[-1].split("=")[0]
    for name in NAMES:
        assert refused(name, url).startswith(
            f"{name} asks for {parameter}, which asyncpg does not"
        )
    assert parameter in given_to_psycopg(url)
    # Migrations can use it, and the application's own URL may be without it.
    assert MigrationSettings(database_url=None, database_url_sync=url)
    assert Settings(database_url="postgresql://u@db/d", database_url_sync=url)


@pytest.mark.parametrize(
    "parameters", ["channel_binding=prefer", "client_encoding=utf8", "gssencmode=disable"]
)
def test_parameter_that_changes_nothing_for_asyncpg_is_left_out(parameters: str) -> None:
    assert given_to_asyncpg(f"postgresql://db/d?{parameters}") == {"host": "db", "database": "d"}


@pytest.mark.parametrize(
    "parameters",
    ["sslmode=require&channel_binding=require", "sslmode=verify-full&sslrootcert=system"],
)
def test_asyncpg_verifies_the_server_instead_of_channel_binding(parameters: str) -> None:
    given = given_to_asyncpg(f"postgresql://u:{SECRET}@ep-1.eu.aws.neon.tech/shop?{parameters}")
    context = given.pop("ssl")
    assert context.check_hostname
    assert context.verify_mode.name == "CERT_REQUIRED"
    assert given == {**USER, "host": "ep-1.eu.aws.neon.tech", "database": "shop"}


def test_certificate_that_does_not_exist_is_one_line() -> None:
    url = "postgresql://db/d?channel_binding=require&sslrootcert=nowhere.crt"
    with pytest.raises(ConfigurationError, match=r"^DATABASE_URL names a certificate.*No such"):
        create_app_engine(Settings(database_url=url, database_url_sync=None))


@pytest.mark.parametrize(
    ("timeout", "seconds"), [("7", 7), ("0", None), ("-1", None)], ids=["seconds", "zero", "never"]
)
def test_connect_timeout_reaches_asyncpg(timeout: str, seconds: int | None) -> None:
    assert given_to_asyncpg(f"postgresql://db/d?connect_timeout={timeout}")["timeout"] == seconds


@pytest.mark.parametrize(
    "place",
    [
        *("db.example.com/app", "db:5433/app", "localhost,db/app", "10.0.0.7/app"),
        *("/app?host=db", "localhost/app?hostaddr=10.0.0.7"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_password_of_the_example_is_refused_for_other_machines(name: str, place: str) -> None:
    message = refused(name, f"postgresql://app:{EXAMPLE_PASSWORD}@{place}")
    assert message.startswith(f"{name} has the password of .env.example for ")


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:5433", "[::1]", "%2Frun", "%40run", "", "localhost,[::1]"]
)
def test_password_of_the_example_is_accepted_for_this_machine(host: str) -> None:
    url, _ = complete(f"postgresql://app:{EXAMPLE_PASSWORD}@{host}/app", None)
    assert url.password == EXAMPLE_PASSWORD


@pytest.mark.parametrize(
    ("one", "other"),
    [("/shop", "/postgres"), ("/shop", ""), ("/shop", "?dbname=postgres"), ("?user=v", "")],
)
def test_urls_of_different_databases_are_refused_with_both_names(one: str, other: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^DATABASE_URL names the database '") as error:
        complete(f"postgresql://u:{SECRET}@db{one}", f"postgresql://u:{SECRET}@other{other}")
    message = str(error.value)
    for place in (one, other):
        assert repr(place.partition("=")[2] or place.strip("/") or "u") in message
    assert SECRET not in message


def test_hosts_and_roles_may_differ() -> None:
    url, url_sync = complete(
        "postgresql://app@pooler:6432/shop", "postgresql://owner@db?dbname=shop"
    )
    assert (url.drivername, url.host, url.username) == (ASYNC_DRIVER, "pooler", "app")
    assert (url_sync.drivername, url_sync.host, url_sync.username) == (SYNC_DRIVER, "db", "owner")


def test_each_url_is_derived_from_the_other() -> None:
    given = "postgresql://app@db:5433/shop?sslmode=require"
    for urls in ((given, None), (None, given)):
        url, url_sync = complete(*urls)
        assert url.set(drivername="postgresql") == url_sync.set(drivername="postgresql")
        assert (url.drivername, url_sync.drivername) == (ASYNC_DRIVER, SYNC_DRIVER)
        assert url.query == {"sslmode": "require"}


def test_with_a_pooler_the_sync_url_is_required() -> None:
    with pytest.raises(ConfigurationError) as error:
        complete("postgresql://app@db/app", None, "pgbouncer")
    assert str(error.value).startswith(
        "DATABASE_URL_SYNC is not set; with DATABASE_POOLER=pgbouncer migrations need"
    )
    assert f"should look like {SYNC_DRIVER}://" in str(error.value)
    assert complete(None, "postgresql://app@db/app", "pgbouncer")


def test_no_url_at_all_shows_one_that_works() -> None:
    with pytest.raises(ConfigurationError, match=r"^neither DATABASE_URL nor .*\+asyncpg://user"):
        complete(None, None)
