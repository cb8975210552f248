"""URLs as providers write them, and what each driver is given."""

from typing import Any

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from app import database
from app.asyncpg_url import asyncpg_arguments
from app.config import Settings
from app.urls import SYNC_DRIVER, ConfigurationError, async_url, sync_url

SECRET = "hunter2"  # noqa: S105 - nobody's
USER = {"user": "u", "password": SECRET}
SOCKET = "/cloudsql/project:region:instance"


def given_to_psycopg(url: str) -> dict[str, Any]:
    """What the URL becomes for psycopg, which is libpq."""
    parsed = sync_url(None, url)
    given = dict(create_engine(parsed).dialect.create_connect_args(parsed)[1])
    del given["context"]  # SQLAlchemy's own
    return given


def given_to_asyncpg(url: str) -> dict[str, Any]:
    """What the URL becomes for asyncpg; what it shall read as a URL is that URL's query."""
    parsed, arguments = asyncpg_arguments(async_url(url, None))
    dsn = make_url(arguments.pop("dsn", "postgresql://")).query
    dialect = create_async_engine(parsed).dialect
    return {**dialect.create_connect_args(parsed)[1], **arguments, **dsn}


# What both drivers are given; where they differ, psycopg and asyncpg.
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
        "postgresql://u@db/shop?application_name=shop+api&options=-c%20work_mem%3D5MB",
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
    "comma and slash in the password": (
        "postgresql://u:p,a/b@db/shop",
        {"user": "u", "password": "p,a/b", "host": "db", "database": "shop"},
    ),
    "IPv6": (
        "postgresql://u@[2001:db8::1]:5433/shop",
        {"user": "u", "host": "2001:db8::1", "port": 5433, "database": "shop"},
    ),
    "socket as the host": (
        "postgresql://u@%2Fvar%2Frun%2Fpostgresql/shop",
        {"user": "u", "host": "/var/run/postgresql", "database": "shop"},
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
    assert as_text(given_to_asyncpg(url)) == as_text(given)
    of_libpq = as_text(given)
    of_libpq["dbname"] = of_libpq.pop("database")
    assert as_text(given_to_psycopg(url)) == of_libpq


def as_text(given: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in given.items()}


@pytest.mark.parametrize(
    ("url", "hosts", "ports"),
    [
        (
            "postgresql://u@one:5433,two:5434/d?target_session_attrs=read-write",
            "one,two",
            "5433,5434",
        ),
        ("postgresql://u:p,w@one,[::2]:5433", "one,::2", "5432,5433"),
        ("postgresql://%2Fa,two/d", "/a,two", "5432,5432"),
        ("postgresql://u@/d?host=one,two", "one,two", "5432,5432"),
        ("postgresql://u@/d?host=one,two&port=5433", "one,two", "5433,5433"),
        ("postgresql://u@/d?host=one,two&port=5433,5434", "one,two", "5433,5434"),
        ("postgresql://u@/d?host=one:5433&host=two:5434", "one,two", "5433,5434"),
    ],
)
def test_several_hosts(url: str, hosts: str, ports: str) -> None:
    sync, other = given_to_psycopg(url), given_to_asyncpg(url)
    assert (sync["host"], sync["port"]) == (hosts, ports)
    assert (",".join(other["host"]), ",".join(map(str, other["port"]))) == (hosts, ports)
    assert sync.get("target_session_attrs") == other.get("target_session_attrs")


@pytest.mark.parametrize(
    "hosts", ["one:x,two", "one:1:2,two", "[::1,two"], ids=["letters", "two ports", "open"]
)
def test_hosts_that_cannot_be_read(hosts: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^DATABASE_URL cannot be read as a URL"):
        async_url(f"postgresql://u:{SECRET}@{hosts}/d", None)


@pytest.mark.parametrize(
    "mode", ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
)
def test_every_sslmode_is_handed_on(mode: str) -> None:
    url = f"postgresql://u@db/d?sslmode={mode}"
    assert given_to_psycopg(url)["sslmode"] == given_to_asyncpg(url)["sslmode"] == mode


@pytest.mark.parametrize(
    "parameters",
    ["sslmode=require&channel_binding=require", "sslmode=verify-full&sslrootcert=system"],
)
def test_what_asyncpg_does_not_know_becomes_a_verified_server(parameters: str) -> None:
    given = given_to_asyncpg(f"postgresql://u:{SECRET}@ep-1.eu.aws.neon.tech/shop?{parameters}")
    context = given.pop("ssl")
    assert context.check_hostname
    assert context.verify_mode.name == "CERT_REQUIRED"
    assert given == {**USER, "host": "ep-1.eu.aws.neon.tech", "database": "shop"}


def test_a_certificate_that_is_not_there_is_one_line() -> None:
    url = async_url("postgresql://db/d?channel_binding=require&sslrootcert=nowhere.crt", None)
    with pytest.raises(ConfigurationError, match=r"^DATABASE_URL .* No such file"):
        database.create_engine(Settings(database_url=url, database_url_sync=""))


@pytest.mark.parametrize(
    ("timeout", "seconds"), [("7", 7), ("0", None), ("-1", None)], ids=["seconds", "none", "never"]
)
def test_connect_timeout(timeout: str, seconds: int | None) -> None:
    assert given_to_asyncpg(f"postgresql://db/d?connect_timeout={timeout}")["timeout"] == seconds


@pytest.mark.parametrize(
    "parameters",
    ["channel_binding=prefer", "client_encoding=utf8", "gssencmode=disable"],
)
def test_what_asyncpg_does_anyway_is_left_out_there(parameters: str) -> None:
    assert given_to_asyncpg(f"postgresql://db/d?{parameters}") == {"host": "db", "database": "d"}


@pytest.mark.parametrize(
    "parameters",
    [
        "require_auth=scram-sha-256",
        "gssencmode=require",
        "requirepeer=postgres",
        "host=/tmp&channel_binding=require",
        "hostaddr=127.0.0.1",
        "channel_binding=require&ssl_min_protocol_version=TLSv1.3",
        "sslrootcert=system&sslcrl=revoked.crl",
    ],
)
def test_what_asyncpg_cannot_do_is_refused(parameters: str) -> None:
    url = f"postgresql://u:{SECRET}@db/d?{parameters}"
    name = parameters.split("&")[-1].split("=")[0]
    with pytest.raises(ConfigurationError) as error:
        async_url(url, None)
    assert str(error.value).startswith(f"DATABASE_URL asks for {name}, which asyncpg cannot do")
    with pytest.raises(ConfigurationError, match=f"^DATABASE_URL_SYNC asks for {name}"):
        async_url(None, url)
    assert name in given_to_psycopg(url)


@pytest.mark.parametrize("parameter", ["pgbouncer", "schema", "prepared_statement_cache_size"])
def test_what_postgresql_does_not_know_is_refused(parameter: str) -> None:
    for of in (async_url, sync_url):
        with pytest.raises(
            ConfigurationError, match=f'^DATABASE_URL has .* "{parameter}"'
        ) as error:
            of(f"postgresql://u:{SECRET}@db/d?{parameter}=1", None)
        assert f'"{parameter}"' in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "parameter", ["sslmode=no-verify", "ssl=false", "connect_timeout=soon", "port=abc"]
)
def test_a_wrong_value_is_refused(parameter: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^DATABASE_URL has "):
        async_url(f"postgresql://u:{SECRET}@db/d?{parameter}", None)


@pytest.mark.parametrize(
    ("one", "other"),
    [("/shop", "/postgres"), ("/shop", ""), ("/shop", "?dbname=postgres"), ("?user=v", "")],
)
def test_urls_of_different_databases_are_refused(one: str, other: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^DATABASE_URL names the database '") as error:
        sync_url(f"postgresql://u:{SECRET}@db{one}", f"postgresql://u:{SECRET}@other{other}")
    for url in (one, other):
        name = url.partition("=")[2] or url.strip("/") or "u"
        assert repr(name) in str(error.value)


def test_urls_of_different_hosts_and_roles_are_not() -> None:
    found = sync_url("postgresql://app@pooler:6432/shop", "postgresql://owner@db?dbname=shop")
    assert (found.drivername, found.host) == (SYNC_DRIVER, "db")
