"""Projects with accounts: their tests, their pages, and attacks on a served one."""

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import readmes
from conftest import Project, bake_with, short_directory, tool
from load import Stage, stage
from pytest_cookies.plugin import Cookies

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

PAGE = f"{readmes.PRODUCT}/docs/auth.md"
TOOLS = ("aiosmtpd", "trustme")  # which these tests need
PASSWORD, OTHER = "correct horse battery", "another long password"
EMAIL = "ann@example.com"
LIMIT = 10


@pytest.fixture(scope="module")
def project(cookies_session: Cookies) -> Project:
    """A project with accounts, installed; only for commands that leave no trace."""
    project = bake_with(cookies_session, {"auth": "accounts"}).copy(short_directory())
    project.run("uv", "sync", "--quiet")
    return project


@pytest.fixture
def changed(project: Project) -> Project:
    """A copy to be changed."""
    copied = project.copy(short_directory())
    copied.run("uv", "sync", "--quiet")
    return copied


@pytest.mark.parametrize("more", [(), ("jobs", "mails")], ids=str)
def test_accounts_pass_their_tests(cookies_session: Cookies, more: tuple[str, ...]) -> None:
    """Those that the owner keeps, and those of the template, without jobs and with them."""
    answers = {"auth": "accounts", "jobs": bool(more)}
    changed = bake_with(cookies_session, answers).copy(short_directory())
    changed.run("uv", "sync", "--quiet")
    changed.add_tests("machinery", "accounts", *more)
    changed.run("uv", "pip", "install", "--quiet", *TOOLS)
    tests = [path.name for path in sorted((changed.path / "tests").glob("test_*.py"))]
    names = [f"tests/{name}" for name in [*tests, "accounts", *more[1:]]]
    assert " passed" in changed.uv("--no-sync", "pytest", "-q", "-n", "2", *names)
    changed.lint("--no-sync")


def test_commands_of_the_page(changed: Project) -> None:
    changed.uv("dev", "alembic", "upgrade", "head")
    (make,) = readmes.take(PAGE, "Administrators")
    assert "has the role admin" in changed.run("sh", "-euc", make).stdout
    (clean,) = readmes.take(PAGE, "Expired rows")
    assert changed.run("sh", "-euc", clean).stdout.startswith("Deleted: 0 account_tokens")


def test_code_of_the_page(changed: Project) -> None:
    imports = "from httpx import AsyncClient\nfrom app.auth.service import User\n\n\n"
    readmes.add_code_of_auth(changed, imports)
    assert "1 passed" in changed.uv("pytest", "-q", "tests/test_page.py")


# A served project, and its clients.


@pytest.fixture(scope="module")
def served(project: Project) -> Iterator[Stage]:
    with stage(project.path, short_directory()) as database:
        yield database


ACCOUNTS = """
TRUNCATE accounts, account_tokens, account_throttles;
INSERT INTO accounts (email, password_hash, verified_at)
SELECT 'known' || n || '@example.com', 'HASH', now() FROM generate_series(1, 40) n;
"""


@pytest.fixture
def accounts(served: Stage, project: Project) -> list[str]:
    """The addresses of 40 verified accounts with the password PASSWORD."""
    script = f"from app.auth.passwords import HASHER; print(HASHER.hash({PASSWORD!r}))"
    hashed = project.uv("python", "-c", script).strip()
    served.psql(ACCOUNTS.replace("HASH", hashed))
    return [f"known{n}@example.com" for n in range(1, 41)]


def test_limit_holds_across_workers(served: Stage, accounts: list[str]) -> None:
    """Each worker may verify two more at the moment of the last failure."""

    async def attack(url: str) -> list[int]:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            body = {"email": accounts[0], "password": OTHER}
            requests = [client.post("/auth/login", json=body) for _ in range(60)]
            return [response.status_code for response in await asyncio.gather(*requests)]

    with served.serve(workers=2) as server:
        statuses = asyncio.run(attack(server.url))
    print({status: statuses.count(status) for status in set(statuses)})
    assert set(statuses) == {401, 429}
    assert LIMIT <= statuses.count(401) <= LIMIT + 2 * 2


def forward(address: str) -> dict[str, str]:
    return {"X-Forwarded-For": address}


def test_forwarded_address_counts_from_a_trusted_proxy_only(
    served: Stage, accounts: list[str]
) -> None:
    statuses = {}
    for trusted in ("127.0.0.1", "192.0.2.1"):
        served.psql("TRUNCATE account_throttles")
        with served.serve(f"--forwarded-allow-ips={trusted}") as server:
            statuses[trusted] = [
                httpx.post(
                    f"{server.url}/auth/login",
                    json={"email": email, "password": OTHER},
                    headers=forward(f"198.51.100.{number}"),
                ).status_code
                for number, email in enumerate(accounts[: LIMIT + 2])
            ]
    assert statuses["127.0.0.1"] == [401] * (LIMIT + 2)
    assert statuses["192.0.2.1"] == [401] * LIMIT + [429] * 2


STRANGE = ["evil", "127.0.0.1'--", "x" * 5000, "1.2.3.4, evil", ""]


def test_strange_forwarded_address_is_no_address(served: Stage, accounts: list[str]) -> None:
    with served.serve() as server, httpx.Client(base_url=server.url) as client:
        for address, email in zip(STRANGE, accounts, strict=False):
            body = {"email": email, "password": PASSWORD}
            response = client.post("/auth/login", json=body, headers=forward(address))
            assert response.status_code == 200
            signed = {"authorization": f"Bearer {response.json()['token']}"}
            (session,) = client.get("/auth/sessions", headers=signed).json()
            assert session["address"] in {None, "127.0.0.1", "1.2.3.4"}


def test_logins_at_once_all_succeed_in_bounded_memory(served: Stage, accounts: list[str]) -> None:
    """`run.py logins` measures what is left of the time for other clients."""

    async def attack(url: str) -> list[int]:
        body = {"email": accounts[0], "password": PASSWORD}
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            requests = [client.post("/auth/login", json=body) for _ in range(60)]
            return [response.status_code for response in await asyncio.gather(*requests)]

    with served.serve() as server:
        before = server.process.memory_info().rss
        assert set(asyncio.run(attack(server.url))) == {200}
        assert (server.process.memory_info().rss - before) / 2**20 < 150


def test_log_holds_no_secret(served: Stage, accounts: list[str]) -> None:
    """Mails fail, tokens are wrong, bodies are wrong."""
    url = "smtp+plain://me:hunter2@127.0.0.1:1"
    serving = served.serve(MAIL_URL=url, UVICORN_LOG_LEVEL="debug")
    with serving as server, httpx.Client(base_url=server.url) as client:
        body = {"email": accounts[0], "password": PASSWORD}
        token = client.post("/auth/login", json=body).json()["token"]
        client.headers["authorization"] = f"Bearer {token}"
        key = client.post("/auth/keys", json={"name": "import"}).json()["token"]
        for path, values in {
            "login": body | {"password": OTHER},
            "register": {"email": "new@example.com", "password": OTHER},
            "verify": {"token": key},
            "password/reset": {"token": key, "password": [OTHER]},
            "password/change": {"current_password": OTHER, "password": PASSWORD},
        }.items():
            assert client.post(f"/auth/{path}", json=values).status_code in {
                202,
                401,
                403,
                404,
                422,
            }
        client.get("/auth/me", headers={"authorization": f"Bearer {key}x"})
    log = server.log.read_text()
    assert "A mail was not sent" in log
    for secret in (PASSWORD, OTHER, token, key, "hunter2", "new@example.com"):
        assert secret not in log


@pytest.mark.parametrize("login", [True, False])
def test_schemathesis_finds_nothing(
    served: Stage, accounts: list[str], tmp_path: Path, login: bool
) -> None:
    command = "schemathesis run {url}/openapi.json --checks all --max-time 40 --seed 1"
    with served.serve() as server:
        body = {"email": accounts[0], "password": PASSWORD}
        token = httpx.post(f"{server.url}/auth/login", json=body).json()["token"]
        words = tool(command.format(url=server.url))
        if login:
            words += ["--header", f"Authorization: Bearer {token}"]
        words += ["--report-json-path", str(tmp_path / "report.json")]
        result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    print(report["test_cases"])
    assert (report["failures"], report["errors"]) == ([], [])
    assert not re.search("Traceback", server.log.read_text())
