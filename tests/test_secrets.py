"""Runs with known secrets in which everything fails: no output holds a secret."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import quote

import httpx
import pytest
from conftest import Project, install, short_directory
from servers import postgresql, psql
from serving import serve

pytestmark = pytest.mark.slow

# Each secret holds the same word, which is found even if the rest is encoded or cut off.
APP, OWNER, WRONG = "app/s3cret@1", "owner/s3cret@2", "wrong/s3cret@3"
TOKEN, BODY = "s3cret-token", "s3cret-in-a-body"

BUGS = '''"""Bugs of every kind, each with a secret at hand."""

import asyncio
import logging

import structlog
from fastapi import APIRouter, Request
from sqlalchemy import text

from app.dependencies import Session
from app.items.schemas import ItemCreate

router = APIRouter(prefix="/bugs")
STATEMENTS = {
    "null": "INSERT INTO items (name, description) VALUES (NULL, :value)",
    "check": "WITH t AS (SELECT :value) INSERT INTO items (id, name) OVERRIDING SYSTEM VALUE"
    " SELECT NULL, * FROM t",
    "type": "SELECT 1 + :value",
    "literal": "SELECT CAST(CAST(:value AS text) AS integer)",
    "syntax": "SELECT FROM WHERE name = :value",
    "range": "SELECT CAST(length(:value) AS bigint) + 9223372036854775807",
}


@router.post("/{kind}")
async def fail(kind: str, new: ItemCreate, request: Request, session: Session) -> None:
    password = new.description
    logging.getLogger("app.bugs").debug("a line of %s", kind)
    structlog.get_logger("app.bugs").info("another", kind=kind)
    if kind in STATEMENTS:
        await session.execute(text(STATEMENTS[kind]), {"value": password})
    async with asyncio.TaskGroup() as group:
        group.create_task(raise_error(password))


async def raise_error(password: str) -> None:
    raise KeyError("a bug")
'''
JSON = {"Content-Type": "application/json"}
DEBUG = ("--log-level", "debug")
KINDS = ["null", "check", "type", "literal", "syntax", "range", "group"]


def database_url(password: str, role: str, port: int) -> str:
    return f"postgresql://{role}:{quote(password, safe='')}@127.0.0.1:{port}/app"


def environment(port: int, app: str = APP, owner: str = OWNER) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url(app, "app", port),
        "DATABASE_URL_SYNC": database_url(owner, "app_owner", port),
    }


def requests(url: str) -> list[httpx.Response]:
    """Send failing requests with secrets, and ask for readiness. Return all responses."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Cookie": f"session={TOKEN}"}
    headers |= {"X-Request-ID": f"{TOKEN} is none"}
    with httpx.Client(base_url=url, headers=headers, params={"token": TOKEN}) as client:
        item = {"name": BODY, "description": BODY}
        client.post("/items", json=item)
        return [
            client.post("/items", json=item),
            client.post("/items", json={"name": [BODY], "description": BODY * 1000}),
            client.post("/items", content=f'{{"name": "{BODY}"', headers=JSON),
            client.post("/items", content=BODY.encode() + b"\xff", headers=JSON),
            client.post("/items", json={"name": BODY, "description": BODY * 100_000}),
            client.patch("/items/0", json=item),
            client.put("/items", json=item),
            client.post("/nothing", json=item),
            *(client.post(f"/bugs/{kind}", json=item) for kind in KINDS),
            client.get("/health/ready"),
        ]


@pytest.fixture(scope="module")
def project(baked: Project, installed: Project) -> Project:
    """A project with routes that are full of bugs."""
    project = baked.copy(short_directory())
    (project.path / ".env").unlink()
    (project.path / "app" / "bugs.py").write_text(BUGS)
    line = "    app.include_router(health.router)\n"
    project.replace("app/main.py", line, line + line.replace("health", "bugs"))
    line = "from app.config import "
    project.replace("app/main.py", line, f"from app import bugs\n{line}")
    install(project, installed)
    return project


@contextmanager
def database(project: Project) -> Iterator[int]:
    """Run a server that asks for passwords, with the project's roles. Yields its port."""
    directory = short_directory()
    access = "local all all trust\nhost all all all scram-sha-256\n"
    roles = (project.path / "roles.sql").read_text()
    passwords = f"ALTER ROLE app PASSWORD '{APP}'; ALTER ROLE app_owner PASSWORD '{OWNER}';"
    with postgresql(directory, access, {}) as port:
        psql(directory, port, f"CREATE DATABASE app;\n\\connect app\n{roles}\n{passwords}")
        yield port


def assert_no_secret(*outputs: str) -> None:
    lines = "\n".join(outputs).splitlines()
    assert [line for line in lines if "s3cret" in line.lower()] == []


def test_failing_requests_show_no_secret(project: Project) -> None:
    """The requests fail before and after the database goes down."""
    with ExitStack() as stack:
        port = stack.enter_context(database(project))
        migrated = project.uv("alembic", "upgrade", "head", env=environment(port))
        with serve(project.path, *DEBUG, env=environment(port)) as server:
            answers = requests(server.url)
            stack.close()
            answers += requests(server.url)
    output = server.log.read_text()
    assert_no_secret(migrated, output, *(f"{a.headers} {a.text}" for a in answers))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) >= {400, 404, 405, 409, 413, 422, 500, 503}
    assert min(status for status in statuses if status != 200) >= 400
    for part in (
        "KeyError",
        "[SQL: SELECT CAST(CAST(",
        '"path": "/bugs/group"',
        "a line of group",
    ):
        assert part in output


def test_wrong_password_is_not_shown(project: Project) -> None:
    with database(project) as port:
        variables = environment(port, app=WRONG, owner=WRONG)
        with serve(project.path, *DEBUG, env=variables) as server:
            answers = requests(server.url)
        migrated = project.uv("alembic", "upgrade", "head", env=variables, check=False)
        traceback = project.uv("alembic", "--raiseerr", "current", env=variables, check=False)
    output = server.log.read_text()
    assert "password authentication failed" in output
    assert "password authentication failed" in migrated
    assert "Traceback" in traceback
    assert_no_secret(output, migrated, traceback, *(answer.text for answer in answers))


WRONG_URLS = {
    "unencoded": f"postgresql://app:{WRONG}@127.0.0.1/app",
    "parameter": f"postgresql://app:{quote(WRONG, safe='')}@127.0.0.1/app?no_such=parameter",
    "sslmode": f"postgresql://127.0.0.1/app?password={quote(WRONG, safe='')}&sslmode=no",
    "unset": "",
}


@pytest.mark.parametrize("url", WRONG_URLS.values(), ids=WRONG_URLS)
def test_wrong_url_is_one_line_without_the_secret(installed: Project, url: str) -> None:
    for variable, command in (
        ("DATABASE_URL", ["uvicorn", "app.main:app"]),
        ("DATABASE_URL_SYNC", ["alembic", "current"]),
    ):
        run = ["uv", "run", "--quiet", *command]
        result = installed.run(*run, env={variable: url}, check=False)
        assert result.returncode != 0
        (line,) = result.stderr.splitlines()
        assert "DATABASE_URL" in line
        assert_no_secret(result.stdout, result.stderr)
