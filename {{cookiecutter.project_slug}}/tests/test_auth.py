"""Accounts over HTTP."""

import asyncio
import re
from collections import deque
from datetime import timedelta
from email.message import EmailMessage
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient, Response
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.dependencies import require
from app.auth.service import User
from app.auth.throttle import FAILURES
from app.models.account import Account, Role, Throttle, Token

Mails = deque[EmailMessage]

EMAIL = "ann@example.com"
PASSWORD = "correct horse battery"  # noqa: S105 - of a test
OTHER = "another long password"
THIRD = "a third long password"


def token_of(mails: Mails) -> str:
    """Return the token of the newest mail."""
    found = re.search(r"token (\S{43})\n", mails[-1].get_content())
    assert found
    return found[1]


async def post(client: AsyncClient, path: str, status: int, **values: Any) -> Response:
    response = await client.post(f"/auth{path}", json=values)
    assert response.status_code == status, response.text
    return response


async def register(client: AsyncClient, mails: Mails) -> None:
    await post(client, "/register", 202, email=EMAIL, password=PASSWORD)
    await post(client, "/verify", 204, token=token_of(mails))


async def login(client: AsyncClient, password: str = PASSWORD) -> dict[str, str]:
    """Return the header of a new session."""
    response = await post(client, "/login", 200, email=EMAIL, password=password)
    return {"authorization": f"Bearer {response.json()['token']}"}


async def works(client: AsyncClient, session: dict[str, str]) -> bool:
    response = await client.get("/auth/me", headers=session)
    assert response.status_code in {200, 401}
    return response.status_code == 200


@pytest.fixture
async def registered(client: AsyncClient, mails: Mails) -> None:
    """A verified account."""
    await register(client, mails)


@pytest.fixture
async def session(client: AsyncClient, registered: None) -> dict[str, str]:
    """The header of a session, which every request of `client` sends unless it has another."""
    header = await login(client)
    client.headers.update(header)
    return header


async def test_registration_leads_to_a_login(client: AsyncClient, mails: Mails) -> None:
    response = await client.get("/auth/me")
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    await register(client, mails)
    session = await login(client)
    me = (await client.get("/auth/me", headers=session)).json()
    assert me == {"id": me["id"], "email": EMAIL, "role": "user"}
    assert (await client.post("/auth/logout", headers=session)).status_code == 204
    assert not await works(client, session)


async def test_login_tells_nothing_about_an_address(client: AsyncClient, mails: Mails) -> None:
    """Unverified with the right password, unverified with a wrong one, unknown, wrong."""
    tries = [(EMAIL, PASSWORD), (EMAIL, OTHER), ("bob@example.com", PASSWORD)]
    await post(client, "/register", 202, email=EMAIL, password=PASSWORD)
    answers = [await post(client, "/login", 401, email=e, password=p) for e, p in tries]
    await post(client, "/verify", 204, token=token_of(mails))
    answers.append(await post(client, "/login", 401, email=EMAIL, password=OTHER))
    assert len({answer.text for answer in answers}) == 1


@pytest.mark.usefixtures("registered")
async def test_known_address_gets_the_same_response_and_another_mail(
    client: AsyncClient, mails: Mails
) -> None:
    new = await post(client, "/register", 202, email="bob@example.com", password=OTHER)
    known = await post(client, "/register", 202, email=EMAIL.upper(), password=OTHER)
    assert (new.text, known.text) == ("null", "null")
    assert [mail["Subject"] for mail in mails][-2:] == [
        "Verify your e-mail address",
        "You have an account",
    ]
    await login(client)  # with the first password
    for path in ("/password/forgot", "/verify/resend"):
        await post(client, path, 202, email="nobody@example.com")
    assert len(mails) == 3


async def test_two_registrations_of_one_address_leave_no_password(
    client: AsyncClient, mails: Mails
) -> None:
    """One of them may be an attacker's: the reader of the mails chooses the password."""
    await post(client, "/register", 202, email=EMAIL, password=OTHER)
    first = token_of(mails)
    await post(client, "/register", 202, email=EMAIL, password=PASSWORD)
    await post(client, "/verify", 404, token=first)
    await post(client, "/verify", 404, token=token_of(mails))
    await post(client, "/password/reset", 204, token=token_of(mails), password=THIRD)
    for password in (PASSWORD, OTHER):
        await post(client, "/login", 401, email=EMAIL, password=password)
    await login(client, THIRD)


async def test_registration_again_mails_another_token(client: AsyncClient, mails: Mails) -> None:
    for _ in range(2):
        await post(client, "/register", 202, email=EMAIL, password=PASSWORD)
    await post(client, "/verify/resend", 202, email=EMAIL)
    await post(client, "/verify", 204, token=token_of(mails))
    await login(client)


async def test_reset_ends_every_session_and_key(
    client: AsyncClient, session: dict[str, str], mails: Mails
) -> None:
    key = (await post(client, "/keys", 201, name="import")).json()["token"]
    await post(client, "/password/forgot", 202, email=EMAIL)
    values = {"token": token_of(mails), "password": OTHER}
    await post(client, "/password/reset", 204, **values)
    await post(client, "/password/reset", 404, **values)
    for each in (session, {"authorization": f"Bearer {key}"}):
        assert not await works(client, each)
    await post(client, "/login", 401, email=EMAIL, password=PASSWORD)
    assert await works(client, await login(client, OTHER))


async def test_change_of_password_ends_the_other_sessions(
    client: AsyncClient, session: dict[str, str]
) -> None:
    other = await login(client)
    await post(client, "/password/change", 403, current_password=OTHER, password=OTHER)
    assert await works(client, other)
    await post(client, "/password/change", 204, current_password=PASSWORD, password=OTHER)
    assert await works(client, session)
    assert not await works(client, other)
    await login(client, OTHER)


async def test_user_sees_and_ends_sessions(client: AsyncClient, session: dict[str, str]) -> None:
    client.headers["user-agent"] = "Phone"
    other = await login(client)
    newest, current = (await client.get("/auth/sessions")).json()
    assert (newest["device"], newest["address"]) == ("Phone", "127.0.0.1")
    assert (newest["current"], current["current"]) == (False, True)
    url = f"/auth/sessions/{newest['id']}"
    statuses = [(await client.delete(url)).status_code for _ in range(2)]
    assert statuses == [204, 404]
    assert (await works(client, session), await works(client, other)) == (True, False)


async def test_nobody_ends_the_session_of_another(
    client: AsyncClient, session: dict[str, str], signed_in: User
) -> None:
    url = f"/auth/sessions/{signed_in.token_id}"
    for path in (url, url.replace("sessions", "keys")):
        assert (await client.delete(path, headers=session)).status_code == 404
    assert await works(client, {})


@pytest.mark.usefixtures("session")
async def test_key_acts_for_its_user_and_cannot_change_the_account(client: AsyncClient) -> None:
    created = (await post(client, "/keys", 201, name="import", expires_in_days=1)).json()
    key = {"authorization": f"Bearer {created.pop('token')}"}
    assert (await client.get("/auth/keys")).json() == [created]
    assert (await client.get("/auth/me", headers=key)).status_code == 200
    for method, path in [
        ("GET", "/keys"),
        ("POST", "/keys"),
        ("GET", "/sessions"),
        ("POST", "/password/change"),
        ("DELETE", "/me"),
    ]:
        values = {"name": "x", "current_password": PASSWORD, "password": PASSWORD}
        response = await client.request(method, f"/auth{path}", headers=key, json=values)
        assert response.status_code == 403
    assert (await client.delete(f"/auth/keys/{created['id']}")).status_code == 204
    assert not await works(client, key)


@pytest.mark.usefixtures("session")
async def test_role_counts_at_once_and_not_for_keys(
    app: FastAPI, client: AsyncClient, connection: AsyncConnection
) -> None:
    @app.get("/pytest", dependencies=[require(Role.ADMIN)])
    async def secret() -> None: ...

    token = (await post(client, "/keys", 201, name="import")).json()["token"]
    key = {"authorization": f"Bearer {token}"}
    assert (await client.get("/pytest")).status_code == 403
    await connection.execute(update(Account).values(role=Role.ADMIN))
    assert (await client.get("/pytest")).status_code == 200
    assert (await client.get("/pytest", headers=key)).status_code == 403
    assert (await client.get("/auth/me", headers=key)).json()["role"] == "user"


async def test_registration_sets_no_other_column(
    client: AsyncClient, connection: AsyncConnection
) -> None:
    more = {"role": "admin", "verified_at": "2026-01-01T00:00:00Z", "id": 7}
    await post(client, "/register", 202, email=EMAIL, password=PASSWORD, **more)
    account = (await connection.execute(select(Account))).one()
    assert (account.role, account.verified_at) == (Role.USER, None)


@pytest.mark.usefixtures("session")
async def test_deletion_asks_for_the_password(
    client: AsyncClient, connection: AsyncConnection
) -> None:
    for password, status in {OTHER: 403, PASSWORD: 204}.items():
        response = await client.request("DELETE", "/auth/me", json={"password": password})
        assert response.status_code == status
    assert (await client.get("/auth/me")).status_code == 401
    assert await connection.scalar(select(func.count()).select_from(Token)) == 0


@pytest.mark.parametrize("password", ["x" * 11, "x" * 129])
async def test_length_of_a_password_is_bounded(client: AsyncClient, password: str) -> None:
    response = await post(client, "/register", 422, email=EMAIL, password=password)
    assert response.json()["errors"][0]["location"] == "body.password"
    assert password not in response.text


@pytest.mark.parametrize(
    ("column", "limit"), [("expires_at", timedelta(0)), ("last_used_at", timedelta(days=-14))]
)
async def test_session_ends_at_its_time_and_without_use(
    client: AsyncClient,
    connection: AsyncConnection,
    session: dict[str, str],
    column: str,
    limit: timedelta,
) -> None:
    for seconds in (60, -60):
        time = func.now() + limit + timedelta(seconds=seconds)
        await connection.execute(update(Token).values({column: time}))
        assert await works(client, session) == (seconds > 0)


async def test_token_of_a_mail_expires(
    client: AsyncClient, mails: Mails, connection: AsyncConnection
) -> None:
    await post(client, "/register", 202, email=EMAIL, password=PASSWORD)
    await connection.execute(update(Token).values(expires_at=func.now()))
    await post(client, "/verify", 404, token=token_of(mails))


@pytest.mark.usefixtures("registered")
async def test_failures_are_limited(client: AsyncClient, connection: AsyncConnection) -> None:
    for _ in range(FAILURES.count):
        await post(client, "/login", 401, email=EMAIL, password=OTHER)
    response = await post(client, "/login", 429, email=EMAIL, password=PASSWORD)
    assert 0 < int(response.headers["retry-after"]) <= FAILURES.seconds
    await connection.execute(update(Throttle).values(free_at=Throttle.free_at - FAILURES.step))
    await login(client)


async def test_database_holds_no_token_and_no_password(
    client: AsyncClient, session: dict[str, str], mails: Mails, connection: AsyncConnection
) -> None:
    await post(client, "/password/forgot", 202, email=EMAIL)
    rows = [*await connection.execute(select(Token)), *await connection.execute(select(Account))]
    for secret in (PASSWORD, token_of(mails), session["authorization"].removeprefix("Bearer ")):
        assert secret not in str(rows)


async def test_two_requests_at_once_use_a_mail_once(
    served_app: FastAPI, served_client: AsyncClient
) -> None:
    """And two registrations at once make one account."""
    mails: Mails = served_app.state.auth["mailer"].sent
    new = {"email": EMAIL, "password": PASSWORD}
    both = [served_client.post("/auth/register", json=new) for _ in range(2)]
    assert [r.status_code for r in await asyncio.gather(*both)] == [202, 202]
    async with served_app.state.database.sessions() as session:
        assert await session.scalar(select(func.count(Account.id))) == 1
    await post(served_client, "/password/forgot", 202, email=EMAIL)
    values = {"token": token_of(mails), "password": OTHER}
    both = [served_client.post("/auth/password/reset", json=values) for _ in range(2)]
    assert sorted(r.status_code for r in await asyncio.gather(*both)) == [204, 404]
