"""The URLs of a generated project: both drivers connect to a server with TLS and passwords."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from conftest import Project, short_directory
from servers import CLOSED_PORT, postgresql, psql, write_certificates

pytestmark = pytest.mark.slow

ACCESS = """
local      all        postgres           trust
local      all        all                scram-sha-256
host       both       all      samehost  scram-sha-256
hostnossl  plain      all      samehost  scram-sha-256
hostssl    encrypted  all      samehost  scram-sha-256
hostssl    by_cert    all      samehost  cert
host       "d/% ü"    all      samehost  scram-sha-256
"""
DATABASES = ["both", "plain", "encrypted", "by_cert", "d/% ü"]
# The passwords of the roles p0, p1, …
PASSWORDS = [
    *("@", "/", "%", ":", "#", "?", "&", "+", "%40", "%(here)s", "a b"),
    *("p@/:#?&+% \\'\"", "пароль🔑", "é"),
]
ODD_USER = "ü@x/y:z%"

# Run in the project. Connects to each URL of stdin as Alembic does and as the application does.
TRY = """
import asyncio, json, os, sys
from alembic.config import Config
from sqlalchemy import text
from app.config import Settings
from app.database import create_engine
from app.database.migrations import connect

STATE = text('''
    SELECT json_build_object(
        'tls', ssl, 'certificate', client_dn IS NOT NULL,
        'user', current_user, 'database', current_database(),
        'application', current_setting('application_name'),
        'work_mem', current_setting('work_mem')
    )::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()
''')

def by_alembic(url):
    os.environ["DATABASE_URL_SYNC"] = url
    with connect(Config()) as connection:
        return json.loads(connection.scalar(STATE))

async def by_application(url):
    engine = create_engine(Settings(database_url=url, database_url_sync=""))
    try:
        async with engine.connect() as connection:
            return json.loads(await connection.scalar(STATE))
    finally:
        await engine.dispose()

def outcome(attempt):
    try:
        return attempt()
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}"

print(json.dumps({
    url: [outcome(lambda: by_alembic(url)), outcome(lambda: asyncio.run(by_application(url)))]
    for url in json.load(sys.stdin)
}))
"""

# True for TLS, None for no connection, by the rules of libpq. The certificate is for the name
# localhost and not for 127.0.0.1. A tuple has psycopg's result and asyncpg's: with a wrong CA
# `prefer` promises nothing, and they differ.
SSL = {
    # sslmode: plain, encrypted, both; with the right CA at localhost, at 127.0.0.1; with another
    "disable": (False, None, False, False, False, False),
    "allow": (False, True, False, False, False, False),
    "prefer": (False, True, True, True, True, (False, True)),
    "require": (None, True, True, True, True, None),
    "verify-ca": (None, None, None, True, True, None),
    "verify-full": (None, None, None, True, None, None),
}
SSL_URLS = (
    "postgresql://p0:%40@localhost:{port}/plain?sslmode={mode}",
    "postgresql://p0:%40@localhost:{port}/encrypted?sslmode={mode}",
    "postgresql://p0:%40@localhost:{port}/both?sslmode={mode}",
    "postgresql://p0:%40@localhost:{port}/both?sslmode={mode}&sslrootcert={directory}/ca.crt",
    "postgresql://p0:%40@127.0.0.1:{port}/both?sslmode={mode}&sslrootcert={directory}/ca.crt",
    "postgresql://p0:%40@localhost:{port}/both?sslmode={mode}&sslrootcert={directory}/other-ca.crt",
)
SSL_CASES = {
    (mode, url): expected
    for mode, results in SSL.items()
    for url, expected in zip(SSL_URLS, results, strict=True)
}

# The facts that both drivers find on the server.
CASES: dict[str, dict[str, Any]] = {
    "postgresql://p0@localhost:{port}/by_cert?sslmode=verify-full&sslrootcert={directory}/ca.crt"
    "&sslcert={directory}/client.crt&sslkey={directory}/client.key": {"certificate": True},
    "postgresql://p0@localhost:{port}/by_cert?sslmode=verify-full&sslrootcert=system"
    "&sslcert={directory}/client.crt&sslkey={directory}/client.key": {"certificate": True},
    "postgresql://p0@localhost:{port}/by_cert?sslmode=require"
    "&sslcert={directory}/client.crt&sslkey={directory}/client.key": {"certificate": True},
    "postgres://p0:%40@localhost:{port}/both": {"tls": True},
    "postgresql://p0:%40@[::1]:{port}/both?sslmode=disable": {"database": "both"},
    "postgresql://p0:%40@{socket}:{port}/both": {"database": "both"},
    "postgresql://p0:%40@:{port}/both?host={directory}": {"database": "both"},
    "postgresql://p0:%40@/both?host={directory}&port={port}": {"database": "both"},
    "postgresql://?host=localhost&port={port}&user=p0&password=%40&dbname=both": {"user": "p0"},
    "postgresql://p0:%40@localhost:{closed},localhost:{port}/both": {"database": "both"},
    "postgresql://p0:%40@localhost:{port},[::1]:{port}/both?target_session_attrs=read-write": {
        "database": "both"
    },
    "postgresql://p0:%40@localhost:{port}/both?target_session_attrs=primary": {"database": "both"},
    "postgresql://p0:%40@localhost:{port}/both?connect_timeout=5": {"database": "both"},
    "postgresql://p0:%40@localhost:{port}/both?application_name=my+api%20%25": {
        "application": "my+api %"  # to libpq a plus is a plus
    },
    "postgresql://p0:%40@localhost:{port}/both?options=-c%20work_mem%3D5MB": {"work_mem": "5MB"},
    "postgresql://p0:%40@localhost:{port}/d%2F%25%20%C3%BC": {"database": "d/% ü"},
    "postgresql://p0:%40@localhost:{port}/both?ssl=true": {"tls": True},
    "postgresql://p0:%40@localhost:{port}/both?channel_binding=prefer&gssencmode=disable": {
        "tls": True
    },
    "postgresql://p0:%40@localhost:{port}/both"
    "?sslmode=require&channel_binding=require&sslrootcert={directory}/ca.crt": {"tls": True},
    "postgresql://p0:%40@localhost:{port}/both?sslmode=verify-full&sslrootcert=system": {
        "tls": True
    },
    "postgresql://p0:%40@localhost:{port}/both?sslmode=require&channel_binding=require": {
        "tls": True
    },
    f"postgresql://{quote(ODD_USER, safe='')}:%40@localhost:{{port}}/both": {"user": ODD_USER},
    # SQLAlchemy renders a password with its spaces.
    f"postgresql://p{PASSWORDS.index('a b')}:a b@localhost:{{port}}/both": {"database": "both"},
    **{
        f"postgresql://p{number}:{quote(password, safe='')}@localhost:{{port}}/both": {
            "user": f"p{number}"
        }
        for number, password in enumerate(PASSWORDS)
    },
}
# The reason that each driver gives, in one line, if there is no connection.
REFUSED = {
    "postgresql://p0:wrong@localhost:{port}/both": "password authentication failed",
    "postgresql://p0:%40@localhost:{closed}/both": "refused|Connect call failed",
    "postgresql://p0:%40@nowhere.invalid:{port}/both": (
        "not known|resolve|No address|Name or|in time|timeout"  # where no name server answers
    ),
    "postgresql://p0:%40@localhost:{port}/missing": "does not exist|no pg_hba.conf entry",
    "postgresql://p0:%40@localhost:{port}/both?target_session_attrs=standby": "standby",
    "postgresql://p0:%40@localhost:{port}/both?sslmode=verify-full&sslrootcert=/nowhere.crt": (
        "/nowhere.crt|No such file"
    ),
}


# asyncpg has no channel binding. It must verify the server instead, although libpq need not.
STRICTER = "postgresql://p0:%40@127.0.0.1:{port}/both?channel_binding=require&sslrootcert={directory}/ca.crt"


@pytest.fixture(scope="module")
def outcomes(installed: Project) -> dict[str, Any]:
    """The facts that Alembic and the application find at each URL, or their error."""
    directory = short_directory()
    directory.chmod(0o755)
    write_certificates(directory, "p0")
    tls = {"cert": "server.crt", "key": "server.key", "ca": "ca.crt"}
    settings = {f"ssl_{name}_file": f"{directory}/{file}" for name, file in tls.items()}
    templates = [*(url.replace("{mode}", mode) for mode, url in SSL_CASES), *CASES, *REFUSED]
    with postgresql(directory, ACCESS, {"ssl": "on", **settings}) as port:
        psql(directory, port, roles_and_databases())
        urls = {template: fill(template, directory, port) for template in [*templates, STRICTER]}
        home = directory / "home"
        home.mkdir()
        result = installed.run(
            *("uv", "run", "--quiet", "--no-sync", "python", "-c", TRY),
            stdin=json.dumps(list(urls.values())),
            env={"HOME": str(home), "SSL_CERT_FILE": f"{directory}/ca.crt"},
        )
    found = json.loads(result.stdout)
    return {template: found[url] for template, url in urls.items()}


def fill(template: str, directory: Path, port: int) -> str:
    socket = quote(str(directory), safe="")
    return template.format(directory=directory, socket=socket, port=port, closed=CLOSED_PORT)


def roles_and_databases() -> str:
    roles = {**{f"p{number}": word for number, word in enumerate(PASSWORDS)}, ODD_USER: "@"}
    return "\n".join(
        [
            *(
                f"CREATE ROLE {identifier(role)} LOGIN PASSWORD {literal(password)};"
                for role, password in roles.items()
            ),
            *(f"CREATE DATABASE {identifier(name)};" for name in DATABASES),
        ]
    )


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


@pytest.mark.parametrize(("mode", "url"), SSL_CASES)
def test_sslmode_means_the_same_to_both_drivers(
    outcomes: dict[str, Any], mode: str, url: str
) -> None:
    expected = SSL_CASES[mode, url]
    found = outcomes[url.replace("{mode}", mode)]
    tls = tuple(outcome["tls"] if isinstance(outcome, dict) else None for outcome in found)
    assert tls == (expected if isinstance(expected, tuple) else (expected, expected)), found


@pytest.mark.parametrize("url", CASES)
def test_both_drivers_connect_as_asked(outcomes: dict[str, Any], url: str) -> None:
    for outcome in outcomes[url]:
        assert isinstance(outcome, dict), outcome
        assert CASES[url].items() <= outcome.items()


@pytest.mark.parametrize("url", REFUSED)
def test_both_drivers_report_a_failure_in_one_line(outcomes: dict[str, Any], url: str) -> None:
    by_alembic, by_application = outcomes[url]
    assert by_alembic.startswith("CommandError: DATABASE_URL_SYNC does not connect: ")
    assert by_application.startswith("DatabaseUnavailable: ")
    for outcome in (by_alembic, by_application):
        assert re.search(REFUSED[url], outcome), outcome
        assert "%40" not in outcome
        assert "wrong" not in outcome
    assert "\n" not in by_alembic


def test_asyncpg_verifies_the_server_instead_of_channel_binding(outcomes: dict[str, Any]) -> None:
    by_alembic, by_application = outcomes[STRICTER]
    assert by_alembic["tls"]
    assert "certificate is not valid for '127.0.0.1'" in by_application
