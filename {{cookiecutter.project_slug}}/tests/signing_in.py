"""Fixtures of accounts: a user who is signed in, and the mails."""

from collections import deque
from email.message import EmailMessage
from uuid import uuid4

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from mail_fixtures import mails_at_once  # noqa: F401 - a fixture  # option: jobs=yes
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import func

from app.auth import passwords, tokens
from app.auth.service import User
from app.models.account import Account, Role, TokenKind


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash in less than a millisecond."""
    hasher = PasswordHash([Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1)])
    monkeypatch.setattr(passwords, "HASHER", hasher)


async def sign_in(app: FastAPI, client: AsyncClient, role: Role = Role.USER) -> User:
    """Store an account, and send its token with every further request of the client."""
    kind, lifetime = TokenKind.SESSION, app.state.auth["session_lifetime"]
    async with app.state.database.sessions.begin() as session:
        account = Account(email=f"{uuid4().hex}@example.com", role=role, verified_at=func.now())
        session.add(account)
        await session.flush()
        token, row = await tokens.issue(session, account.id, kind, lifetime)
    client.headers["authorization"] = f"Bearer {token}"
    return User(account.id, account.email, role, row.id, kind)


@pytest.fixture
async def user_of_client(app: FastAPI, client: AsyncClient) -> User:
    return await sign_in(app, client)


@pytest.fixture
async def user_of_served_client(served_app: FastAPI, served_client: AsyncClient) -> User:
    return await sign_in(served_app, served_client)


@pytest.fixture
def signed_in(request: pytest.FixtureRequest) -> User:
    """The user of `client`, or of `served_client` in a test that uses that one."""
    served = "served_client" in request.fixturenames
    user: User = request.getfixturevalue("user_of_served_client" if served else "user_of_client")
    return user


@pytest.fixture
def mails(app: FastAPI) -> deque[EmailMessage]:
    """The mails that `app` has sent."""
    sent: deque[EmailMessage] = app.state.auth["mailer"].sent
    return sent
