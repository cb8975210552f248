"""Accounts over HTTP."""

import re
from collections import deque
from email.message import EmailMessage
from typing import Any

from httpx import AsyncClient, Response

Mails = deque[EmailMessage]

EMAIL = "ann@example.com"
PASSWORD = "correct horse battery"  # noqa: S105 - of a test
OTHER = "another long password"
HOUR = "1 hour"


def token_of(mails: Mails) -> str:
    """Return the token of the newest mail."""
    found = re.search(r"token (\S{43})\n", mails[-1].get_content())
    assert found
    return found[1]


async def post(client: AsyncClient, path: str, status: int, **values: Any) -> Response:
    response = await client.post(f"/auth{path}", json=values)
    assert response.status_code == status, response.text
    return response


async def register(client: AsyncClient, mails: Mails, password: str = PASSWORD) -> None:
    await post(client, "/register", 202, email=EMAIL, password=password)
    await post(client, "/verify", 204, token=token_of(mails))


async def login(client: AsyncClient, password: str = PASSWORD, email: str = EMAIL) -> str:
    """Log in, and send the token with every further request."""
    client.headers.pop("authorization", None)
    response = await post(client, "/login", 200, email=email, password=password)
    token: str = response.json()["token"]
    client.headers["authorization"] = f"Bearer {token}"
    return token


async def status(client: AsyncClient, token: str) -> int:
    headers = {"authorization": f"Bearer {token}"}
    return (await client.get("/auth/me", headers=headers)).status_code


async def test_registration_ends_in_a_login(client: AsyncClient, mails: Mails) -> None:
    assert (await client.get("/items")).status_code == 401
    await register(client, mails)
    await login(client)
    assert (await client.get("/items")).status_code == 200
    assert (await client.get("/auth/me")).json().items() >= {
        "email": EMAIL,
        "role": "user",
    }.items()
    await post(client, "/logout", 204)
    response = await client.get("/items")
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
