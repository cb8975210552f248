"""Long values, halves of characters, and addresses that name another mailbox."""

import json
import time
from collections import deque
from email.message import EmailMessage
from typing import Any

import pytest
from httpx import AsyncClient

from accounts.conftest import CREDENTIALS, PASSWORD

HALF = "\ud800"  # of a surrogate pair: JSON can hold it, UTF-8 cannot


async def test_long_address_takes_no_time(client: AsyncClient) -> None:
    """Unicode's normalization of many accents is quadratic."""
    email = "a" + "\u0315\u0300" * 30_000 + "@example.com"
    start = time.perf_counter()
    response = await client.post("/auth/login", json=CREDENTIALS | {"email": email})
    assert response.status_code == 422
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize(
    ("path", "status", "values"),
    [
        ("/register", 202, CREDENTIALS | {"password": PASSWORD + HALF}),
        ("/login", 401, CREDENTIALS | {"password": HALF}),
        ("/login", 422, CREDENTIALS | {"email": f"{HALF}@example.com"}),
        ("/verify", 404, {"token": HALF}),
        ("/password/reset", 404, {"token": HALF, "password": PASSWORD}),
    ],
)
async def test_half_a_character_is_no_bug(
    client: AsyncClient, path: str, status: int, values: dict[str, Any]
) -> None:
    body, header = json.dumps(values), {"content-type": "application/json"}  # httpx sends UTF-8
    response = await client.post(f"/auth{path}", content=body, headers=header)
    assert response.status_code == status


@pytest.mark.parametrize(
    "email",
    [
        "=?utf-8?q?=3Cx=40evil.com=3E?=@example.com",  # a header with <x@evil.com>
        "=?utf-8?q?x=40evil.com=2C?=@example.com",
        "m\u00fcller@example.com",
    ],
)
async def test_address_that_could_name_another_mailbox_is_refused(
    client: AsyncClient, email: str
) -> None:
    response = await client.post("/auth/register", json=CREDENTIALS | {"email": email})
    assert response.status_code == 422


async def test_domain_is_stored_in_ascii(client: AsyncClient, mails: deque[EmailMessage]) -> None:
    """So letters that only look alike are seen, and every mail server accepts it."""
    for email in ("Ann@M\u00dcller.example", "ann@ex\u0430mple.com"):
        await client.post("/auth/register", json=CREDENTIALS | {"email": email})
    addresses = [mail["To"] for mail in mails]
    assert addresses == ["ann@xn--mller-kva.example", "ann@xn--exmple-4nf.com"]
