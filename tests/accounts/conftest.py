"""A registered account on a database to commit to."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import pytest
from conftest import client_of, settings_for
from fastapi import FastAPI
from httpx import AsyncClient
from pydantic import SecretStr
from sqlalchemy import URL, func

from app.auth import passwords
from app.database import Database
from app.main import create_app, lifespan
from app.models.account import Account

EMAIL = "ann@example.com"
PASSWORD = "correct horse battery"  # noqa: S105 - of tests
CREDENTIALS = {"email": EMAIL, "password": PASSWORD}


class Serve(Protocol):
    def __call__(
        self, url: URL | None = None, **settings: Any
    ) -> AbstractAsyncContextManager[AsyncClient]: ...


@pytest.fixture
def serve(fresh_url: URL) -> Serve:
    """`async with serve(mail_url=…)`: a client of an application with these settings."""

    @asynccontextmanager
    async def serve(url: URL | None = None, **settings: Any) -> AsyncIterator[AsyncClient]:
        app = create_app(settings_for(url or fresh_url, **settings))
        async with lifespan(app), client_of(app) as client:
            yield client

    return serve


def database_of(app: FastAPI) -> Database:
    database: Database = app.state.database
    return database


@pytest.fixture
async def account(served_app: FastAPI) -> Account:
    """A verified account of `served_app`."""
    hashed = passwords.HASHER.hash(passwords.plain(SecretStr(PASSWORD)))
    async with database_of(served_app).sessions.begin() as session:
        account = Account(email=EMAIL, password_hash=hashed, verified_at=func.now())
        session.add(account)
    return account


async def sign_in(client: AsyncClient) -> str:
    """Log in. Returns the token, which further requests of the client send."""
    response = await client.post("/auth/login", json=CREDENTIALS)
    assert response.status_code == 200, response.text
    token: str = response.json()["token"]
    client.headers["authorization"] = f"Bearer {token}"
    return token
