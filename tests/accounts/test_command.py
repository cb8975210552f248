"""`python -m app.auth`, and the settings of accounts."""

import asyncio
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import settings_for
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import URL, func, make_url, select, update

from accounts.conftest import CREDENTIALS, EMAIL, database_of, sign_in
from app.auth import tokens
from app.auth.service import ensure_account
from app.database import ROOT, ConfigurationError
from app.models.account import Account, Role, Throttle, Token, TokenKind


@pytest.fixture
def environment(fresh_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    set_urls(monkeypatch, fresh_url.set(drivername="postgresql"))


def set_urls(monkeypatch: pytest.MonkeyPatch, url: URL) -> None:
    """Set both, since the commands read a .env too."""
    for name in ("DATABASE_URL", "DATABASE_URL_SYNC"):
        monkeypatch.setenv(name, url.render_as_string(hide_password=False))


def run(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "app.auth", *arguments]
    result = subprocess.run(  # noqa: S603 - of this file
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    return result.returncode, (result.stdout + result.stderr).strip()


pytestmark = pytest.mark.usefixtures("environment")


@pytest.mark.usefixtures("account")
async def test_administrator_of_a_verified_account(
    served_client: AsyncClient,
) -> None:
    await sign_in(served_client)
    assert run("admin", EMAIL.upper()) == (0, f"{EMAIL} has the role admin.")
    assert (await served_client.get("/auth/me")).json()["role"] == "admin"
    assert run("user", EMAIL) == (0, f"{EMAIL} has the role user.")
    assert (await served_client.get("/auth/me")).json()["role"] == "user"


async def test_administrator_chooses_a_password_by_mail(
    served_app: FastAPI, served_client: AsyncClient
) -> None:
    """Somebody else may have registered the address."""
    mails = served_app.state.auth["mailer"].sent
    await served_client.post("/auth/register", json=CREDENTIALS)
    token = mails[0].get_content().split("token ")[1].split()[0]
    status, output = run("admin", EMAIL)
    assert status == 0
    assert "POST /auth/password/forgot" in output
    response = await served_client.post("/auth/verify", json={"token": token})
    assert response.status_code == 404
    await served_client.post("/auth/password/forgot", json={"email": EMAIL})
    token = mails[-1].get_content().split("token ")[1].split()[0]
    reset = CREDENTIALS | {"token": token}
    assert (await served_client.post("/auth/password/reset", json=reset)).status_code == 204
    await sign_in(served_client)
    assert (await served_client.get("/auth/me")).json()["role"] == "admin"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("admin", "ann"), "'ann' is no address like ann@example.com"),
        (("user", "nobody@example.com"), "There is no account nobody@example.com."),
    ],
)
def test_mistake_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    status, output = run(*arguments)
    assert status != 0
    assert message in output.splitlines()[-1]
    assert "Traceback" not in output


def test_database_that_is_down_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    set_urls(monkeypatch, make_url("postgresql://app:hunter2@127.0.0.1:1/app"))
    status, output = run("clean")
    assert (status, output) == (1, "The database cannot be used: DatabaseUnavailable")


async def test_clean_deletes_what_is_expired(served_app: FastAPI, account: Account) -> None:
    week, idle = timedelta(days=7), timedelta(days=14)
    old, now = func.now() - timedelta(minutes=1), func.now() + timedelta(minutes=1)
    async with database_of(served_app).sessions.begin() as session:
        for number, (end, use) in enumerate([(old, now), (now, func.now() - idle), (now, now)]):
            values = {"account_id": account.id, "kind": "session", "hash": bytes([number])}
            session.add(Token(**values, expires_at=end, last_used_at=use))
        session.add_all([Throttle(key=b"1", free_at=old), Throttle(key=b"2", free_at=now)])
        for email, age in {"old": week, "new": timedelta(0), "admin": week}.items():
            role = Role.ADMIN if email == "admin" else Role.USER
            created = func.now() - age
            session.add(Account(email=f"{email}@example.com", created_at=created, role=role))
    expected = "Deleted: 2 account_tokens, 1 account_throttles, 1 accounts."
    assert run("clean") == (0, expected)
    async with database_of(served_app).sessions() as session:
        emails = set(await session.scalars(select(Account.email)))
    assert emails == {EMAIL, "new@example.com", "admin@example.com"}


@pytest.mark.parametrize("mailed", [True, False])
async def test_clean_keeps_an_account_that_is_registered_again(
    served_app: FastAPI, mailed: bool
) -> None:
    """Before its mail has a token, too."""
    async with database_of(served_app).sessions.begin() as session:
        account = Account(email=EMAIL, created_at=func.now() - timedelta(days=8))
        session.add(account)
        await session.flush()
        if mailed:
            await tokens.issue(session, account.id, TokenKind.VERIFY, timedelta(hours=1))
        else:
            await ensure_account(session, EMAIL, None)
    expected = "Deleted: 0 account_tokens, 0 account_throttles, 0 accounts."
    assert run("clean") == (0, expected)


async def test_clean_waits_for_nobody(served_app: FastAPI, account: Account) -> None:
    """Else it and a registration could wait for each other."""
    old = func.now() - timedelta(days=8)
    async with database_of(served_app).sessions.begin() as session:
        values = {"account_id": account.id, "kind": "verify", "expires_at": old}
        session.add_all([Token(**values, hash=bytes([n])) for n in range(3)])
        await session.execute(update(Account).values(verified_at=None, created_at=old))
    async with database_of(served_app).sessions.begin() as session:
        await session.scalar(select(Account).with_for_update())
        await session.scalar(select(Token).limit(1).with_for_update())
        expected = "Deleted: 2 account_tokens, 0 account_throttles, 0 accounts."
        assert await asyncio.to_thread(run, "clean") == (0, expected)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mail_url", "mail.example.com:hunter2", "should look like smtp://"),
        ("mail_url", "http://me:hunter2@mail.example.com", "should look like smtp://"),
        ("mail_url", "smtp://", "should look like smtp://"),
        ("mail_url", "smtp://me:hunter2@mail:port", "should look like smtp://"),
        ("mail_from", "nobody", "value is not a valid email address"),
        ("auth_page_url", "www.example.com", "valid URL"),
        ("session_idle_seconds", 60, "greater than or equal to 300"),
    ],
)
def test_wrong_setting_is_one_line(fresh_url: URL, name: str, value: object, message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        settings_for(fresh_url, **{name: value})
    assert str(error.value).startswith(f"{name.upper()}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "hunter2" not in str(error.value)


def test_missing_mail_server_is_one_line(tmp_path: Path) -> None:
    """In production there is no .env."""
    shutil.copytree(ROOT / "app", tmp_path / "app")
    for name in ("alembic.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    command = [sys.executable, "-c", "import app.main"]
    environment = {"MAIL_FROM": "a@example.com", "DATABASE_URL": "postgresql://localhost/app"}
    environment |= {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(  # noqa: S603 - of this file
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 3
    assert result.stderr.startswith("MAIL_URL: ")
    assert result.stderr.count("\n") == 1


def test_settings_show_no_password_of_the_mail_server(fresh_url: URL) -> None:
    settings = settings_for(fresh_url, mail_url="smtp://me:hunter2@mail.example.com")
    texts = (str(settings), repr(settings), settings.model_dump_json(), str(settings.mail_url))
    assert "hunter2" not in " ".join(texts)


async def test_role_is_checked_by_the_database(served_app: FastAPI, account: Account) -> None:
    async with database_of(served_app).sessions() as session:
        with pytest.raises(Exception, match="ck_accounts_role"):
            await session.execute(update(Account).values({"role": func.lower("ROOT")}))
    assert account.role is Role.USER
