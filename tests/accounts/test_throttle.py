"""Limits: by account, by address, at once, and never for ever."""

import asyncio
from datetime import timedelta

import pytest
from conftest import client_of
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy import select, update

from accounts.conftest import CREDENTIALS, EMAIL, database_of
from app.auth import passwords, throttle
from app.models.account import Throttle

WRONG = CREDENTIALS | {"password": "a wrong password"}
LIMIT = throttle.FAILURES.count

pytestmark = pytest.mark.usefixtures("account")


def client_at(app: FastAPI, address: str) -> AsyncClient:
    return AsyncClient(transport=ASGITransport(app, client=(address, 1)), base_url="http://test")


async def login(app: FastAPI, address: str, **more: str) -> int:
    async with client_at(app, address) as client:
        return (await client.post("/auth/login", json=CREDENTIALS | more)).status_code


async def fail(app: FastAPI, address: str, **more: str) -> int:
    return await login(app, address, **{"password": "a wrong password"} | more)


async def test_many_addresses_share_the_limit_of_an_account(served_app: FastAPI) -> None:
    statuses = [await fail(served_app, f"192.0.2.{n}") for n in range(LIMIT + 5)]
    assert statuses == [401] * LIMIT + [429] * 5
    assert await fail(served_app, "192.0.2.99", email="unknown@example.com") == 401


async def test_unknown_account_is_limited_alike(served_app: FastAPI) -> None:
    statuses = [
        await fail(served_app, f"192.0.2.{n}", email="unknown@example.com")
        for n in range(LIMIT + 1)
    ]
    assert statuses == [401] * LIMIT + [429]


async def test_accounts_share_the_limit_of_an_address(served_app: FastAPI) -> None:
    statuses = [
        await fail(served_app, "192.0.2.1", email=f"{n}@example.com") for n in range(LIMIT + 1)
    ]
    assert statuses == [401] * LIMIT + [429]
    assert await login(served_app, "192.0.2.2") == 200


async def test_network_of_a_client_is_one_address(served_app: FastAPI) -> None:
    statuses = [
        await fail(served_app, f"2001:db8::{n:x}", email=f"{n}@example.com")
        for n in range(LIMIT + 1)
    ]
    assert statuses == [401] * LIMIT + [429]
    assert await login(served_app, "2001:db8:0:1::1") == 200


async def test_ipv4_clients_of_an_ipv6_server_are_many(served_app: FastAPI) -> None:
    """Their addresses, ::ffff:192.0.2.1, are in one /64."""
    for n in range(LIMIT + 1):
        await fail(served_app, "::ffff:192.0.2.1", email=f"{n}@example.com")
    assert await login(served_app, "::ffff:192.0.2.1") == 429
    assert await login(served_app, "::ffff:192.0.2.2") == 200


async def test_clients_without_an_address_share_a_limit(served_app: FastAPI) -> None:
    """A proxy with a Unix socket, or one that sends `unknown`."""
    statuses = [
        await fail(served_app, "unknown", email=f"{n}@example.com") for n in range(LIMIT + 1)
    ]
    assert statuses == [401] * LIMIT + [429]


async def test_owner_is_not_locked_out_at_a_known_address(served_app: FastAPI) -> None:
    assert await login(served_app, "192.0.2.200") == 200
    for n in range(LIMIT + 1):
        await fail(served_app, f"192.0.2.{n}")
    assert await login(served_app, "192.0.2.100") == 429
    assert await login(served_app, "192.0.2.200") == 200


async def test_owner_at_a_new_address_gets_in_by_a_reset(served_app: FastAPI) -> None:
    for n in range(LIMIT + 1):
        await fail(served_app, f"192.0.2.{n}")
    async with client_at(served_app, "192.0.2.100") as client:
        await client.post("/auth/password/forgot", json={"email": EMAIL})
        mail = served_app.state.auth["mailer"].sent[-1].get_content()
        token = mail.split("token ")[1].split()[0]
        body = CREDENTIALS | {"token": token}
        assert (await client.post("/auth/password/reset", json=body)).status_code == 204
        assert (await client.post("/auth/login", json=CREDENTIALS)).status_code == 200


async def test_limit_holds_for_requests_at_once(served_app: FastAPI) -> None:
    """Those that are being verified may be over it."""
    statuses = await asyncio.gather(*(fail(served_app, "192.0.2.1") for _ in range(60)))
    assert LIMIT <= statuses.count(401) <= LIMIT + passwords.AT_ONCE
    assert statuses.count(401) + statuses.count(429) == 60


async def test_success_counts_as_no_failure(served_app: FastAPI) -> None:
    statuses = await asyncio.gather(*(login(served_app, "192.0.2.1") for _ in range(60)))
    assert set(statuses) == {200}


async def test_waiting_ends(served_app: FastAPI) -> None:
    async with client_of(served_app) as client:
        for _ in range(LIMIT):
            await client.post("/auth/login", json=WRONG)
        response = await client.post("/auth/login", json=CREDENTIALS)
        assert response.status_code == 429
        wait = int(response.headers["retry-after"])
        assert wait <= throttle.FAILURES.seconds / LIMIT
        await move(served_app, wait)
        assert (await client.post("/auth/login", json=WRONG)).status_code == 401
        assert (await client.post("/auth/login", json=WRONG)).status_code == 429


async def move(app: FastAPI, seconds: float) -> None:
    """Have the time pass."""
    passed = timedelta(seconds=seconds)
    async with database_of(app).sessions.begin() as session:
        await session.execute(update(Throttle).values(free_at=Throttle.free_at - passed))


@pytest.mark.parametrize("path", ["register", "verify/resend", "password/forgot"])
async def test_mails_to_an_address_are_limited(served_app: FastAPI, path: str) -> None:
    async def ask(address: str) -> int:
        async with client_at(served_app, address) as client:
            response = await client.post(f"/auth/{path}", json=CREDENTIALS)
            return response.status_code

    statuses = [await ask(f"192.0.2.{n}") for n in range(throttle.MAILS.count + 1)]
    assert statuses == [202] * throttle.MAILS.count + [429]


async def test_requests_for_mails_from_an_address_are_limited(served_app: FastAPI) -> None:
    async with client_at(served_app, "192.0.2.1") as client:
        requests = [
            client.post("/auth/password/forgot", json={"email": f"{n}@example.com"})
            for n in range(60)
        ]
        statuses = [response.status_code for response in await asyncio.gather(*requests)]
    assert statuses.count(202) == throttle.REQUESTS.count
    assert statuses.count(429) == 60 - throttle.REQUESTS.count


async def test_forwarded_header_is_not_read(served_app: FastAPI) -> None:
    async with client_at(served_app, "192.0.2.1") as client:
        statuses = []
        for n in range(LIMIT + 1):
            headers = {"x-forwarded-for": f"198.51.100.{n}", "forwarded": f"for=198.51.100.{n}"}
            body = WRONG | {"email": f"{n}@example.com"}
            response = await client.post("/auth/login", json=body, headers=headers)
            statuses.append(response.status_code)
    assert statuses == [401] * LIMIT + [429]


async def test_password_of_a_stolen_session_is_not_guessed(served_app: FastAPI) -> None:
    async with client_at(served_app, "192.0.2.1") as client:
        token = (await client.post("/auth/login", json=CREDENTIALS)).json()["token"]
        client.headers["authorization"] = f"Bearer {token}"
        statuses = []
        for _ in range(LIMIT + 1):
            response = await client.request("DELETE", "/auth/me", json={"password": "wrong"})
            statuses.append(response.status_code)
    assert statuses == [403] * LIMIT + [429]


async def test_rows_name_nobody(served_app: FastAPI) -> None:
    await fail(served_app, "192.0.2.1")
    async with database_of(served_app).sessions() as session:
        rows = str((await session.scalars(select(Throttle.key))).all())
    assert EMAIL not in rows
    assert "192.0.2.1" not in rows
