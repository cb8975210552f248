"""Flows that meet: races, passwords set meanwhile, a failed commit, raised parameters."""

import asyncio
import re
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import column, delete, func, select, table, text, update
from sqlalchemy.exc import IntegrityError

from accounts.conftest import CREDENTIALS, EMAIL, PASSWORD, database_of, sign_in
from app.auth import passwords, service
from app.models.account import Account, Token, TokenKind

OTHER = "another long password"
ACTIVITY = table("pg_stat_activity", column("datname"), column("wait_event_type"))
HERE = ACTIVITY.c.datname == func.current_database()
WAITING = select(ACTIVITY).where(HERE, ACTIVITY.c.wait_event_type == "Lock")
NEW = {"email": "bob@example.com", "password": PASSWORD}


@pytest.mark.usefixtures("account")
async def test_registration_keeps_no_password_of_an_account_that_is_new(
    served_app: FastAPI, served_client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its password is verified, somebody else deletes and registers the account."""
    verify = passwords.Passwords.verify

    async def slow(self: passwords.Passwords, *arguments: Any) -> Any:
        async with database_of(served_app).sessions.begin() as session:
            await session.execute(delete(Account))
            session.add(Account(email=EMAIL, password_hash=passwords.HASHER.hash(OTHER)))
        return await verify(self, *arguments)

    monkeypatch.setattr(passwords.Passwords, "verify", slow)
    await served_client.post("/auth/register", json=CREDENTIALS)
    async with database_of(served_app).sessions() as session:
        assert (await session.scalars(select(Account.password_hash))).one() is None


async def set_password(app: FastAPI) -> None:
    """Do as a reset does."""
    async with database_of(app).sessions.begin() as session:
        account = (await session.scalars(select(Account).with_for_update())).one()
        await service.set_password(session, account, passwords.HASHER.hash(OTHER))


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch, served_app: FastAPI) -> None:
    """Have a reset set the password while a request verifies the old one."""
    verify = passwords.Passwords.verify

    async def slow(self: passwords.Passwords, *arguments: Any) -> Any:
        result = await verify(self, *arguments)
        await set_password(served_app)
        return result

    monkeypatch.setattr(passwords.Passwords, "verify", slow)


@pytest.mark.usefixtures("account", "meanwhile")
async def test_login_that_a_reset_overtakes_is_refused(served_client: AsyncClient) -> None:
    response = await served_client.post("/auth/login", json=CREDENTIALS)
    assert response.status_code == 401


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/auth/password/change"), ("DELETE", "/auth/me")]
)
async def test_change_that_a_reset_overtakes_is_refused(
    served_app: FastAPI,
    served_client: AsyncClient,
    request: pytest.FixtureRequest,
    method: str,
    path: str,
) -> None:
    await sign_in(served_client)
    request.getfixturevalue("meanwhile")
    body = {"current_password": PASSWORD, "password": PASSWORD}
    response = await served_client.request(method, path, json=body)
    assert response.status_code == 401
    async with database_of(served_app).sessions() as session:
        stored = (await session.scalars(select(Account.password_hash))).one()
    assert passwords.HASHER.verify(OTHER, str(stored))


@pytest.mark.usefixtures("account")
async def test_key_that_a_reset_overtakes_is_refused(
    served_app: FastAPI, served_client: AsyncClient
) -> None:
    """The request has read its user, and then waits for the account's row."""
    await sign_in(served_client)
    async with database_of(served_app).sessions.begin() as session:
        account = (await session.scalars(select(Account).with_for_update())).one()
        request = asyncio.create_task(served_client.post("/auth/keys", json={"name": "x"}))

        while not await database_of(served_app).reader.rows(WAITING):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)
        await service.set_password(session, account, None)
    assert (await request).status_code == 401


@pytest.mark.usefixtures("account")
async def test_registration_that_a_deletion_overtakes_makes_an_account(
    served_app: FastAPI, served_client: AsyncClient
) -> None:
    async with database_of(served_app).sessions.begin() as session:
        account = (await session.scalars(select(Account).with_for_update())).one()
        request = asyncio.create_task(served_client.post("/auth/register", json=CREDENTIALS))
        while not await database_of(served_app).reader.rows(WAITING):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)
        await session.delete(account)
    assert (await request).status_code == 202
    async with database_of(served_app).sessions() as session:
        new = (await session.scalars(select(Account))).one()
    assert (new.email, new.verified_at) == (EMAIL, None)


async def test_mail_is_not_sent_if_the_commit_fails(
    served_app: FastAPI, served_client: AsyncClient
) -> None:
    async with database_of(served_app).sessions.begin() as session:
        await session.execute(
            text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE 'no' USING ERRCODE = '40001'; END $$"
            )
        )
        await session.execute(
            text(
                "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON accounts "
                "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
        )
    response = await served_client.post("/auth/register", json=NEW)
    assert response.status_code == 503
    assert not served_app.state.auth["mailer"].sent


@pytest.mark.usefixtures("account")
async def test_raised_parameters_give_a_new_hash(
    served_app: FastAPI, served_client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    stronger = PasswordHash([Argon2Hasher(time_cost=2, memory_cost=16, parallelism=1)])
    monkeypatch.setattr(passwords, "HASHER", stronger)
    logins = [served_client.post("/auth/login", json=CREDENTIALS) for _ in range(5)]
    assert {r.status_code for r in await asyncio.gather(*logins)} == {200}
    async with database_of(served_app).sessions() as session:
        stored = (await session.scalars(select(Account.password_hash))).one()
    assert "m=16,t=2" in str(stored)


async def test_password_may_be_composed_in_another_way(served_client: AsyncClient) -> None:
    """A composed e with an accent, and two characters; the letter of a ligature."""
    app: Any = served_client._transport
    mails = app.app.state.auth["mailer"].sent
    new = {"email": EMAIL, "password": "caf\u00e9 \ufb01n and more"}
    assert (await served_client.post("/auth/register", json=new)).status_code == 202
    (token,) = re.findall(r"token (\S{43})\n", mails[0].get_content())
    assert (await served_client.post("/auth/verify", json={"token": token})).status_code == 204
    same = new | {"password": "cafe\u0301 fin and more"}
    assert (await served_client.post("/auth/login", json=same)).status_code == 200


async def test_many_waiting_logins_are_503(
    served_app: FastAPI, served_client: AsyncClient
) -> None:
    served_app.state.auth["passwords"].queue = passwords.QUEUE
    response = await served_client.post("/auth/login", json=CREDENTIALS)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")


@pytest.mark.usefixtures("account")
async def test_keys_of_an_account_are_bounded(
    served_client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "KEYS", 2)
    await sign_in(served_client)
    keys = [served_client.post("/auth/keys", json={"name": "x"}) for _ in range(4)]
    statuses = [response.status_code for response in await asyncio.gather(*keys)]
    assert sorted(statuses) == [201, 201, 409, 409]


@pytest.mark.usefixtures("account")
async def test_expired_key_makes_room_for_another(
    served_app: FastAPI, served_client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "KEYS", 1)
    await sign_in(served_client)
    for _ in range(2):
        response = await served_client.post("/auth/keys", json={"name": "x"})
        assert response.status_code == 201
        async with database_of(served_app).sessions.begin() as session:
            old = update(Token).where(Token.kind == TokenKind.KEY)
            await session.execute(old.values(expires_at=func.now()))


@pytest.mark.usefixtures("account")
async def test_oldest_session_ends_when_there_are_too_many(
    served_client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the list of sessions is complete."""
    monkeypatch.setattr(service, "SESSIONS", 2)
    tokens = [await sign_in(served_client) for _ in range(3)]
    assert len((await served_client.get("/auth/sessions")).json()) == 2
    headers = [{"authorization": f"Bearer {token}"} for token in tokens]
    answers = [await served_client.get("/auth/me", headers=header) for header in headers]
    assert [answer.status_code for answer in answers] == [401, 200, 200]


@pytest.mark.usefixtures("account")
async def test_mail_that_a_deletion_overtakes_is_not_sent(served_app: FastAPI) -> None:
    database = database_of(served_app)
    async with database.sessions.begin() as session, database.sessions.begin() as other:
        await session.execute(delete(Account))
        mail = asyncio.create_task(service.write_mail(other, TokenKind.RESET, EMAIL))
        while not await database.reader.rows(WAITING):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)
        await session.commit()
        assert await mail is None


async def test_address_is_unique_in_the_database(served_app: FastAPI) -> None:
    async with database_of(served_app).sessions() as session:
        session.add_all([Account(email=EMAIL), Account(email=EMAIL.upper())])
        with pytest.raises(IntegrityError, match="uq_accounts_email"):
            await session.flush()


async def test_mailed_token_is_no_session(served_app: FastAPI, served_client: AsyncClient) -> None:
    """And a session is no mailed token."""
    await served_client.post("/auth/register", json=NEW)
    mail = served_app.state.auth["mailer"].sent[0].get_content()
    (token,) = re.findall(r"token (\S{43})\n", mail)
    header = {"authorization": f"Bearer {token}"}
    assert (await served_client.get("/auth/me", headers=header)).status_code == 401
    reset = {"token": token, "password": OTHER}
    assert (await served_client.post("/auth/password/reset", json=reset)).status_code == 404
    async with database_of(served_app).sessions.begin() as session:
        await session.execute(update(Token).values(kind=TokenKind.SESSION))
    response = await served_client.post("/auth/verify", json={"token": token})
    assert response.status_code == 404
    async with database_of(served_app).sessions() as session:
        assert await session.scalar(select(func.count(Token.id))) == 1
